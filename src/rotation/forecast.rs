//! What will rotate when: the fleet driven through virtual time. Pure.
//!
//! Every rotation is taken to succeed, and to take as long as it is told; so the list says what is
//! planned, not what will happen.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use time::{Duration, OffsetDateTime};

use super::decide::{Verdict, Waiting};
use super::facts::{Facts, Held, Remedy, Standing, Window};
use super::fleet::Fleet;
use super::limits::Limits;
use crate::instants::Shift;
use crate::names::ObjectRef;

/// Most rotations that are listed: who has certificates that live for minutes asks for fewer days.
pub const PLANNED_MAX: usize = 10_000;
/// How long one rotation is taken to last.
const TAKES: Duration = Duration::minutes(1);

/// What a forecast says of one PgBouncer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The PgBouncer.
    pub at: ObjectRef,
    /// When it begins.
    pub begins: OffsetDateTime,
    /// What is done.
    pub remedy: Remedy,
    /// Why.
    pub why: String,
    /// When it was due: earlier than it begins where a window, a limit or a pause is waited for.
    pub due: OffsetDateTime,
    /// The first end of a certificate, if nothing were done.
    pub not_after: Option<OffsetDateTime>,
    /// The window that it begins in, as written; `None` without one.
    pub window: Option<String>,
    /// Whether it begins outside its window because it is urgent.
    pub urgent: bool,
}

/// A PgBouncer of which nothing is planned although it has certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The PgBouncer.
    pub at: ObjectRef,
    /// What keeps it.
    pub by: Waiting,
    /// When it is, or was, due.
    pub due: Option<OffsetDateTime>,
    /// The first end of a certificate.
    pub not_after: Option<OffsetDateTime>,
}

/// A forecast.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// In the order in which they begin.
    pub planned: Vec<Planned>,
    /// In the order of their names.
    pub blocked: Vec<Blocked>,
    /// Whether there is more than [`PLANNED_MAX`].
    pub is_cut: bool,
}

/// What `limits` make of these PgBouncers from `now` to `until`.
pub fn forecast(
    members: &BTreeMap<ObjectRef, Facts>,
    limits: Limits,
    now: OffsetDateTime,
    until: OffsetDateTime,
) -> Forecast {
    let mut fleet = Fleet::new(limits);
    for (at, facts) in members {
        fleet.upsert(at, facts.clone(), now);
    }
    let mut told = Forecast {
        blocked: blocked(&fleet, members),
        ..Forecast::default()
    };
    let mut running: BinaryHeap<Reverse<(OffsetDateTime, ObjectRef)>> = BinaryHeap::new();
    let mut at = now;
    while at <= until {
        while let Some(Reverse((_, who))) = running.peek().filter(|next| next.0.0 <= at).cloned() {
            running.pop();
            if let Some(facts) = fleet.facts(&who) {
                fleet.upsert(&who, renewed(&who, facts, at), at);
            }
        }
        let pass = fleet.pass(at);
        for start in pass.starts {
            if told.planned.len() >= PLANNED_MAX {
                told.is_cut = true;
                return told;
            }
            if let Some(facts) = fleet.facts(&start.at) {
                told.planned
                    .push(planned(&start.at, facts, &start.task, at));
                let mut facts = facts.clone();
                facts.live = Some(start.request);
                fleet.upsert(&start.at, facts, at);
            }
            running.push(Reverse((at.plus(TAKES), start.at)));
        }
        let next_end = running.peek().map(|Reverse((end, _))| *end);
        let Some(next) = [next_end, pass.wake].into_iter().flatten().min() else {
            break;
        };
        at = next.max(at.plus(Duration::SECOND));
    }
    told
}

/// Those that nothing but a change will start.
fn blocked(fleet: &Fleet, members: &BTreeMap<ObjectRef, Facts>) -> Vec<Blocked> {
    let held = members.iter().filter_map(|(at, facts)| {
        let Some(Verdict::Hold(waiting)) = fleet.verdict(at) else {
            return None;
        };
        (*waiting != Waiting::Nothing).then(|| Blocked {
            at: at.clone(),
            by: waiting.clone(),
            due: facts.first_due().map(|held| held.renews_at),
            not_after: facts.certificates.iter().map(|held| held.not_after).min(),
        })
    });
    held.collect()
}

fn planned(
    at: &ObjectRef,
    facts: &Facts,
    task: &super::decide::Task,
    begins: OffsetDateTime,
) -> Planned {
    let window = match &facts.window {
        Window::Always | Window::Unreadable => None,
        Window::Within(windows) => Some(windows),
    };
    let is_open = window.is_none_or(|windows| {
        windows
            .next(begins)
            .is_some_and(|opening| opening.from <= begins)
    });
    let due = match (&facts.wish, task.due.is_empty()) {
        (Some(wish), true) => wish.since,
        _ => facts.first_due().map_or(begins, |held| held.renews_at),
    };
    Planned {
        at: at.clone(),
        begins,
        remedy: task.remedy,
        why: task.why.clone(),
        due,
        not_after: facts.certificates.iter().map(|held| held.not_after).min(),
        window: window.map(|windows| windows.as_str().to_owned()),
        urgent: !is_open && task.urgent,
    }
}

/// What is known when a rotation has succeeded.
fn renewed(at: &ObjectRef, facts: &Facts, now: OffsetDateTime) -> Facts {
    let is_restart = facts
        .wish
        .as_ref()
        .is_some_and(|wish| wish.remedy == Remedy::Restart);
    let identity = at.to_string();
    let certificates = facts.certificates.iter().map(|held| {
        if is_restart {
            return held.clone();
        }
        Held::new(
            &identity,
            held.alias,
            held.revision.saturating_add(1),
            (now, now.plus(held.lifetime())),
            held.policy,
        )
    });
    Facts {
        certificates: certificates.collect(),
        live: None,
        wish: None,
        history: super::facts::History::default(),
        standing: Standing::Fit,
        ..facts.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use time::macros::datetime;

    use super::*;
    use crate::names::Alias;
    use crate::pki::renewal::RenewPolicy;
    use crate::rotation::facts::Freeze;
    use crate::rotation::window::Windows;

    const NOW: OffsetDateTime = datetime!(2031-06-04 12:00 UTC);

    fn member(name: &str, days_old: i64) -> (ObjectRef, Facts) {
        let at = ObjectRef::new("shop", name);
        let issued = NOW - Duration::days(days_old);
        let life = (issued, issued + Duration::days(90));
        let held = Held::new(
            &at.to_string(),
            Alias::Server,
            3,
            life,
            RenewPolicy::TwoThirds,
        );
        let facts = Facts {
            certificates: vec![held],
            ..Facts::default()
        };
        (at, facts)
    }

    #[test]
    fn what_waits_for_its_window_is_planned_into_it_and_what_is_frozen_is_told() {
        let mut members = BTreeMap::from([member("billing", 61), member("ledger", 62)]);
        for facts in members.values_mut() {
            let windows = Windows::parse("Sat 02:00-06:00").unwrap();
            facts.window = Window::Within(Arc::new(windows));
        }
        let (at, mut frozen) = member("vault", 70);
        frozen.freeze = Freeze::Frozen;
        members.insert(at, frozen);
        let told = forecast(&members, Limits::default(), NOW, NOW + Duration::days(7));
        assert_eq!(told.planned.len(), 2);
        for planned in &told.planned {
            assert_eq!(planned.begins, datetime!(2031-06-07 02:00 UTC));
            assert!(!planned.urgent && planned.due < NOW);
        }
        assert_eq!(told.blocked.len(), 1);
        assert_eq!(told.blocked[0].by, Waiting::Frozen);
    }

    #[test]
    fn limits_spread_what_is_due_together_and_a_life_is_renewed_again_and_again() {
        let mut members: BTreeMap<_, _> = (0..30)
            .map(|n| member(&format!("pooler-{n}"), 70))
            .collect();
        let limits = Limits {
            concurrency: 4,
            concurrency_per_namespace: 3,
            starts_per_minute: 30,
        };
        let told = forecast(&members, limits, NOW, NOW + Duration::days(90));
        let first: Vec<_> = told
            .planned
            .iter()
            .take(30)
            .map(|planned| planned.begins)
            .collect();
        for minute in 0..10 {
            let at = NOW + Duration::minutes(minute);
            assert_eq!(
                first.iter().filter(|begins| **begins == at).count(),
                3,
                "{minute}"
            );
        }
        assert_eq!(told.planned.len(), 60);
        members.clear();
        let none = forecast(&members, limits, NOW, NOW + Duration::days(90));
        assert_eq!(none, Forecast::default());
    }
}
