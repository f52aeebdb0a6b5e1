//! What the provisioner remembers between two looks at an object, and may forget at any time: it
//! saves requests, nothing is decided by it alone.
//!
//! An object is *settled* when a look has brought all its objects to what they are to be. As long as
//! what it asks for has not changed, and nobody has told of a change around it, the next looks only
//! see whether its pods are well, and ask the API server for nothing. A settled object is looked at
//! in full again after [`TRUSTED`], whatever was told or not.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::ResourceExt;
use tokio::time::Instant;

use super::around::number;
use super::health::PodState;
use super::keep;
use crate::api::PgBouncer;
use crate::instants::Shift;
use crate::names::ObjectRef;

/// How long an object counts as settled at least. Watches tell of every change, and list everything
/// again when they have missed one, so this is a net under mistakes of ours.
const TRUSTED: Duration = Duration::from_secs(10 * 3_600);
/// By how much objects differ in that, so that not all of a fleet are looked at together.
const SPREAD: Duration = Duration::from_secs(3_600);

/// What is remembered, by the objects' names.
#[derive(Debug, Default)]
pub(super) struct Memory {
    objects: Mutex<HashMap<ObjectRef, Remembered>>,
}

#[derive(Debug, Default)]
struct Remembered {
    /// How many changes around the object were told of.
    changes: u64,
    settled: Option<Settled>,
    failed_looks: i32,
    blocked_looks: u32,
}

#[derive(Debug)]
struct Settled {
    ask: Ask,
    changes: u64,
    until: Instant,
    digest: String,
    /// The last look at its pods, if they were well.
    well: Option<Well>,
}

#[derive(Debug)]
struct Well {
    pods: Vec<PodState>,
    until: Instant,
}

/// What an object asks for, as far as the API server's numbers tell: its status is not part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ask {
    uid: Option<String>,
    generation: Option<i64>,
    /// Of labels, annotations and finalizers, which have no generation.
    rest: u64,
}

impl Ask {
    pub(super) fn of(bouncer: &PgBouncer) -> Self {
        let rest = (
            keep::others(bouncer),
            keep::own(bouncer),
            bouncer.finalizers(),
        );
        Self {
            uid: bouncer.uid(),
            generation: bouncer.metadata.generation,
            rest: number(&rest),
        }
    }
}

// === impl Memory ===

impl Memory {
    /// Whether nothing was ever settled about it.
    pub(super) fn is_new(&self, at: &ObjectRef) -> bool {
        let objects = self.lock();
        objects.get(at).is_none_or(|known| known.settled.is_none())
    }

    /// How many changes were told of; to be asked before a full look begins.
    pub(super) fn changes(&self, at: &ObjectRef) -> u64 {
        self.lock().entry(at.clone()).or_default().changes
    }

    /// A change around the object: whatever was settled is not any more.
    pub(super) fn changed(&self, at: &ObjectRef) {
        // Of an object that was never looked at, nothing is settled.
        if let Some(known) = self.lock().get_mut(at) {
            known.changes = known.changes.wrapping_add(1);
        }
    }

    /// Remembers that a full look, begun after so many `changes`, settled the object.
    pub(super) fn settle(&self, at: &ObjectRef, ask: Ask, changes: u64, digest: String) {
        let settled = Settled {
            ask,
            changes,
            until: Instant::now().plus(trusted(at)),
            digest,
            well: None,
        };
        self.lock().entry(at.clone()).or_default().settled = Some(settled);
    }

    /// The digest of a settled object's pods; `None` if it has to be looked at in full.
    pub(super) fn settled(&self, at: &ObjectRef, ask: &Ask, now: Instant) -> Option<String> {
        let objects = self.lock();
        let known = objects.get(at)?;
        let settled = known.settled.as_ref()?;
        let holds = settled.ask == *ask && settled.changes == known.changes && now < settled.until;
        holds.then(|| settled.digest.clone())
    }

    /// Remembers that the pods of a settled object were well, which is believed until then.
    pub(super) fn well(&self, at: &ObjectRef, pods: Vec<PodState>, until: Instant) {
        if let Some(settled) = self.lock().entry(at.clone()).or_default().settled.as_mut() {
            settled.well = Some(Well { pods, until });
        }
    }

    /// Until when the pods of a settled object are believed to be well, if they are still these.
    pub(super) fn is_well(
        &self,
        at: &ObjectRef,
        pods: &[PodState],
        now: Instant,
    ) -> Option<Instant> {
        let objects = self.lock();
        let well = objects.get(at)?.settled.as_ref()?.well.as_ref()?;
        (well.pods == pods && now < well.until).then_some(well.until)
    }

    /// Counts looks in a row that found an object unhealthy.
    pub(super) fn looked(&self, at: &ObjectRef, is_healthy: bool) -> i32 {
        let mut objects = self.lock();
        let known = objects.entry(at.clone()).or_default();
        known.failed_looks = if is_healthy {
            0
        } else {
            known.failed_looks.saturating_add(1)
        };
        known.failed_looks
    }

    /// Whether so many looks in a row found an object unhealthy.
    pub(super) fn has_failed(&self, at: &ObjectRef, looks: i32) -> bool {
        let objects = self.lock();
        objects
            .get(at)
            .is_some_and(|known| known.failed_looks >= looks)
    }

    /// How many looks in a row, before this one, found that an object's objects cannot be made.
    pub(super) fn blocked(&self, at: &ObjectRef, is_blocked: bool) -> u32 {
        let mut objects = self.lock();
        let known = objects.entry(at.clone()).or_default();
        let before = known.blocked_looks;
        known.blocked_looks = if is_blocked {
            before.saturating_add(1)
        } else {
            0
        };
        before
    }

    /// Forgets an object.
    pub(super) fn forget(&self, at: &ObjectRef) {
        self.lock().remove(at);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef, Remembered>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long that object counts as settled.
fn trusted(at: &ObjectRef) -> Duration {
    TRUSTED.plus(Duration::from_secs(number(at) % SPREAD.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::testing;

    fn at() -> ObjectRef {
        ObjectRef::new("shop", "billing")
    }

    fn pods(is_ready: bool) -> Vec<PodState> {
        vec![PodState {
            name: "billing-0".to_owned(),
            is_ready,
            ..PodState::default()
        }]
    }

    #[test]
    fn an_object_stays_settled_until_it_or_something_around_it_changes_or_time_passes() {
        let (memory, at) = (Memory::default(), at());
        let now = Instant::now();
        let mut bouncer = testing::bouncer("billing");
        let ask = Ask::of(&bouncer);
        let settle = || {
            let changes = memory.changes(&at);
            memory.settle(&at, ask.clone(), changes, "d1".into());
        };
        assert_eq!(memory.settled(&at, &ask, now), None);
        settle();
        assert_eq!(memory.settled(&at, &ask, now).as_deref(), Some("d1"));
        // What it says of itself asks for nothing.
        bouncer.metadata.resource_version = Some("8".to_owned());
        bouncer.status = Some(crate::api::pgbouncer::PgBouncerStatus::default());
        assert!(memory.settled(&at, &Ask::of(&bouncer), now).is_some());
        bouncer.metadata.generation = Some(2);
        assert_eq!(memory.settled(&at, &Ask::of(&bouncer), now), None);
        bouncer.metadata.generation = None;
        bouncer.annotations_mut().insert("a".into(), "b".into());
        assert_eq!(memory.settled(&at, &Ask::of(&bouncer), now), None);
        memory.changed(&at);
        assert_eq!(memory.settled(&at, &ask, now), None);
        settle();
        assert_eq!(memory.settled(&at, &ask, now + TRUSTED + SPREAD), None);
    }

    #[test]
    fn a_change_during_a_look_is_not_lost() {
        let (memory, at) = (Memory::default(), at());
        let ask = Ask::of(&testing::bouncer("billing"));
        let changes = memory.changes(&at);
        memory.changed(&at);
        memory.settle(&at, ask.clone(), changes, "d1".into());
        assert_eq!(memory.settled(&at, &ask, Instant::now()), None);
    }

    #[test]
    fn pods_are_believed_to_be_well_for_a_while_and_only_these() {
        let (memory, at, now) = (Memory::default(), at(), Instant::now());
        let until = now + Duration::from_secs(10);
        memory.well(&at, pods(true), until);
        assert_eq!(
            memory.is_well(&at, &pods(true), now),
            None,
            "it is not settled"
        );
        memory.settle(&at, Ask::of(&testing::bouncer("billing")), 0, "d1".into());
        memory.well(&at, pods(true), until);
        assert_eq!(memory.is_well(&at, &pods(true), now), Some(until));
        assert_eq!(memory.is_well(&at, &pods(true), until), None);
        assert_eq!(memory.is_well(&at, &pods(false), now), None);
    }

    #[test]
    fn looks_that_are_blocked_are_counted_until_one_is_not() {
        let (memory, at) = (Memory::default(), at());
        let looks = [true, true, true, false, true].map(|blocked| memory.blocked(&at, blocked));
        assert_eq!(looks, [0, 1, 2, 3, 0]);
    }

    #[test]
    fn a_fleet_is_not_looked_at_together() {
        let all: std::collections::BTreeSet<Duration> = (0..1_000)
            .map(|n| trusted(&ObjectRef::new("shop", format!("billing-{n}"))))
            .collect();
        assert!(all.len() > 800, "{}", all.len());
        assert!(
            all.iter()
                .all(|one| (TRUSTED..TRUSTED + SPREAD).contains(one))
        );
    }
}
