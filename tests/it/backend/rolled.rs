//! From an AppBinding to the wire.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bouncert::api::AppBinding;
use bouncert::api::common::find_condition;
use bouncert::blueprint::backend_tls::is_backend_file;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{login, show};
use crate::stage::{LONG, NS, Stage};
use crate::support::{TestCa, eventually};

/// Changes the AppBinding of the stage's PostgreSQL.
async fn bind(stage: &Stage, spec: Value) {
    let patch = Patch::Merge(json!({ "spec": spec }));
    let bindings = stage.api::<AppBinding>();
    let params = PatchParams::default();
    bindings
        .patch("ha-postgres", &params, &patch)
        .await
        .unwrap();
}

async fn trust(stage: &Stage, ca: &TestCa) {
    let bundle = STANDARD.encode(&ca.pem);
    bind(stage, json!({ "clientConfig": { "caBundle": bundle } })).await;
}

/// Waits for a condition `Reconciled` with that reason, and returns its message.
async fn open(stage: &Stage, reason: &str) -> String {
    eventually(LONG, async || {
        let status = stage.bouncer("till").await.status.unwrap_or_default();
        let found = find_condition(&status.conditions, "Reconciled");
        match found.filter(|condition| condition.reason == reason) {
            Some(condition) => Ok(condition.message.clone()),
            None => Err(status.conditions),
        }
    })
    .await
}

/// Waits until the published configuration has that value of a parameter, or none.
async fn published(stage: &Stage, key: &str, value: Option<&str>) {
    eventually(LONG, async || {
        let ini = stage.ini("till").await;
        let found = ini.get(key).map(String::as_str);
        (found == value)
            .then_some(())
            .ok_or(found.map(str::to_owned))
    })
    .await;
}

/// The keys of the configuration Secret that are files of TLS towards PostgreSQL.
async fn files(stage: &Stage) -> BTreeSet<String> {
    let uid = stage.bouncer("till").await.uid().unwrap();
    let name = format!("till-{}", &uid[uid.len() - 6..]);
    let secret: Secret = stage.get(&name).await.unwrap();
    let keys = secret.data.unwrap().into_keys();
    keys.filter(|key| is_backend_file(key)).collect()
}

/// Whether a connection through the pooler reaches PostgreSQL with TLS.
async fn is_encrypted(stage: &Stage) -> Result<bool, String> {
    let address = stage.service("till").await;
    let conninfo = format!(
        "host={} port={} user=postgres dbname=postgres sslmode=disable",
        address.ip(),
        address.port()
    );
    login(&conninfo).await
}

async fn restart(stage: &Stage, name: &str) {
    stage
        .create(json!({
            "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PgBouncerOpsRequest",
            "metadata": { "name": name },
            "spec": { "type": "Restart", "databaseRef": { "name": "till" }, "apply": "Always" },
        }))
        .await;
    stage.successful(name).await;
}

/// From an AppBinding to the wire; a wrong CA, a wrong name and an expired certificate are refused
/// before a pooler is told, and requests go on with what is in force.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_an_appbinding_asks_for_is_proven_then_published_then_in_force() {
    let stage = Stage::start().await;
    let (ca, other) = (TestCa::new("books ca"), TestCa::new("other ca"));
    // The name that the daemon verifies, and the address that a pooler of this platform is given.
    let names = ["ha-postgres.demo.svc", "127.0.0.1"];
    show(&stage.postgres, Some(&ca.server(&names))).await;
    stage
        .create(json!({
            "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "metadata": { "name": "till" },
            "spec": {
                "version": "1.18.0", "replicas": 2,
                "database": {
                    "databaseName": "postgres",
                    "databaseRef": { "name": "ha-postgres", "namespace": NS },
                },
                "connectionPool": { "maxDBConnections": 10, "maxUserConnections": 10 },
                "deletionPolicy": "WipeOut",
            },
        }))
        .await;
    stage.ready("till").await;
    published(&stage, "server_tls_sslmode", None).await;

    // A CA that has not signed is refused, and all else goes on.
    trust(&stage, &other).await;
    let told = open(&stage, "BackendTLSRefused").await;
    for words in ["127.0.0.1", "verify-full", "CN=other ca", "stays in force"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    published(&stage, "server_tls_sslmode", None).await;
    assert!(files(&stage).await.is_empty());
    restart(&stage, "meanwhile").await;
    assert_eq!(
        is_encrypted(&stage).await,
        Ok(false),
        "1.18 uses no TLS by itself"
    );

    trust(&stage, &ca).await;
    published(&stage, "server_tls_sslmode", Some("verify-full")).await;
    let first = files(&stage).await;
    assert_eq!(first.len(), 1, "{first:?}");
    let told = open(&stage, "RestartPending").await;
    assert!(told.contains("till-0") && told.contains("till-1"), "{told}");
    assert_eq!(
        is_encrypted(&stage).await,
        Ok(false),
        "it has not restarted"
    );
    restart(&stage, "take-up").await;
    assert_eq!(is_encrypted(&stage).await, Ok(true));

    // PostgreSQL changes in the middle of nothing; the AppBinding follows, and only then the poolers.
    show(&stage.postgres, Some(&other.server(&names))).await;
    trust(&stage, &other).await;
    eventually(LONG, async || {
        let held = files(&stage).await;
        (held.len() == 2 && held.is_superset(&first))
            .then_some(())
            .ok_or(held)
    })
    .await;
    restart(&stage, "other-ca").await;
    assert_eq!(is_encrypted(&stage).await, Ok(true));
    // The former file goes with a full look, such as any change of the AppBinding brings.
    bind(&stage, json!({ "parameters": { "note": "look" } })).await;
    eventually(LONG, async || {
        let held = files(&stage).await;
        (held.len() == 1 && held.is_disjoint(&first))
            .then_some(())
            .ok_or(held)
    })
    .await;

    // What PostgreSQL shows by now is judged, whenever the AppBinding changes.
    let bundles =
        [[&ca, &other], [&other, &ca]].map(|[one, two]| format!("{}{}", one.pem, two.pem));
    let wrong = [
        (
            other.server(&["elsewhere.example"]),
            "is for [elsewhere.example], and not for ha-postgres.demo.svc",
        ),
        (other.expired_server(&names), "expired at 2021-01-01"),
    ];
    for ((pair, words), bundle) in wrong.into_iter().zip(bundles) {
        let before = stage.ini("till").await;
        show(&stage.postgres, Some(&pair)).await;
        let bundle = STANDARD.encode(bundle);
        bind(&stage, json!({ "clientConfig": { "caBundle": bundle } })).await;
        let told = open(&stage, "BackendTLSRefused").await;
        assert!(told.contains(words), "{words}: {told}");
        assert_eq!(stage.ini("till").await, before);
        // Put right at the other end, it is taken up without a hand's help.
        show(&stage.postgres, Some(&other.server(&names))).await;
        open(&stage, "RestartPending").await;
        assert_ne!(stage.ini("till").await, before);
    }

    // What is taken out of the AppBinding leaves the configuration; the files stay for the pods.
    bind(&stage, json!({ "clientConfig": { "caBundle": null } })).await;
    published(&stage, "server_tls_sslmode", None).await;
    assert_eq!(is_encrypted(&stage).await, Ok(true), "it has not restarted");
    restart(&stage, "without").await;
    assert_eq!(is_encrypted(&stage).await, Ok(false));
    stage.stop().await;
}
