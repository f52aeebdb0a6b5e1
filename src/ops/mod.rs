//! One request, one plan, one journal: decide is pure, steps act.
//!
//! A `PgBouncerOpsRequest` goes through these rooms. [`request`] reads it together with the PgBouncer
//! and says which [`request::Change`] it is, or why it is none. [`planner`] reads what the change depends
//! on, and [`plan`] makes a list of steps of it with everything filled in. [`decide`] looks at plan and
//! [`journal`] and says what comes next; it is the whole brain and knows no cluster. The executor carries
//! that out, `steps` has a file for each step, and [`view`] writes what people read.
//!
//! ```text
//!   request ──► admit ──► plan ──► decide ──► run a step ──► journal ──► view
//!                                    ▲                          │
//!                                    └──────────────────────────┘
//! ```
//!
//! Guarantees: `Started` is in the journal before a step touches anything, so that a crash at any
//! instant leaves a journal that says what may have happened; acts and undos can be repeated; and
//! whatever fails, the pause is released.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod request;

pub mod plan;

pub mod journal;

pub mod decide;

pub mod admit;

pub mod view;

pub mod planner;

mod begun;
mod context;
mod error;
mod executor;
mod former;
mod hands;
mod ledger;
mod live;
mod locks;
mod metrics;
mod operator;
mod orphans;
mod putback;
mod status;
mod steps;
mod turns;
mod work;

pub use error::{LedgerError, OpsError, PlanError};
pub use former::FormerJournals;
pub use ledger::journal_name;
pub use live::ABORT;
pub use metrics::{OpsMetrics, RequestOutcome};
pub use operator::{Next, Operator, OperatorOptions};

#[cfg(test)]
mod tests;
