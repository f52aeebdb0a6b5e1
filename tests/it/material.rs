//! Revisions of material against the embedded API server: what is published is verified, a repeat
//! adopts, trust shrinks only when nobody needs it.

use bouncert::api::PgBouncer;
use bouncert::blueprint::certificates::{LoadBalancer, Wanted, wanted};
use bouncert::blueprint::defaults::{IssuerKind, complete};
use bouncert::clock::Clock;
use bouncert::cluster::Cluster;
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use bouncert::material::{IssueOutcome, MaterialError, Materials, Revisioned};
use bouncert::names::{Alias, ObjectRef, Revision};
use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::bundle::TrustBundle;
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::CaProfile;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::support::seal;

pub(crate) const NAMESPACE: &str = "treasury";

pub(crate) struct Scene {
    pub(crate) client: Client,
    pub(crate) cluster: Cluster,
    pub(crate) materials: Materials,
    pub(crate) owner: PgBouncer,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
        let client = server.client();
        for crd in bouncert::api::crds::own()
            .iter()
            .chain(&bouncert::api::crds::borrowed())
        {
            Api::all(client.clone())
                .create(&PostParams::default(), crd)
                .await
                .unwrap();
        }
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).unwrap();
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
        let cluster = Cluster::new(client.clone());
        let materials = materials(&cluster, Clock::System);
        let mut bouncer: PgBouncer = serde_json::from_value(json!({
            "metadata": {"name": "billing", "namespace": NAMESPACE},
            "spec": {
                "version": "1.18.0",
                "database": {
                    "databaseName": "ledger",
                    "databaseRef": {"name": "books", "namespace": "vault"},
                },
                "tls": {"issuerRef": {"kind": "Issuer", "name": "first"}},
            },
        }))
        .unwrap();
        bouncer.spec = complete(&bouncer.spec, "billing", IssuerKind::Private);
        let owner = cluster.create(&bouncer).await.unwrap();
        let scene = Self {
            client,
            cluster,
            materials,
            owner,
        };
        scene.issuer("first", Duration::days(365)).await;
        scene
    }

    /// An Issuer with a CA of that name, which lives for `lifetime`.
    pub(crate) async fn issuer(&self, name: &str, lifetime: Duration) {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let pem = key.to_pem(KeyEncoding::Pkcs8).expose().clone();
        let profile = CaProfile::new(name, lifetime);
        let serial = Serial::from_random([7; 20]);
        let ca =
            CertificateAuthority::self_signed(&profile, key, serial, Clock::System.now()).unwrap();
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": format!("{name}-ca"), "namespace": NAMESPACE},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": ca.certificate_pem(), "tls.key": pem},
        }))
        .unwrap();
        self.cluster.create(&secret).await.unwrap();
        let issuer: bouncert::api::Issuer = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"ca": {"secretName": format!("{name}-ca")}},
        }))
        .unwrap();
        self.cluster.create(&issuer).await.unwrap();
    }

    pub(crate) fn wanted(&self, alias: Alias, issuer: &str) -> Wanted {
        let all = wanted(&self.owner, &LoadBalancer::default()).unwrap();
        let mut wanted = all
            .into_iter()
            .find(|wanted| wanted.alias == alias)
            .unwrap();
        issuer.clone_into(&mut wanted.issuer.name);
        wanted
    }

    pub(crate) async fn issue(&self, wanted: &Wanted, revision: Revision) -> Revisioned {
        match self.materials.issue(&self.owner, wanted, revision).await {
            IssueOutcome::Issued(issued) => *issued,
            other => panic!("not issued: {other:?}"),
        }
    }

    pub(crate) async fn secret(&self, name: &str) -> Option<Secret> {
        self.cluster
            .get(&ObjectRef::new(NAMESPACE, name))
            .await
            .unwrap()
    }
}

/// Material with the seal that all tests share.
fn materials(cluster: &Cluster, clock: Clock) -> Materials {
    Materials::new(cluster.clone(), clock, "cert-manager").with_seal(seal())
}

fn field(secret: &Secret, key: &str) -> String {
    String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
}

#[tokio::test]
async fn a_revision_is_issued_once_and_a_repeat_adopts_it() {
    let scene = Scene::new().await;
    let wanted = scene.wanted(Alias::Server, "first");
    let first = scene.issue(&wanted, Revision::FIRST).await;
    let again = scene.issue(&wanted, Revision::FIRST).await;
    assert_eq!(first.facts.fingerprint, again.facts.fingerprint);
    let kept = scene.secret("billing-server-cert-r1").await.unwrap();
    assert_eq!(kept.immutable, Some(true));
    let next = scene
        .materials
        .next_revision(&scene.owner, Alias::Server)
        .await
        .unwrap();
    assert_eq!(next, Revision::FIRST.next().unwrap());
    assert!(
        scene.secret("billing-server-cert").await.is_none(),
        "issuing publishes nothing"
    );
}

#[tokio::test]
async fn what_is_published_is_what_was_verified_and_it_can_be_taken_back() {
    let scene = Scene::new().await;
    let wanted = scene.wanted(Alias::Server, "first");
    let one = scene.issue(&wanted, Revision::FIRST).await;
    let two = scene.issue(&wanted, Revision::FIRST.next().unwrap()).await;
    let (materials, owner) = (&scene.materials, &scene.owner);
    let publish = async |issued: &Revisioned| {
        materials
            .publish(owner, &wanted, issued.revision, &issued.anchors)
            .await
            .unwrap()
    };
    publish(&one).await;
    publish(&two).await;
    let published = materials
        .published(owner, Alias::Server, "billing-server-cert")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(published.revision, Some(two.revision));
    assert_eq!(published.facts.fingerprint, two.facts.fingerprint);
    let before = scene.secret("billing-server-cert").await.unwrap();
    publish(&two).await;
    let after = scene.secret("billing-server-cert").await.unwrap();
    assert_eq!(
        before.resource_version(),
        after.resource_version(),
        "a repeat writes nothing"
    );
    publish(&one).await;
    let back = scene.secret("billing-server-cert").await.unwrap();
    let kept = scene.secret("billing-server-cert-r1").await.unwrap();
    assert_eq!(field(&back, "tls.crt"), field(&kept, "tls.crt"));
    assert_eq!(field(&back, "tls.key"), field(&kept, "tls.key"));
    assert_eq!(back.labels()["controller.cert-manager.io/fao"], "true");
    assert_eq!(back.annotations()["cert-manager.io/issuer-name"], "first");
    materials
        .withdraw(owner, "billing-server-cert")
        .await
        .unwrap();
    materials
        .withdraw(owner, "billing-server-cert")
        .await
        .unwrap();
    assert!(scene.secret("billing-server-cert").await.is_none());
}

#[tokio::test]
async fn nothing_is_published_that_the_bundle_beside_it_does_not_lead_to() {
    let scene = Scene::new().await;
    scene.issuer("second", Duration::days(365)).await;
    let wanted = scene.wanted(Alias::Server, "first");
    let good = scene.issue(&wanted, Revision::FIRST).await;
    let foreign = scene
        .issue(&scene.wanted(Alias::Client, "second"), Revision::FIRST)
        .await
        .anchors;
    let refused = scene
        .materials
        .publish(&scene.owner, &wanted, good.revision, &foreign)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, MaterialError::Unverified { .. }),
        "{refused:?}"
    );
    assert!(scene.secret("billing-server-cert").await.is_none());
}

#[tokio::test]
async fn a_secret_that_another_controller_holds_is_left_alone() {
    let scene = Scene::new().await;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {
            "name": "billing-server-cert", "namespace": NAMESPACE,
            "ownerReferences": [{
                "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "name": "handmade",
                "uid": "0c9d", "controller": true,
            }],
        },
        "data": {},
    }))
    .unwrap();
    // The owner does not exist, which only garbage collection would mind; none runs here.
    Api::<Secret>::namespaced(scene.client.clone(), NAMESPACE)
        .create(&PostParams::default(), &secret)
        .await
        .unwrap();
    let wanted = scene.wanted(Alias::Server, "first");
    let issued = scene.issue(&wanted, Revision::FIRST).await;
    let refused = scene
        .materials
        .publish(&scene.owner, &wanted, issued.revision, &issued.anchors)
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("belongs to Certificate handmade"),
        "{refused}"
    );
    scene
        .materials
        .withdraw(&scene.owner, "billing-server-cert")
        .await
        .unwrap();
    assert!(scene.secret("billing-server-cert").await.is_some());
}

#[tokio::test]
async fn a_secret_that_a_user_has_made_is_written_and_neither_owned_nor_deleted() {
    let scene = Scene::new().await;
    let made: Secret = serde_json::from_value(json!({
        "metadata": {
            "name": "billing-server-cert", "namespace": NAMESPACE,
            "labels": {"team": "ledger"}, "annotations": {"note": "mine"},
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "ConfigMap", "name": "app", "uid": "a",
            }],
        },
        "type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""},
    }))
    .unwrap();
    let made = scene.cluster.create(&made).await.unwrap();
    let wanted = scene.wanted(Alias::Server, "first");
    let issued = scene.issue(&wanted, Revision::FIRST).await;
    let publish = async || {
        let owner = &scene.owner;
        let trust = &issued.anchors;
        let published = scene
            .materials
            .publish(owner, &wanted, issued.revision, trust);
        published.await.unwrap();
        scene.secret("billing-server-cert").await.unwrap()
    };
    let written = publish().await;
    assert_eq!(written.uid(), made.uid());
    assert!(!written.data.as_ref().unwrap()["tls.crt"].0.is_empty());
    assert_eq!(written.owner_references(), made.owner_references());
    assert_eq!(written.labels()["team"], "ledger");
    assert_eq!(
        publish().await.resource_version(),
        written.resource_version()
    );
    let withdrawn = scene
        .materials
        .withdraw(&scene.owner, "billing-server-cert");
    withdrawn.await.unwrap();
    assert!(scene.secret("billing-server-cert").await.is_some());
}

/// Names of what `discard` deletes follow from the PgBouncer's, so that anybody can take them.
#[tokio::test]
async fn what_has_the_name_of_a_revision_and_is_not_ours_is_not_discarded() {
    let scene = Scene::new().await;
    for name in ["billing-server-cert-r1", "billing-server-cert-r1-key"] {
        let other: Secret = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": NAMESPACE},
        }))
        .unwrap();
        scene.cluster.create(&other).await.unwrap();
    }
    let request: bouncert::api::CertificateRequest = serde_json::from_value(json!({
        "metadata": {"name": "billing-server-cert-r1", "namespace": NAMESPACE},
        "spec": {"request": "", "issuerRef": {"name": "other"}},
    }))
    .unwrap();
    let request = scene.cluster.create(&request).await.unwrap();
    let discarded = scene
        .materials
        .discard(&scene.owner, Alias::Server, Revision::FIRST);
    discarded.await.unwrap();
    assert!(scene.secret("billing-server-cert-r1").await.is_some());
    assert!(scene.secret("billing-server-cert-r1-key").await.is_some());
    let at = ObjectRef::new(NAMESPACE, "billing-server-cert-r1");
    let left: Option<bouncert::api::CertificateRequest> = scene.cluster.get(&at).await.unwrap();
    assert_eq!(left.unwrap().uid(), request.uid());
}

#[tokio::test]
async fn an_anchor_stays_until_the_last_certificate_that_needs_it_is_gone() {
    let scene = Scene::new().await;
    scene.issuer("second", Duration::days(365)).await;
    let (materials, owner) = (&scene.materials, &scene.owner);
    let old = scene
        .issue(&scene.wanted(Alias::Client, "first"), Revision::FIRST)
        .await;
    let new = scene
        .issue(
            &scene.wanted(Alias::Client, "second"),
            Revision::FIRST.next().unwrap(),
        )
        .await;
    let during = materials
        .trust(owner, &new.anchors, &old.anchors)
        .await
        .unwrap();
    assert_eq!(
        during,
        new.anchors.union(&old.anchors),
        "both, the newer first"
    );
    materials
        .discard(owner, Alias::Client, old.revision)
        .await
        .unwrap();
    let after: TrustBundle = materials.trust(owner, &new.anchors, &during).await.unwrap();
    assert_eq!(after, new.anchors);
}

#[tokio::test]
async fn expired_revisions_are_pruned_but_never_the_newest_two() {
    let scene = Scene::new().await;
    let mut wanted = scene.wanted(Alias::Client, "first");
    wanted.profile.duration = Duration::minutes(5);
    let mut revision = Revision::FIRST;
    for _ in 0..4 {
        scene.issue(&wanted, revision).await;
        revision = revision.next().unwrap();
    }
    let later: OffsetDateTime = Clock::System.now() + Duration::hours(1);
    let materials = materials(&scene.cluster, Clock::Fixed(later));
    materials
        .prune(&scene.owner, Alias::Client, Some(Revision::FIRST))
        .await
        .unwrap();
    let mut left = Vec::new();
    for number in 1..=4 {
        if scene
            .secret(&format!("billing-client-cert-r{number}"))
            .await
            .is_some()
        {
            left.push(number);
        }
    }
    assert_eq!(left, [1, 3, 4], "the published one and the newest two");
}

#[tokio::test]
async fn a_leaf_that_would_outlive_its_ca_is_not_issued() {
    let scene = Scene::new().await;
    scene.issuer("short", Duration::hours(1)).await;
    let wanted = scene.wanted(Alias::Server, "short");
    let outcome = scene
        .materials
        .issue(&scene.owner, &wanted, Revision::FIRST)
        .await;
    let IssueOutcome::Failed(error) = outcome else {
        panic!("{outcome:?}")
    };
    let mut chain = vec![error.to_string()];
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        chain.push(error.to_string());
        cause = error.source();
    }
    let text = chain.join(": ");
    assert!(text.contains("duration"), "names the knob: {text}");
    assert!(scene.secret("billing-server-cert-r1").await.is_none());
}

#[tokio::test]
async fn going_back_does_not_fail_because_of_a_clock_or_an_age() {
    let scene = Scene::new().await;
    let wanted = scene.wanted(Alias::Server, "first");
    let issued = scene.issue(&wanted, Revision::FIRST).await;
    for hours in [-24, 24 * 4_000] {
        let shift = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(hours * 3_600));
        let clock = Clock::Shifted(shift);
        let elsewhen = materials(&scene.cluster, clock);
        let (owner, trust) = (&scene.owner, &issued.anchors);
        let forward = elsewhen
            .publish(owner, &wanted, issued.revision, trust)
            .await;
        assert!(
            matches!(forward, Err(MaterialError::Unverified { .. })),
            "{forward:?}"
        );
        elsewhen
            .publish_again(owner, &wanted, issued.revision, trust)
            .await
            .unwrap();
        let foreign = TrustBundle::default();
        let untrusted = elsewhen
            .publish_again(owner, &wanted, issued.revision, &foreign)
            .await;
        assert!(
            matches!(untrusted, Err(MaterialError::Unverified { .. })),
            "all else is verified as ever: {untrusted:?}"
        );
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_leaves_nothing_behind_that_clients_refuse() {
    let scene = Scene::new().await;
    let wanted = scene.wanted(Alias::Server, "first");
    let shift = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(3_600));
    let clock = Clock::Shifted(shift.clone());
    let fast = materials(&scene.cluster, clock);
    let outcome = fast.issue(&scene.owner, &wanted, Revision::FIRST).await;
    let IssueOutcome::Failed(error) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(
        matches!(error, MaterialError::OutOfSeason { .. }),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains("set the clock"), "says what to do: {text}");
    assert!(scene.secret("billing-server-cert-r1").await.is_none());
    shift.store(0, std::sync::atomic::Ordering::Relaxed);
    let mended = fast.issue(&scene.owner, &wanted, Revision::FIRST).await;
    let IssueOutcome::Issued(made) = mended else {
        panic!("{mended:?}")
    };
    assert!(made.facts.not_before <= Clock::System.now());
}
