//! When a certificate is to be renewed: cert-manager's rules, a jitter that spreads a fleet, and a
//! limit that neither may pass.
//!
//! ```text
//! not_before                     renew_at ◀─ jitter ─ base          not_after
//!     │                              │                 │     safe       │
//!     ├──────────────────────────────┼─────────────────┼──────┼─────────┤
//! ```

use time::{Duration, OffsetDateTime};

use super::text::length;
use crate::instants::{Scale, Shift, Since, Within};

/// cert-manager accepts no shorter `renewBefore`.
pub const RENEW_BEFORE_MIN: Duration = Duration::minutes(5);
/// Renewal is never planned for the last of this part of a life, so that there is time to try
/// again; see also [`SAFETY_MAX`].
pub const SAFETY_DIVISOR: i32 = 10;
/// Nor does it have to be earlier than this before the end.
pub const SAFETY_MAX: Duration = RENEW_BEFORE_MIN;
/// A policy that leaves less than this part of the granted life before renewal is due does not fit it:
/// the default counts instead.
pub const LIVED_DIVISOR: i32 = 20;
/// This part of the granted life passes between two renewals, whatever the policy says.
pub const REST_DIVISOR: i32 = 10;
/// The shortest time between two renewals: a rotation of one pod takes about as long.
pub const REST_MIN: Duration = Duration::seconds(30);
/// The time between two renewals is never more than this part of the life.
pub const REST_LIFE_DIVISOR: i32 = 2;
/// Certificates that were issued together are renewed within this part of their life.
pub const JITTER_DIVISOR: i32 = 20;

/// When to renew, as the manifest says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RenewPolicy {
    /// When two thirds of the life are over.
    #[default]
    TwoThirds,
    /// So long before the end (`renewBefore`).
    Before(Duration),
    /// When so many percent of the life are left (`renewBeforePercentage`).
    BeforePercentage(u8),
}

/// What is wrong with a policy, for certificates of a certain lifetime.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenewPolicyError {
    /// Renewal would be due the moment the certificate is issued.
    #[error(
        "lower renewBefore ({}) or raise duration ({}): renewal would be due at once, for ever", length(.renew_before), length(.lifetime)
    )]
    NotShorter {
        /// What the manifest says.
        renew_before: Duration,
        /// The lifetime.
        lifetime: Duration,
    },
    /// Shorter than [`RENEW_BEFORE_MIN`].
    #[error(
        "raise renewBefore ({}): at least {} are needed to renew in time", length(.renew_before), length(&RENEW_BEFORE_MIN)
    )]
    TooShort {
        /// What the manifest says.
        renew_before: Duration,
    },
    /// Not between 1 and 99.
    #[error("renewBeforePercentage is {percentage}: allowed are 1 to 99")]
    Percentage {
        /// What the manifest says.
        percentage: u8,
    },
}

impl RenewPolicy {
    /// Whether the policy makes sense for certificates that live so long.
    pub fn check(self, lifetime: Duration) -> Result<(), RenewPolicyError> {
        match self {
            Self::Before(renew_before) if renew_before < RENEW_BEFORE_MIN => {
                Err(RenewPolicyError::TooShort { renew_before })
            }
            Self::Before(renew_before) if renew_before >= lifetime => {
                Err(RenewPolicyError::NotShorter {
                    renew_before,
                    lifetime,
                })
            }
            Self::BeforePercentage(percentage @ (0 | 100..)) => {
                Err(RenewPolicyError::Percentage { percentage })
            }
            Self::TwoThirds | Self::Before(_) | Self::BeforePercentage(_) => Ok(()),
        }
    }

    /// How long before the end a certificate of that lifetime is renewed, before jitter. A policy
    /// that does not fit the lifetime, because an issuer shortened it, falls back to the default.
    fn margin(self, lifetime: Duration) -> Duration {
        self.asked(lifetime)
            .filter(|margin| is_lived(lifetime, *margin))
            .unwrap_or_else(|| lifetime.part(3))
    }

    /// How long before the end the manifest asks for; `None` where it does not say.
    fn asked(self, lifetime: Duration) -> Option<Duration> {
        match self {
            Self::Before(margin) if margin.is_positive() => Some(margin),
            Self::BeforePercentage(percentage @ 1..=99) => {
                let percentage = f64::from(percentage);
                Some(Duration::saturating_seconds_f64(
                    lifetime.as_seconds_f64() * percentage / 100.0,
                ))
            }
            Self::TwoThirds | Self::Before(_) | Self::BeforePercentage(_) => None,
        }
    }

    /// The margin that the manifest asks for, if so little of a life of that length would be lived that
    /// the default counts instead (see [`LIVED_DIVISOR`]).
    pub fn misfit(self, lifetime: Duration) -> Option<Duration> {
        self.asked(lifetime)
            .filter(|margin| !is_lived(lifetime, *margin))
    }
}

/// When to renew a certificate. `seed` is of its identity (not of its serial number), so that a
/// repeat gives the same answer and a fleet spreads out: see [`jitter_seed`].
///
/// The life counts from `granted` (see [`granted_from`]). The answer is within it, whole seconds, and
/// leaves its last tenth, or the last five minutes of a long one, for trying again. [`rest`] has passed
/// by then, so that a certificate is never due at birth. A certificate without a life (`not_after` not after `granted`) is due at once.
pub fn renew_at(
    granted: OffsetDateTime,
    not_after: OffsetDateTime,
    policy: RenewPolicy,
    seed: u64,
) -> OffsetDateTime {
    let lifetime = not_after.since(granted);
    if !lifetime.is_positive() {
        return granted;
    }
    let safety = lifetime.part(SAFETY_DIVISOR).min(SAFETY_MAX);
    let margin = policy.margin(lifetime).max(safety);
    let base = lifetime.minus(margin);
    // Earlier, never later: and no more than half of the way, so that a short life is lived.
    let spread = lifetime.part(JITTER_DIVISOR).min(base.part(2));
    let at = granted.plus(base).minus(part_of(spread, seed));
    let at = at.replace_nanosecond(0).unwrap_or(at);
    at.max(granted.plus(rest(lifetime)))
}

/// The time that passes between two renewals of certificates that live so long.
pub fn rest(lifetime: Duration) -> Duration {
    let longest = lifetime.part(REST_LIFE_DIVISOR).max(Duration::SECOND);
    lifetime.part(REST_DIVISOR).within(REST_MIN, longest)
}

/// The instant from which a certificate's life counts: when it was issued, where that is known. Issuers
/// date the beginning back, by 30 seconds (Vault) or five minutes (ours), and that part is not lived.
pub fn granted_from(
    issued: Option<OffsetDateTime>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
) -> OffsetDateTime {
    // A date outside the life is not the certificate's: the clocks differ, or the Secret is copied.
    issued
        .filter(|issued| *issued > not_before && *issued < not_after)
        .unwrap_or(not_before)
}

/// Whether enough of a life is left before a margin of that length begins.
fn is_lived(lifetime: Duration, margin: Duration) -> bool {
    margin <= lifetime.minus(lifetime.part(LIVED_DIVISOR))
}

/// A seed from the identity of a certificate, such as `namespace/name/alias`: the same on every
/// machine and in every version.
pub fn jitter_seed(identity: &str) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, identity.as_bytes());
    digest.as_ref()[..8]
        .iter()
        .fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

/// The seed of the certificate of `alias` of the object that `owner` (`namespace/name`) names.
pub fn certificate_seed(owner: &str, alias: &str) -> u64 {
    jitter_seed(&format!("{owner}/{alias}"))
}

/// `spread`, scaled by the seed's place between 0 and its largest value.
fn part_of(spread: Duration, seed: u64) -> Duration {
    // 2^20 steps are finer than a second in ten days.
    let step = i32::try_from(seed >> 44).unwrap_or(0);
    spread.part(1 << 20).times(step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2031-04-05 06:07:08 UTC);

    fn policies() -> impl Strategy<Value = RenewPolicy> {
        prop_oneof![
            Just(RenewPolicy::TwoThirds),
            (-10_i64..1_000_000_000).prop_map(|s| RenewPolicy::Before(Duration::seconds(s))),
            any::<u8>().prop_map(RenewPolicy::BeforePercentage),
        ]
    }

    #[test]
    fn without_jitter_the_rules_are_those_of_cert_manager() {
        let after = |days| START + Duration::days(days);
        let due = |policy| renew_at(START, after(90), policy, 0);
        assert_eq!(due(RenewPolicy::TwoThirds), after(60));
        assert_eq!(due(RenewPolicy::Before(Duration::days(15))), after(75));
        assert_eq!(due(RenewPolicy::BeforePercentage(10)), after(81));
        // Longer than the life, or nearly as long: the default.
        assert_eq!(due(RenewPolicy::Before(Duration::days(91))), after(60));
        assert_eq!(due(RenewPolicy::Before(Duration::days(89))), after(60));
        assert_eq!(due(RenewPolicy::BeforePercentage(99)), after(60));
        assert_eq!(due(RenewPolicy::BeforePercentage(100)), after(60));
    }

    #[test]
    fn a_policy_that_renews_for_ever_or_too_late_is_refused_by_name() {
        let month = Duration::days(30);
        let error = RenewPolicy::Before(month).check(month).unwrap_err();
        assert!(error.to_string().contains("lower renewBefore"), "{error}");
        assert!(
            RenewPolicy::Before(Duration::minutes(1))
                .check(month)
                .is_err()
        );
        assert!(RenewPolicy::BeforePercentage(0).check(month).is_err());
        assert!(RenewPolicy::Before(Duration::days(29)).check(month).is_ok());
    }

    #[test]
    fn a_fleet_spreads_out() {
        let ends = START + Duration::days(90);
        let due: std::collections::HashSet<_> = (0..100)
            .map(|n| {
                let seed = jitter_seed(&format!("treasury/ledger-{n}/server"));
                renew_at(START, ends, RenewPolicy::TwoThirds, seed)
            })
            .collect();
        assert!(due.len() > 80, "{} different instants", due.len());
    }

    #[test]
    fn a_margin_that_the_granted_life_does_not_fit_is_renewed_once_within_it() {
        let hour = Duration::hours(1);
        // Vault grants an hour of the two that were asked for, and dates it back by 30 seconds.
        let (not_before, not_after) = (START - Duration::seconds(30), START + hour);
        let granted = granted_from(Some(START), not_before, not_after);
        for margin in [hour, Duration::minutes(59), hour + Duration::seconds(30)] {
            let policy = RenewPolicy::Before(margin);
            let due = renew_at(granted, not_after, policy, 0);
            assert_eq!(due, START + Duration::minutes(40), "{margin}");
            assert_eq!(policy.misfit(not_after - granted), Some(margin));
            // Also where nothing tells when it was issued.
            let due = renew_at(not_before, not_after, policy, u64::MAX);
            assert!(due > START + Duration::minutes(30), "{margin}");
        }
        let fits = RenewPolicy::Before(Duration::minutes(57));
        assert_eq!(
            renew_at(granted, not_after, fits, 0),
            START + Duration::minutes(6)
        );
        assert_eq!(fits.misfit(hour), None);
        assert_eq!(RenewPolicy::TwoThirds.misfit(hour), None);
    }

    #[test]
    fn a_tenth_of_the_life_passes_between_two_renewals_and_never_most_of_it() {
        assert_eq!(rest(Duration::days(90)), Duration::days(9));
        assert_eq!(rest(Duration::hours(1)), Duration::minutes(6));
        assert_eq!(rest(Duration::minutes(2)), REST_MIN);
        assert_eq!(rest(Duration::seconds(20)), Duration::seconds(10));
        for odd in [Duration::ZERO, Duration::MIN, Duration::seconds(-1)] {
            assert_eq!(rest(odd), Duration::SECOND);
        }
        assert!(rest(Duration::MAX) > Duration::days(1));
    }

    #[test]
    fn a_date_of_issue_outside_the_life_does_not_count() {
        let (begins, ends) = (START, START + Duration::hours(2));
        for issued in [
            None,
            Some(begins - Duration::HOUR),
            Some(ends),
            Some(ends + Duration::HOUR),
        ] {
            assert_eq!(granted_from(issued, begins, ends), begins);
        }
        let issued = begins + Duration::MINUTE;
        assert_eq!(granted_from(Some(issued), begins, ends), issued);
    }

    proptest! {
        #[test]
        fn no_certificate_is_due_at_birth(
            lifetime in 1_i64..946_080_000,
            back in 0_i64..1_000,
            policy in policies(),
            seed: u64,
        ) {
            let (begins, ends) = (START - Duration::seconds(back), START + Duration::seconds(lifetime));
            let granted = granted_from(Some(START), begins, ends);
            let due = renew_at(granted, ends, policy, seed);
            let rest = rest(Duration::seconds(lifetime));
            prop_assert!(rest > Duration::ZERO && due >= START + rest.min(ends - START));
            prop_assert!(lifetime < 2 || due < ends);
        }

        #[test]
        fn renewal_is_within_the_life_and_never_past_the_safe_limit(
            // Five minutes to thirty years.
            lifetime in 300_i64..946_080_000,
            policy in policies(),
            seed: u64,
        ) {
            let ends = START + Duration::seconds(lifetime);
            let due = renew_at(START, ends, policy, seed);
            let safety = Duration::seconds(lifetime / 10).min(SAFETY_MAX);
            prop_assert!(due >= START);
            prop_assert!(due <= ends - safety);
            prop_assert_eq!(due, renew_at(START, ends, policy, seed));
        }

        #[test]
        fn jitter_only_makes_it_earlier_and_not_by_much(
            lifetime in 300_i64..946_080_000,
            policy in policies(),
            seed: u64,
        ) {
            let ends = START + Duration::seconds(lifetime);
            let base = renew_at(START, ends, policy, 0);
            let due = renew_at(START, ends, policy, seed);
            prop_assert!(due <= base);
            prop_assert!(base - due <= Duration::seconds(lifetime / 20 + 1));
        }

        #[test]
        fn odd_dates_make_nothing_panic(
            first in -62_135_596_800_i64..253_402_300_799,
            second in -62_135_596_800_i64..253_402_300_799,
            policy in policies(),
            seed: u64,
        ) {
            let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            let due = renew_at(at(first), at(second), policy, seed);
            prop_assert!(due >= at(first));
        }
    }
}
