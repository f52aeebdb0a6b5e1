//! Whether a certificate's time has come by the API server's clock. Pure.
//!
//! A daemon or an issuer whose clock is fast makes certificates that clients refuse, and judges them
//! by the same clock. The `creationTimestamp` of the Secret that holds one is a second opinion.

use std::time::Duration;

use time::OffsetDateTime;

use crate::instants::Since;
use crate::pki::facts::CertificateFacts;

/// Longest time that is sat out until a certificate is valid: clocks are seconds apart where they are
/// kept at all, and not every issuer dates back.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What a clock says of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Season {
    /// It is valid.
    In,
    /// It will be, after so long.
    Early(Duration),
    /// It is not, and not soon.
    Out,
}

/// What the clock says that shows `now`.
pub(super) fn season(facts: &CertificateFacts, now: OffsetDateTime) -> Season {
    if now >= facts.not_after {
        return Season::Out;
    }
    match Duration::try_from(facts.not_before.since(now)) {
        Err(_) | Ok(Duration::ZERO) => Season::In,
        Ok(wait) if wait <= WAIT_MAX => Season::Early(wait),
        Ok(_) => Season::Out,
    }
}

#[cfg(test)]
mod tests {
    use time::Duration as Span;
    use time::macros::datetime;

    use super::*;
    use crate::pki::authority::{BACKDATE, CertificateAuthority, Serial};
    use crate::pki::key::{KeyAlgorithm, PrivateKey};
    use crate::pki::profile::CaProfile;

    const NOW: OffsetDateTime = datetime!(2031-09-01 05:00 UTC);

    #[test]
    fn a_certificate_is_in_season_by_the_clock_that_did_not_make_it() {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let profile = CaProfile::new("Almanac", Span::hours(2));
        let serial = Serial::from_random([7; 20]);
        let ca = CertificateAuthority::self_signed(&profile, key, serial, NOW).unwrap();
        let at = |shift: Span| season(ca.facts(), NOW + shift);
        assert_eq!(at(Span::ZERO), Season::In);
        assert_eq!(at(-BACKDATE), Season::In);
        let second = Span::seconds(1);
        assert_eq!(
            at(-BACKDATE - second),
            Season::Early(Duration::from_secs(1))
        );
        assert_eq!(at(-BACKDATE - 60 * second), Season::Early(WAIT_MAX));
        assert_eq!(at(-BACKDATE - 61 * second), Season::Out);
        assert_eq!(at(Span::hours(2) - second), Season::In);
        assert_eq!(at(Span::hours(2)), Season::Out);
    }
}
