//! Keeps events readable: what repeats with other words is combined, and who talks too much about
//! one object is cut short; pure.
//!
//! The rules and numbers are those of client-go's event correlator, which cluster administrators
//! know: more than ten different messages of one reason about one object within ten minutes become
//! one event whose count rises; and beyond a burst of twenty-five, one event per object gets through
//! every five minutes.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use time::{Duration, OffsetDateTime};

use crate::instants::Since;

/// Different messages of one reason that are told one by one.
const DIFFERENT_MAX: usize = 10;
/// A reason that was silent for so long begins anew.
const SILENCE: Duration = Duration::minutes(10);
/// Events about one object that may come at once.
const BURST: f64 = 25.0;
/// Until one more may come.
const REFILL: Duration = Duration::minutes(5);
/// Objects, and reasons, that are remembered.
const REMEMBERED_MAX: usize = 4_096;

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is told in its own words.
    Tell,
    /// It joins those of its reason.
    Combine,
    /// It is left out.
    Drop,
}

/// What an event is about, without its words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    pub(super) about: About,
    /// Normal or Warning, and why.
    pub(super) reason: (&'static str, String),
}

/// An object, of which a component tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct About {
    pub(super) component: &'static str,
    /// What tells the object from all others.
    pub(super) identity: String,
}

/// What was told of late.
#[derive(Debug, Default)]
pub(super) struct Correlator {
    reasons: HashMap<Subject, Series>,
    objects: HashMap<About, Bucket>,
}

#[derive(Debug)]
struct Series {
    messages: BTreeSet<u64>,
    last: OffsetDateTime,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    last: OffsetDateTime,
}

impl Correlator {
    /// What becomes of an event with that message (a hash of it).
    pub(super) fn judge(
        &mut self,
        subject: &Subject,
        message: u64,
        now: OffsetDateTime,
    ) -> Verdict {
        let combined = self.is_one_too_many(subject, message, now);
        if !self.may_talk(&subject.about, now) {
            return Verdict::Drop;
        }
        if combined {
            Verdict::Combine
        } else {
            Verdict::Tell
        }
    }

    fn is_one_too_many(&mut self, subject: &Subject, message: u64, now: OffsetDateTime) -> bool {
        if !self.reasons.contains_key(subject) {
            make_room(&mut self.reasons, |series| series.last);
        }
        let fresh = || Series {
            messages: BTreeSet::new(),
            last: now,
        };
        let series = self.reasons.entry(subject.clone()).or_insert_with(fresh);
        if now.since(series.last) > SILENCE {
            series.messages.clear();
        }
        series.last = now;
        if series.messages.contains(&message) {
            return false;
        }
        if series.messages.len() >= DIFFERENT_MAX {
            return true;
        }
        series.messages.insert(message);
        false
    }

    fn may_talk(&mut self, about: &About, now: OffsetDateTime) -> bool {
        if !self.objects.contains_key(about) {
            make_room(&mut self.objects, |bucket| bucket.last);
        }
        let full = || Bucket {
            tokens: BURST,
            last: now,
        };
        let bucket = self.objects.entry(about.clone()).or_insert_with(full);
        let gained = now.since(bucket.last).as_seconds_f64().max(0.0) / REFILL.as_seconds_f64();
        bucket.tokens = (bucket.tokens + gained).min(BURST);
        bucket.last = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

/// Forgets the oldest quarter of what is remembered, when there is too much of it.
fn make_room<K: Eq + Hash + Clone, V>(
    remembered: &mut HashMap<K, V>,
    last: impl Fn(&V) -> OffsetDateTime,
) {
    if remembered.len() < REMEMBERED_MAX {
        return;
    }
    let mut times: Vec<OffsetDateTime> = remembered.values().map(&last).collect();
    times.sort_unstable();
    let Some(oldest_kept) = times.get(REMEMBERED_MAX / 4).copied() else {
        return;
    };
    remembered.retain(|_, value| last(value) > oldest_kept);
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2031-04-05 06:07:08 UTC);

    fn subject(object: &str, reason: &str) -> Subject {
        Subject {
            about: About {
                component: "ops",
                identity: object.to_owned(),
            },
            reason: ("Warning", reason.to_owned()),
        }
    }

    #[test]
    fn the_eleventh_message_of_a_reason_is_combined_and_a_known_one_is_not() {
        let mut correlator = Correlator::default();
        let failed = subject("ledger", "Failed");
        for message in 0..10 {
            assert_eq!(correlator.judge(&failed, message, START), Verdict::Tell);
        }
        assert_eq!(correlator.judge(&failed, 10, START), Verdict::Combine);
        assert_eq!(correlator.judge(&failed, 3, START), Verdict::Tell);
        let other = subject("ledger", "Denied");
        assert_eq!(correlator.judge(&other, 11, START), Verdict::Tell);
        let later = START + SILENCE + Duration::seconds(1);
        assert_eq!(correlator.judge(&failed, 12, later), Verdict::Tell);
    }

    #[test]
    fn who_talks_too_much_about_an_object_is_cut_short_and_others_are_not() {
        let mut correlator = Correlator::default();
        let noisy = subject("ledger", "Failed");
        for _ in 0..25 {
            assert_eq!(correlator.judge(&noisy, 1, START), Verdict::Tell);
        }
        assert_eq!(correlator.judge(&noisy, 1, START), Verdict::Drop);
        let quiet = subject("billing", "Failed");
        assert_eq!(correlator.judge(&quiet, 1, START), Verdict::Tell);
        let later = START + REFILL;
        assert_eq!(correlator.judge(&noisy, 1, later), Verdict::Tell);
        assert_eq!(correlator.judge(&noisy, 1, later), Verdict::Drop);
    }

    #[test]
    fn what_is_remembered_stays_bounded() {
        let mut correlator = Correlator::default();
        for n in 0..REMEMBERED_MAX * 2 {
            let at = START + Duration::seconds(i64::try_from(n).unwrap());
            correlator.judge(&subject(&n.to_string(), "Failed"), 1, at);
        }
        assert!(correlator.objects.len() <= REMEMBERED_MAX);
        assert!(correlator.reasons.len() <= REMEMBERED_MAX);
    }
}
