//! Policies where they act: the examples beside each file, `policy check`, and every issuance.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bouncert::api::{PgBouncer, crds};
use bouncert::blueprint::certificates::{LoadBalancer, Wanted, wanted};
use bouncert::blueprint::defaults::{IssuerKind, complete};
use bouncert::clock::Clock;
use bouncert::cluster::Cluster;
use bouncert::local::apiserver::schema::CompiledCrdVersion;
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

/// The annotation in which a rejected example says what is wrong with it: a line each of
/// certificate, path and value.
const EXPECTED: &str = "example.bouncert.dev/violations";

fn policies_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")
}

fn documents(path: &Path) -> Vec<Value> {
    serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap()
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn check(file: &Path, policies: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bouncert"));
    command
        .args(["--output", "json", "policy", "check"])
        .arg(file);
    for policy in policies {
        command.arg("--policy").arg(policy);
    }
    command.env_remove("RUST_LOG").output().unwrap()
}

/// What `policy check` found, as the examples write it.
fn told(report: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for judged in report["certificates"].as_array().unwrap() {
        for violation in judged["violations"].as_array().unwrap() {
            let word = |value: &Value| value.as_str().unwrap().to_owned();
            lines.push(format!(
                "{} {} {}",
                word(&judged["certificate"]),
                word(&violation["path"]),
                word(&violation["value"])
            ));
        }
    }
    lines
}

#[test]
fn every_example_beside_a_policy_is_judged_as_it_says() {
    let mut n_examples = 0;
    for policy in yaml_files(&policies_folder()) {
        let folder = policy.with_extension("");
        for example in yaml_files(&folder.join("accepted")) {
            let output = check(&example, &[&policy]);
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(0),
                "{}: {error}",
                example.display()
            );
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(!report["certificates"].as_array().unwrap().is_empty());
            n_examples += 1;
        }
        for example in yaml_files(&folder.join("rejected")) {
            let output = check(&example, &[&policy]);
            assert_eq!(output.status.code(), Some(1), "{}", example.display());
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let expected = documents(&example).into_iter().flat_map(|document| {
                let lines = document["metadata"]["annotations"][EXPECTED].as_str();
                let lines = lines.unwrap_or_default().lines();
                lines.map(str::to_owned).collect::<Vec<_>>()
            });
            let expected: Vec<String> = expected.collect();
            assert_eq!(told(&report), expected, "{}", example.display());
            n_examples += 1;
        }
    }
    assert_eq!(n_examples, 11, "two policies with their examples");
}

/// The CRD that approver-policy installs, where it is at hand.
fn real_crd() -> Option<Value> {
    let file = "shared/crds/policy.cert-manager.io_certificaterequestpolicies.yaml";
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = folders
        .map(|folder| folder.join(file))
        .find(|file| file.is_file())?;
    documents(&found).into_iter().next()
}

/// The kind with a schema that lets everything through.
fn loose_crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "certificaterequestpolicies.policy.cert-manager.io"},
        "spec": {
            "group": "policy.cert-manager.io", "scope": "Cluster",
            "names": {
                "kind": "CertificateRequestPolicy", "plural": "certificaterequestpolicies",
                "singular": "certificaterequestpolicy", "listKind": "CertificateRequestPolicyList",
            },
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    })
}

#[test]
fn the_real_definition_accepts_our_policies() {
    let Some(crd) = real_crd() else { return };
    let compiled = CompiledCrdVersion::compile(&crd, "v1alpha1").unwrap();
    let files = yaml_files(&policies_folder());
    assert_eq!(files.len(), 2);
    for path in files {
        for mut policy in documents(&path) {
            assert!(compiled.prune(&mut policy).is_empty(), "{}", path.display());
            let errors = compiled.validate(&policy, None);
            assert!(errors.is_empty(), "{}: {errors:?}", path.display());
        }
    }
}

#[test]
fn the_examples_satisfy_our_definitions() {
    let own: Vec<Value> = crds::own()
        .iter()
        .map(|crd| serde_json::to_value(crd).unwrap())
        .collect();
    for set in ["default", "strict"] {
        for side in ["accepted", "rejected"] {
            for path in yaml_files(&policies_folder().join(set).join(side)) {
                for mut example in documents(&path) {
                    let crd = own
                        .iter()
                        .find(|crd| crd["spec"]["names"]["kind"] == example["kind"]);
                    let version = example["apiVersion"]
                        .as_str()
                        .unwrap()
                        .split_once('/')
                        .unwrap()
                        .1;
                    let compiled = CompiledCrdVersion::compile(crd.unwrap(), version).unwrap();
                    assert!(
                        compiled.prune(&mut example).is_empty(),
                        "{}",
                        path.display()
                    );
                    compiled.default(&mut example);
                    let errors = compiled.validate(&example, None);
                    assert!(errors.is_empty(), "{}: {errors:?}", path.display());
                }
            }
        }
    }
}

#[test]
fn policy_check_uses_what_is_built_in_and_tells_wrong_files_from_denials() {
    let folder = policies_folder();
    let rejected = folder.join("strict/rejected/names.yaml");
    let built_in = check(&rejected, &[]);
    assert_eq!(
        built_in.status.code(),
        Some(0),
        "the default allows what a manifest can ask for"
    );
    let report: Value = serde_json::from_slice(&built_in.stdout).unwrap();
    assert_eq!(report["certificates"][0]["by"], "bouncert-default");
    let either = check(&rejected, &[&folder]);
    assert_eq!(
        either.status.code(),
        Some(0),
        "one policy that allows is enough"
    );
    for (file, policy) in [
        (folder.join("absent.yaml"), folder.clone()),
        (folder.join("strict.yaml"), folder.clone()),
        (rejected.clone(), rejected.clone()),
        (rejected.clone(), folder.join("absent")),
    ] {
        let output = check(&file, &[&policy]);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{} {}",
            file.display(),
            policy.display()
        );
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let text = Command::new(env!("CARGO_BIN_EXE_bouncert"))
        .args(["policy", "check"])
        .arg(&rejected)
        .arg("--policy")
        .arg(folder.join("strict.yaml"))
        .output()
        .unwrap();
    let shown = String::from_utf8(text.stdout).unwrap();
    assert!(
        shown.contains("denied   billing-server-cert  PgBouncer treasury/billing"),
        "{shown}"
    );
    assert!(
        shown.contains("allowed  billing-metrics-exporter-cert"),
        "{shown}"
    );
    let error = String::from_utf8(text.stderr).unwrap();
    assert!(
        error.contains("2 of 3 certificates would be denied"),
        "{error}"
    );
}

#[test]
fn the_daemon_does_not_start_with_a_folder_that_holds_no_usable_policy() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let output = Command::new(env!("CARGO_BIN_EXE_bouncert"))
            .args(["local", "--data"])
            .arg(folder.path().join("data"))
            .arg("--policies")
            .arg(folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run().contains("there is no policy in"));
    let plugin = json!({
        "apiVersion": "policy.cert-manager.io/v1alpha1", "kind": "CertificateRequestPolicy",
        "metadata": {"name": "clever"}, "spec": {"selector": {}, "plugins": {"rego": {}}},
    });
    fs::write(folder.path().join("clever.yaml"), plugin.to_string()).unwrap();
    assert!(run().contains("spec.plugins names rego"));
}

// === issuing ===

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
        let materials = Materials::new(cluster, Clock::System, "cert-manager");
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
    scene.materials = Materials::new(Cluster::new(client), Clock::System, "cert-manager");
    let outcome = scene.issue(&scene.wanted()).await;
    assert!(matches!(outcome, IssueOutcome::Issued(_)), "{outcome:?}");
}
