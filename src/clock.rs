//! The only place that asks what time it is.
//!
//! Edges call [`Clock::now`] once and hand the instant down; everything in the core takes time as
//! an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;

use crate::instants::Shift;

/// Where the time comes from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that stands still, for tests.
    Fixed(OffsetDateTime),
    /// The machine's clock, so many seconds fast; for tests and chaos, which set it at any time.
    Shifted(Arc<AtomicI64>),
}

impl Clock {
    /// The present instant, in UTC.
    pub fn now(&self) -> OffsetDateTime {
        match self {
            Self::System => system(),
            Self::Fixed(at) => *at,
            Self::Shifted(seconds) => {
                system().plus(time::Duration::seconds(seconds.load(Ordering::Relaxed)))
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place")]
fn system() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Time since the machine was started. Nobody can set it, so it never jumps; and it goes on while
/// this process is stopped or the machine sleeps. Two machines' are not comparable.
pub fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}
/// How long the running thread has computed. A bound on it holds on a busy machine, too.
#[cfg(test)]
pub(crate) fn computed() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        spent.tv_sec.try_into().unwrap(),
        spent.tv_nsec.try_into().unwrap(),
    )
}
