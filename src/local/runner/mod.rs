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

pub mod dirs;
pub mod files;
pub mod gather;
pub mod identity;
pub mod logs;
pub mod podlogs;
pub mod pooler;
pub mod process;

pub mod node;
pub mod worker;

pub use node::{Node, Runner};
pub use pooler::{NoSuchVersion, Pooler, PoolerError, Poolers};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

/// Name of the only node.
pub const NODE_NAME: &str = "local";
/// When a pod that misses something looks again without being woken.
pub const RETRY_MISSING: Duration = Duration::from_secs(5);
/// How often a worker that has nothing else to do looks after its log.
pub const HOUSEKEEPING: Duration = Duration::from_secs(10);
/// Time a process gets to end, before SIGKILL and after, when the platform stops.
pub const STOP_GRACE: Duration = Duration::from_secs(3);

impl Node {
    /// Reads a file of the pooler's container as the process would see it; `None` if no mounted
    /// volume holds the path.
    pub fn read_pod_file(&self, pod: &Pod, path: &str) -> Option<std::io::Result<Vec<u8>>> {
        let task = gather::Task {
            cluster: &self.cluster,
            pod,
            dirs: &self.dirs.pod(&pod.uid()?),
            identity: None,
            address: std::net::Ipv4Addr::LOCALHOST,
        };
        task.host_path(path).map(std::fs::read)
    }
}
