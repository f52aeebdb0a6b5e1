//! Every issuance is judged first, by the daemon's own policies and by those of the cluster.

use std::fs;

use bouncert::api::{PgBouncer, crds};
use bouncert::blueprint::certificates::{LoadBalancer, Wanted, wanted};
use bouncert::blueprint::defaults::{IssuerKind, complete};
use bouncert::clock::Clock;
use bouncert::cluster::Cluster;
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use bouncert::material::{IssueOutcome, Materials};
use bouncert::names::{ObjectRef, Revision};
use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::CaProfile;
use bouncert::policy::{CertificateRequestPolicy, Policies};
use http::Response;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::Duration;

use super::{loose_crd, policies_folder, real_crd};
use crate::support::seal;

const NAMESPACE: &str = "treasury";

/// A PgBouncer with an issuer in an API of its own.
struct Scene {
    client: Client,
    materials: Materials,
    owner: PgBouncer,
}

impl Scene {
    async fn new() -> Self {
        let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
        let client = server.client();
        for crd in crds::own().iter().chain(&crds::borrowed()) {
            let crd = serde_json::to_value(crd).unwrap();
            let _: CustomResourceDefinition = create(&Api::all(client.clone()), crd).await;
        }
        let namespace = json!({"metadata": {"name": NAMESPACE, "labels": {"stage": "gold"}}});
        let _: Namespace = create(&Api::all(client.clone()), namespace).await;
        let mut owner: PgBouncer = object(json!({
            "metadata": {"name": "billing", "namespace": NAMESPACE},
            "spec": {
                "version": "1.24.0",
                "database": {
                    "databaseName": "ledger", "databaseRef": {"name": "books", "namespace": "vault"},
                },
                "tls": {
                    "issuerRef": {"kind": "Issuer", "name": "first"},
                    "certificates": [{"alias": "server", "ipAddresses": ["192.0.2.7"]}],
                },
            },
        }));
        owner.spec = complete(&owner.spec, "billing", IssuerKind::Private);
        let cluster = Cluster::new(client.clone());
        let owner = cluster.create(&owner).await.unwrap();
        issuer(&cluster).await;
        let materials = Materials::new(cluster, Clock::System, "cert-manager").with_seal(seal());
        Self {
            client,
            materials,
            owner,
        }
    }

    fn wanted(&self) -> Wanted {
        wanted(&self.owner, &LoadBalancer::default())
            .unwrap()
            .remove(0)
    }

    async fn issue(&self, wanted: &Wanted) -> IssueOutcome {
        self.materials
            .issue(&self.owner, wanted, Revision::FIRST)
            .await
    }

    /// What the refusal says; nothing has been made by then.
    async fn denied(&self, wanted: &Wanted) -> String {
        let outcome = self.issue(wanted).await;
        let IssueOutcome::Denied { reason } = outcome else {
            panic!("{outcome:?}")
        };
        let at = ObjectRef::new(NAMESPACE, "billing-server-cert-r1");
        let kept = Cluster::new(self.client.clone()).get::<Secret>(&at).await;
        assert!(kept.unwrap().is_none(), "nothing is kept of what is denied");
        reason
    }

    async fn define_policies(&self) {
        let crd = real_crd().unwrap_or_else(loose_crd);
        let _: CustomResourceDefinition = create(&Api::all(self.client.clone()), crd).await;
    }

    async fn policy(&self, name: &str, spec: Value) {
        let policy = json!({
            "apiVersion": "policy.cert-manager.io/v1alpha1", "kind": "CertificateRequestPolicy",
            "metadata": {"name": name}, "spec": spec,
        });
        let _: CertificateRequestPolicy = create(&Api::all(self.client.clone()), policy).await;
    }
}

/// The Issuer `first` with a CA of its own.
async fn issuer(cluster: &Cluster) {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let pem = key.to_pem(KeyEncoding::Pkcs8).expose().clone();
    let profile = CaProfile::new("first", Duration::days(365));
    let serial = Serial::from_random([7; 20]);
    let ca = CertificateAuthority::self_signed(&profile, key, serial, Clock::System.now()).unwrap();
    let secret: Secret = object(json!({
        "metadata": {"name": "first-ca", "namespace": NAMESPACE},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": ca.certificate_pem(), "tls.key": pem},
    }));
    cluster.create(&secret).await.unwrap();
    let issuer: bouncert::api::Issuer = object(json!({
        "metadata": {"name": "first", "namespace": NAMESPACE},
        "spec": {"ca": {"secretName": "first-ca"}},
    }));
    cluster.create(&issuer).await.unwrap();
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

async fn create<K>(api: &Api<K>, value: Value) -> K
where
    K: DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    api.create(&PostParams::default(), &object(value))
        .await
        .unwrap()
}

fn strict() -> Policies {
    Policies::parse(&fs::read_to_string(policies_folder().join("strict.yaml")).unwrap()).unwrap()
}

#[tokio::test]
async fn a_policy_is_asked_before_the_issuer_and_every_violation_is_told() {
    let mut scene = Scene::new().await;
    scene.materials = scene.materials.with_policies(strict());
    let mut wanted = scene.wanted();
    wanted.issuer.name = "an-issuer-that-does-not-exist".into();
    let reason = scene.denied(&wanted).await;
    assert_eq!(
        reason,
        "policy bouncert-strict: spec.allowed.ipAddresses.values: \"192.0.2.7\": is not allowed: \
         the policy allows 127.0.0.1, ::1; policy bouncert-strict: spec.constraints.maxDuration: \
         \"2160h0m0s\": has to be 720h0m0s or less"
    );
    let mut modest = scene.wanted();
    modest.profile.ip_addresses.truncate(1);
    modest.profile.duration = Duration::days(30);
    let outcome = scene.issue(&modest).await;
    assert!(matches!(outcome, IssueOutcome::Issued(_)), "{outcome:?}");
}

#[tokio::test]
async fn what_none_of_the_given_policies_selects_is_denied() {
    let mut scene = Scene::new().await;
    let elsewhere = json!({
        "apiVersion": "policy.cert-manager.io/v1alpha1", "kind": "CertificateRequestPolicy",
        "metadata": {"name": "elsewhere"}, "spec": {"selector": {"issuerRef": {"name": "second"}}},
    });
    let policies = Policies::parse(&elsewhere.to_string()).unwrap();
    scene.materials = scene.materials.with_policies(policies);
    let reason = scene.denied(&scene.wanted()).await;
    assert!(
        reason.contains("no policy selects this issuer in namespace treasury"),
        "{reason}"
    );
}

#[tokio::test]
async fn policies_of_the_cluster_have_a_say_where_they_select() {
    let scene = Scene::new().await;
    scene.define_policies().await;
    let elsewhere = json!({"selector": {"namespace": {"matchLabels": {"stage": "lead"}}}});
    scene.policy("elsewhere", elsewhere).await;
    let outcome = scene.issue(&scene.wanted()).await;
    assert!(matches!(outcome, IssueOutcome::Issued(_)), "{outcome:?}");

    let scene = Scene::new().await;
    scene.define_policies().await;
    let here = json!({
        "selector": {"namespace": {"matchLabels": {"stage": "gold"}}},
        "allowed": {
            "commonName": {"value": "*"}, "dnsNames": {"values": ["*.svc", "localhost"]},
            "usages": ["digital signature", "key encipherment", "server auth", "client auth"],
        },
    });
    scene.policy("gold", here).await;
    let reason = scene.denied(&scene.wanted()).await;
    for path in [
        "policy gold: spec.allowed.dnsNames.values: \"billing\"",
        "policy gold: spec.allowed.ipAddresses: \"127.0.0.1\"",
        "policy gold: spec.allowed.ipAddresses: \"192.0.2.7\"",
    ] {
        assert!(reason.contains(path), "{path} is not in: {reason}");
    }
    scene
        .policy(
            "plugin",
            json!({"selector": {}, "plugins": {"rego": {"values": {}}}}),
        )
        .await;
    let reason = scene.denied(&scene.wanted()).await;
    assert!(
        reason.contains("policy plugin: spec: it cannot be used"),
        "{reason}"
    );
    let all = fs::read_to_string(policies_folder().join("default.yaml")).unwrap();
    let all: Value = serde_saphyr::from_str(&all).unwrap();
    scene.policy("all", all["spec"].clone()).await;
    let outcome = scene.issue(&scene.wanted()).await;
    assert!(
        matches!(outcome, IssueOutcome::Issued(_)),
        "one is enough: {outcome:?}"
    );
}

#[tokio::test]
async fn a_policy_of_the_cluster_that_we_may_not_use_has_no_say() {
    let mut scene = Scene::new().await;
    scene.define_policies().await;
    scene.policy("closed", json!({"selector": {}})).await;
    assert!(
        scene
            .denied(&scene.wanted())
            .await
            .contains("policy closed")
    );
    let behind = scene.client.clone();
    let refusing = tower::service_fn(move |request: http::Request<Body>| {
        let behind = behind.clone();
        async move {
            if request.uri().path().ends_with("/selfsubjectaccessreviews") {
                let answer = json!({
                    "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                    "metadata": {}, "spec": {}, "status": {"allowed": false},
                });
                return Ok(Response::new(Body::from(answer.to_string().into_bytes())));
            }
            behind.send(request).await
        }
    });
    let client = Client::new(refusing, NAMESPACE);
    let materials = Materials::new(Cluster::new(client), Clock::System, "cert-manager");
    scene.materials = materials.with_seal(seal());
    let outcome = scene.issue(&scene.wanted()).await;
    assert!(matches!(outcome, IssueOutcome::Issued(_)), "{outcome:?}");
}
