//! Rotation by itself on the local platform: what is due, what is frozen, and what somebody else did.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bouncert::api::annotations::{CREATED_BY_LABEL, FREEZE_ROTATION, MAINTENANCE_WINDOW};
use bouncert::api::common::find_condition;
use bouncert::api::{PgBouncer, PgBouncerOpsRequest};
use bouncert::names::Fingerprint;
use bouncert::pki::facts::{CertificateFacts, read_chain};
use k8s_openapi::api::core::v1::{Event, Secret};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cli::{bouncert, stderr, stdout};
use crate::stage::{LONG, NS, Stage};
use crate::support::eventually;

pub(super) const POOLER: &str = "pb-tls";
pub(super) const SERVER: &str = "pb-tls-server-cert";
/// How soon drift has to be noticed.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn certificates_that_live_for_minutes_rotate_by_themselves_under_load_and_nothing_fails() {
    let output = bouncert(&["demo", "--soak", "60s", "--output", "json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let steps = report["steps"].as_array().unwrap();
    // Added by a request of ours, then rotated by nobody's.
    assert!(steps.len() >= 3, "{report}");
    for (step, generation) in steps.iter().zip(1..) {
        if generation > 1 {
            assert_eq!(step["name"], format!("pb-rotate-r{generation}"));
        }
        assert_eq!(step["phase"], "Successful", "{step}");
        assert_eq!(step["pods_proved"], json!(3), "{step}");
        assert_eq!(step["transactions_failed"], json!(0), "{step}");
        assert_eq!(step["transactions_lost"], json!(0), "{step}");
        assert!(step["transactions_committed"].as_u64() > Some(50), "{step}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_somebody_else_does_to_the_material_is_noticed_said_and_put_right() {
    let stage = opened().await;
    let issued = leaf(&stage).await.unwrap();

    // Deleted: the same revision is published again.
    let secrets = stage.api::<Secret>();
    secrets
        .delete(SERVER, &DeleteParams::default())
        .await
        .unwrap();
    published(&stage, MINUTE, issued.fingerprint).await;

    // Broken: the same, and an event says so.
    let garbage = json!({ "stringData": { "tls.crt": "no certificate", "tls.key": "no key" } });
    patch(&stage, &garbage).await;
    published(&stage, MINUTE, issued.fingerprint).await;
    assert!(has_event(&stage, "SecretPutBack").await);
    assert_eq!(
        requests(&stage).await.len(),
        0,
        "nothing had to be restarted"
    );

    // Another sound certificate: adopted, and carried into the pod.
    let (foreign_crt, foreign_key) = foreign(&stage, &issued);
    let sound = json!({ "stringData": { "tls.crt": foreign_crt, "tls.key": foreign_key } });
    patch(&stage, &sound).await;
    let adopted = read_chain(&foreign_crt).unwrap().remove(0).fingerprint;
    // The condition of the step before may still be there.
    condition(&stage, "CertificateDrift", "SecretAdopted").await;
    let restart = ended_request(&stage, "Restart").await;
    assert!(
        restart.name_any().starts_with("pb-tls-restart-r"),
        "{}",
        restart.name_any()
    );
    assert_eq!(served(&stage).await, Some(adopted));
    assert_eq!(leaf(&stage).await.unwrap().fingerprint, adopted, "it stays");

    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_renewed_ca_a_freeze_and_a_word_that_nobody_understands_are_all_heeded() {
    let stage = Stage::start().await;
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage.example("issuer").await;
    stage.example("pgbouncer-ssl").await;
    stage.ready(POOLER).await;
    let before = leaf(&stage).await.unwrap();

    // A window that says nothing is told, and only what is urgent would be rotated.
    annotate(&stage, MAINTENANCE_WINDOW, Some("Mon-Fry 01:00-02:00")).await;
    let message = condition(&stage, "RotationHeld", "AnnotationUnreadable").await;
    assert!(message.contains("\"Fry\" is no day"), "{message}");
    assert!(has_event(&stage, "AnnotationUnreadable").await);

    // The CA is renewed while everything is frozen.
    annotate(&stage, MAINTENANCE_WINDOW, None).await;
    annotate(&stage, FREEZE_ROTATION, Some("true")).await;
    let (crt, key) = stage.openssl_pair("renewed", "/CN=pgbouncer/O=renewed");
    let renewed = json!({ "stringData": { "tls.crt": crt, "tls.key": key } });
    let secrets = stage.api::<Secret>();
    let params = PatchParams::default();
    secrets
        .patch("pgbouncer-ca", &params, &Patch::Merge(&renewed))
        .await
        .unwrap();
    condition(&stage, "CertificateDrift", "CaRenewed").await;
    condition(&stage, "RotationHeld", "Frozen").await;
    let plan = schedule(&stage).await;
    assert_eq!(plan["blocked"][0]["by"], "frozen", "{plan}");
    assert_eq!(plan["planned"], json!([]), "{plan}");
    assert_eq!(requests(&stage).await.len(), 0);

    // The freeze is lifted: rotated, with trust in both, and nothing is left to say.
    annotate(&stage, FREEZE_ROTATION, None).await;
    let rotation = ended_request(&stage, "ReconfigureTLS").await;
    assert_eq!(rotation.name_any(), "pb-tls-rotate-r2");
    let after = leaf(&stage).await.unwrap();
    assert!(after.issuer.contains("renewed"), "{}", after.issuer);
    assert_ne!(after.fingerprint, before.fingerprint);
    assert_eq!(served(&stage).await, Some(after.fingerprint));
    let trusted = read_chain(&stage.secret(SERVER, "ca.crt").await).unwrap();
    assert_eq!(trusted.len(), 2, "the old CA and the new one");
    eventually(MINUTE, async || {
        let status = stage.bouncer(POOLER).await.status.unwrap();
        let left = ["RotationHeld", "CertificateDrift"]
            .map(|type_| find_condition(&status.conditions, type_).cloned());
        if left.iter().all(Option::is_none) {
            Ok(())
        } else {
            Err(left)
        }
    })
    .await;
    let plan = schedule(&stage).await;
    assert_eq!(plan["planned"][0]["pooler"], POOLER, "{plan}");
    assert_eq!(plan["blocked"], json!([]), "{plan}");
    stage.stop().await;
}

// === hands and eyes ===

/// A stage with the documentation's pooler.
pub(super) async fn opened() -> Stage {
    let stage = Stage::start().await;
    open(&stage).await;
    stage
}

/// The documentation's pooler, with its CA and issuer, until it is ready.
pub(super) async fn open(stage: &Stage) {
    let (crt, key) = stage.openssl_pair("pgbouncer-ca", "/CN=pgbouncer/O=kubedb");
    stage.ca_secret("pgbouncer-ca", &crt, &key).await;
    stage.example("issuer").await;
    stage.example("pgbouncer-ssl").await;
    stage.ready(POOLER).await;
}

pub(super) async fn patch(stage: &Stage, change: &Value) {
    let secrets = stage.api::<Secret>();
    secrets
        .patch(SERVER, &PatchParams::default(), &Patch::Merge(change))
        .await
        .unwrap();
}

pub(super) async fn annotate(stage: &Stage, key: &str, value: Option<&str>) {
    let change = json!({ "metadata": { "annotations": { key: value } } });
    let bouncers = stage.api::<PgBouncer>();
    bouncers
        .patch(POOLER, &PatchParams::default(), &Patch::Merge(&change))
        .await
        .unwrap();
}

/// The leaf that is published, if it can be read.
pub(super) async fn leaf(stage: &Stage) -> Option<CertificateFacts> {
    let secret: Secret = stage.get(SERVER).await?;
    let text = String::from_utf8(secret.data?.get("tls.crt")?.0.clone()).ok()?;
    read_chain(&text).ok()?.into_iter().next()
}

async fn published(stage: &Stage, bound: Duration, wanted: Fingerprint) {
    eventually(bound, async || {
        let leaf = leaf(stage).await.map(|leaf| leaf.fingerprint);
        if leaf == Some(wanted) {
            Ok(())
        } else {
            Err(leaf)
        }
    })
    .await;
}

pub(super) async fn served(stage: &Stage) -> Option<Fingerprint> {
    let served = stage.served(POOLER).await;
    assert_eq!(served.len(), 1);
    served[0].fingerprint()
}

/// The message of a condition, once it is there with that reason: within a minute.
pub(super) async fn condition(stage: &Stage, type_: &str, reason: &str) -> String {
    eventually(MINUTE, async || {
        let status = stage.bouncer(POOLER).await.status.unwrap_or_default();
        let found = find_condition(&status.conditions, type_);
        let found = found.filter(|found| found.reason == reason);
        found.map(|found| found.message.clone()).ok_or(status)
    })
    .await
}

async fn has_event(stage: &Stage, reason: &str) -> bool {
    eventually(MINUTE, async || {
        let events = stage
            .api::<Event>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let reasons: Vec<_> = events
            .items
            .into_iter()
            .filter_map(|event| event.reason)
            .collect();
        if reasons.iter().any(|found| found == reason) {
            Ok(true)
        } else {
            Err(reasons)
        }
    })
    .await
}

/// The requests that rotation made.
pub(super) async fn requests(stage: &Stage) -> Vec<PgBouncerOpsRequest> {
    let labels = format!("{CREATED_BY_LABEL}=rotation");
    let params = ListParams::default().labels(&labels);
    stage.api().list(&params).await.unwrap().items
}

/// The request of that type that rotation makes, once it has succeeded.
async fn ended_request(stage: &Stage, type_: &str) -> PgBouncerOpsRequest {
    let made = eventually(LONG, async || {
        let all = requests(stage).await;
        let found = all
            .iter()
            .find(|request| request.spec.type_.as_str() == type_);
        found.map(ResourceExt::name_any).ok_or(all.len())
    })
    .await;
    stage.successful(&made).await
}

async fn schedule(stage: &Stage) -> Value {
    let kubeconfig = stage.directory.path().join("data/kubeconfig");
    let run = move || {
        let kubeconfig = kubeconfig.to_str().unwrap();
        let arguments = ["schedule", "--days", "90", "-n", NS, "-o", "json"];
        let all: Vec<&str> = arguments
            .into_iter()
            .chain(["--kubeconfig", kubeconfig])
            .collect();
        let output = bouncert(&all);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// A certificate with the names of `like` that somebody else signed with the same CA, for servers alone;
/// and its key.
pub(super) fn foreign(stage: &Stage, like: &CertificateFacts) -> (String, String) {
    let path = |name: &str| stage.directory.path().join(name);
    let names: Vec<String> = like
        .dns_names
        .iter()
        .map(|name| format!("DNS:{name}"))
        .collect();
    let extensions = format!(
        "subjectAltName={},IP:127.0.0.1\nextendedKeyUsage=serverAuth\n\
         keyUsage=digitalSignature,keyEncipherment\n",
        names.join(",")
    );
    std::fs::write(path("foreign.ext"), extensions).unwrap();
    let subject = format!("/CN={}", like.common_name.as_deref().unwrap());
    openssl(
        &[
            "req", "-new", "-nodes", "-newkey", "rsa:2048", "-subj", &subject,
        ],
        &[
            ("-keyout", &path("foreign.key")),
            ("-out", &path("foreign.csr")),
        ],
    );
    openssl(
        &["x509", "-req", "-days", "30", "-set_serial", "77"],
        &[
            ("-in", &path("foreign.csr")),
            ("-CA", &path("pgbouncer-ca.crt")),
            ("-CAkey", &path("pgbouncer-ca.key")),
            ("-extfile", &path("foreign.ext")),
            ("-out", &path("foreign.crt")),
        ],
    );
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap();
    (read("foreign.crt"), read("foreign.key"))
}

fn openssl(words: &[&str], files: &[(&str, &Path)]) {
    let mut command = Command::new("openssl");
    command.args(words);
    for (option, file) in files {
        command.arg(option).arg(file);
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
