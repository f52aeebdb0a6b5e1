//! What an error asks of its caller, and the arithmetic of waiting.

use std::time::Duration;

/// Whether, and when, it makes sense to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// A passing fault: try again after a growing pause.
    Backoff,
    /// Nothing will change until the named object does: wait for its next event.
    WhenChanged,
    /// The answer is final.
    Never,
}

/// When to look at an object again, if nothing wakes its controller sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// After that time.
    Again(Duration),
    /// Not before it changes.
    Wait,
}

/// First pause after a passing fault.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// Longest pause: an operator that looks less often than this is asleep.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// The pause before attempt `attempt` (0 = the first retry): doubling, capped at [`BACKOFF_MAX`].
pub fn backoff(attempt: u32) -> Duration {
    let factor = 1_u32.checked_shl(attempt.min(16)).unwrap_or(u32::MAX);
    BACKOFF_FIRST.saturating_mul(factor).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_stay_below_the_cap() {
        assert_eq!(backoff(0), BACKOFF_FIRST);
        assert_eq!(backoff(1), BACKOFF_FIRST * 2);
        assert_eq!(backoff(99), BACKOFF_MAX);
    }
}
