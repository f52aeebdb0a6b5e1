//! Who is looked at first: what somebody has just asked for goes before what a daemon looks at on its
//! own account, which is everything when it begins, and pods every few seconds.
//!
//! There are two lanes, each with a number of looks at the same time, so that neither waits for the
//! other; an object that waits in the first changes into the second when somebody asks for something.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::names::ObjectRef;

/// The lanes of a controller.
pub(super) struct Turns {
    own: Arc<Semaphore>,
    asked: Arc<Semaphore>,
    /// Objects that were called, or wait to be.
    calls: Mutex<HashMap<ObjectRef, Arc<Notify>>>,
}

/// A look may last as long as this lives.
#[derive(Debug)]
pub(super) struct Turn(
    #[expect(dead_code, reason = "it is given back when dropped")] OwnedSemaphorePermit,
);

// === impl Turns ===

impl Turns {
    /// Lanes of so many looks at the same time: on the daemon's own account, and asked for.
    pub(super) fn new(own: usize, asked: usize) -> Self {
        let lane = |looks| Arc::new(Semaphore::new(looks));
        Self {
            own: lane(own),
            asked: lane(asked),
            calls: Mutex::default(),
        }
    }

    /// Somebody has asked for something: the object's next look, which may be waiting, is in that
    /// lane.
    pub(super) fn call(&self, at: &ObjectRef) {
        self.notice(at).notify_one();
    }

    /// Waits until `at` may be looked at; `None` if all looks are to end.
    pub(super) async fn turn(&self, at: &ObjectRef, cancel: &CancellationToken) -> Option<Turn> {
        let called = self.notice(at);
        let turn = tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            turn = async {
                called.notified().await;
                Arc::clone(&self.asked).acquire_owned().await.ok()
            } => turn,
            turn = Arc::clone(&self.own).acquire_owned() => turn.ok(),
        };
        self.lock().remove(at);
        turn.map(Turn)
    }

    fn notice(&self, at: &ObjectRef) -> Arc<Notify> {
        let mut calls = self.lock();
        Arc::clone(calls.entry(at.clone()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef, Arc<Notify>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turns")
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn at(name: &str) -> ObjectRef {
        ObjectRef::new("shop", name)
    }

    #[tokio::test]
    async fn what_somebody_asked_for_does_not_wait_for_what_nobody_did() {
        let (turns, cancel) = (Turns::new(1, 1), CancellationToken::new());
        let first = turns.turn(&at("one"), &cancel).await.unwrap();
        let (two, three) = (at("two"), at("three"));
        let mut second = Box::pin(turns.turn(&two, &cancel));
        assert!((&mut second).now_or_never().is_none());

        // Called before it waits.
        turns.call(&three);
        let third = turns.turn(&three, &cancel).now_or_never().flatten();
        assert!(third.is_some());
        // Called while it waits; that lane has its bound too.
        turns.call(&two);
        assert!((&mut second).now_or_never().is_none());
        drop(third);
        assert!(second.now_or_never().flatten().is_some());

        // A call counts once.
        assert!(turns.turn(&three, &cancel).now_or_never().is_none());
        drop(first);
        assert!(
            turns
                .turn(&three, &cancel)
                .now_or_never()
                .flatten()
                .is_some()
        );
    }

    #[tokio::test]
    async fn who_was_called_takes_the_turn_that_comes_first() {
        let (turns, cancel) = (Turns::new(1, 1), CancellationToken::new());
        let own = turns.turn(&at("one"), &cancel).await;
        turns.call(&at("two"));
        let asked = turns.turn(&at("two"), &cancel).await;
        let three = at("three");
        turns.call(&three);
        let mut third = Box::pin(turns.turn(&three, &cancel));
        assert!((&mut third).now_or_never().is_none());
        drop(own);
        assert!(third.now_or_never().flatten().is_some());
        drop(asked);
    }

    #[tokio::test]
    async fn nobody_waits_when_all_looks_are_to_end() {
        let (turns, cancel) = (Turns::new(1, 0), CancellationToken::new());
        let _first = turns.turn(&at("one"), &cancel).await;
        let two = at("two");
        let second = turns.turn(&two, &cancel);
        cancel.cancel();
        assert!(second.await.is_none());
        assert!(turns.lock().is_empty());
    }
}
