//! Which pod is looked at next: every pod once in a period, no more than so many per second; pure.
//!
//! A look costs the pooler a handshake and us another, so a fleet is not looked at all at once. What
//! is new comes first, and from then on looks are as far apart as they began; where the budget is
//! too small for the fleet, the period grows and no pod is forgotten.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::instants::{Scale, Shift};
use crate::names::ObjectRef;

/// How often every pod is looked at, budget permitting: what it serves is known to be wrong well
/// within a minute.
pub(super) const PERIOD: Duration = Duration::from_secs(20);
/// Longest burst, in parts of a second's budget: what was not used is not saved up.
const BURST: Duration = Duration::from_millis(250);

/// The pods, in the order in which they are due. Times are since some instant of the process.
#[derive(Debug)]
pub(super) struct Round {
    /// Time that one look costs.
    cost: Duration,
    /// The budget is used up until then.
    spent_until: Duration,
    queue: BTreeSet<(Duration, ObjectRef)>,
    due: HashMap<ObjectRef, Duration>,
}

impl Round {
    /// A round of so many looks per second at the most, and at least one.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            cost: Duration::from_secs(1).part(per_second),
            spent_until: Duration::ZERO,
            queue: BTreeSet::new(),
            due: HashMap::new(),
        }
    }

    /// Wants a pod looked at at that time, in place of any other.
    pub(super) fn want(&mut self, pod: &ObjectRef, at: Duration) {
        self.forget(pod);
        self.due.insert(pod.clone(), at);
        self.queue.insert((at, pod.clone()));
    }

    /// Leaves a pod out from now on.
    pub(super) fn forget(&mut self, pod: &ObjectRef) {
        if let Some(at) = self.due.remove(pod) {
            self.queue.remove(&(at, pod.clone()));
        }
    }

    /// The pod to look at now, if one is due and there is budget. It is due again a period later.
    pub(super) fn next(&mut self, now: Duration) -> Option<ObjectRef> {
        if self.spent_until > now {
            return None;
        }
        let (at, _) = self.queue.first()?;
        if *at > now {
            return None;
        }
        let (_, pod) = self.queue.pop_first()?;
        let earliest = now.saturating_sub(BURST);
        self.spent_until = self.spent_until.max(earliest).plus(self.cost);
        self.due.remove(&pod);
        self.want(&pod, now.plus(PERIOD));
        Some(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(50);

    fn pod(n: u32) -> ObjectRef {
        ObjectRef::new("treasury", format!("ledger-{n}"))
    }

    /// Looks for that many seconds; when each pod was looked at.
    fn run(round: &mut Round, seconds: u32) -> HashMap<ObjectRef, Vec<Duration>> {
        let mut looks: HashMap<_, Vec<_>> = HashMap::new();
        for tick in 0..seconds * 20 {
            while let Some(pod) = round.next(TICK * tick) {
                looks.entry(pod).or_default().push(TICK * tick);
            }
        }
        looks
    }

    #[test]
    fn every_pod_is_looked_at_once_in_a_period_and_the_looks_spread_out() {
        let mut round = Round::new(50);
        (0..400).for_each(|n| round.want(&pod(n), Duration::ZERO));
        let looks = run(&mut round, 120);
        assert_eq!(looks.len(), 400);
        for times in looks.values() {
            for pair in times.windows(2) {
                let between = pair[1].saturating_sub(pair[0]);
                assert!(
                    between >= PERIOD && between <= PERIOD + TICK * 2,
                    "{between:?}"
                );
            }
        }
        for second in 0..119 {
            let from = Duration::from_secs(second);
            let within = from..from + Duration::from_secs(1);
            let count = looks
                .values()
                .flatten()
                .filter(|at| within.contains(*at))
                .count();
            assert!(count <= 50 + 14, "{count} looks in second {second}");
        }
    }

    #[test]
    fn a_budget_that_is_too_small_makes_it_slower_and_forgets_nobody() {
        let mut round = Round::new(10);
        (0..600).for_each(|n| round.want(&pod(n), Duration::ZERO));
        let looks = run(&mut round, 130);
        assert_eq!(looks.len(), 600);
        assert!(
            looks.values().all(|times| times.len() >= 2),
            "one was forgotten"
        );
    }

    #[test]
    fn a_pod_that_has_gone_is_not_looked_at() {
        let mut round = Round::new(10);
        round.want(&pod(1), Duration::ZERO);
        round.forget(&pod(1));
        assert_eq!(round.next(PERIOD), None);
    }
}
