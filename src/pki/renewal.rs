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

/// cert-manager accepts no shorter `renewBefore`.
pub const RENEW_BEFORE_MIN: Duration = Duration::minutes(5);
/// Renewal is never planned for the last of this part of a life, so that there is time to try
/// again; see also [`SAFETY_MAX`].
pub const SAFETY_DIVISOR: i32 = 10;
/// Nor does it have to be earlier than this before the end.
pub const SAFETY_MAX: Duration = RENEW_BEFORE_MIN;
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
        match self {
            Self::Before(margin) if margin.is_positive() && margin < lifetime => margin,
            Self::BeforePercentage(percentage @ 1..=99) => lifetime * i32::from(percentage) / 100,
            Self::TwoThirds | Self::Before(_) | Self::BeforePercentage(_) => lifetime / 3,
        }
    }
}

/// When to renew a certificate. `seed` is of its identity (not of its serial number), so that a
/// repeat gives the same answer and a fleet spreads out: see [`jitter_seed`].
///
/// The answer is within the life of the certificate, whole seconds, and leaves the last tenth of a
/// short life, or the last five minutes of a long one, for trying again. A certificate without a
/// life (`not_after` not after `not_before`) is due at once.
pub fn renew_at(
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    policy: RenewPolicy,
    seed: u64,
) -> OffsetDateTime {
    let lifetime = not_after - not_before;
    if !lifetime.is_positive() {
        return not_before;
    }
    let safety = (lifetime / SAFETY_DIVISOR).min(SAFETY_MAX);
    let margin = policy.margin(lifetime).max(safety);
    let base = lifetime - margin;
    // Earlier, never later: and no more than half of the way, so that a short life is lived.
    let spread = (lifetime / JITTER_DIVISOR).min(base / 2);
    let at = not_before + base - part_of(spread, seed);
    at.replace_nanosecond(0).unwrap_or(at).max(not_before)
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
    spread / (1 << 20) * step
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
        // Longer than the life: the default.
        assert_eq!(due(RenewPolicy::Before(Duration::days(91))), after(60));
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

    proptest! {
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
