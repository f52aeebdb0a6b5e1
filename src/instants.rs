//! Arithmetic on times and durations that cannot panic: a result outside the range stays at its end.
//!
//! `+`, `-` and `*` of these types panic on overflow, and certificates, annotations and
//! specifications hold any number. Clippy refuses the operators everywhere else
//! (`arithmetic_side_effects` in `lib.rs`); integers are exempt, because release builds wrap them.

use std::time;

use ::time::{Duration, OffsetDateTime, PrimitiveDateTime};
use tokio::time::Instant;

/// The end of time for an instant of the monotonic clock, as tokio's timers have it: thirty years.
const FAR: time::Duration = time::Duration::from_secs(30 * 365 * 86_400);

/// Moves an instant, or lengthens a duration.
pub trait Shift: Copy {
    /// What it is moved by.
    type By;

    /// So much later or longer; the latest or longest there is at the most.
    #[must_use]
    fn plus(self, by: Self::By) -> Self;

    /// So much earlier or shorter; the earliest or shortest there is at the least.
    #[must_use]
    fn minus(self, by: Self::By) -> Self;
}

/// The time between two instants.
pub trait Since: Copy {
    /// The time between.
    type Length;

    /// The time from `earlier` to `self`. An unsigned length is zero if `earlier` is the later one.
    fn since(self, earlier: Self) -> Self::Length;
}

/// Multiplies and divides durations.
pub trait Scale: Copy {
    /// What it is multiplied by.
    type Factor;

    /// So many times as long; the longest there is at the most.
    #[must_use]
    fn times(self, factor: Self::Factor) -> Self;

    /// One of so many equal parts; all of it for zero parts.
    #[must_use]
    fn part(self, parts: Self::Factor) -> Self;
}

/// Keeps a value between two others.
pub trait Within: Ord + Sized {
    /// At least `least` and at most `most`; `most` where that is the smaller one. `Ord::clamp` panics
    /// then.
    #[must_use]
    fn within(self, least: Self, most: Self) -> Self {
        self.max(least).min(most)
    }
}

impl<T: Ord> Within for T {}

/// The program's own duration type; the longest there is for what it cannot hold.
pub fn signed(length: time::Duration) -> Duration {
    length.try_into().unwrap_or(Duration::MAX)
}

/// The same instant in UTC. An instant that UTC cannot show, such as one of the year 9999 far in the
/// west, becomes the first or the last that it can.
pub const fn in_utc(at: OffsetDateTime) -> OffsetDateTime {
    match at.checked_to_offset(::time::UtcOffset::UTC) {
        Some(at) => at,
        None if at.year() > 0 => PrimitiveDateTime::MAX.assume_utc(),
        None => PrimitiveDateTime::MIN.assume_utc(),
    }
}

// === impls ===

impl Shift for OffsetDateTime {
    type By = Duration;

    fn plus(self, by: Duration) -> Self {
        self.saturating_add(by)
    }

    fn minus(self, by: Duration) -> Self {
        self.saturating_sub(by)
    }
}

impl Shift for Duration {
    type By = Self;

    fn plus(self, by: Self) -> Self {
        self.saturating_add(by)
    }

    fn minus(self, by: Self) -> Self {
        self.saturating_sub(by)
    }
}

impl Shift for time::Duration {
    type By = Self;

    fn plus(self, by: Self) -> Self {
        self.saturating_add(by)
    }

    fn minus(self, by: Self) -> Self {
        self.saturating_sub(by)
    }
}

impl Shift for Instant {
    type By = time::Duration;

    fn plus(self, by: time::Duration) -> Self {
        let far = || self.checked_add(FAR).unwrap_or(self);
        self.checked_add(by).unwrap_or_else(far)
    }

    fn minus(self, by: time::Duration) -> Self {
        self.checked_sub(by).unwrap_or(self)
    }
}

impl Shift for time::Instant {
    type By = time::Duration;

    fn plus(self, by: time::Duration) -> Self {
        let far = || self.checked_add(FAR).unwrap_or(self);
        self.checked_add(by).unwrap_or_else(far)
    }

    fn minus(self, by: time::Duration) -> Self {
        self.checked_sub(by).unwrap_or(self)
    }
}

impl Since for OffsetDateTime {
    type Length = Duration;

    // That this is expected proves on every run that clippy sees such an operator.
    #[cfg_attr(
        not(test),
        expect(
            clippy::arithmetic_side_effects,
            reason = "a signed 64-bit number of seconds holds the whole calendar"
        )
    )]
    fn since(self, earlier: Self) -> Duration {
        self - earlier
    }
}

impl Since for Instant {
    type Length = time::Duration;

    fn since(self, earlier: Self) -> time::Duration {
        self.saturating_duration_since(earlier)
    }
}

impl Since for time::Instant {
    type Length = time::Duration;

    fn since(self, earlier: Self) -> time::Duration {
        self.saturating_duration_since(earlier)
    }
}

impl Scale for Duration {
    type Factor = i32;

    fn times(self, factor: i32) -> Self {
        self.saturating_mul(factor)
    }

    fn part(self, parts: i32) -> Self {
        self.checked_div(parts).unwrap_or(self)
    }
}

impl Scale for time::Duration {
    type Factor = u32;

    fn times(self, factor: u32) -> Self {
        self.saturating_mul(factor)
    }

    fn part(self, parts: u32) -> Self {
        self.checked_div(parts).unwrap_or(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    use ::time;

    fn instants() -> impl Strategy<Value = OffsetDateTime> {
        // The whole calendar, in any zone.
        let seconds = prop_oneof![
            Just(-377_705_116_800_i64),
            Just(253_402_300_799),
            -377_705_116_800_i64..=253_402_300_799,
        ];
        (seconds, -23_i8..=23).prop_map(|(seconds, hours)| {
            let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            let zone = time::UtcOffset::from_hms(hours, 0, 0).unwrap();
            at.replace_offset(zone)
        })
    }

    fn durations() -> impl Strategy<Value = Duration> {
        let seconds = prop_oneof![Just(i64::MIN), Just(i64::MAX), any::<i64>()];
        seconds.prop_map(Duration::seconds)
    }

    #[test]
    fn a_result_outside_the_range_stays_at_its_end() {
        let last = PrimitiveDateTime::MAX.assume_utc();
        assert_eq!(last.plus(Duration::MINUTE), last);
        assert_eq!(last.minus(Duration::MIN), last);
        assert_eq!(Duration::MAX.plus(Duration::SECOND), Duration::MAX);
        assert_eq!(Duration::MIN.minus(Duration::SECOND), Duration::MIN);
        assert_eq!(Duration::MAX.times(-2), Duration::MIN);
        let longest = std::time::Duration::MAX;
        assert_eq!(longest.plus(longest), longest);
        assert_eq!(
            longest.minus(longest).minus(longest),
            std::time::Duration::ZERO
        );
        let now = Instant::now();
        assert!(now.plus(longest) > now);
        assert!(now.minus(longest) <= now);
        assert_eq!(now.since(now.plus(longest)), std::time::Duration::ZERO);
        assert_eq!(5.within(7, 3), 3);
        assert_eq!(in_utc(datetime!(9999-12-31 23:59:59 -12)), last);
    }

    proptest! {
        #[test]
        fn no_instant_and_no_duration_panics(
            at in instants(), other in instants(), by in durations(), more in durations(), n: i32,
        ) {
            let _ = (at.plus(by), at.minus(by), by.plus(more), by.minus(more), by.times(n), by.part(n));
            let between = at.since(other);
            prop_assert_eq!(in_utc(at).offset(), time::UtcOffset::UTC);
            prop_assert!((between > Duration::ZERO) == (at > other));
            prop_assert!(at.within(at, other) <= at.max(other));
        }

        #[test]
        fn what_fits_is_exact(seconds in -1_000_000_000_i64..1_000_000_000) {
            let (at, by) = (datetime!(2031-05-06 07:08 UTC), Duration::seconds(seconds));
            prop_assert_eq!(at.plus(by).since(at), by);
            prop_assert_eq!(at.plus(by).minus(by), at);
        }
    }
}
