//! A clock for bounds that hold on a busy machine, too.

use std::time::Duration;

/// How long the running thread has computed. A bound on it holds on a busy machine, too.
pub(crate) fn computed() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        spent.tv_sec.try_into().unwrap(),
        spent.tv_nsec.try_into().unwrap(),
    )
}
