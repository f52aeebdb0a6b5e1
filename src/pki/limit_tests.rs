//! Limits of lives: of cross-certificates, of clocks that are wrong, of lives short and long.

use proptest::prelude::*;
use time::{Duration, OffsetDateTime};

use super::authority::{BACKDATE, CertificateAuthority};
use super::chain::{CertificateChain, Expectation, Verdict};
use super::facts::CertificateFacts;
use super::profile::{CaProfile, LeafProfile};
use super::testing::{NOW, key, openssl_verify, root, serial, server};

fn ca(name: &str, lifetime: Duration, path_length: Option<u8>) -> CertificateAuthority {
    let profile = CaProfile {
        path_length,
        ..CaProfile::new(name, lifetime)
    };
    CertificateAuthority::self_signed(&profile, key(), serial(1), NOW).unwrap()
}

fn judge(
    chain: &CertificateChain,
    ca: &CertificateAuthority,
    at: OffsetDateTime,
) -> Result<(), Verdict> {
    let wanted = Expectation::of(&server(), at);
    chain.verify(ca.anchors(), &wanted).map(drop)
}

#[test]
fn a_cross_certificate_ends_with_the_first_of_both_and_keeps_the_new_cas_limits() {
    let new = ca("New", Duration::days(700), Some(0));
    for (days, ends) in [(30, 30), (3000, 700)] {
        let old = ca("Old", Duration::days(days), None);
        let cross = old.cross_sign(new.certificate(), serial(3), NOW).unwrap();
        let facts = CertificateFacts::read(&cross).unwrap();
        assert_eq!((&*facts.subject, &*facts.issuer), ("CN=New", "CN=Old"));
        assert_eq!(facts.not_after, NOW + Duration::days(ends));
        assert!(facts.not_before >= old.facts().not_before);
        assert_eq!((facts.is_ca, facts.path_length), (true, Some(0)));
        assert_eq!(facts.spki_sha256, new.facts().spki_sha256);
    }
    let expired = ca("Old", Duration::days(30), None);
    let later = NOW + Duration::days(31);
    assert!(
        expired
            .cross_sign(new.certificate(), serial(3), later)
            .is_err()
    );
}

#[test]
fn a_clock_that_is_five_minutes_behind_is_forgiven_and_more_is_told() {
    let (old, now) = (root("Clock"), NOW + Duration::days(1));
    let issued = old
        .sign(&server(), key().public_key(), serial(2), now)
        .unwrap();
    let at = |skew| judge(&issued.chain, &old, now + skew);
    assert_eq!(at(-BACKDATE), Ok(()));
    let behind = at(-BACKDATE - Duration::seconds(1)).unwrap_err();
    assert!(matches!(behind, Verdict::NotYetValid { .. }), "{behind}");
    let life = server().lifetime;
    assert_eq!(at(life), Ok(()));
    let ahead = at(life + Duration::seconds(1)).unwrap_err();
    assert!(matches!(ahead, Verdict::Expired { .. }), "{ahead}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn lives_from_five_minutes_to_thirty_years_are_exact(seconds in 300_i64..946_080_000) {
        // Past 2050 dates are written another way (RFC 5280 4.1.2.5).
        let long = ca("Long", Duration::days(30 * 366), None);
        let profile = LeafProfile { lifetime: Duration::seconds(seconds), ..server() };
        let issued = long.sign(&profile, key().public_key(), serial(2), NOW).unwrap();
        let ends = NOW + profile.lifetime;
        prop_assert_eq!(issued.chain.leaf_facts().unwrap().not_after, ends);
        prop_assert_eq!(judge(&issued.chain, &long, ends), Ok(()));
        prop_assert!(judge(&issued.chain, &long, ends + Duration::seconds(1)).is_err());
        // OpenSSL takes the last second for the first that is too late.
        let last = ends - Duration::seconds(1);
        openssl_verify(&issued.chain, &issued.anchors, "sslserver", last).unwrap();
    }
}
