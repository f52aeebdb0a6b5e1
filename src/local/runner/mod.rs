//! The node: one real pooler process per pod.
//!
//! ```text
//!   pods ──► node ──► worker (one per pod uid) ──► pod::decide ──► gather, process, probe, status
//!   Secrets, ConfigMaps ──► wake the workers that mount them
//! ```
//!
//! What differs from a kubelet: only the container named `pgbouncer` is run, without image or
//! namespaces; its paths are translated into host paths, its names into loopback addresses.

use std::time::Duration;

pub mod pod;
pub mod status;
pub mod translate;

pub mod dns;
pub mod payload;
pub mod probe;

pub mod confine;
pub mod dirs;
pub mod files;
pub mod gather;
pub mod host;
pub mod identity;
pub mod logs;
pub mod podlogs;
pub mod pooler;
pub mod process;
pub mod records;

pub mod node;
pub mod worker;

pub use node::{Node, Runner};
pub use pooler::{NoSuchVersion, Pooler, PoolerError, Poolers};

/// Name of the only node.
pub const NODE_NAME: &str = "local";
/// When a pod that misses something looks again without being woken.
pub const RETRY_MISSING: Duration = Duration::from_secs(5);
/// How often a worker that has nothing else to do looks after its log.
pub const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// Time a process gets to end, before SIGKILL and after, when the platform stops.
pub const STOP_GRACE: Duration = Duration::from_secs(3);
