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

pub use metrics::{ReconcileMetrics, SchedulerMetrics};
pub use scope::Scope;
pub use trouble::Bystander;
