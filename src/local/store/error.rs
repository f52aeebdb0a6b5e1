//! Why the store refused.

use std::path::PathBuf;

use super::Key;
use crate::opaque::JsonTrouble;

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
    /// The write shared a commit that failed; whoever led it has the cause.
    #[error("cannot write to the object store: the commit that carried this write failed")]
    NotCommitted,
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
        source: JsonTrouble,
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
