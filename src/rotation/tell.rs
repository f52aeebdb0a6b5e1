//! What people read about rotation on a PgBouncer: two conditions, which are there only while there
//! is something to say. Pure.

use time::{Duration, OffsetDateTime};

use super::decide::{Verdict, Waiting};
use super::facts::{Freeze, Remedy};
use super::index::Known;
use crate::api::common::{
    Condition, ConditionStatus, find_condition, rfc3339_seconds, set_condition,
};
use crate::pki::text::length;

/// Why nothing is rotated although it is due, or which annotation cannot be read.
pub const HELD: &str = "RotationHeld";
/// What is not as it was left.
pub const DRIFT: &str = "CertificateDrift";
/// A `renewBefore` that is not followed, because it does not fit the life that was granted.
pub const ADJUSTED: &str = "RenewalAdjusted";
/// Said of an object once it has been ready.
const PROVISIONED: &str = "Provisioned";

/// Something to tell in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whether a person may have to do something.
    pub trouble: bool,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// The conditions after a look, and what is new in them; `None` if nothing has changed.
pub fn conditions(
    present: &[Condition],
    known: &Known,
    verdict: Option<&Verdict>,
    now: OffsetDateTime,
) -> Option<(Vec<Condition>, Vec<News>)> {
    let is_provisioned = find_condition(present, PROVISIONED).is_some_and(Condition::is_true);
    let held = held(known, verdict);
    let drift = drift(known).filter(|_| is_provisioned);
    let mut next = present.to_vec();
    let mut news = Vec::new();
    for (type_, said) in [(HELD, held), (DRIFT, drift), (ADJUSTED, adjusted(known))] {
        let former = find_condition(present, type_);
        let Some(said) = said else {
            next.retain(|condition| condition.type_ != type_);
            continue;
        };
        let is_news = former
            .is_none_or(|former| former.message != said.message || former.reason != said.reason);
        let status = ConditionStatus::True;
        let condition = Condition::new(type_, status, said.reason, said.message.clone(), now);
        set_condition(&mut next, condition);
        if is_news {
            news.push(said);
        }
    }
    (next != present).then_some((next, news))
}

fn held(known: &Known, verdict: Option<&Verdict>) -> Option<News> {
    if !known.malformed.is_empty() {
        let until = match known.facts.freeze {
            Freeze::Unreadable => "nothing is rotated, however urgent it is",
            _ => "only what is urgent is rotated",
        };
        let all = known.malformed.join("; ");
        let message = format!("{all}; until this is mended {until}");
        return Some(trouble("AnnotationUnreadable", message));
    }
    let ends = known
        .facts
        .certificates
        .iter()
        .map(|held| held.not_after)
        .min();
    let ends = ends.map_or_else(String::new, |ends| {
        format!(
            "; the first certificate expires at {}",
            rfc3339_seconds(ends)
        )
    });
    let wish = known.facts.wish.as_ref();
    let due = match wish.map(|wish| wish.remedy) {
        Some(Remedy::Restart) => "a restart",
        Some(Remedy::Rotate) | None => "a rotation",
    };
    match verdict? {
        Verdict::Hold(Waiting::Frozen) => {
            let message = format!("{due} is due and frozen{ends}");
            Some(trouble("Frozen", message))
        }
        Verdict::At(until, Waiting::Frozen) => {
            let message = format!(
                "{due} is due and frozen until {}{ends}",
                rfc3339_seconds(*until)
            );
            Some(trouble("Frozen", message))
        }
        Verdict::At(until, Waiting::BackOff { failures }) => {
            let message = format!(
                "{failures} rotations in a row have failed; the next begins after {}{ends}",
                rfc3339_seconds(*until)
            );
            Some(trouble("BackOff", message))
        }
        Verdict::At(until, Waiting::Braked) => {
            let until = rfc3339_seconds(*until);
            let message = match wish {
                Some(wish) => format!(
                    "the last two rotations did not help, and the same is due again ({}); the next \
                     begins after {until}; look why it comes back{ends}",
                    wish.why
                ),
                None => format!(
                    "{due} is due too short a time after the last one; it begins after {until}: lower \
                     renewBefore, or raise duration or the life that the issuer grants{ends}"
                ),
            };
            Some(trouble("RotatedTooOften", message))
        }
        Verdict::At(_, Waiting::NotReady) => {
            let message = format!("{due} is due, and the PgBouncer is not Ready{ends}");
            Some(trouble("NotReady", message))
        }
        Verdict::At(..) | Verdict::Hold(_) | Verdict::Begin(_) => None,
    }
}

/// A length of life without the seconds, which differ from one renewal to the next.
fn to_minutes(life: Duration) -> String {
    length(&Duration::minutes(life.whole_minutes()))
}

/// Certificates that would be renewed again and again if `renewBefore` were followed.
fn adjusted(known: &Known) -> Option<News> {
    let all = known.facts.certificates.iter();
    let misfits: Vec<String> = all
        .filter_map(|held| {
            let (asked, life) = (length(&held.misfit()?), to_minutes(held.lifetime()));
            Some(format!(
                "renewBefore of the {} certificate ({asked}) nearly fills or exceeds the life that its \
                 issuer grants ({life}), so it is renewed after two thirds of that life; lower \
                 renewBefore, or raise duration or the issuer's limit",
                held.alias
            ))
        })
        .collect();
    (!misfits.is_empty()).then(|| trouble("RenewBeforeTooLong", misfits.join("; ")))
}

fn drift(known: &Known) -> Option<News> {
    let first = known.drift.iter().max_by_key(|drift| drift.is_trouble())?;
    let all: Vec<String> = known
        .drift
        .iter()
        .map(super::drift::Drift::message)
        .collect();
    Some(News {
        trouble: first.is_trouble(),
        reason: first.reason(),
        message: all.join("; "),
    })
}

fn trouble(reason: &'static str, message: String) -> News {
    News {
        trouble: true,
        reason,
        message,
    }
}
