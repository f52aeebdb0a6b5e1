//! The glue between kube-runtime and the layers that do the work: what wakes whom, and when to try
//! again. No logic.
//!
//! A reconciler takes nothing but a name (what woke it is for the log only), so the same path runs
//! on start, on event, on timer and after a crash.

mod backlog;
mod engine;
mod metrics;
pub mod orphans;
pub mod pgbouncers;
mod queues;
mod related;
pub mod requests;
pub mod rotation;
mod scope;
mod slots;
mod trouble;
mod wakes;
mod watched;

use kube::runtime::controller::Action;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::retry::Next;
pub use engine::Telling;
pub use metrics::{ReconcileMetrics, SchedulerMetrics};
pub use scope::Scope;
pub use trouble::Bystander;

/// What the controllers of one scope are given.
#[derive(Clone)]
pub struct Post {
    /// Where they read and write.
    pub cluster: Cluster,
    /// Which namespaces they look at.
    pub scope: Scope,
    /// How their looks are told of.
    pub telling: Telling,
    /// Tells them to stop.
    pub cancel: CancellationToken,
}

/// What kube-runtime is told to do next.
fn action(next: Next) -> Action {
    match next {
        Next::Again(after) => Action::requeue(after),
        Next::Wait => Action::await_change(),
    }
}
