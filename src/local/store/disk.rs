//! The part of the store that is on disk: one redb file, every commit synced.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{Database, DatabaseError, Durability, ReadableTable, TableDefinition, WriteTransaction};
use serde_json::Value;

use super::room::{Room, Roomy};
use super::{Change, ChangeKind, FORMAT, Key, StoreError};
use crate::local::datadir::private_file;
use crate::opaque::JsonTrouble;

/// group, resource, namespace, name → JSON.
const OBJECTS: TableDefinition<'_, (&str, &str, &str, &str), &[u8]> =
    TableDefinition::new("objects");
/// `format` and `revision`.
const MARKS: TableDefinition<'_, &str, u64> = TableDefinition::new("marks");
const FORMAT_MARK: &str = "format";
const REVISION_MARK: &str = "revision";

/// The file in the data directory.
const FILE: &str = "objects.redb";

/// redb's page cache. Reads are served from our own memory, so a small one is enough.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// The database, which is closed after a write that failed and opened again for the next: redb takes
/// no write after an I/O error, and a disk that was full need not stay so.
pub(super) struct Disk {
    database: Option<Database>,
    reopen: Reopen,
    /// What the objects of failed writes were before. Such a write was refused, and may be on disk
    /// all the same; the next one puts that right.
    doubtful: BTreeMap<Key, Option<Arc<Value>>>,
}

type Reopen = Box<dyn Fn() -> Result<Database, StoreError> + Send>;

impl Disk {
    pub(super) fn open(dir: &Path, room: Room) -> Result<Self, StoreError> {
        let prepare = |source| StoreError::Prepare {
            path: dir.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(prepare)?;
        // The directory may have been there with a wider mode; it holds private keys.
        std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(prepare)?;
        let dir = dir.to_owned();
        Self::from_opener(Box::new(move || open_file(&dir, &room)))
    }

    pub(super) fn in_memory() -> Result<Self, StoreError> {
        Self::from_opener(Box::new(|| {
            Database::builder()
                .create_with_backend(InMemoryBackend::new())
                .map_err(|error| storage("open", error))
        }))
    }

    fn from_opener(reopen: Reopen) -> Result<Self, StoreError> {
        Ok(Self {
            database: Some(marked(reopen()?)?),
            reopen,
            doubtful: BTreeMap::new(),
        })
    }

    fn database(&mut self) -> Result<&Database, StoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.reopen)()?,
        };
        Ok(self.database.insert(database))
    }

    /// Everything that is stored, and the newest revision.
    pub(super) fn load(&mut self) -> Result<(BTreeMap<Key, Arc<Value>>, u64), StoreError> {
        let transaction = begin(self.database()?)?;
        let marks = transaction
            .open_table(MARKS)
            .map_err(|e| storage("read", e))?;
        let revision = marks.get(REVISION_MARK).map_err(|e| storage("read", e))?;
        let revision = revision.map_or(1, |mark| mark.value());
        let table = transaction
            .open_table(OBJECTS)
            .map_err(|e| storage("read", e))?;
        let mut objects = BTreeMap::new();
        for entry in table.iter().map_err(|e| storage("read", e))? {
            let (key, bytes) = entry.map_err(|e| storage("read", e))?;
            let (group, resource, namespace, name) = key.value();
            let object =
                serde_json::from_slice(bytes.value()).map_err(|error| StoreError::Unreadable {
                    resource: resource.to_owned(),
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    source: JsonTrouble::from(error),
                })?;
            let key = Key {
                group: group.to_owned(),
                resource: resource.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            objects.insert(key, Arc::new(object));
        }
        Ok((objects, revision))
    }

    /// All changes and the revision mark in one synced transaction.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let Some(last) = changes.last() else {
            return Ok(());
        };
        let written = self.write(changes, last.revision);
        if written.is_ok() {
            self.doubtful.clear();
        } else {
            self.database = None;
            for change in changes {
                let before = || change.before.clone();
                self.doubtful
                    .entry(change.key.clone())
                    .or_insert_with(before);
            }
        }
        written
    }

    fn write(&mut self, changes: &[Change], revision: u64) -> Result<(), StoreError> {
        let transaction = begin(self.database()?)?;
        write(&transaction, &self.doubtful, changes, revision)
            .map_err(|e| storage("write to", e))?;
        transaction.commit().map_err(|e| storage("write to", e))
    }

    /// Marks the database as written by another format, for tests.
    #[cfg(test)]
    pub(super) fn mark_format(&mut self, format: u64) -> Result<(), Box<dyn std::error::Error>> {
        let transaction = self.database()?.begin_write()?;
        transaction.open_table(MARKS)?.insert(FORMAT_MARK, format)?;
        Ok(transaction.commit()?)
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disk {{ open: {} }}", self.database.is_some())
    }
}

fn open_file(dir: &Path, room: &Room) -> Result<Database, StoreError> {
    let path = dir.join(FILE);
    // It holds every Secret of the platform.
    let file = private_file(&path).map_err(|source| StoreError::Prepare {
        path: path.clone(),
        source,
    })?;
    let opened = FileBackend::new(file).map(|file| Roomy {
        file,
        room: room.clone(),
    });
    opened
        .and_then(|backend| {
            Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(backend)
        })
        .map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                StoreError::InUse {
                    path: dir.to_owned(),
                }
            }
            other => storage("open", other),
        })
}

/// Checks the format, or marks a new database with ours.
fn marked(database: Database) -> Result<Database, StoreError> {
    let transaction = begin(&database)?;
    {
        let mut marks = transaction
            .open_table(MARKS)
            .map_err(|e| storage("open", e))?;
        let found = marks
            .get(FORMAT_MARK)
            .map_err(|e| storage("read", e))?
            .map(|m| m.value());
        match found {
            Some(found) if found > FORMAT => {
                return Err(StoreError::NewerFormat {
                    found,
                    supported: FORMAT,
                });
            }
            Some(_) => {}
            None => {
                marks
                    .insert(FORMAT_MARK, FORMAT)
                    .map_err(|e| storage("mark", e))?;
                marks
                    .insert(REVISION_MARK, 1)
                    .map_err(|e| storage("mark", e))?;
            }
        }
        transaction
            .open_table(OBJECTS)
            .map_err(|e| storage("open", e))?;
    }
    transaction.commit().map_err(|e| storage("mark", e))?;
    Ok(database)
}

fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut transaction = database.begin_write().map_err(|e| storage("write to", e))?;
    // An acknowledged write is on disk.
    transaction
        .set_durability(Durability::Immediate)
        .map_err(|e| storage("write to", e))?;
    Ok(transaction)
}

fn write(
    transaction: &WriteTransaction,
    doubtful: &BTreeMap<Key, Option<Arc<Value>>>,
    changes: &[Change],
    revision: u64,
) -> Result<(), redb::Error> {
    let mut objects = transaction.open_table(OBJECTS)?;
    for (key, before) in doubtful {
        match before {
            Some(object) => drop(objects.insert(path(key), object.to_string().as_bytes())?),
            None => drop(objects.remove(path(key))?),
        }
    }
    for change in changes {
        if change.kind == ChangeKind::Deleted {
            objects.remove(path(&change.key))?;
        } else {
            let bytes = change.object.to_string();
            objects.insert(path(&change.key), bytes.as_bytes())?;
        }
    }
    transaction
        .open_table(MARKS)?
        .insert(REVISION_MARK, revision)?;
    Ok(())
}

fn path(key: &Key) -> (&str, &str, &str, &str) {
    (&key.group, &key.resource, &key.namespace, &key.name)
}

fn storage(action: &'static str, source: impl Into<redb::Error>) -> StoreError {
    StoreError::Storage {
        action,
        source: Box::new(source.into()),
    }
}
