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

mod disk;
mod history;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde_json::Value;
use tokio::sync::watch;

use crate::retry::Retry;
use disk::Disk;
use history::History;
pub use history::{Change, ChangeKind, Subscription};

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

/// Why the store refused.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the data directory.
    #[error("the data directory {} is in use by another process", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The directory was written by a newer program.
    #[error(
        "the data directory has format {found} and this program knows formats up to {supported}; \
         use the newer program, or another data directory"
    )]
    NewerFormat {
        /// The format on disk.
        found: u64,
        /// The newest format this program reads.
        supported: u64,
    },
    /// The directory cannot be made or protected.
    #[error("cannot prepare the data directory {}", path.display())]
    Prepare {
        /// The data directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The database failed.
    #[error("cannot {action} the object store")]
    Storage {
        /// What was being done.
        action: &'static str,
        /// What the database said.
        #[source]
        source: Box<redb::Error>,
    },
    /// A stored object does not parse.
    #[error("the stored object {resource} {namespace}/{name} is not readable")]
    Unreadable {
        /// Plural resource name.
        resource: String,
        /// Namespace.
        namespace: String,
        /// Object name.
        name: String,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// What the writer believed is no longer so.
    #[error("{} {} changed in the meantime", key.resource, key.name)]
    Conflict {
        /// The object.
        key: Key,
        /// Its revision now; `None` when it is gone.
        found: Option<u64>,
    },
    /// The revision is older than the kept history.
    #[error("revision {asked} is no longer kept; the oldest is {oldest}")]
    Gone {
        /// What the watcher asked for.
        asked: u64,
        /// The oldest revision that can be watched from.
        oldest: u64,
    },
}

impl StoreError {
    /// What the caller can do about it.
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Conflict { .. } | Self::Gone { .. } | Self::Storage { .. } => Retry::Backoff,
            Self::InUse { .. }
            | Self::NewerFormat { .. }
            | Self::Prepare { .. }
            | Self::Unreadable { .. } => Retry::Never,
        }
    }
}

/// The object store. Cheap to share behind an `Arc`; every method is synchronous, and a write
/// returns only when it is on disk.
#[derive(Debug)]
pub struct Store {
    // Held over check, commit and publication: this is what makes compare-and-swap one step.
    disk: Mutex<Disk>,
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
        Self::load(Disk::open(dir)?)
    }

    /// A store that is forgotten with the process, for tests.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::load(Disk::in_memory()?)
    }

    fn load(disk: Disk) -> Result<Self, StoreError> {
        let (objects, revision) = disk.load()?;
        let shown = Shown {
            objects,
            history: History::starting_at(revision),
            revision,
        };
        Ok(Self {
            disk: Mutex::new(disk),
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
        let shown = self.read();
        let first = Key {
            group: scope.group.clone(),
            resource: scope.resource.clone(),
            namespace: scope.namespace.clone().unwrap_or_default(),
            name: String::new(),
        };
        let objects = shown
            .objects
            .range(first..)
            .take_while(|(key, _)| scope.holds(key))
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect();
        Listing {
            objects,
            revision: shown.revision,
        }
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
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, revision) = self.check(key, expect)?;
        let object = Arc::new(with_revision(object, revision));
        disk.put(key, &object, revision)?;
        let kind = if before.is_some() {
            ChangeKind::Modified
        } else {
            ChangeKind::Added
        };
        self.show(Change {
            revision,
            kind,
            key: key.clone(),
            object: Arc::clone(&object),
            before,
        });
        Ok(object)
    }

    /// Removes the object under `key` if it is still at `revision`, and returns it as it was, with
    /// the revision of its removal.
    pub fn delete(&self, key: &Key, revision: u64) -> Result<Arc<Value>, StoreError> {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, next) = self.check(key, Expect::Revision(revision))?;
        let Some(before) = before else {
            return Err(StoreError::Conflict {
                key: key.clone(),
                found: None,
            });
        };
        disk.delete(key, next)?;
        let object = Arc::new(with_revision(before.as_ref().clone(), next));
        self.show(Change {
            revision: next,
            kind: ChangeKind::Deleted,
            key: key.clone(),
            object: Arc::clone(&object),
            before: Some(before),
        });
        Ok(object)
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

    fn check(&self, key: &Key, expect: Expect) -> Result<(Option<Arc<Value>>, u64), StoreError> {
        let shown = self.read();
        let before = shown.objects.get(key).cloned();
        let found = before.as_ref().map(|object| revision_of(object));
        let holds = match expect {
            Expect::Absent => found.is_none(),
            Expect::Revision(revision) => found == Some(revision),
        };
        if holds {
            Ok((before, shown.revision + 1))
        } else {
            Err(StoreError::Conflict {
                key: key.clone(),
                found,
            })
        }
    }

    fn show(&self, change: Change) {
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        let revision = change.revision;
        if change.kind == ChangeKind::Deleted {
            shown.objects.remove(&change.key);
        } else {
            shown
                .objects
                .insert(change.key.clone(), Arc::clone(&change.object));
        }
        shown.revision = revision;
        shown.history.push(change);
        drop(shown);
        self.head.send_replace(revision);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Shown> {
        self.shown.read().unwrap_or_else(PoisonError::into_inner)
    }
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
