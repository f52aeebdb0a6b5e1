//! What the provisioner remembers between two looks at an object, and may forget at any time: it
//! saves requests, nothing is decided by it alone.
//!
//! An object is *settled* when a look has brought all its objects to what they are to be. As long as
//! the object itself has not changed, and nobody has told of a change around it, the next looks only
//! ask for its pods. A settled object is looked at in full again after [`TRUSTED`] at the latest,
//! whatever was told or not.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::names::ObjectRef;

/// How long an object counts as settled; also the longest time until users are synced
/// (CONTRACT 2.6), and until an object that somebody deleted is back if its event was lost.
const TRUSTED: Duration = Duration::from_secs(20);

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
}

#[derive(Debug)]
struct Settled {
    /// The object's `resourceVersion`.
    version: Option<String>,
    changes: u64,
    at: Instant,
    digest: String,
}

// === impl Memory ===

impl Memory {
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
    pub(super) fn settle(
        &self,
        at: &ObjectRef,
        version: Option<String>,
        changes: u64,
        digest: String,
    ) {
        let settled = Settled {
            version,
            changes,
            at: Instant::now(),
            digest,
        };
        self.lock().entry(at.clone()).or_default().settled = Some(settled);
    }

    /// The digest of a settled object's pods; `None` if it has to be looked at in full.
    pub(super) fn settled(
        &self,
        at: &ObjectRef,
        version: Option<&str>,
        now: Instant,
    ) -> Option<String> {
        let objects = self.lock();
        let known = objects.get(at)?;
        let settled = known.settled.as_ref()?;
        let holds = settled.version.as_deref() == version
            && settled.changes == known.changes
            && now.duration_since(settled.at) < TRUSTED;
        holds.then(|| settled.digest.clone())
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

    /// Forgets an object.
    pub(super) fn forget(&self, at: &ObjectRef) {
        self.lock().remove(at);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef, Remembered>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_stays_settled_until_it_or_something_around_it_changes_or_time_passes() {
        let (memory, at) = (Memory::default(), ObjectRef::new("shop", "billing"));
        let now = Instant::now();
        let settle = || {
            let changes = memory.changes(&at);
            memory.settle(&at, Some("7".into()), changes, "d1".into());
        };
        assert_eq!(memory.settled(&at, Some("7"), now), None);
        settle();
        assert_eq!(memory.settled(&at, Some("7"), now).as_deref(), Some("d1"));
        assert_eq!(memory.settled(&at, Some("8"), now), None);
        memory.changed(&at);
        assert_eq!(memory.settled(&at, Some("7"), now), None);
        settle();
        assert_eq!(memory.settled(&at, Some("7"), now + 2 * TRUSTED), None);
    }

    #[test]
    fn a_change_during_a_look_is_not_lost() {
        let (memory, at) = (Memory::default(), ObjectRef::new("shop", "billing"));
        let changes = memory.changes(&at);
        memory.changed(&at);
        memory.settle(&at, None, changes, "d1".into());
        assert_eq!(memory.settled(&at, None, Instant::now()), None);
    }
}
