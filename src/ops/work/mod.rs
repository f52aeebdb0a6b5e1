//! What steps have in common: how pods are found, drained, replaced, reloaded and proved, how material
//! and configuration are published, and how the PgBouncer is paused.
//!
//! Each function reads the cluster first and can be repeated, and may be dropped at any `await`, which
//! is the same as a crash there: nothing depends on an act being finished. [`ground`] is a PgBouncer in
//! its cluster, [`bench`] the same with the plan of a request. What a step has read of one side is
//! its [`goal`], which is handed on.

pub(super) mod bench;
pub(super) mod drain;
mod error;
pub(super) mod goal;
pub(super) mod ground;
pub(super) mod lock;
mod look;
pub(super) mod pods;
pub(super) mod proof;
pub(super) mod publish;
mod reach;
pub(super) mod reload;
pub(super) mod replace;
pub(super) mod service;
mod takeup;
mod verdict;

pub(super) use self::bench::{Bench, Side, Tally};
pub(super) use self::error::{Leaf, StepError};
pub(super) use self::ground::Ground;
pub(super) use self::look::{Look, OFTEN, SELDOM, Waiting};
pub(super) use self::pods::Maker;
