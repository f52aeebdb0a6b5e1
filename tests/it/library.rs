//! `bouncert::pki` as a library for others: nothing else of the crate is named here.

use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::bundle::TrustBundle;
use bouncert::pki::chain::{Expectation, KeyedChain, Verdict};
use bouncert::pki::csr;
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::{CaProfile, LeafProfile, LeafUsage};
use bouncert::pki::renewal::{RenewPolicy, jitter_seed, renew_at};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

/// The caller's clock, and its random numbers.
const NOW: OffsetDateTime = datetime!(2030-06-01 12:00 UTC);
const RANDOM: [[u8; 20]; 3] = [[7; 20], [8; 20], [9; 20]];

#[test]
fn a_stranger_makes_a_ca_serves_a_request_proves_the_answer_and_plans_its_renewal() {
    let [first, second, third] = RANDOM.map(Serial::from_random);

    // A root, an intermediate below it, and what both are kept as.
    let root_key = PrivateKey::generate(KeyAlgorithm::EcdsaP384).unwrap();
    let profile = CaProfile::new("Orchard root", Duration::days(3650));
    let root = CertificateAuthority::self_signed(&profile, root_key, first, NOW).unwrap();
    let issuing_key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let profile = CaProfile::new("Orchard issuing", Duration::days(700));
    let issuing = root.sign_ca(&profile, issuing_key, second, NOW).unwrap();
    let (stored, stored_key) = (
        issuing.certificate_pem(),
        issuing.key().to_pem(KeyEncoding::Pkcs8),
    );

    // Who wants a certificate keeps the key and sends a request.
    let wanted = LeafProfile {
        dns_names: vec!["press.orchard.example".to_owned()],
        lifetime: Duration::days(30),
        ..LeafProfile::new(LeafUsage::ServerAndClient, "press.orchard.example")
    };
    let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    let request = csr::request(&wanted, &key).unwrap();

    // Who signs has the CA from where it was kept, and proof that the asker has the key.
    let ca = CertificateAuthority::load(&stored, stored_key.expose(), None).unwrap();
    let asked = csr::read(&request).unwrap();
    assert_eq!(asked.subject, "CN=press.orchard.example");
    let issued = ca.sign(&wanted, &asked.public_key, third, NOW).unwrap();

    // Nothing is kept before it was proved against the bundle that clients hold.
    let bundle = TrustBundle::from_pem(&root.certificate_pem()).unwrap();
    let expectation = Expectation::of(&wanted, NOW);
    let keyed = KeyedChain::from_parts(issued.chain, key, KeyEncoding::Pkcs8).unwrap();
    let verified = keyed.verify(&bundle, &expectation).unwrap();
    let facts = verified.facts().clone();
    let renewal = renew_at(
        facts.not_before,
        facts.not_after,
        RenewPolicy::TwoThirds,
        jitter_seed("orchard/press"),
    );
    assert!(facts.not_before < renewal && renewal < facts.not_after);

    // What was kept is proved again by whoever reads it, and refused when its time is over.
    let data = verified.into_secret_data();
    let read = || KeyedChain::new(&data.tls_crt, data.tls_key.expose()).unwrap();
    read().verify(&bundle, &expectation).unwrap();
    let late = Expectation::of(&wanted, NOW + Duration::days(31));
    assert!(matches!(
        read().verify(&bundle, &late),
        Err(Verdict::Expired { .. })
    ));
}
