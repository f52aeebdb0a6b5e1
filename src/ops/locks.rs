//! A lock for each namespace, so that what one waits for keeps no other waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{Mutex as Lock, OwnedMutexGuard};

use crate::names::ObjectRef;

/// Locks that are kept before those that are not held are looked for and dropped.
const KEPT_MAX: usize = 1_024;

/// A lock for each object; there is one only while it is held or waited for.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<ObjectRef, Weak<Lock<()>>>>);

impl Locks {
    /// Waits until nobody else holds the lock of `at`.
    pub(super) async fn lock(&self, at: &ObjectRef) -> OwnedMutexGuard<()> {
        self.of(at).lock_owned().await
    }

    fn of(&self, at: &ObjectRef) -> Arc<Lock<()>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = all.get(at).and_then(Weak::upgrade) {
            return lock;
        }
        if all.len() >= KEPT_MAX {
            all.retain(|_, lock| lock.strong_count() > 0);
        }
        let fresh = Arc::new(Lock::new(()));
        all.insert(at.clone(), Arc::downgrade(&fresh));
        fresh
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_object_keeps_itself_waiting_and_no_other() {
        let locks = Locks::default();
        let (one, other) = (ObjectRef::new("a", "x"), ObjectRef::new("b", "x"));
        let held = locks.lock(&one).await;
        assert!(locks.lock(&one).now_or_never().is_none());
        assert!(locks.lock(&other).now_or_never().is_some());
        drop(held);
        assert!(locks.lock(&one).now_or_never().is_some());
    }

    #[test]
    fn locks_that_nobody_holds_are_forgotten() {
        let locks = Locks::default();
        for n in 0..KEPT_MAX * 3 {
            drop(locks.of(&ObjectRef::new("a", n.to_string())));
        }
        assert!(locks.0.lock().unwrap().len() <= KEPT_MAX);
    }
}
