//! Workload controllers: sets of pods, addresses and endpoints of Services, disruption budgets.
//!
//! Each is a loop over a queue of names: what woke it does not matter, it looks at everything anew.

pub mod selector;

pub mod plan;
pub mod sets;

pub mod services;
pub mod slices;

pub mod budgets;
