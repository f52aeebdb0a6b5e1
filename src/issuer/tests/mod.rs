//! What is decided about issuers without a cluster, and the batteries.

mod delegate;
mod scene;
mod vault;

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use time::Duration;

use super::conformance::{any_reference, battery, outcome};
use super::*;
use crate::api::certmanager::IssuerSpec;
use crate::causes::chain;
use crate::names::ObjectRef;
use crate::pki::authority::CertificateAuthority;
use crate::pki::key::KeyEncoding;
use crate::pki::profile::{CaProfile, Pointers};
use crate::pki::testing::{NOW, key, openssl, root, serial, server};
use crate::retry::Retry;

fn name() -> IssuerName {
    IssuerName {
        kind: "Issuer".to_owned(),
        namespace: "treasury".to_owned(),
        name: "mint".to_owned(),
    }
}

fn secret_at() -> ObjectRef {
    ObjectRef::new("treasury", "mint-ca")
}

fn secret(fields: &[(&str, &str)]) -> Secret {
    let data: BTreeMap<String, ByteString> = fields
        .iter()
        .map(|(name, text)| ((*name).to_owned(), ByteString(text.as_bytes().to_vec())))
        .collect();
    Secret {
        data: Some(data),
        ..Secret::default()
    }
}

fn secret_of(ca: &CertificateAuthority) -> Secret {
    let key = ca.key().to_pem(KeyEncoding::Pkcs1);
    secret(&[
        ("tls.crt", &ca.certificate_pem()),
        ("tls.key", key.expose()),
        ("ca.crt", &ca.anchors().to_pem()),
    ])
}

fn signer_of(content: &Secret) -> Result<Signer, IssuerError> {
    Signer::ca(name(), secret_at(), Some(content), Pointers::default())
}

fn observed(spec: serde_json::Value) -> Observed {
    Observed {
        name: name(),
        spec: serde_json::from_value::<IssuerSpec>(spec).unwrap(),
        status: None,
        generation: Some(3),
        secret_namespace: "treasury".to_owned(),
    }
}

/// The battery, for a signer that is at hand.
async fn native(signer: Signer) {
    battery(NOW, async |profile, key| outcome(&signer, profile, key)).await;
    let issued = outcome(&signer, &server(), &key());
    let Outcome::Issued(issuance) = issued else {
        panic!("{issued:?}")
    };
    assert!(
        signer
            .anchors()
            .is_none_or(|known| *known == issuance.anchors)
    );
}

#[tokio::test]
async fn a_ca_issuer_passes_the_battery() {
    native(signer_of(&secret_of(&root("Mint"))).unwrap()).await;
}

#[tokio::test]
async fn a_ca_issuer_with_an_intermediate_passes_the_battery() {
    let profile = CaProfile::new("Mint issuing", Duration::days(365));
    let issuing = root("Mint")
        .sign_ca(&profile, key(), serial(2), NOW)
        .unwrap();
    native(signer_of(&secret_of(&issuing)).unwrap()).await;
}

#[tokio::test]
async fn a_self_signed_issuer_passes_the_battery() {
    native(Signer::self_signed(name())).await;
}

#[test]
fn a_secret_that_holds_no_ca_is_named_with_the_field_and_the_way_out() {
    let (ours, theirs) = (root("Ours"), root("Theirs"));
    let certificate = ours.certificate_pem();
    let foreign = theirs.key().to_pem(KeyEncoding::Pkcs8);
    let cases = [
        (None, "IssuerSecretNotFound", "does not exist"),
        (Some(secret(&[])), "IssuerSecretInvalid", "has no tls.crt"),
        (
            Some(secret(&[("tls.crt", &certificate)])),
            "IssuerSecretInvalid",
            "has no tls.key",
        ),
        (
            Some(secret(&[
                ("tls.crt", &certificate),
                ("tls.key", foreign.expose()),
            ])),
            "IssuerSecretInvalid",
            "tls.key is not the key of CN=Ours",
        ),
        (
            Some(secret(&[
                ("tls.crt", "nonsense"),
                ("tls.key", foreign.expose()),
            ])),
            "IssuerSecretInvalid",
            "cannot read the CA's certificate in tls.crt",
        ),
    ];
    for (content, reason, text) in cases {
        let error =
            Signer::ca(name(), secret_at(), content.as_ref(), Pointers::default()).unwrap_err();
        let message = chain(&error);
        assert_eq!(error.reason(), reason, "{message}");
        assert_eq!(error.retry(), Retry::WhenChanged);
        for part in ["Issuer treasury/mint", "treasury/mint-ca", text] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    }
}

#[test]
fn an_expired_ca_and_a_leaf_that_would_outlive_it_say_so() {
    let profile = CaProfile::new("Mint", Duration::days(30));
    let ca = CertificateAuthority::self_signed(&profile, key(), serial(1), NOW).unwrap();
    let signer = signer_of(&secret_of(&ca)).unwrap();
    let (issuer, profile, key) = (any_reference(), server(), key());
    let request = SigningRequest {
        issuer: &issuer,
        namespace: "treasury",
        name: "ledger-server-cert-r1",
        owner: None,
        profile: &profile,
        key: &key,
    };
    let expired = signer
        .sign(&request, serial(2), NOW + Duration::days(31))
        .unwrap_err();
    assert_eq!(expired.reason(), "IssuerSecretInvalid");
    assert!(
        chain(&expired).contains("the CA CN=Mint expired at"),
        "{}",
        chain(&expired)
    );
    let outlives = signer.sign(&request, serial(2), NOW).unwrap_err();
    assert_eq!(outlives.reason(), "CertificateOutlivesIssuer");
    assert!(
        chain(&outlives).contains("at most 720h"),
        "{}",
        chain(&outlives)
    );
}

#[test]
fn the_spec_says_how_an_issuer_signs() {
    let error = observed(json!({})).kind().unwrap_err();
    assert_eq!(error.reason(), "IssuerNotSupported");
    assert!(
        error.to_string().contains("does not say how it signs"),
        "{error}"
    );
    let acme = observed(json!({"acme": {}})).kind().unwrap();
    let roots = String::new();
    assert_eq!(acme, IssuerKind::Delegated { roots });
    let vault = observed(json!({"vault": {"server": "https://vault"}}));
    assert!(matches!(vault.kind(), Ok(IssuerKind::Vault(_))));
    let spec = json!({"ca": {"secretName": "mint-ca", "ocspServers": ["http://ocsp.mint"]}});
    let IssuerKind::Ca { secret, pointers } = observed(spec).kind().unwrap() else {
        panic!("not a ca")
    };
    assert_eq!(secret, secret_at());
    assert_eq!(pointers.ocsp_servers, ["http://ocsp.mint"]);
    let own = observed(json!({"selfSigned": {}})).kind().unwrap();
    assert_eq!(own, IssuerKind::SelfSigned);
}

#[test]
fn an_issuer_that_cert_manager_holds_back_is_waited_for() {
    let mut issuer = observed(json!({"selfSigned": {}}));
    assert_eq!(issuer.is_held_back(), None);
    let condition = |status: &str, generation: i64| {
        serde_json::from_value(json!({"conditions": [{
            "type": "Ready", "status": status, "message": "not today",
            "observedGeneration": generation,
        }]}))
        .unwrap()
    };
    issuer.status = Some(condition("False", 3));
    assert_eq!(issuer.is_held_back().as_deref(), Some("not today"));
    // What is said of an older spec does not count.
    issuer.status = Some(condition("False", 2));
    assert_eq!(issuer.is_held_back(), None);
    issuer.status = Some(condition("True", 3));
    assert_eq!(issuer.is_held_back(), None);
}

#[test]
fn a_ca_key_that_cannot_be_used_is_said_with_the_name_of_its_secret() {
    let certificate = root("Mint").certificate_pem();
    let cases: [(&[&str], &str); 4] = [
        (&["ecparam", "-name", "secp521r1", "-genkey"], "ECDSA P-521"),
        (
            &["genrsa", "-aes128", "-passout", "pass:opensesame", "2048"],
            "encrypted",
        ),
        (
            &[
                "genrsa",
                "-traditional",
                "-aes128",
                "-passout",
                "pass:opensesame",
                "2048",
            ],
            "encrypted",
        ),
        (&["genrsa", "1024"], "1024 bits is too small"),
    ];
    for (arguments, text) in cases {
        let key = openssl(arguments, "").unwrap();
        let content = secret(&[("tls.crt", &certificate), ("tls.key", &key)]);
        let error = signer_of(&content).unwrap_err();
        let message = chain(&error);
        assert_eq!(
            (error.reason(), error.retry()),
            ("IssuerSecretInvalid", Retry::WhenChanged)
        );
        for part in ["treasury/mint-ca", "tls.key", text] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    }
}
