//! Writes that have been promised a revision and wait for a commit.
//!
//! A promise is kept (committed and shown) or lost. When a commit fails, everything promised after
//! it is lost too, because it was checked against promises that were not kept.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use super::Key;
use super::history::{Change, ChangeKind};

/// The newest promised state of one object.
#[derive(Clone, Debug)]
pub(super) struct Promised {
    pub(super) revision: u64,
    /// `None` where the object is to be removed.
    pub(super) object: Option<Arc<Value>>,
}

/// Promises between check and commit.
#[derive(Debug)]
pub(super) struct Queue {
    /// The newest promised revision.
    newest: u64,
    /// Up to here every promise is kept or lost.
    settled: u64,
    waiting: Vec<Change>,
    ahead: HashMap<Key, Promised>,
    /// Lost promises whose writers have not been told yet.
    lost: HashSet<u64>,
}

impl Queue {
    pub(super) fn starting_at(revision: u64) -> Self {
        Self {
            newest: revision,
            settled: revision,
            waiting: Vec::new(),
            ahead: HashMap::new(),
            lost: HashSet::new(),
        }
    }

    /// What `key` will be when all promises are kept, where that differs from what is shown.
    pub(super) fn promised(&self, key: &Key) -> Option<Promised> {
        self.ahead.get(key).cloned()
    }

    /// The revision of the next promise.
    pub(super) const fn next_revision(&self) -> u64 {
        self.newest + 1
    }

    /// Promises a change that has [`Queue::next_revision`].
    pub(super) fn promise(&mut self, change: Change) {
        self.newest = change.revision;
        let object = (change.kind != ChangeKind::Deleted).then(|| Arc::clone(&change.object));
        let promised = Promised {
            revision: change.revision,
            object,
        };
        self.ahead.insert(change.key.clone(), promised);
        self.waiting.push(change);
    }

    /// Everything that waits, for one commit; `None` where the fate of `revision` is known.
    pub(super) fn take_unless_settled(&mut self, revision: u64) -> Option<Vec<Change>> {
        (revision > self.settled).then(|| std::mem::take(&mut self.waiting))
    }

    /// These are committed and shown.
    pub(super) fn keep(&mut self, done: &[(Key, u64)]) {
        for (key, revision) in done {
            self.settled = self.settled.max(*revision);
            if self
                .ahead
                .get(key)
                .is_some_and(|promised| promised.revision == *revision)
            {
                self.ahead.remove(key);
            }
        }
    }

    /// These were not committed, and nothing promised since then will be.
    pub(super) fn lose(&mut self, changes: &[Change]) {
        let waiting = std::mem::take(&mut self.waiting);
        self.lost
            .extend(changes.iter().chain(&waiting).map(|change| change.revision));
        self.ahead.clear();
        self.settled = self.newest;
    }

    /// Tells the writer of `revision`, once, whether its promise was lost.
    pub(super) fn was_lost(&mut self, revision: u64) -> bool {
        self.lost.remove(&revision)
    }
}
