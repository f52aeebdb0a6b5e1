//! Issuers that sign through a `CertificateRequest`: the test plays approver and controller.

use std::cell::Cell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use time::Duration;

use super::scene::{NAMESPACE, Scene, authority, now};
use crate::api::CertificateRequest;
use crate::clock::Clock;
use crate::issuer::conformance::battery;
use crate::issuer::{ANSWER_TIMEOUT, Outcome};
use crate::names::ObjectRef;
use crate::pki::authority::CertificateAuthority;
use crate::pki::csr;
use crate::pki::key::PrivateKey;
use crate::pki::profile::LeafProfile;
use crate::pki::testing::{client, key, serial, server};
use crate::retry::Retry;

const GROUP: Option<&str> = Some("awspca.cert-manager.io");
const NAME: &str = "ledger-server-cert-r3";

fn at(name: &str) -> ObjectRef {
    ObjectRef::new(NAMESPACE, name)
}

impl Scene {
    async fn found(&self, name: &str) -> Option<CertificateRequest> {
        self.cluster.get(&at(name)).await.unwrap()
    }

    async fn say(&self, name: &str, status: Value) {
        let (at, status) = (at(name), json!({ "status": status }));
        let patched = self
            .cluster
            .patch_status::<CertificateRequest>(&at, &status);
        patched.await.unwrap();
    }

    async fn answer(&self, name: &str, ca: &CertificateAuthority, profile: &LeafProfile) {
        let found = self.found(name).await.unwrap();
        let pem = String::from_utf8(BASE64.decode(&found.spec.request).unwrap()).unwrap();
        assert!(!pem.contains("PRIVATE"), "{pem}");
        let request = csr::read(&pem).unwrap();
        let issued = ca.sign(profile, &request.public_key, serial(9), now());
        let issued = issued.unwrap();
        let status = json!({
            "certificate": BASE64.encode(issued.chain.to_pem()),
            "ca": BASE64.encode(issued.anchors.to_pem()),
            "conditions": [condition("Approved", "True", ""), condition("Ready", "True", "Issued")],
        });
        self.say(name, status).await;
    }

    async fn ask_elsewhere(&self, key: &PrivateKey) -> Outcome {
        self.ask((GROUP, NAME), (&server(), key), Clock::System)
            .await
    }
}

fn condition(type_: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": format!("because {reason}"),
        "lastTransitionTime": "2031-04-05T06:07:08Z",
    })
}

fn assert_pending(outcome: &Outcome, what: &str) {
    let Outcome::Pending { on } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        *on,
        format!("CertificateRequest {NAMESPACE}/{NAME} to be {what}")
    );
    assert_eq!(outcome.retry(), Some(Retry::Backoff));
}

#[tokio::test]
async fn an_issuer_of_another_group_passes_the_battery() {
    let (scene, ca) = (Scene::new().await, authority("Foreign mint"));
    let count = Cell::new(0);
    let sign = async |profile: &LeafProfile, key: &PrivateKey| {
        count.set(count.get() + 1);
        let name = format!("ledger-r{}", count.get());
        let ask = || scene.ask((GROUP, &name), (profile, key), Clock::System);
        let first = ask().await;
        if !matches!(first, Outcome::Pending { .. }) {
            return first;
        }
        scene.answer(&name, &ca, profile).await;
        ask().await
    };
    battery(now(), sign).await;
}

#[tokio::test]
async fn a_request_states_what_is_wanted_and_of_whom() {
    let scene = Scene::new().await;
    scene
        .ask((GROUP, NAME), (&client(), &key()), Clock::System)
        .await;
    let spec = scene.found(NAME).await.unwrap().spec;
    assert_eq!(spec.issuer_ref.group.as_deref(), GROUP);
    assert_eq!(
        (spec.issuer_ref.kind.as_deref(), &*spec.issuer_ref.name),
        (Some("Issuer"), "mint")
    );
    assert_eq!(spec.duration.as_deref(), Some("2160h0m0s"));
    assert_eq!(spec.usages, ["digital signature", "client auth"]);
}

#[tokio::test]
async fn a_request_is_waited_for_until_it_is_approved_and_signed() {
    let (scene, ca, key) = (Scene::new().await, authority("Foreign mint"), key());
    assert_pending(&scene.ask_elsewhere(&key).await, "approved and signed");
    let first = scene.found(NAME).await.unwrap();
    assert_pending(&scene.ask_elsewhere(&key).await, "approved");
    let approved = json!({"conditions": [condition("Approved", "True", "Policy")]});
    scene.say(NAME, approved).await;
    assert_pending(&scene.ask_elsewhere(&key).await, "signed");
    scene.answer(NAME, &ca, &server()).await;
    let outcome = scene.ask_elsewhere(&key).await;
    let Outcome::Issued(issuance) = &outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(issuance.chain.intermediates().len(), 1);
    assert_eq!(outcome.retry(), None);
    let last = scene.found(NAME).await.unwrap();
    assert_eq!(first.metadata.uid, last.metadata.uid, "a repeat adopts");
}

#[tokio::test]
async fn a_request_with_another_key_is_replaced() {
    let scene = Scene::new().await;
    scene.ask_elsewhere(&key()).await;
    let first = scene.found(NAME).await.unwrap();
    let denied = json!({"conditions": [condition("Denied", "True", "Policy")]});
    scene.say(NAME, denied).await;
    assert_pending(&scene.ask_elsewhere(&key()).await, "approved and signed");
    let second = scene.found(NAME).await.unwrap();
    assert_ne!(first.metadata.uid, second.metadata.uid);
}

#[tokio::test]
async fn refusals_and_failures_are_told_apart_with_their_reasons() {
    let cases = [
        (condition("Denied", "True", "Policy"), None),
        (condition("Ready", "False", "Denied"), None),
        (
            condition("InvalidRequest", "True", "BadUsages"),
            Some("CertificateRequestFailed"),
        ),
        (
            condition("Ready", "False", "Failed"),
            Some("CertificateRequestFailed"),
        ),
        (
            condition("Ready", "True", "Issued"),
            Some("IssuerAnswerUnusable"),
        ),
    ];
    for (said, failure) in cases {
        let (scene, key) = (Scene::new().await, key());
        scene.ask_elsewhere(&key).await;
        let why = said["message"].as_str().unwrap().to_owned();
        scene.say(NAME, json!({"conditions": [said]})).await;
        let outcome = scene.ask_elsewhere(&key).await;
        assert_eq!(outcome.retry(), Some(Retry::WhenChanged));
        match (outcome, failure) {
            (Outcome::Denied { reason }, None) => assert!(reason.ends_with(&why), "{reason}"),
            (Outcome::Failed(error), Some(reason)) => assert_eq!(error.reason(), reason),
            (outcome, _) => panic!("{outcome:?}"),
        }
    }
}

#[tokio::test]
async fn a_request_that_nobody_answers_times_out_and_is_taken_away() {
    let (scene, key) = (Scene::new().await, key());
    scene.ask_elsewhere(&key).await;
    let later = Clock::Fixed(now() + ANSWER_TIMEOUT + Duration::minutes(1));
    let outcome = scene.ask((GROUP, NAME), (&server(), &key), later).await;
    let Outcome::Failed(error) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (error.reason(), error.retry()),
        ("IssuerSilent", Retry::Backoff)
    );
    assert!(scene.found(NAME).await.is_none());
}

#[tokio::test]
async fn an_acme_issuer_is_asked_through_a_request_as_well() {
    let scene = Scene::new().await;
    scene
        .issuer(json!({"acme": {"server": "https://acme.example"}}))
        .await;
    let outcome = scene
        .ask((None, NAME), (&server(), &key()), Clock::System)
        .await;
    assert_pending(&outcome, "approved and signed");
}

#[tokio::test]
async fn an_acme_answer_without_its_root_is_believed_only_with_a_root_that_the_issuer_names() {
    let (ca, stranger) = (authority("Harbour"), authority("Stranger"));
    for (bundle, is_believed) in [(None, false), (Some(&stranger), false), (Some(&ca), true)] {
        let scene = Scene::new().await;
        let mut acme = json!({"server": "https://acme.example"});
        if let Some(named) = bundle {
            acme["caBundle"] = json!(BASE64.encode(named.anchors().to_pem()));
        }
        scene.issuer(json!({ "acme": acme })).await;
        let (profile, key) = (server(), key());
        let ask = || scene.ask((None, NAME), (&profile, &key), Clock::System);
        assert_pending(&ask().await, "approved and signed");
        scene.answer(NAME, &ca, &server()).await;
        // cert-manager leaves `ca` empty there; the answer has leaf and intermediate.
        scene.say(NAME, json!({ "ca": null })).await;
        match ask().await {
            Outcome::Issued(issued) => {
                assert!(is_believed);
                assert_eq!(&issued.anchors, ca.anchors());
                assert_eq!(issued.chain.intermediates().len(), 1);
            }
            Outcome::Failed(error) => {
                assert!(!is_believed);
                assert!(error.describe().contains("spec.acme.caBundle"), "{error}");
            }
            outcome @ (Outcome::Pending { .. } | Outcome::Denied { .. }) => panic!("{outcome:?}"),
        }
    }
}
