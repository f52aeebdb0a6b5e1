//! The brake: how soon a PgBouncer may be rotated again, whatever the arithmetic of renewal says. Pure.
//!
//! Each rotation restarts or reloads pods, so a rotation that leads to the next is an outage without
//! end: an issuer that grants a shorter life than `renewBefore`, a CA that never matches, an address
//! that the issuer leaves out. Every cause passes the brake.
//!
//! | cause | begins again |
//! |---|---|
//! | a certificate is due | a tenth of the granted life after the last rotation began |
//! | anything else (drift) | the same after the last but one, and at most a day |
//!
//! The facts are in the cluster, so a restart of the daemon does not release the brake: when the
//! published certificates were issued, and the requests that rotation has made. A forged fact changes
//! only the rotations of its own PgBouncer.

use time::{Duration, OffsetDateTime};

use crate::instants::Shift;
use crate::pki::renewal::rest;

/// The longest pause for drift: what clients trust may depend on it.
pub const BRAKE_DRIFT_MAX: Duration = Duration::days(1);

/// The latest two of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// The last.
    pub last: Option<OffsetDateTime>,
    /// The last but one.
    pub before: Option<OffsetDateTime>,
}

impl Recent {
    /// The latest two of these.
    pub fn of(all: impl IntoIterator<Item = OffsetDateTime>) -> Self {
        all.into_iter().fold(Self::default(), |recent, at| {
            let Self { last, before } = recent;
            if last.is_none_or(|last| at >= last) {
                Self {
                    last: Some(at),
                    before: last,
                }
            } else {
                Self {
                    last,
                    before: before.max(Some(at)),
                }
            }
        })
    }

    /// When the next rotation may begin, where certificates live so long. `is_due`: one is due by age.
    ///
    /// An instant after `now` does not count: the clocks differ, and a brake that holds for ever would
    /// let certificates expire.
    pub fn released_at(
        self,
        lifetime: Duration,
        is_due: bool,
        now: OffsetDateTime,
    ) -> Option<OffsetDateTime> {
        let pause = rest(lifetime);
        let (from, pause) = if is_due {
            (self.last, pause)
        } else {
            (self.before, pause.min(BRAKE_DRIFT_MAX))
        };
        let from = from.filter(|from| *from <= now)?;
        Some(from.plus(pause)).filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;
    use crate::instants::Since;

    const NOW: OffsetDateTime = datetime!(2031-06-04 12:00 UTC);

    #[test]
    fn the_latest_two_are_kept_in_order() {
        let at = |minute| NOW + Duration::minutes(minute);
        let all = Recent::of([at(3), at(9), at(1), at(7)]);
        assert_eq!((all.last, all.before), (Some(at(9)), Some(at(7))));
        assert_eq!(Recent::of([]), Recent::default());
    }

    #[test]
    fn age_waits_for_the_last_rotation_and_drift_for_the_last_but_one() {
        let life = Duration::hours(10);
        let minutes = |ago| NOW - Duration::minutes(ago);
        let recent = Recent::of([minutes(5), minutes(50)]);
        let due = recent.released_at(life, true, NOW);
        assert_eq!(due, Some(NOW + Duration::minutes(55)));
        let drift = recent.released_at(life, false, NOW);
        assert_eq!(drift, Some(NOW + Duration::minutes(10)));
        let once = Recent::of([minutes(5)]);
        assert_eq!(once.released_at(life, false, NOW), None);
        // Long lives: drift waits for a day at the most.
        let twice = Recent::of([minutes(5), minutes(6)]);
        let drift = twice.released_at(Duration::days(900), false, NOW);
        assert_eq!(drift, Some(minutes(6) + Duration::DAY));
    }

    #[test]
    fn an_instant_in_the_future_holds_nothing_up() {
        let ahead = Recent::of([NOW + Duration::days(900), NOW + Duration::days(901)]);
        assert_eq!(ahead.released_at(Duration::days(90), true, NOW), None);
        assert_eq!(ahead.released_at(Duration::days(90), false, NOW), None);
    }

    proptest! {
        #[test]
        fn the_brake_is_released_before_most_of_the_life_is_over(life: i64, ago in 0_i64..1_000_000_000, is_due: bool) {
            let life = Duration::seconds(life);
            let last = NOW - Duration::seconds(ago);
            let released = Recent::of([last, last]).released_at(life, is_due, NOW);
            prop_assert!(released.is_none_or(|at| at > NOW));
            prop_assert!(released.is_none_or(|at| at.since(last) <= rest(life)));
        }
    }
}
