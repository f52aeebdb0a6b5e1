//! The very request that is meant, and who has a PgBouncer in hand.
//!
//! A name says nothing about which object has it: a request can be deleted and created again while
//! its former self is still being undone. So whatever is read or written on behalf of a request goes
//! by its UID, and a PgBouncer is in one hand at a time: that of the request that is carried out or
//! undone, or that of who puts back what a request has left.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;

use crate::api::PgBouncerOpsRequest;
use crate::cluster::reference;
use crate::names::ObjectRef;

/// A request: where it is, and which one of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Its namespace and name.
    pub(super) at: ObjectRef,
    /// Its UID.
    pub(super) uid: String,
}

impl Identity {
    /// Of a request that was read.
    pub(super) fn of(request: &PgBouncerOpsRequest) -> Self {
        Self {
            at: reference(request),
            uid: request.uid().unwrap_or_default(),
        }
    }
}

/// The PgBouncers that are in hand, each with the UID of the request that has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Hands(Arc<Mutex<HashMap<ObjectRef, String>>>);

/// A PgBouncer in hand, until this is dropped.
#[derive(Debug)]
pub(super) struct Hand {
    all: Hands,
    database: ObjectRef,
}

impl Hands {
    /// Takes a PgBouncer in hand for the request with that UID, or for none; `None` if it is in hand.
    pub(super) fn take(&self, database: &ObjectRef, uid: &str) -> Option<Hand> {
        let mut all = self.lock();
        if all.contains_key(database) {
            return None;
        }
        all.insert(database.clone(), uid.to_owned());
        Some(Hand {
            all: self.clone(),
            database: database.clone(),
        })
    }

    /// Whether a PgBouncer is in hand.
    pub(super) fn is_taken(&self, database: &ObjectRef) -> bool {
        self.lock().contains_key(database)
    }

    /// UIDs of the requests that have a PgBouncer in hand.
    pub(super) fn requests(&self) -> HashSet<String> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.all.lock().remove(&self.database);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pgbouncer_is_in_one_hand_at_a_time() {
        let hands = Hands::default();
        let (till, desk) = (
            ObjectRef::new("shop", "till"),
            ObjectRef::new("shop", "desk"),
        );
        let held = hands.take(&till, "a");
        assert!(held.is_some() && hands.is_taken(&till) && !hands.is_taken(&desk));
        assert!(hands.take(&till, "b").is_none());
        // Who has failed to take it has given nothing back.
        assert!(hands.is_taken(&till));
        let other = hands.take(&desk, "b");
        assert_eq!(hands.requests(), ["a", "b"].map(str::to_owned).into());
        drop((held, other));
        assert!(hands.take(&till, "b").is_some());
        assert!(hands.requests().is_empty());
    }
}
