//! What is known of one PgBouncer: parsed once, when something of it changes. Pure.

use std::sync::Arc;

use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime};

use super::brake::Recent;
use super::window::Windows;
use crate::api::common::parse_rfc3339;
use crate::instants::{Scale, Shift, Since};
use crate::names::Alias;
use crate::pki::renewal::{RenewPolicy, certificate_seed, renew_at};

/// A certificate that ends with its CA, and has less than this part of the life that was asked for, is
/// not renewed by age: each renewal leaves a third of the life, so there are two of these at the most.
/// Another CA in the Secret of its issuer is noticed, and a reason of its own.
pub const WATCHED_DIVISOR: i32 = 4;
/// The same where nobody notices another CA before it signs: five at the most.
pub const UNWATCHED_DIVISOR: i32 = 100;

/// A certificate that is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// What it is for.
    pub alias: Alias,
    /// Number of its revision; 0 for one that somebody else has made.
    pub revision: u32,
    /// Beginning of the life that was granted: when it was issued, else the beginning that it says.
    pub granted: OffsetDateTime,
    /// End of its life.
    pub not_after: OffsetDateTime,
    /// When the manifest says it is renewed.
    pub policy: RenewPolicy,
    /// When it is renewed, jitter included.
    pub renews_at: OffsetDateTime,
    /// Spreads renewals.
    seed: u64,
}

/// When rotations may begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Window {
    /// At any time.
    #[default]
    Always,
    /// Within these.
    Within(Arc<Windows>),
    /// What is written there says nothing: only what is urgent begins.
    Unreadable,
}

/// Whether somebody has said that nothing is to be rotated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Freeze {
    /// Nobody has.
    #[default]
    None,
    /// Until then.
    Until(OffsetDateTime),
    /// Until it is taken off.
    Frozen,
    /// What is written there says nothing: nothing begins until it is mended.
    Unreadable,
}

/// Whether a request could be carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It could.
    #[default]
    Fit,
    /// The PgBouncer is not Ready: only what is urgent begins, because new certificates may be what
    /// it lacks.
    NotReady,
    /// Somebody else holds the PgBouncer.
    Paused,
    /// It has no pods, or is about to go.
    Absent,
    /// A Secret is owned by somebody who renews it: the kind and name of the owner are in a condition.
    RenewedByOthers,
}

/// What else than age makes a request necessary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What to do.
    pub remedy: Remedy,
    /// Since when it has been known.
    pub since: OffsetDateTime,
    /// From when on a window is not waited for any longer.
    pub urgent_at: OffsetDateTime,
    /// Why, for people.
    pub why: String,
}

/// What puts something right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// New certificates.
    Rotate,
    /// The same certificates, in new processes.
    Restart,
}

/// The requests that were made here before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// How many failed in a row, up to now.
    pub failures: u32,
    /// When the last one of these ended.
    pub failed_at: Option<OffsetDateTime>,
    /// When any request last succeeded, whoever made it.
    pub succeeded_at: Option<OffsetDateTime>,
    /// When those made here that succeeded began.
    pub succeeded: Recent,
    /// When the newest was created.
    pub started_at: Option<OffsetDateTime>,
    /// Name of the newest.
    pub newest: Option<String>,
    /// Names of those that have ended.
    pub finished: Vec<String>,
}

/// What is known of one PgBouncer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its published certificates.
    pub certificates: Vec<Held>,
    /// When rotations may begin.
    pub window: Window,
    /// Whether somebody has said that nothing is to be rotated.
    pub freeze: Freeze,
    /// Whether a request could be carried out.
    pub standing: Standing,
    /// Name of the request that waits or runs, whoever made it.
    pub live: Option<String>,
    /// The requests that were made here before.
    pub history: History,
    /// What else than age makes a request necessary.
    pub wish: Option<Wish>,
    /// Spreads what would else happen together.
    pub seed: u64,
}

// === impl Freeze ===

impl Freeze {
    /// Reads the annotation. A day without a time is frozen to its end, in UTC.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        if let Some(end) = parse_rfc3339(text) {
            return Self::Until(end);
        }
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Self::Frozen,
            "false" | "no" | "off" => Self::None,
            day => Date::parse(day, format_description!("[year]-[month]-[day]"))
                .map_or(Self::Unreadable, |day| {
                    Self::Until(day.midnight().assume_utc().plus(Duration::DAY))
                }),
        }
    }
}

// === impl Held ===

impl Held {
    /// A certificate of `alias`, of the PgBouncer that `identity` (`namespace/name`) names.
    pub fn new(
        identity: &str,
        (alias, revision): (Alias, u32),
        (granted, not_after): (OffsetDateTime, OffsetDateTime),
        policy: RenewPolicy,
    ) -> Self {
        let seed = certificate_seed(identity, alias.as_str());
        Self {
            seed,
            alias,
            revision,
            granted,
            not_after,
            policy,
            renews_at: renew_at(granted, not_after, policy, seed),
        }
    }

    /// The same of a certificate that ends with its CA, and was asked for `asked`: what is issued in its
    /// place ends then, too, so it is worth a restart only as long as much of the life is left. `is_watched`:
    /// another CA of its issuer would be noticed.
    #[must_use]
    pub fn ending_with_ca(self, asked: Duration, is_watched: bool) -> Self {
        let life = self.lifetime();
        if life >= asked {
            return self;
        }
        let divisor = if is_watched {
            WATCHED_DIVISOR
        } else {
            UNWATCHED_DIVISOR
        };
        let renews_at = if life >= asked.part(divisor) {
            // Whatever the manifest says: a margin would lead from one renewal to the next.
            let (granted, ends) = (self.granted, self.not_after);
            renew_at(granted, ends, RenewPolicy::TwoThirds, self.seed)
        } else {
            self.not_after
        };
        Self { renews_at, ..self }
    }

    /// Length of the life that was granted.
    pub fn lifetime(&self) -> Duration {
        self.not_after.since(self.granted)
    }

    /// The time before its end that the manifest asks to renew it, where so little of its life would be
    /// lived that the default counts instead.
    pub fn misfit(&self) -> Option<Duration> {
        self.policy.misfit(self.lifetime())
    }

    /// When its renewal is urgent: when less than a quarter of its life is left, but not before it is
    /// due at all.
    pub fn urgent_at(&self) -> OffsetDateTime {
        let left = self.lifetime().part(super::limits::URGENT_DIVISOR);
        let late = self.not_after.minus(left);
        late.max(self.renews_at)
    }
}

// === impl Facts ===

impl Facts {
    /// The certificate that is due first.
    pub fn first_due(&self) -> Option<&Held> {
        self.certificates.iter().min_by_key(|held| held.renews_at)
    }

    /// The number that the next rotation's revisions reach at least: what its request is named by.
    pub fn next_revision(&self) -> u32 {
        let highest = self.certificates.iter().map(|held| held.revision).max();
        highest.unwrap_or(0).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2031-06-04 12:00 UTC);

    /// How often a certificate that ends with its CA is renewed until the CA's end.
    fn renewals(asked: Duration, (policy, n): (RenewPolicy, u32), is_watched: bool) -> u32 {
        let ends = START.plus(asked.minus(Duration::SECOND));
        let (identity, mut granted, mut count) = (format!("shop/billing-{n}"), START, 0);
        loop {
            let which = (Alias::Server, count + 1);
            let held = Held::new(&identity, which, (granted, ends), policy);
            let held = held.ending_with_ca(asked, is_watched);
            if held.renews_at >= ends {
                return count;
            }
            assert!(held.renews_at > granted);
            (granted, count) = (held.renews_at, count + 1);
        }
    }

    proptest! {
        #[test]
        fn near_its_cas_end_a_certificate_is_renewed_a_stated_number_of_times(
            hours in 1_i64..100_000,
            n: u32,
            policy in prop_oneof![
                Just(RenewPolicy::TwoThirds),
                (1_i64..100_000).prop_map(|hours| RenewPolicy::Before(Duration::hours(hours))),
                (1_u8..100).prop_map(RenewPolicy::BeforePercentage),
            ],
        ) {
            let asked = Duration::hours(hours);
            prop_assert!(renewals(asked, (policy, n), true) <= 2);
            prop_assert!(renewals(asked, (policy, n), false) <= 5);
        }
    }

    #[test]
    fn a_certificate_that_does_not_end_before_it_was_to_is_renewed_as_the_manifest_says() {
        let policy = RenewPolicy::Before(Duration::days(50));
        let life = (START, START.plus(Duration::days(90)));
        let held = Held::new("shop/billing", (Alias::Server, 1), life, policy);
        let same = held.clone().ending_with_ca(Duration::days(90), true);
        assert_eq!(same, held);
    }
}
