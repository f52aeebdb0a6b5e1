//! The only place that asks what time it is.
//!
//! Edges call [`Clock::now`] once and hand the instant down; everything in the core takes time as
//! an argument.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;

/// Where the time comes from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that stands still, for tests.
    Fixed(OffsetDateTime),
}

impl Clock {
    /// The present instant, in UTC.
    pub fn now(&self) -> OffsetDateTime {
        match self {
            #[expect(clippy::disallowed_methods, reason = "this is the one place")]
            Self::System => OffsetDateTime::now_utc(),
            Self::Fixed(at) => *at,
        }
    }
}

/// Time since the machine was started. Nobody can set it, so it never jumps; and it goes on while
/// this process is stopped or the machine sleeps. Two machines' are not comparable.
pub fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanos)
}
