//! What a user may choose about issuing, through the API: keys that stay, lives that are clamped,
//! issuers that take their time, certificates that sign themselves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bouncert::api::{CertificateRequest, Issuer};
use bouncert::blueprint::certificates::Wanted;
use bouncert::blueprint::choices::RotationPolicy;
use bouncert::clock::Clock;
use bouncert::material::{IssueOutcome, Revisioned};
use bouncert::names::{Alias, ObjectRef, Revision};
use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::bundle::TrustBundle;
use bouncert::pki::chain::Expectation;
use bouncert::pki::csr;
use bouncert::pki::key::{KeyAlgorithm, PrivateKey};
use bouncert::pki::profile::{CaProfile, LeafProfile, LeafUsage, Outliving};
use k8s_openapi::api::core::v1::Event;
use serde_json::json;
use time::Duration;

use super::material::{NAMESPACE, Scene};

const SECOND: fn() -> Revision = || Revision::FIRST.next().unwrap();

#[tokio::test]
async fn a_rotation_makes_a_new_key_unless_the_old_one_is_asked_for() {
    let scene = Scene::new().await;
    let mut wanted = scene.wanted(Alias::Client, "first");
    let first = scene.issue(&wanted, Revision::FIRST).await;
    let second = scene.issue(&wanted, SECOND()).await;
    assert_ne!(first.facts.spki_sha256, second.facts.spki_sha256);
    wanted.rotation = RotationPolicy::Never;
    let third = scene.issue(&wanted, SECOND().next().unwrap()).await;
    assert_eq!(second.facts.spki_sha256, third.facts.spki_sha256);
    assert_ne!(second.facts.serial, third.facts.serial);
    // A key of another kind has to be made, whatever the policy.
    wanted.algorithm = KeyAlgorithm::Ed25519;
    let fourth = scene
        .issue(&wanted, SECOND().next().unwrap().next().unwrap())
        .await;
    assert_eq!(fourth.facts.key, "Ed25519");
}

#[tokio::test]
async fn a_leaf_that_would_outlive_its_ca_is_clamped_where_asked_and_an_event_says_so() {
    let scene = Scene::new().await;
    scene.issuer("short", Duration::hours(1)).await;
    let mut wanted = scene.wanted(Alias::Server, "short");
    wanted.outliving = Outliving::Clamp;
    let issued = scene.issue(&wanted, Revision::FIRST).await;
    assert!(issued.clamped);
    assert_eq!(issued.facts.not_after, issued.anchors.facts()[0].not_after);
    let events = scene.cluster.list::<Event>(NAMESPACE, "").await.unwrap();
    let said: Vec<String> = events
        .into_iter()
        .filter(|event| event.reason.as_deref() == Some("CertificateClamped"))
        .filter_map(|event| event.message)
        .collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("The server certificate ends at "),
        "{said:?}"
    );
    assert!(
        said[0].ends_with("Issuer short does not sign for longer"),
        "{said:?}"
    );
    assert!(
        scene.issue(&wanted, Revision::FIRST).await.clamped,
        "a repeat knows it"
    );
}

// === delegation ===

const REQUEST: &str = "billing-client-cert-r1";
const WAITING_KEY: &str = "billing-client-cert-r1-key";

fn elsewhere(scene: &Scene) -> Wanted {
    let mut wanted = scene.wanted(Alias::Client, "lighthouse");
    wanted.issuer.api_group = Some("issuers.example.org".to_owned());
    "Beacon".clone_into(&mut wanted.issuer.kind);
    wanted
}

async fn assert_pending(scene: &Scene, wanted: &Wanted) {
    let outcome = scene.materials.issue(&scene.owner, wanted, Revision::FIRST);
    let IssueOutcome::Pending { on } = outcome.await else {
        panic!("not pending")
    };
    assert!(
        on.starts_with("CertificateRequest treasury/billing-client-cert-r1 "),
        "{on}"
    );
}

async fn request(scene: &Scene) -> Option<CertificateRequest> {
    let at = ObjectRef::new(NAMESPACE, REQUEST);
    scene.cluster.get(&at).await.unwrap()
}

/// Plays the controller of the issuer.
async fn sign(scene: &Scene) {
    let found = request(scene).await.unwrap();
    let pem = String::from_utf8(BASE64.decode(found.spec.request).unwrap()).unwrap();
    let asked = csr::read(&pem).unwrap();
    let now = Clock::System.now();
    let serial = Serial::from_random([8; 20]);
    let ca_key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let ca = CaProfile::new("Lighthouse", Duration::days(400));
    let ca = CertificateAuthority::self_signed(&ca, ca_key, serial, now).unwrap();
    let leaf = LeafProfile::new(LeafUsage::Client, "pgbouncer");
    let issued = ca.sign(&leaf, &asked.public_key, serial, now).unwrap();
    let status = json!({"status": {
        "certificate": BASE64.encode(issued.chain.to_pem()),
        "ca": BASE64.encode(issued.anchors.to_pem()),
        "conditions": [{"type": "Ready", "status": "True", "reason": "Issued"}],
    }});
    let at = ObjectRef::new(NAMESPACE, REQUEST);
    let patched = scene
        .cluster
        .patch_status::<CertificateRequest>(&at, &status);
    patched.await.unwrap();
}

#[tokio::test]
async fn an_issuer_that_takes_its_time_is_asked_again_with_the_same_key_and_leaves_nothing() {
    let scene = Scene::new().await;
    let wanted = elsewhere(&scene);
    assert_pending(&scene, &wanted).await;
    let first = request(&scene).await.unwrap();
    assert_eq!(first.metadata.owner_references.unwrap()[0].name, "billing");
    assert_pending(&scene, &wanted).await;
    let second = request(&scene).await.unwrap();
    assert_eq!(first.metadata.uid, second.metadata.uid, "the key was kept");
    sign(&scene).await;
    let issued = scene.issue(&wanted, Revision::FIRST).await;
    assert_eq!(issued.facts.issuer, "CN=Lighthouse");
    assert!(request(&scene).await.is_none());
    assert!(scene.secret(WAITING_KEY).await.is_none());
}

#[tokio::test]
async fn a_pending_request_is_taken_back_with_its_key() {
    let scene = Scene::new().await;
    assert_pending(&scene, &elsewhere(&scene)).await;
    assert!(scene.secret(WAITING_KEY).await.is_some());
    let discard = || {
        scene
            .materials
            .discard(&scene.owner, Alias::Client, Revision::FIRST)
    };
    discard().await.unwrap();
    discard().await.unwrap();
    assert!(request(&scene).await.is_none());
    assert!(scene.secret(WAITING_KEY).await.is_none());
}

// === certificates that sign themselves ===

fn union(all: &[&Revisioned]) -> TrustBundle {
    let none = TrustBundle::default();
    all.iter()
        .fold(none, |union, one| union.union(&one.anchors))
}

fn assert_trusted(who: &Revisioned, bundle: &TrustBundle) {
    let (usage, common_name) = match who.alias {
        Alias::Server => (LeafUsage::ServerAndClient, "billing.treasury.svc"),
        Alias::Client | Alias::MetricsExporter => (LeafUsage::Client, "pgbouncer"),
    };
    let wanted = Expectation::of(&LeafProfile::new(usage, common_name), Clock::System.now());
    who.chain.verify(bundle, &wanted).unwrap();
}

#[tokio::test]
async fn poolers_and_clients_of_a_self_signed_issuer_trust_each_other_also_across_a_rotation() {
    let scene = Scene::new().await;
    let issuer: Issuer = serde_json::from_value(json!({
        "metadata": {"name": "own", "namespace": NAMESPACE}, "spec": {"selfSigned": {}},
    }))
    .unwrap();
    scene.cluster.create(&issuer).await.unwrap();
    let (server, client) = (
        scene.wanted(Alias::Server, "own"),
        scene.wanted(Alias::Client, "own"),
    );
    let mut bundle = TrustBundle::default();
    let mut former: Vec<Revisioned> = Vec::new();
    for revision in [Revision::FIRST, SECOND()] {
        let pooler = scene.issue(&server, revision).await;
        let visitor = scene.issue(&client, revision).await;
        let fresh = union(&[&pooler, &visitor]);
        let trust = scene.materials.trust(&scene.owner, &fresh, &bundle).await;
        bundle = trust.unwrap();
        for wanted in [&server, &client] {
            let published = scene
                .materials
                .publish(&scene.owner, wanted, revision, &bundle);
            assert_eq!(published.await.unwrap().bundle, bundle);
        }
        let published =
            scene
                .materials
                .published(&scene.owner, Alias::Server, "billing-server-cert");
        let ca_crt = published.await.unwrap().unwrap().bundle;
        // Each identity is an anchor of its own: the pooler's ca.crt must hold its clients', too,
        // and those of the former revision for as long as they live.
        former.extend([pooler, visitor]);
        for one in &former {
            assert_trusted(one, &ca_crt);
        }
    }
    assert_eq!(bundle.len(), 4);
}
