//! What every issuer must do: one battery, run on each.

use time::OffsetDateTime;

use super::{Issuance, IssuerError, Outcome, Signer, SigningRequest};
use crate::api::IssuerRef;
use crate::causes::chain;
use crate::pki::chain::{Expectation, KeyedChain};
use crate::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use crate::pki::profile::LeafProfile;
use crate::pki::testing::{NOW, client, openssl_verify, serial, server};
use crate::retry::Retry;

/// Runs every check on an issuer that signs by `sign`, for certificates that are valid at `now`.
pub(crate) async fn battery(
    now: OffsetDateTime,
    sign: impl AsyncFn(&LeafProfile, &PrivateKey) -> Outcome,
) {
    what_is_issued_is_believed_by_strangers(now, &sign).await;
    the_certificate_is_for_the_key_that_was_given(&sign).await;
    the_life_is_the_one_that_was_asked_for(now, &sign).await;
    a_profile_that_breaks_a_rule_is_refused(&sign).await;
}

pub(crate) fn any_reference() -> IssuerRef {
    IssuerRef {
        api_group: None,
        kind: "Issuer".to_owned(),
        name: "mint".to_owned(),
    }
}

/// What a signer that is at hand makes of a request, at [`NOW`].
pub(crate) fn outcome(signer: &Signer, profile: &LeafProfile, key: &PrivateKey) -> Outcome {
    let request = SigningRequest {
        issuer: &any_reference(),
        namespace: "treasury",
        name: "ledger-server-cert-r1",
        owner: None,
        profile,
        key,
    };
    match signer.sign(&request, serial(4), NOW) {
        Ok(issuance) => Outcome::Issued(Box::new(issuance)),
        Err(error) => Outcome::Failed(error),
    }
}

fn issued(outcome: Outcome) -> Issuance {
    match outcome {
        Outcome::Issued(issuance) => *issuance,
        Outcome::Failed(error) => panic!("{}", chain(&error)),
        other @ (Outcome::Pending { .. } | Outcome::Denied { .. }) => panic!("{other:?}"),
    }
}

fn key() -> PrivateKey {
    PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap()
}

async fn what_is_issued_is_believed_by_strangers(
    now: OffsetDateTime,
    sign: &impl AsyncFn(&LeafProfile, &PrivateKey) -> Outcome,
) {
    for algorithm in [
        KeyAlgorithm::EcdsaP256,
        KeyAlgorithm::EcdsaP384,
        KeyAlgorithm::Ed25519,
    ] {
        for (profile, purpose) in [(server(), "sslserver"), (client(), "sslclient")] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let issuance = issued(sign(&profile, &key).await);
            openssl_verify(&issuance.chain, &issuance.anchors, purpose, now).unwrap();
            let keyed = KeyedChain::from_parts(issuance.chain, key, KeyEncoding::Pkcs1).unwrap();
            let wanted = Expectation::of(&profile, now);
            let verified = keyed.verify(&issuance.anchors, &wanted).unwrap();
            assert_eq!(verified.facts().issuer, issuance.signer.subject);
        }
    }
}

async fn the_certificate_is_for_the_key_that_was_given(
    sign: &impl AsyncFn(&LeafProfile, &PrivateKey) -> Outcome,
) {
    let (ours, another) = (key(), key());
    let chain = issued(sign(&server(), &ours).await).chain;
    assert!(KeyedChain::from_parts(chain.clone(), another, KeyEncoding::Pkcs1).is_err());
    assert!(KeyedChain::from_parts(chain, ours, KeyEncoding::Pkcs1).is_ok());
}

async fn the_life_is_the_one_that_was_asked_for(
    now: OffsetDateTime,
    sign: &impl AsyncFn(&LeafProfile, &PrivateKey) -> Outcome,
) {
    let mut profile = client();
    profile.lifetime = time::Duration::hours(7);
    let issuance = issued(sign(&profile, &key()).await);
    let facts = issuance.chain.leaf_facts().unwrap();
    let off = facts.not_after - (now + profile.lifetime);
    assert!(off.abs() < time::Duration::minutes(2), "{off} off");
    assert!(facts.is_valid_at(now) && !issuance.clamped);
}

async fn a_profile_that_breaks_a_rule_is_refused(
    sign: &impl AsyncFn(&LeafProfile, &PrivateKey) -> Outcome,
) {
    let mut profile = server();
    profile.dns_names.push("not a name".to_owned());
    let outcome = sign(&profile, &key()).await;
    assert_eq!(outcome.retry(), Some(Retry::Never));
    let Outcome::Failed(error) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(
        matches!(
            error,
            IssuerError::Sign { .. } | IssuerError::Request { .. }
        ),
        "{error}"
    );
    assert_eq!(error.reason(), "InvalidCertificateSpec");
    assert!(
        chain(&error).contains("\"not a name\""),
        "{}",
        chain(&error)
    );
}
