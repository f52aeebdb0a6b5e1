//! The part of the store that is on disk: one redb file, every commit synced.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use redb::backends::InMemoryBackend;
use redb::{
    Database, DatabaseError, Durability, ReadableTable, StorageBackend, TableDefinition,
    WriteTransaction,
};
use serde_json::Value;

use super::{Change, ChangeKind, FORMAT, Key, StoreError};

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

/// The open database.
#[derive(Debug)]
pub(super) struct Disk {
    database: Database,
}

impl Disk {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
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
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(dir.join(FILE))
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                    StoreError::InUse {
                        path: dir.to_owned(),
                    }
                }
                other => storage("open", other),
            })?;
        Self::marked(database)
    }

    pub(super) fn in_memory() -> Result<Self, StoreError> {
        Self::on(InMemoryBackend::new())
    }

    /// On any backend, for tests that make it fail.
    pub(super) fn on(backend: impl StorageBackend) -> Result<Self, StoreError> {
        let database = Database::builder()
            .create_with_backend(backend)
            .map_err(|error| storage("open", error))?;
        Self::marked(database)
    }

    /// Checks the format, or marks a new database with ours.
    fn marked(database: Database) -> Result<Self, StoreError> {
        let disk = Self { database };
        let transaction = disk.begin()?;
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
        Ok(disk)
    }

    /// Everything that is stored, and the newest revision.
    pub(super) fn load(&self) -> Result<(BTreeMap<Key, Arc<Value>>, u64), StoreError> {
        let transaction = self.begin()?;
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
                serde_json::from_slice(bytes.value()).map_err(|source| StoreError::Unreadable {
                    resource: resource.to_owned(),
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    source,
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
        let transaction = self.begin()?;
        write(&transaction, changes, last.revision).map_err(|e| storage("write to", e))?;
        transaction.commit().map_err(|e| storage("write to", e))
    }

    /// Marks the database as written by another format, for tests.
    #[cfg(test)]
    pub(super) fn mark_format(&mut self, format: u64) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        transaction.open_table(MARKS)?.insert(FORMAT_MARK, format)?;
        Ok(transaction.commit()?)
    }

    fn begin(&self) -> Result<WriteTransaction, StoreError> {
        let mut transaction = self
            .database
            .begin_write()
            .map_err(|e| storage("write to", e))?;
        // An acknowledged write is on disk.
        transaction
            .set_durability(Durability::Immediate)
            .map_err(|e| storage("write to", e))?;
        Ok(transaction)
    }
}

fn write(
    transaction: &WriteTransaction,
    changes: &[Change],
    revision: u64,
) -> Result<(), redb::Error> {
    let mut objects = transaction.open_table(OBJECTS)?;
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
