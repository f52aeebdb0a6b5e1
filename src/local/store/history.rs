//! The bounded history of changes, and those who follow it.
//!
//! A follower holds only a revision, never a queue: the history itself is the one buffer, shared
//! by all, so a slow follower costs nothing and is told [`StoreError::Gone`] when the history has
//! moved past it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::{Key, Store, StoreError};

/// Changes kept for watchers. A rolling restart of a 100-pod fleet writes about forty objects per
/// pod; twice that lets a watcher be away for a whole restart and still resume.
pub(super) const WATCH_HISTORY_MAX: usize = 8_192;

/// Changes handed to a follower at once, so that the reading lock is held briefly.
const BATCH_MAX: usize = 256;

/// Octets of JSON kept for watchers. Half the number of changes at 8 KiB each, and a bound on what
/// a client that updates one large object makes the server keep.
pub(super) const WATCH_HISTORY_MAX_OCTETS: usize = 32 * 1024 * 1024;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// It was replaced.
    Modified,
    /// It was removed.
    Deleted,
}

/// One acknowledged write.
#[derive(Debug)]
pub struct Change {
    /// The revision of the write.
    pub revision: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// To which object.
    pub key: Key,
    /// The object after the write; for a removal the last state, with the removal's revision.
    pub object: Arc<Value>,
    /// The object before the write.
    pub before: Option<Arc<Value>>,
    /// Size of the object after the write, as JSON.
    pub octets: usize,
}

/// The newest changes, at most [`WATCH_HISTORY_MAX`] and [`WATCH_HISTORY_MAX_OCTETS`]. The newest
/// one is kept whatever its size.
#[derive(Debug)]
pub(super) struct History {
    changes: VecDeque<Arc<Change>>,
    octets: usize,
    /// Watching may start from this revision or a later one.
    oldest: u64,
}

impl History {
    pub(super) const fn starting_at(revision: u64) -> Self {
        Self {
            changes: VecDeque::new(),
            octets: 0,
            oldest: revision,
        }
    }

    pub(super) fn push(&mut self, change: Change) {
        self.octets += change.octets;
        while (self.changes.len() >= WATCH_HISTORY_MAX || self.octets > WATCH_HISTORY_MAX_OCTETS)
            && let Some(dropped) = self.changes.pop_front()
        {
            self.octets -= dropped.octets;
            self.oldest = dropped.revision;
        }
        self.changes.push_back(Arc::new(change));
    }

    /// Octets that are kept now.
    #[cfg(test)]
    pub(super) const fn octets(&self) -> usize {
        self.octets
    }

    pub(super) const fn check(&self, revision: u64) -> Result<(), StoreError> {
        if revision < self.oldest {
            return Err(StoreError::Gone {
                asked: revision,
                oldest: self.oldest,
            });
        }
        Ok(())
    }

    pub(super) fn after(
        &self,
        revision: u64,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>, StoreError> {
        self.check(revision)?;
        let first = self
            .changes
            .partition_point(|change| change.revision <= revision);
        Ok(self
            .changes
            .iter()
            .skip(first)
            .take(limit)
            .cloned()
            .collect())
    }
}

/// A follower of all changes after a revision.
#[derive(Debug)]
pub struct Subscription {
    store: Arc<Store>,
    head: watch::Receiver<u64>,
    revision: u64,
}

impl Subscription {
    pub(super) const fn new(store: Arc<Store>, head: watch::Receiver<u64>, revision: u64) -> Self {
        Self {
            store,
            head,
            revision,
        }
    }

    /// The revision up to which changes were handed out.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The next changes, at least one; waits until there is one.
    pub async fn next(&mut self) -> Result<Vec<Arc<Change>>, StoreError> {
        loop {
            // Seen before reading, so that a write in between wakes us again.
            self.head.borrow_and_update();
            let changes = self.store.changes_after(self.revision, BATCH_MAX)?;
            if let Some(last) = changes.last() {
                self.revision = last.revision;
                return Ok(changes);
            }
            // The sender lives in the store, which we hold, so this cannot fail.
            let _ = self.head.changed().await;
        }
    }
}
