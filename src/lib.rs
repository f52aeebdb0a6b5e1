//! Bouncert: a certificate lifecycle daemon for PgBouncer.
//!
//! A certificate change is a transaction: staged, verified by someone who did not make it, applied
//! pod by pod without cutting a transaction in flight, proved on the wire, reversible until proved,
//! and resumable after a crash at any instant. `ARCHITECTURE.md` has the map, and
//! docs/one-rotation.md walks one rotation through the code.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

// Layer 0
pub mod causes;
pub mod cel;
pub mod clock;
pub mod duration;
pub mod fence;
pub mod instants;
pub mod names;
pub mod opaque;
pub mod panics;
pub mod printable;
pub mod redacted;
pub mod retry;
pub mod seal;
pub mod telemetry;
// Layer 1: core
pub mod api;
pub mod lease;
pub mod pki;
pub mod policy;
// Layer 2: edges
pub mod cluster;
pub mod pgbouncer;
// Layer 3
pub mod blueprint;
pub mod issuer;
pub mod material;
pub mod surroundings;
// Layer 4
pub mod inventory;
pub mod ops;
pub mod provisioner;
pub mod rotation;
// Layer 5 to 7
pub mod cli;
pub mod controllers;
pub mod daemon;
pub mod local;
