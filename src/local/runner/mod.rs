//! The node: one real pooler process per pod.

pub mod dirs;
pub mod dns;
pub mod files;
pub mod identity;
pub mod payload;
pub mod pod;
pub mod pooler;
pub mod probe;
pub mod process;
pub mod translate;

pub use pooler::{Pooler, PoolerError, find_pgbouncer};
