//! Who goes first, who is skipped, who waits, who is refused
//! (docs/kubedb-compatibility.md, "Requests and their order").

use bouncert::api::common::find_condition;
use bouncert::api::{PgBouncerOpsRequest, RequestPhase};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::stage::{LONG, Stage, request};
use crate::support::eventually;

/// Time for a request that must not start to start all the same: several passes of the daemon.
const A_WHILE: std::time::Duration = std::time::Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_queue_and_the_superseded_is_skipped() {
    let mut stage = Stage::start().await;
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage.example("pb-issuer").await;
    stage.example("pb").await;
    stage.ready("pb").await;

    // Two of a type while nobody is looking; the newer stays.
    stage.kill_daemon().await;
    let add = json!({"issuerRef": {"kind": "Issuer", "name": "pb-issuer"}, "sslMode": "require"});
    stage.request("b-older", add.clone()).await;
    let older: PgBouncerOpsRequest = stage.get("b-older").await.unwrap();
    eventually(LONG, async || {
        // Creation times have whole seconds; the newer one is to be newer.
        let name = "a-newer";
        if stage.get::<PgBouncerOpsRequest>(name).await.is_none() {
            stage.request(name, add.clone()).await;
        }
        let newer: PgBouncerOpsRequest = stage.get(name).await.unwrap();
        if newer.metadata.creation_timestamp > older.metadata.creation_timestamp {
            return Ok(());
        }
        stage
            .api::<PgBouncerOpsRequest>()
            .delete(name, &kube::api::DeleteParams::default())
            .await
            .unwrap();
        Err(newer.metadata.creation_timestamp)
    })
    .await;
    stage.start_daemon();
    let skipped = stage.ended("b-older").await.status.unwrap();
    assert_eq!(skipped.phase, Some(RequestPhase::Skipped));
    let condition = find_condition(&skipped.conditions, "Skipped").unwrap();
    assert!(
        condition.message.contains("a-newer"),
        "{}",
        condition.message
    );
    stage.successful("a-newer").await;

    // What a Supervisor would create.
    let rotate = json!({"rotateCertificates": true});
    let mut supervised = request("pb-1767225600-rotate-tls-auto", "pb", rotate.clone());
    supervised["spec"]["apply"] = json!("IfReady");
    supervised["spec"]["timeout"] = json!("1m");
    stage.create(supervised).await;
    stage.successful("pb-1767225600-rotate-tls-auto").await;

    refusals(&stage).await;
    stage.stop().await;
}

/// Policies `IfReady` and `Always`.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn if_ready_waits_for_a_pgbouncer_and_always_does_not() {
    let stage = Stage::start().await;
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage.example("pb-issuer").await;
    // Its issuer does not exist, so it stays in Provisioning.
    stage.example("pgbouncer-ssl").await;
    let change = json!({"issuerRef": {"kind": "Issuer", "name": "pb-issuer"}});
    let mut patient = request("patient", "pb-tls", change.clone());
    patient["spec"]["apply"] = json!("IfReady");
    stage.create(patient).await;
    let phase = async |name: &str| {
        let request: PgBouncerOpsRequest = stage.get(name).await.unwrap();
        request.status.and_then(|status| status.phase)
    };
    let until = std::time::Instant::now() + A_WHILE;
    while std::time::Instant::now() < until {
        let phase = phase("patient").await;
        assert!(
            matches!(phase, None | Some(RequestPhase::Pending)),
            "{phase:?}"
        );
        tokio::task::yield_now().await;
    }
    assert_eq!(
        phase("patient").await,
        Some(RequestPhase::Pending),
        "it is told that it waits"
    );
    stage.create(request("restless", "pb-tls", change)).await;
    eventually(LONG, async || match phase("restless").await {
        None | Some(RequestPhase::Pending) => Err("not started"),
        Some(_) => Ok(()),
    })
    .await;
    stage.stop().await;
}

/// What stands for the webhook of KubeDB.
async fn refusals(stage: &Stage) {
    let patch = Patch::Merge(json!({"spec": {"timeout": "7m"}}));
    let refused = stage
        .api::<PgBouncerOpsRequest>()
        .patch("a-newer", &PatchParams::default(), &patch)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("immutable"), "{refused}");
    let refused = stage
        .try_create(request("typo", "pb", json!({"sslMode": "disabled"})))
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("Unsupported value: \"disabled\""),
        "{refused}"
    );
    stage
        .create(request(
            "lost",
            "nobody",
            json!({"rotateCertificates": true}),
        ))
        .await;
    let failed = stage.ended("lost").await.status.unwrap();
    assert_eq!(failed.phase, Some(RequestPhase::Failed));
    let message = &find_condition(&failed.conditions, "Failed")
        .unwrap()
        .message;
    assert!(message.contains("demo/nobody"), "{message}");
}
