//! What is due, and what may start now: rotation by itself (docs/rotation.md).
//!
//! ```text
//! what is stored ──▶ Facts ──▶ verdict ──▶ Fleet ──▶ Start ──▶ a PgBouncerOpsRequest
//! (index of parsed    per       due? where    limits:      (name derived from the
//!  certificates)      object    does it wait? how many now  revision: a repeat adopts)
//! ```
//!
//! Rotation has no path of its own to the pooler. It creates requests, which the ops manager carries
//! out like anybody else's, and it meets that manager through these objects alone.
//!
//! Deciding is pure: facts and the time go in, decisions come out. The same [`fleet::Fleet`] is
//! driven by the daemon, by `bouncert schedule` (which lets virtual time pass) and by the simulation
//! of two years in the tests. Nothing is remembered that cannot be read again: back-off is counted in
//! the requests themselves, timers only wake.
//!
//! Rules, strongest first:
//!
//! 1. While a request of a PgBouncer waits or runs, whoever made it, no other is created.
//! 2. A freeze is never broken. A condition says what will expire.
//! 3. The fleet's limits (how many at once, how many begin in a minute) are never exceeded, not even
//!    by what is urgent: they protect the issuer and the clients when there is most to do. Who expires
//!    first goes first, which is the best order there is.
//! 4. Back-off after failures grows, and stays small against the life of the certificate.
//! 5. The brake ([`brake`]): a tenth of the granted life passes between two rotations.
//! 6. A maintenance window is waited for, until the rotation is urgent.

pub mod brake;
pub mod decide;
pub mod drift;
pub mod facts;
pub mod fleet;
pub mod forecast;
pub mod index;
pub mod limits;
mod metrics;
pub mod request;
mod rotator;
pub mod tell;
pub mod window;

#[cfg(test)]
mod stored_tests;
#[cfg(test)]
mod tests;

pub use self::metrics::RotationMetrics;
pub use self::rotator::{Counts, Note, Object, PART, RotationOptions, Rotator, Snapshot, Troubles};
