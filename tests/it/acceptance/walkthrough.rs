//! The tutorial from creation to removal with its own manifests.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bouncert::api::common::{Condition, find_condition};
use bouncert::api::{AppBinding, PetSet, PgBouncer, SslMode};
use bouncert::names::Fingerprint;
use bouncert::pgbouncer::probe::{Served, fingerprint};
use bouncert::pki::facts::{CertificateFacts, read_chain};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::task::JoinSet;

use crate::stage::{NS, Stage, request};

const TLS_KEYS: [&str; 4] = [
    "client_tls_sslmode",
    "client_tls_ca_file",
    "client_tls_cert_file",
    "client_tls_key_file",
];
const CERTIFICATES: [&str; 3] = [
    "pb-server-cert",
    "pb-client-cert",
    "pb-metrics-exporter-cert",
];

/// What somebody who keeps looking has seen.
#[derive(Default)]
struct Seen {
    conditions: BTreeSet<String>,
    fewest_ready: Option<usize>,
}

/// Keeps looking at `pb` until it is dropped.
struct Watcher {
    seen: Arc<Mutex<Seen>>,
    _task: JoinSet<()>,
}

impl Watcher {
    fn new(stage: &Stage) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (bouncers, pods): (Api<PgBouncer>, Api<Pod>) = (stage.api(), stage.api());
        let mut task = JoinSet::new();
        let shared = Arc::clone(&seen);
        task.spawn(async move {
            loop {
                let bouncer = bouncers.get("pb").await.unwrap();
                let labels = ListParams::default().labels("app.kubernetes.io/instance=pb");
                let ready = pods
                    .list(&labels)
                    .await
                    .unwrap()
                    .iter()
                    .filter(|pod| is_ready(pod))
                    .count();
                {
                    let mut seen = shared.lock().unwrap();
                    let conditions = bouncer.status.unwrap_or_default().conditions;
                    seen.conditions
                        .extend(conditions.into_iter().map(|condition| condition.type_));
                    seen.fewest_ready = Some(seen.fewest_ready.map_or(ready, |few| few.min(ready)));
                }
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
        });
        Self { seen, _task: task }
    }

    /// Invariant I3, and the pause: paused meanwhile, and never without a ready pod.
    fn check(self, request: &str) {
        let seen = self.seen.lock().unwrap();
        assert!(
            seen.conditions.contains("Paused"),
            "{request}: Paused was never seen"
        );
        assert!(
            seen.fewest_ready > Some(0),
            "{request}: there was a moment without a ready pod"
        );
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_tutorial_runs_from_creation_to_removal() {
    let stage = Stage::start().await;
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage
        .openssl_ca("pgbouncer-new-ca", "/CN=pgbouncer/O=kubedb-updated")
        .await;
    stage.example("pb-issuer").await;
    created(&stage).await;

    let watcher = Watcher::new(&stage);
    stage.example("add-tls").await;
    stage.successful("add-tls").await;
    watcher.check("add-tls");
    let before = added(&stage).await;

    let watcher = Watcher::new(&stage);
    stage.example("rotate-tls").await;
    stage.successful("rotate-tls").await;
    watcher.check("rotate-tls");
    rotated(&stage, &before).await;

    stage.example("new-issuer").await;
    let old_client = stage.client_files("pb-client-cert").await;
    let watcher = Watcher::new(&stage);
    stage.example("change-issuer").await;
    stage.successful("change-issuer").await;
    watcher.check("change-issuer");
    issuer_changed(&stage, &old_client).await;

    let watcher = Watcher::new(&stage);
    stage.example("remove-tls").await;
    stage.successful("remove-tls").await;
    watcher.check("remove-tls");
    removed(&stage).await;
    conditions_tell_the_story(&stage).await;
    stage.stop().await;
}

/// After the creation: objects, conditions, configuration.
async fn created(stage: &Stage) {
    stage.example("pb").await;
    let bouncer = stage.ready("pb").await;
    assert_eq!(bouncer.spec.ssl_mode, Some(SslMode::Disable));
    assert_eq!(bouncer.finalizers(), ["kubedb.com"]);
    let uid = bouncer.uid().unwrap();
    for secret in [
        "pb-auth",
        "pb-backend",
        &format!("pb-{}", &uid[uid.len() - 6..]),
    ] {
        assert!(stage.get::<Secret>(secret).await.is_some(), "{secret}");
    }
    for service in ["pb", "pb-pods"] {
        assert!(stage.get::<Service>(service).await.is_some(), "{service}");
    }
    assert!(stage.get::<PetSet>("pb").await.is_some());
    assert!(stage.get::<Pod>("pb-0").await.is_some());
    assert!(stage.get::<AppBinding>("pb").await.is_some());
    let conditions = bouncer.status.unwrap().conditions;
    let types: Vec<_> = conditions
        .iter()
        .map(|condition| condition.type_.as_str())
        .collect();
    let wanted = [
        "ProvisioningStarted",
        "ReplicaReady",
        "AcceptingConnection",
        "Ready",
        "Provisioned",
    ];
    assert_eq!(types, wanted);
    let provisioned = find_condition(&conditions, "Provisioned").unwrap();
    assert_eq!(provisioned.reason, "DatabaseSuccessfullyProvisioned");

    let ini = stage.ini("pb").await;
    let wanted = [
        ("listen_addr", "*"),
        ("listen_port", "5432"),
        ("pool_mode", "session"),
        ("max_client_conn", "87"),
        ("default_pool_size", "2"),
        ("min_pool_size", "1"),
        ("reserve_pool_size", "5"),
        ("reserve_pool_timeout", "5"),
        ("max_db_connections", "1"),
        ("max_user_connections", "2"),
        ("stats_period", "60"),
        ("auth_type", "md5"),
        ("auth_file", "/var/run/pgbouncer/secret/userlist"),
        ("admin_users", "pgbouncer"),
        ("ignore_startup_parameters", "extra_float_digits"),
        ("logfile", "/tmp/pgbouncer.log"),
        ("pidfile", "/tmp/pgbouncer.pid"),
    ];
    for (key, value) in wanted {
        assert_eq!(ini.get(key).map(String::as_str), Some(value), "{key}");
    }
    // The marker by which a reload is proved is the only key that KubeDB does not write.
    assert!(ini["stats_users"].starts_with("bouncert-loaded-"));
    assert_eq!(ini.len(), wanted.len() + 1, "no other key: {ini:?}");
    assert_eq!(stage.psql("pb", "sslmode=disable").await.unwrap(), "42");
    assert!(stage.psql("pb", "sslmode=require").await.is_err());
}

/// After TLS was added. Returns the leaf of every alias.
async fn added(stage: &Stage) -> Vec<CertificateFacts> {
    let bouncer = stage.bouncer("pb").await;
    let tls = bouncer.spec.tls.as_ref().expect("spec.tls is written");
    assert_eq!(tls.issuer_ref.as_ref().unwrap().name, "pb-issuer");
    let entries: Vec<_> = tls
        .certificates
        .iter()
        .map(|entry| (entry.alias.as_str(), entry.secret_name.as_deref()))
        .collect();
    assert_eq!(
        entries,
        [
            ("client", Some("pb-client-cert")),
            ("server", Some("pb-server-cert")),
            ("metrics-exporter", Some("pb-metrics-exporter-cert")),
        ]
    );
    assert_eq!(bouncer.spec.ssl_mode, Some(SslMode::VerifyFull));
    let ini = stage.ini("pb").await;
    let serving = "/var/run/pgbouncer/tls/serving/server";
    assert_eq!(ini["client_tls_sslmode"], "verify-full");
    assert_eq!(ini["client_tls_ca_file"], format!("{serving}/ca.crt"));
    assert_eq!(ini["client_tls_cert_file"], format!("{serving}/tls.crt"));
    assert_eq!(ini["client_tls_key_file"], format!("{serving}/tls.key"));

    let leaves = leaves(stage).await;
    for (name, leaf) in CERTIFICATES.iter().zip(&leaves) {
        let secret: Secret = stage.get(name).await.unwrap();
        assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
        assert_eq!(
            secret.labels()["app.kubernetes.io/component"],
            "connection-pooler"
        );
        assert_eq!(secret.labels()["app.kubernetes.io/instance"], "pb");
        assert_eq!(secret.labels()["controller.cert-manager.io/fao"], "true");
        let days = (leaf.not_after - leaf.not_before).whole_days();
        assert_eq!(days, 90, "{name}");
    }
    let [server, client, _] = leaves.as_slice() else {
        panic!("three leaves")
    };
    assert_eq!(client.common_name.as_deref(), Some("pgbouncer"));
    assert!(client.subject.contains("O=pgbouncer") && client.subject.contains("OU=client"));
    for name in ["pb.demo.svc", "localhost", "*.pb-pods.demo.svc"] {
        assert!(
            server.dns_names.iter().any(|has| has == name),
            "{name}: {:?}",
            server.dns_names
        );
    }
    serves(stage, server.fingerprint).await;

    let files = stage.client_files("pb-client-cert").await;
    assert_eq!(
        stage
            .psql("pb", &format!("sslmode=verify-full {files}"))
            .await
            .unwrap(),
        "42"
    );
    let ca_only = files.split(' ').next().unwrap();
    let refused = stage
        .psql("pb", &format!("sslmode=verify-full {ca_only}"))
        .await
        .unwrap_err();
    assert!(refused.contains("certificate required"), "{refused}");
    let refused = stage.psql("pb", "sslmode=disable").await.unwrap_err();
    assert!(refused.contains("SSL required"), "{refused}");
    let (crt, key) = stage.openssl_pair("stranger", "/CN=pgbouncer/O=elsewhere");
    let foreign = stage.directory.path().join("foreign");
    crate::support::write_private(&foreign.with_extension("crt"), &crt);
    crate::support::write_private(&foreign.with_extension("key"), &key);
    let foreign = format!(
        "sslmode=verify-full {ca_only} sslcert={0}.crt sslkey={0}.key",
        foreign.display()
    );
    let refused = stage.psql("pb", &foreign).await.unwrap_err();
    assert!(refused.contains("unknown ca"), "{refused}");
    leaves
}

/// After the rotation.
async fn rotated(stage: &Stage, before: &[CertificateFacts]) {
    let after = leaves(stage).await;
    for (old, new) in before.iter().zip(&after) {
        assert_ne!(old.serial, new.serial);
        assert_ne!(
            old.spki_sha256, new.spki_sha256,
            "a rotation makes new keys"
        );
        assert_eq!(old.issuer, new.issuer);
    }
    serves(stage, after[0].fingerprint).await;
    let ca = read_chain(&stage.secret("pb-server-cert", "ca.crt").await).unwrap();
    assert_eq!(ca.len(), 1, "one issuer, one anchor");
    let files = stage.client_files("pb-client-cert").await;
    assert_eq!(
        stage
            .psql("pb", &format!("sslmode=verify-full {files}"))
            .await
            .unwrap(),
        "42"
    );
}

/// After the change of issuer; whoever still holds the former client certificate is not locked out.
async fn issuer_changed(stage: &Stage, old_client: &str) {
    for name in ["pb-client-cert", "pb-server-cert"] {
        let ca = read_chain(&stage.secret(name, "ca.crt").await).unwrap();
        assert!(
            ca[0].subject.contains("O=kubedb-updated"),
            "{name}: {}",
            ca[0].subject
        );
    }
    let bouncer = stage.bouncer("pb").await;
    assert_eq!(
        bouncer.spec.tls.unwrap().issuer_ref.unwrap().name,
        "pb-new-issuer"
    );
    serves(stage, leaves(stage).await[0].fingerprint).await;
    let files = stage.client_files("pb-client-cert").await;
    assert_eq!(
        stage
            .psql("pb", &format!("sslmode=verify-full {files}"))
            .await
            .unwrap(),
        "42"
    );
    // The former certificate with the present trust.
    let old_certificate: Vec<_> = old_client.split(' ').skip(1).collect();
    let trust = files.split(' ').next().unwrap();
    let mixed = format!("sslmode=verify-full {trust} {}", old_certificate.join(" "));
    assert_eq!(stage.psql("pb", &mixed).await.unwrap(), "42");
}

/// After the removal.
async fn removed(stage: &Stage) {
    let bouncer = stage.bouncer("pb").await;
    assert_eq!(bouncer.spec.tls, None);
    assert_eq!(bouncer.spec.ssl_mode, Some(SslMode::Disable));
    let ini = stage.ini("pb").await;
    for key in TLS_KEYS {
        assert!(!ini.contains_key(key), "{key}");
    }
    let secrets = stage
        .api::<Secret>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let left: Vec<_> = secrets
        .iter()
        .map(ResourceExt::name_any)
        .filter(|name| name.contains("-cert"))
        .collect();
    assert_eq!(
        left,
        Vec::<String>::new(),
        "certificate Secrets are gone, revisions too"
    );
    for served in stage.served("pb").await {
        assert!(matches!(served, Served::Plaintext), "{served:?}");
    }
    assert_eq!(stage.psql("pb", "sslmode=disable").await.unwrap(), "42");
    // Removing what is not there is no trouble.
    stage
        .create(request("remove-again", "pb", json!({"remove": true})))
        .await;
    stage.successful("remove-again").await;
}

/// The conditions that automation may rely on.
async fn conditions_tell_the_story(stage: &Stage) {
    for (name, issues) in [
        ("add-tls", true),
        ("rotate-tls", true),
        ("change-issuer", true),
        ("remove-tls", false),
    ] {
        let request = stage.successful(name).await;
        let status = request.status.unwrap();
        let has =
            |type_: &str| find_condition(&status.conditions, type_).is_some_and(Condition::is_true);
        for type_ in [
            "ReconfigureTLS",
            "DatabasePauseSucceeded",
            "UpdatePetSets",
            "RestartPods",
            "UpdateDatabase",
            "Successful",
        ] {
            assert!(has(type_), "{name} has no {type_}: {:?}", status.conditions);
        }
        assert_eq!(has("CertificateSynced"), issues, "{name}");
        assert_eq!(
            has("IssueCertificatesSucceeded"),
            name == "rotate-tls",
            "{name}"
        );
        assert!(!has("Failed"), "{name}");
    }
}

/// The leaf of every published alias.
async fn leaves(stage: &Stage) -> Vec<CertificateFacts> {
    let mut leaves = Vec::new();
    for name in CERTIFICATES {
        let chain = stage.secret(name, "tls.crt").await;
        leaves.push(read_chain(&chain).unwrap().remove(0));
    }
    leaves
}

/// Every pod, and the Service, serve that leaf (invariant I9).
async fn serves(stage: &Stage, leaf: Fingerprint) {
    let served = stage.served("pb").await;
    assert_eq!(served.len(), 1, "the surge pod is gone again");
    for served in served {
        let Served::Tls(handshake) = served else {
            panic!("a pod of {NS}/pb serves no TLS")
        };
        assert_eq!(fingerprint(&handshake.chain[0]), leaf);
    }
}
