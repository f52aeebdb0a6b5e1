//! Durable objects: what the API server acknowledges survives `kill -9`.
//!
//! Objects are JSON values under a [`Key`]. Every change takes the next number of one global,
//! ever-growing *revision*, which is committed to disk in the same transaction as the object and
//! written into `metadata.resourceVersion`. Writes are compare-and-swap: the caller says what it
//! believes is there ([`Expect`]) and is told [`StoreError::Conflict`] where that is no longer so.
//!
//! Reads come from memory (the whole set is loaded on open; one machine's objects are few and
//! small). The order is: commit to disk, then show it to readers, then wake watchers; so nobody
//! ever sees a write that a crash could take back.
//!
//! ```text
//!   put ─► check, promise a revision ─► queue ─┐  while one commit is synced, the next gathers
//!   put ─► check, promise a revision ─► queue ─┴─► one commit, one sync ─► shown ─► watchers
//! ```
//!
//! A sync takes milliseconds whatever it carries, so writers that come while one is under way share
//! the next. Checks are made against what is promised, not against what is shown.

mod disk;
mod error;
mod history;
mod queue;
mod room;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use serde_json::Value;
use tokio::sync::watch;

use disk::Disk;
pub use error::StoreError;
use history::History;
pub use history::{Change, ChangeKind, Subscription};
use queue::Queue;
pub use room::Room;

/// Version of the layout this program writes.
pub const FORMAT: u64 = 1;

/// Where an object lives. Cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// API group; empty for the core group.
    pub group: String,
    /// Plural resource name, `secrets`.
    pub resource: String,
    /// Namespace, empty when cluster-scoped.
    pub namespace: String,
    /// Object name.
    pub name: String,
}

/// A collection: one resource, in one namespace or in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// API group; empty for the core group.
    pub group: String,
    /// Plural resource name.
    pub resource: String,
    /// `None` means every namespace.
    pub namespace: Option<String>,
}

impl Scope {
    /// Whether `key` belongs to the collection.
    pub fn holds(&self, key: &Key) -> bool {
        self.group == key.group
            && self.resource == key.resource
            && self
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == key.namespace)
    }
}

/// What a writer believes is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing under this key.
    Absent,
    /// The object at exactly this revision.
    Revision(u64),
}

/// A consistent list and the revision it was taken at.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The objects with their keys, in key order.
    pub objects: Vec<(Key, Arc<Value>)>,
    /// The store's revision when the list was taken.
    pub revision: u64,
}

/// The object store. Cheap to share behind an `Arc`; every method is synchronous, and a write
/// returns only when it is on disk.
#[derive(Debug)]
pub struct Store {
    // Locked in this order. Whoever holds the disk commits for all that wait.
    disk: Mutex<Disk>,
    queue: Mutex<Queue>,
    shown: RwLock<Shown>,
    head: watch::Sender<u64>,
}

/// What readers see.
#[derive(Debug)]
struct Shown {
    objects: BTreeMap<Key, Arc<Value>>,
    history: History,
    revision: u64,
}

impl Store {
    /// Opens the store in `dir`, which is created with mode 0700 where it does not exist.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_on(dir, Room::default())
    }

    /// Opens the store in `dir` on a disk that may run full.
    pub fn open_on(dir: &Path, room: Room) -> Result<Self, StoreError> {
        Self::load(Disk::open(dir, room)?)
    }

    /// A store that is forgotten with the process, for tests.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::load(Disk::in_memory()?)
    }

    fn load(mut disk: Disk) -> Result<Self, StoreError> {
        let (objects, revision) = disk.load()?;
        let shown = Shown {
            objects,
            history: History::starting_at(revision),
            revision,
        };
        Ok(Self {
            disk: Mutex::new(disk),
            queue: Mutex::new(Queue::starting_at(revision)),
            shown: RwLock::new(shown),
            head: watch::Sender::new(revision),
        })
    }

    /// The revision of the newest change.
    pub fn revision(&self) -> u64 {
        self.read().revision
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.read().objects.get(key).cloned()
    }

    /// All objects of a collection.
    pub fn list(&self, scope: &Scope) -> Listing {
        self.page(scope, None, usize::MAX, |_| true).0
    }

    /// At most `limit` objects of a list that `matches` lets through, after that namespace and name; and
    /// whether there are more.
    pub fn page(
        &self,
        scope: &Scope,
        after: Option<(&str, &str)>,
        limit: usize,
        matches: impl Fn(&Value) -> bool,
    ) -> (Listing, bool) {
        let shown = self.read();
        let home = scope.namespace.as_deref().unwrap_or_default();
        let (namespace, name) = after.unwrap_or((home, ""));
        let first = Key {
            group: scope.group.clone(),
            resource: scope.resource.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let mut matching = shown
            .objects
            .range((Bound::Excluded(first), Bound::Unbounded))
            .take_while(|(key, _)| scope.holds(key))
            .filter(|(_, object)| matches(object));
        let objects = matching
            .by_ref()
            .take(limit)
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect();
        let listing = Listing {
            objects,
            revision: shown.revision,
        };
        (listing, matching.next().is_some())
    }

    /// How many objects of a list come after that namespace and name.
    pub fn count_after(&self, scope: &Scope, after: &Key) -> usize {
        let shown = self.read();
        let after = shown
            .objects
            .range::<Key, _>((Bound::Excluded(after), Bound::Unbounded));
        after.take_while(|(key, _)| scope.holds(key)).count()
    }

    /// Every object there is, for the garbage collector.
    pub fn list_all(&self) -> Listing {
        let shown = self.read();
        let objects = shown
            .objects
            .iter()
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect();
        Listing {
            objects,
            revision: shown.revision,
        }
    }

    /// Stores `object` under `key` if `expect` holds, and returns it with its new revision.
    pub fn put(&self, key: &Key, object: Value, expect: Expect) -> Result<Arc<Value>, StoreError> {
        let octets = octets_of(&object);
        self.write(key, expect, |before, revision| Change {
            revision,
            kind: if before.is_some() {
                ChangeKind::Modified
            } else {
                ChangeKind::Added
            },
            key: key.clone(),
            object: Arc::new(with_revision(object, revision)),
            before,
            octets,
        })
    }

    /// Removes the object under `key` if it is still at `revision`, and returns it as it was, with
    /// the revision of its removal.
    pub fn delete(&self, key: &Key, revision: u64) -> Result<Arc<Value>, StoreError> {
        self.write(key, Expect::Revision(revision), |before, next| {
            let last = before.as_deref().cloned().unwrap_or_default();
            let octets = octets_of(&last);
            let object = Arc::new(with_revision(last, next));
            Change {
                octets,
                revision: next,
                kind: ChangeKind::Deleted,
                key: key.clone(),
                object,
                before,
            }
        })
    }

    /// Checks, promises, and waits until the promise is kept.
    fn write(
        &self,
        key: &Key,
        expect: Expect,
        change: impl FnOnce(Option<Arc<Value>>, u64) -> Change,
    ) -> Result<Arc<Value>, StoreError> {
        let mut queue = self.queue();
        let promised = queue.promised(key);
        let before = match &promised {
            Some(promised) => promised.object.clone(),
            None => self.get(key),
        };
        let found = before.as_ref().map(|object| revision_of(object));
        let holds = match expect {
            Expect::Absent => found.is_none(),
            Expect::Revision(revision) => found == Some(revision),
        };
        if !holds {
            drop(queue);
            // The caller will look again, and is to see what stood in its way.
            if let Some(promised) = promised {
                let _ = self.settle(promised.revision);
            }
            return Err(StoreError::Conflict {
                key: key.clone(),
                found,
            });
        }
        let change = change(before, queue.next_revision());
        let (revision, object) = (change.revision, Arc::clone(&change.object));
        queue.promise(change);
        drop(queue);
        let settled = self.settle(revision);
        if self.queue().was_lost(revision) {
            return Err(settled.err().unwrap_or(StoreError::NotCommitted));
        }
        Ok(object)
    }

    /// Returns once the fate of `revision` is known, committing everything that waits if nobody
    /// else has.
    fn settle(&self, revision: u64) -> Result<(), StoreError> {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(changes) = self.queue().take_unless_settled(revision) else {
            return Ok(());
        };
        match disk.commit(&changes) {
            Ok(()) => {
                let done = changes
                    .iter()
                    .map(|change| (change.key.clone(), change.revision));
                let done: Vec<(Key, u64)> = done.collect();
                // Shown first: a check in between must not see the time before the write.
                self.show(changes);
                self.queue().keep(&done);
                Ok(())
            }
            Err(error) => {
                self.queue().lose(&changes);
                Err(error)
            }
        }
    }

    /// Follows all changes after `revision`. Fails with [`StoreError::Gone`] where the history no
    /// longer reaches back that far.
    pub fn subscribe(self: &Arc<Self>, revision: u64) -> Result<Subscription, StoreError> {
        let head = self.head.subscribe();
        self.read().history.check(revision)?;
        Ok(Subscription::new(Arc::clone(self), head, revision))
    }

    /// Takes up to `limit` changes after `revision`.
    fn changes_after(&self, revision: u64, limit: usize) -> Result<Vec<Arc<Change>>, StoreError> {
        self.read().history.after(revision, limit)
    }

    fn show(&self, changes: Vec<Change>) {
        let Some(revision) = changes.last().map(|change| change.revision) else {
            return;
        };
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            if change.kind == ChangeKind::Deleted {
                shown.objects.remove(&change.key);
            } else {
                shown
                    .objects
                    .insert(change.key.clone(), Arc::clone(&change.object));
            }
            shown.history.push(change);
        }
        shown.revision = revision;
        drop(shown);
        self.head.send_replace(revision);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, Shown> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The size of `value` as JSON, in octets.
pub fn octets_of(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Neither the writer nor a value of JSON fails.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// The revision written into an object by the store; 0 where there is none.
pub fn revision_of(object: &Value) -> u64 {
    object
        .pointer("/metadata/resourceVersion")
        .and_then(Value::as_str)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn with_revision(mut object: Value, revision: u64) -> Value {
    if let Some(metadata) = object
        .pointer_mut("/metadata")
        .and_then(Value::as_object_mut)
    {
        metadata.insert(
            "resourceVersion".to_owned(),
            Value::String(revision.to_string()),
        );
    }
    object
}
