//! The only place that asks what time it is.
//!
//! Edges call [`Clock::now`] once and hand the instant down; everything in the core takes time as
//! an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use time::{Duration, OffsetDateTime};

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
            Self::Shifted(seconds) => system() + Duration::seconds(seconds.load(Ordering::Relaxed)),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place")]
fn system() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
