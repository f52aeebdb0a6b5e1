//! Bouncert: a certificate lifecycle daemon for PgBouncer.
//!
//! A certificate change is a transaction: staged, verified by someone who did not make it, applied
//! pod by pod without cutting a transaction in flight, proved on the wire, reversible until proved,
//! and resumable after a crash at any instant. `ARCHITECTURE.md` has the map.

pub mod clock;
pub mod names;
pub mod redacted;
pub mod retry;
