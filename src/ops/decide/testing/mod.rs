//! The model: a simulated cluster and clocks, daemons that carry requests out on them with the executor's
//! own code, what strikes them, and the invariants.

mod daemon;
mod invariants;
pub(in crate::ops) mod model;
pub(in crate::ops) mod random;
mod reload;
