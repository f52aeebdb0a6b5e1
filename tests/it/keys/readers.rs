//! Every reader of documents that need not be what their field says, with thousands of damaged keys.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bouncert::api::certmanager::CertificateRequest;
use bouncert::causes::chain;
use bouncert::issuer::{IssuerName, Signer};
use bouncert::names::ObjectRef;
use bouncert::pgbouncer::Version;
use bouncert::pgbouncer::ini::{self, Ini};
use bouncert::pgbouncer::tls::{ClientTls, Identity};
use bouncert::pgbouncer::userlist::{Stored, Userlist};
use bouncert::pki::authority::CertificateAuthority;
use bouncert::pki::bundle::TrustBundle;
use bouncert::pki::chain::{CertificateChain, KeyedChain};
use bouncert::pki::facts::read_chain;
use bouncert::pki::key::PrivateKey;
use bouncert::pki::profile::{LeafProfile, LeafUsage, Pointers};
use bouncert::pki::{answer, csr};
use bouncert::policy::{CertificateRequestPolicy, Policies, Request};
use bouncert::redacted::Redacted;
use k8s_openapi::api::core::v1::Secret;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::mutant::{mutations, originals, pair};

/// All that errors say: to people, and to whoever prints them.
#[derive(Default)]
struct Told(String);

impl Told {
    fn of<T, E: Error>(&mut self, reader: &str, read: Result<T, E>) {
        if let Err(error) = read {
            let mut cause: Option<&dyn Error> = Some(&error);
            while let Some(error) = cause {
                let _ = writeln!(self.0, "{reader}: {error} {error:?}");
                cause = error.source();
            }
            let _ = writeln!(self.0, "{reader}: {}", chain(&error));
        }
    }
}

fn secret(data: &Value) -> Secret {
    let data: serde_json::Map<String, Value> = data
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, value)| (key.clone(), json!(STANDARD.encode(value.as_str().unwrap()))))
        .collect();
    serde_json::from_value(json!({"metadata": {"name": "mint"}, "data": data})).unwrap()
}

/// Reads a document as everything that it could be taken for.
fn read_all_ways(text: &str) -> String {
    let mut told = Told::default();
    let (certificate, key) = pair();
    told.of("key", PrivateKey::from_pem(text));
    told.of("chain and key", KeyedChain::new(certificate, text));
    told.of("key as chain", KeyedChain::new(text, key));
    told.of("chain", CertificateChain::from_pem(text));
    told.of("facts", read_chain(text));
    told.of("bundle", TrustBundle::from_pem(text));
    told.of("answer", answer::assemble(text, &[text]));
    told.of("answer's CA", answer::assemble(certificate, &[text]));
    told.of("request", csr::read(text));
    told.of("CA", CertificateAuthority::load(text, text, Some(text)));
    as_issuer_secret(text, &mut told);
    told.of(
        "identity",
        Identity::from_pem(certificate.as_bytes(), text.as_bytes()),
    );
    told.of(
        "identity's chain",
        Identity::from_pem(text.as_bytes(), key.as_bytes()),
    );
    told.of(
        "roots",
        ClientTls::verify_full("ledger.svc", text.as_bytes(), None),
    );
    as_userlist(text, &mut told);
    as_configuration(text, &mut told);
    as_policies(text, &mut told);
    as_request(text, &mut told);
    told.0
}

fn as_issuer_secret(text: &str, told: &mut Told) {
    let (certificate, key) = pair();
    let fields = [
        json!({"tls.crt": certificate, "tls.key": text}),
        json!({"tls.crt": text, "tls.key": key}),
        json!({"tls.crt": text, "tls.key": certificate}),
        json!({"tls.crt": certificate, "tls.key": key, "ca.crt": text}),
        json!({"tls.crt": text}),
    ];
    for data in fields {
        let name = IssuerName {
            kind: "Issuer".to_owned(),
            namespace: "treasury".to_owned(),
            name: "mint".to_owned(),
        };
        let at = ObjectRef::new("treasury", "mint");
        let signer = Signer::ca(name, at, Some(&secret(&data)), Pointers::default());
        told.of("issuer", signer);
    }
}

fn as_userlist(text: &str, told: &mut Told) {
    let stored = |text: &str| Stored::Plain(Redacted::new(text.to_owned()));
    told.of("user", Userlist::new().insert(text, stored("x")));
    told.of("password", Userlist::new().insert("clerk", stored(text)));
}

fn as_configuration(text: &str, told: &mut Told) {
    let version = Version::parse("1.23.1").unwrap();
    for text in [
        text.to_owned(),
        format!("[pgbouncer]\n{text}"),
        format!("[{text}]\n"),
    ] {
        match Ini::parse(&text) {
            Err(error) => told.of::<(), _>("ini", Err(error)),
            Ok(ini) => {
                for problem in ini::check(&ini, version).err().unwrap_or_default() {
                    told.of::<(), _>("setting", Err(problem));
                }
            }
        }
    }
    let value = text.lines().collect::<Vec<_>>().join(" ");
    match Ini::parse(&format!("[pgbouncer]\nlisten_port = {value}\n")) {
        Err(error) => told.of::<(), _>("value", Err(error)),
        Ok(ini) => {
            for problem in ini::check(&ini, version).unwrap_err() {
                told.of::<(), _>("value", Err(problem));
            }
        }
    }
}

fn as_policies(text: &str, told: &mut Told) {
    told.of("policies", Policies::parse(text));
    let specs = [
        json!(text),
        json!({"selector": text}),
        json!({"selector": {}, "allowed": text}),
        json!({"selector": {}, "allowed": {"isCA": text}}),
        json!({"selector": {}, "constraints": {"privateKey": {"algorithm": text}}}),
    ];
    for spec in specs {
        let policy = json!({
            "apiVersion": "policy.cert-manager.io/v1alpha1", "kind": "CertificateRequestPolicy",
            "metadata": {"name": "house"}, "spec": spec,
        });
        told.of("policy", Policies::parse(&policy.to_string()));
        if let Ok(policy) = serde_json::from_value::<CertificateRequestPolicy>(policy) {
            let _ = writeln!(
                told.0,
                "{:?}",
                Policies::of_cluster(&[policy]).review(asked())
            );
        }
    }
}

/// A request that policies judge.
fn asked() -> &'static Request {
    static ASKED: OnceLock<Request> = OnceLock::new();
    ASKED.get_or_init(|| {
        let key = PrivateKey::from_pem(&pair().1).unwrap();
        let profile = LeafProfile::new(LeafUsage::Client, "clerk");
        let request = csr::request(&profile, &key).unwrap();
        Request::try_from(&certificate_request(&request)).unwrap()
    })
}

fn certificate_request(text: &str) -> CertificateRequest {
    serde_json::from_value(json!({
        "metadata": {"name": "clerk", "namespace": "treasury"},
        "spec": {"request": STANDARD.encode(text), "issuerRef": {"name": "mint"}},
    }))
    .unwrap()
}

fn as_request(text: &str, told: &mut Told) {
    told.of(
        "spec.request",
        Request::try_from(&certificate_request(text)),
    );
}

#[test]
fn no_key_shows_in_an_error_however_it_is_damaged_and_whatever_field_it_is_in() {
    let config = ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let which = 0..originals().len();
    proptest!(config, |(which in which, mutations in mutations())| {
        let original = &originals()[which];
        let text = original.mutated(&mutations);
        let told = read_all_ways(&text);
        let shown = original.shown_in(&told);
        prop_assert_eq!(shown, None, "{} as {}:\n{}", original.name, text, told);
    });
}

/// The case of an event that showed a CA's key.
#[test]
fn a_blank_line_anywhere_leaves_a_key_readable_and_an_error_silent() {
    for original in originals() {
        let lines: Vec<&str> = original.pem.lines().collect();
        for at in 0..=lines.len() {
            let mut lines = lines.clone();
            lines.insert(at, "");
            let text = lines.join("\n");
            let sound = PrivateKey::from_pem(&original.pem);
            match (PrivateKey::from_pem(&text), sound) {
                (Ok(read), Ok(sound)) => assert_eq!(read.public_key(), sound.public_key()),
                (Err(read), Err(sound)) => assert_eq!(read, sound, "{}", original.name),
                (read, sound) => panic!("{}: {read:?}, {sound:?}", original.name),
            }
            assert_eq!(original.shown_in(&read_all_ways(&text)), None);
        }
    }
}
