//! What rotation tells others: numbers for metrics, and panics for conditions.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::ObjectRef;
use crate::panics::Panicked;

/// What has happened since the daemon started: for counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests created.
    pub created: u64,
    /// Requests that could not be created.
    pub not_created: u64,
    /// Secrets that were published again over something unsound.
    pub put_back: u64,
    /// Drift that appeared, by reason.
    pub drift: BTreeMap<&'static str, u64>,
}

/// What is to be told of panics.
#[derive(Debug, Default)]
pub struct Troubles {
    /// PgBouncers that are left alone for a while, and what came of them.
    pub panicked: BTreeMap<ObjectRef, Panicked>,
    /// PgBouncers that say so and are served again.
    pub healed: BTreeSet<ObjectRef>,
}

/// How things stand: for gauges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// PgBouncers with a request that waits or runs.
    pub busy: usize,
    /// PgBouncers that may begin and wait for room.
    pub waiting: usize,
    /// PgBouncers with drift, by reason.
    pub drifting: BTreeMap<&'static str, usize>,
    /// PgBouncers with a rotation that is due and not begun, and why.
    pub held: BTreeMap<ObjectRef, &'static str>,
    /// What has happened so far.
    pub counts: Counts,
}
