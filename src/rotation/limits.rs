//! How much may happen at once, and when waiting ends. Pure.

use time::Duration;

use crate::instants::{Scale, Shift, Within};

/// Rotations at the same time, in the whole fleet.
pub const CONCURRENCY_DEFAULT: usize = 10;
/// The same in one namespace: who has one namespace must not keep others waiting.
pub const CONCURRENCY_PER_NAMESPACE_DEFAULT: usize = 5;
/// Rotations that begin within a minute. One takes seconds where pods start fast, and then the limit
/// on how many run at once alone would let hundreds of signatures be asked for in a minute.
pub const STARTS_PER_MINUTE_DEFAULT: usize = 30;
/// Successful requests of a PgBouncer that are kept, as of a `CronJob`.
pub const SUCCESSFUL_KEPT_DEFAULT: usize = 3;
/// Other finished requests that are kept. At least one: it says how often in a row it went wrong.
pub const FAILED_KEPT_DEFAULT: usize = 3;
/// A rotation that is due is urgent once less than a quarter of the life is left: a window is not
/// waited for any longer. Until nine tenths of the life are over, an eighth of it remains for an
/// outage of the daemon, for others that are urgent as well, and for trying again.
pub const URGENT_DIVISOR: i32 = 4;

/// Pause after the first failure; it doubles with each in a row.
pub const BACKOFF_FIRST: Duration = Duration::minutes(1);
/// Longest pause.
pub const BACKOFF_MAX: Duration = Duration::hours(6);
/// No pause is longer than this part of the life of the certificate.
pub const BACKOFF_DIVISOR: i32 = 40;
/// Nor shorter than this.
pub const BACKOFF_MIN: Duration = Duration::seconds(5);

/// How much may happen at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rotations at the same time.
    pub concurrency: usize,
    /// The same in one namespace.
    pub concurrency_per_namespace: usize,
    /// Rotations that begin within a minute.
    pub starts_per_minute: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrency: CONCURRENCY_DEFAULT,
            concurrency_per_namespace: CONCURRENCY_PER_NAMESPACE_DEFAULT,
            starts_per_minute: STARTS_PER_MINUTE_DEFAULT,
        }
    }
}

/// The pause after so many failures in a row (at least one), for certificates that live so long.
/// `seed` spreads those that failed together.
pub fn pause(failures: u32, lifetime: Duration, seed: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let grown = BACKOFF_FIRST.saturating_mul(1 << doublings);
    let longest = lifetime
        .part(BACKOFF_DIVISOR)
        .within(BACKOFF_MIN, BACKOFF_MAX);
    let base = grown.min(longest);
    // Up to a quarter less, in 256 steps.
    let step = i32::try_from(seed.wrapping_add(u64::from(failures)) & 255).unwrap_or(0);
    base.minus(base.part(4).part(256).times(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_cap_and_stay_small_against_the_life() {
        let long = Duration::days(90);
        assert_eq!(pause(1, long, u64::MAX), BACKOFF_FIRST);
        let at = |failures| pause(failures, long, 0_u64.wrapping_sub(u64::from(failures)));
        assert_eq!(at(2), BACKOFF_FIRST * 2);
        assert_eq!(at(5), BACKOFF_FIRST * 16);
        assert_eq!(at(40), BACKOFF_MAX);
        assert!(pause(9, Duration::minutes(5), 3) <= Duration::seconds(8));
    }

    #[test]
    fn those_that_failed_together_come_back_one_by_one() {
        let all: std::collections::HashSet<_> = (0..256)
            .map(|seed| pause(3, Duration::days(90), seed))
            .collect();
        assert_eq!(all.len(), 256);
        assert!(all.iter().all(|pause| *pause > BACKOFF_FIRST * 3));
    }
}
