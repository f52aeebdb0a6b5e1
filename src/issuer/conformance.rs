//! What every issuer must do: one battery, run on each.

use super::{IssuerError, Signer, SigningRequest};
use crate::api::IssuerRef;
use crate::pki::authority::SignError;
use crate::pki::chain::{Expectation, KeyedChain};
use crate::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use crate::pki::profile::LeafProfile;
use crate::pki::testing::{NOW, client, openssl_verify, serial, server};

/// Runs every check on `signer`.
pub(crate) fn battery(signer: &Signer) {
    what_is_issued_is_believed_by_strangers(signer);
    the_certificate_is_for_the_key_that_was_given(signer);
    anchors_known_before_are_those_that_come_with_the_certificate(signer);
    a_profile_that_breaks_a_rule_is_refused(signer);
}

fn request<'a>(
    issuer: &'a IssuerRef,
    profile: &'a LeafProfile,
    key: &'a PrivateKey,
) -> SigningRequest<'a> {
    SigningRequest {
        issuer,
        namespace: "treasury",
        profile,
        key,
    }
}

pub(crate) fn any_reference() -> IssuerRef {
    IssuerRef {
        api_group: None,
        kind: "Issuer".to_owned(),
        name: "mint".to_owned(),
    }
}

fn what_is_issued_is_believed_by_strangers(signer: &Signer) {
    let reference = any_reference();
    for algorithm in [
        KeyAlgorithm::EcdsaP256,
        KeyAlgorithm::EcdsaP384,
        KeyAlgorithm::Ed25519,
    ] {
        for (profile, purpose) in [(server(), "sslserver"), (client(), "sslclient")] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let request = request(&reference, &profile, &key);
            let issuance = signer.sign(&request, serial(4), NOW).unwrap();
            openssl_verify(&issuance.chain, &issuance.anchors, purpose, NOW).unwrap();
            let keyed = KeyedChain::from_parts(issuance.chain, key, KeyEncoding::Pkcs1).unwrap();
            let wanted = Expectation::of(&profile, NOW);
            let verified = keyed.verify(&issuance.anchors, &wanted).unwrap();
            assert_eq!(verified.facts().issuer, issuance.signer.subject);
        }
    }
}

fn the_certificate_is_for_the_key_that_was_given(signer: &Signer) {
    let (reference, profile) = (any_reference(), server());
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let issuance = signer.sign(&request(&reference, &profile, &key), serial(4), NOW);
    let another = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let chain = issuance.unwrap().chain;
    assert!(KeyedChain::from_parts(chain.clone(), another, KeyEncoding::Pkcs1).is_err());
    assert!(KeyedChain::from_parts(chain, key, KeyEncoding::Pkcs1).is_ok());
}

fn anchors_known_before_are_those_that_come_with_the_certificate(signer: &Signer) {
    let (reference, profile) = (any_reference(), client());
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let issuance = signer.sign(&request(&reference, &profile, &key), serial(4), NOW);
    let anchors = issuance.unwrap().anchors;
    assert!(signer.anchors().is_none_or(|known| *known == anchors));
}

fn a_profile_that_breaks_a_rule_is_refused(signer: &Signer) {
    let reference = any_reference();
    let mut profile = server();
    profile.dns_names.push("not a name".to_owned());
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let error = signer
        .sign(&request(&reference, &profile, &key), serial(4), NOW)
        .unwrap_err();
    let IssuerError::Sign { source, .. } = &error else {
        panic!("{error}")
    };
    assert!(matches!(**source, SignError::Profile(_)), "{source}");
    assert!(
        error.describe().contains("\"not a name\""),
        "{}",
        error.describe()
    );
}
