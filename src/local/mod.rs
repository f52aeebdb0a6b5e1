//! The embedded platform: store, API server, workload controllers, pod runner, balancer.
//!
//! The API server is the only meeting point: workload controllers, runner and balancer hold a
//! `kube::Client` like any other and know nothing of each other.

pub mod store;

pub mod apiserver;

pub mod addresses;
pub mod beneath;
pub mod hash;
pub mod informer;
pub mod queue;
pub mod rules;
pub mod trust;

pub mod balancer;
pub mod runner;
pub mod workload;

pub mod datadir;
pub mod install;
pub mod platform;

pub mod postgres;
