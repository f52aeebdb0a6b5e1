//! What users get wrong: each ends with a clear word, and nothing has changed.

use bouncert::api::PgBouncer;
use bouncert::clock::Clock;
use bouncert::pgbouncer::probe::Served;
use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::CaProfile;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};
use time::Duration;

use crate::stage::{Stage, request};

/// Everything of `pb` that a refused request must leave alone.
#[derive(Debug, PartialEq)]
struct Snapshot {
    spec: Value,
    ini: String,
    pods: Vec<Option<String>>,
    secrets: Vec<(String, Value)>,
    served: Vec<Option<Vec<u8>>>,
}

impl Snapshot {
    async fn of(stage: &Stage) -> Self {
        let bouncer: PgBouncer = stage.bouncer("pb").await;
        let uid = bouncer.uid().unwrap();
        let labels = ListParams::default().labels("app.kubernetes.io/instance=pb");
        let pods = stage.api::<Pod>().list(&labels).await.unwrap();
        let secrets = stage.api::<Secret>().list(&labels).await.unwrap();
        let secrets = secrets
            .iter()
            .filter(|secret| secret.name_any().contains("-cert"));
        let served = stage.served("pb").await;
        Self {
            spec: serde_json::to_value(&bouncer.spec).unwrap(),
            ini: stage
                .secret(&format!("pb-{}", &uid[uid.len() - 6..]), "pgbouncer.ini")
                .await,
            pods: pods.iter().map(ResourceExt::uid).collect(),
            secrets: secrets
                .map(|secret| {
                    (
                        secret.name_any(),
                        serde_json::to_value(&secret.data).unwrap(),
                    )
                })
                .collect(),
            served: served
                .into_iter()
                .map(|served| match served {
                    Served::Plaintext => None,
                    Served::Tls(handshake) => {
                        Some(AsRef::<[u8]>::as_ref(&handshake.chain[0]).to_vec())
                    }
                })
                .collect(),
        }
    }
}

/// A request, and what its Failed condition has to say.
struct Case {
    name: &'static str,
    tls: Value,
    says: &'static [&'static str],
}

async fn run(stage: &Stage, cases: Vec<Case>) {
    let before = Snapshot::of(stage).await;
    for Case { name, tls, says } in cases {
        let mut object = request(name, "pb", tls);
        object["spec"]["timeout"] = json!("3s");
        stage.create(object).await;
        let message = stage.failed(name).await;
        for word in says {
            assert!(
                message.contains(word),
                "{name} does not say {word:?}: {message}"
            );
        }
        let paused = stage
            .bouncer("pb")
            .await
            .status
            .unwrap_or_default()
            .conditions;
        assert!(
            !paused.iter().any(|condition| condition.type_ == "Paused"),
            "{name}: paused"
        );
        assert_eq!(
            Snapshot::of(stage).await,
            before,
            "{name} has changed something"
        );
    }
}

fn issuer(name: &str) -> Value {
    json!({"kind": "Issuer", "name": name})
}

/// An Issuer whose CA is in a Secret of the same name.
async fn ca_issuer(stage: &Stage, name: &str) {
    stage
        .create(json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": name},
            "spec": {"ca": {"secretName": name}},
        }))
        .await;
}

/// A CA that was made `age` ago to live for `lifetime`.
fn aged_ca(age: Duration, lifetime: Duration) -> (String, String) {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let pem = key.to_pem(KeyEncoding::Pkcs8).expose().clone();
    let made = Clock::System.now() - age;
    let profile = CaProfile::new("weary", lifetime);
    let ca = CertificateAuthority::self_signed(&profile, key, Serial::from_random([3; 20]), made);
    (ca.unwrap().certificate_pem(), pem)
}

async fn broken_issuers(stage: &Stage) {
    ca_issuer(stage, "bare").await;
    let (crt, _) = stage.openssl_pair("one", "/CN=one");
    let (_, key) = stage.openssl_pair("other", "/CN=other");
    stage.ca_secret("crossed", &crt, &key).await;
    ca_issuer(stage, "crossed").await;
    let (crt, key) = aged_ca(Duration::days(30), Duration::days(20));
    stage.ca_secret("expired", &crt, &key).await;
    ca_issuer(stage, "expired").await;
    let (crt, key) = aged_ca(Duration::ZERO, Duration::days(10));
    stage.ca_secret("brief", &crt, &key).await;
    ca_issuer(stage, "brief").await;
}

fn issuer_cases(prefix: [&'static str; 5]) -> Vec<Case> {
    let case = |name, issued: &str, says| Case {
        name,
        tls: json!({"issuerRef": issuer(issued)}),
        says,
    };
    let [unknown, bare, crossed, expired, brief] = prefix;
    vec![
        case(unknown, "nobody", &["nobody"]),
        case(bare, "bare", &["bare", "Secret"]),
        case(crossed, "crossed", &["crossed", "key"]),
        case(expired, "expired", &["expired"]),
        case(brief, "brief", &["duration"]),
    ]
}

/// Requests without a meaning, on a PgBouncer without TLS.
fn without_tls() -> Vec<Case> {
    vec![
        Case {
            name: "rotate",
            tls: json!({"rotateCertificates": true}),
            says: &["rotate"],
        },
        Case {
            name: "certificates",
            tls: json!({"certificates": [{"alias": "server", "dnsNames": ["till.example"]}]}),
            says: &["issuer"],
        },
        Case {
            name: "rotate-and-remove",
            tls: json!({"rotateCertificates": true, "remove": true}),
            says: &["rotateCertificates", "remove"],
        },
        Case {
            name: "nothing",
            tls: json!({}),
            says: &["spec.tls"],
        },
        Case {
            name: "mode",
            tls: json!({"sslMode": "require"}),
            says: &["issuerRef"],
        },
        Case {
            name: "kind",
            tls: json!({"issuerRef": {"kind": "Notary", "name": "pb-issuer"}}),
            says: &["Notary", "ClusterIssuer"],
        },
        Case {
            name: "group",
            tls: json!({"issuerRef": {
                "apiGroup": "example.org", "kind": "Issuer", "name": "pb-issuer",
            }}),
            says: &["example.org", "cert-manager.io"],
        },
    ]
}

fn with_tls() -> Vec<Case> {
    vec![
        Case {
            name: "issuer-and-remove",
            tls: json!({"issuerRef": issuer("pb-issuer"), "remove": true}),
            says: &["issuerRef", "remove"],
        },
        Case {
            name: "rotate-and-certificates",
            tls: json!({"rotateCertificates": true, "certificates": [{"alias": "client"}]}),
            says: &["rotateCertificates", "certificates"],
        },
        Case {
            name: "unreadable-duration",
            tls: json!({"certificates": [{"alias": "server", "duration": "a fortnight"}]}),
            says: &["duration", "a fortnight"],
        },
        Case {
            name: "no-address",
            tls: json!({"certificates": [{"alias": "server", "ipAddresses": ["10.0.0.0.1"]}]}),
            says: &["10.0.0.0.1"],
        },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_that_cannot_be_carried_out_says_why_and_changes_nothing() {
    let stage = Stage::start().await;
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage.example("pb-issuer").await;
    broken_issuers(&stage).await;
    stage.example("pb").await;
    stage.ready("pb").await;

    let mut cases = without_tls();
    let names = [
        "unknown",
        "secret-missing",
        "key-mismatch",
        "ca-expired",
        "outlives",
    ];
    cases.extend(issuer_cases(names));
    run(&stage, cases).await;

    // With TLS: what cannot be done leaves the served certificate alone.
    stage.example("add-tls").await;
    stage.successful("add-tls").await;
    let mut cases = with_tls();
    let names = [
        "again-unknown",
        "again-bare",
        "again-crossed",
        "again-expired",
        "again-brief",
    ];
    cases.extend(issuer_cases(names));
    run(&stage, cases).await;
    stage.stop().await;
}
