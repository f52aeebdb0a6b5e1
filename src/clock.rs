//! The only place that asks what time it is.
//!
//! Edges call [`Clock::now`] once and hand the instant down; everything in the core takes time as
//! an argument.

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
