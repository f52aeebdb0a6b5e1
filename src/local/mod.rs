//! The embedded platform: store, API server, workload controllers, pod runner, balancer.

pub mod apiserver;
pub mod balancer;
pub mod runner;
pub mod store;
pub mod workload;
