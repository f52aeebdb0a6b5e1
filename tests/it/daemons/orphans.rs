//! What a daemon that died has left behind, when nobody carries it on; and what a newer one has left.

use std::net::SocketAddr;
use std::time::Duration;

use bouncert::api::PgBouncerOpsRequest;
use bouncert::api::common::find_condition;
use bouncert::ops::plan::PLAN_FORM;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::{ALONE, Daemon, stage_alone};
use crate::pipeline::{before, in_service, in_the_middle, is_paused, open_till};
use crate::stage::{LONG, PASSWORD, Stage, request};
use crate::support::eventually;

/// A statement through one pod.
pub(crate) fn psql(pod: SocketAddr, sql: &str) -> Child {
    let conninfo = format!(
        "hostaddr={} port={} user=postgres dbname=postgres sslmode=require connect_timeout=20",
        pod.ip(),
        pod.port()
    );
    Command::new("psql")
        .args(["-X", "-At", "-c", sql, &conninfo])
        .env("PGPASSWORD", PASSWORD)
        .env("PGSSLCERT", "/nonexistent")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Whether a statement gets no answer in a second, though the pod accepts its client.
pub(crate) async fn holds_back(pod: SocketAddr) -> bool {
    let asked = psql(pod, "SELECT 1").wait_with_output();
    tokio::time::timeout(Duration::from_secs(1), asked)
        .await
        .is_err()
}

async fn out_of_service(stage: &Stage) -> Option<String> {
    let pods = in_service(stage, "till").await;
    pods.into_iter()
        .find_map(|(pod, serving)| (!serving).then_some(pod))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pooler_left_paused_by_a_death_is_resumed_though_its_request_is_gone() {
    let stage = stage_alone().await;
    let mut daemon = Daemon::start(&stage, "first", &ALONE);
    open_till(&stage, 2).await;
    let old = before(&stage, "till").await;
    // The first pod to be rolled is the last one; its open transaction keeps PAUSE waiting.
    let (pod, address) = stage.pods("till").await.into_iter().max().unwrap();
    let transaction = psql(address, "SELECT 7 FROM pg_sleep(12)");
    stage
        .create(request("lost", "till", json!({"rotateCertificates": true})))
        .await;
    eventually(LONG, async || {
        let out = out_of_service(&stage).await;
        if out.as_ref() == Some(&pod) && holds_back(address).await {
            return Ok(());
        }
        Err(out)
    })
    .await;
    daemon.kill();
    assert!(
        holds_back(address).await,
        "paused until somebody resumes it"
    );

    // Somebody makes short work of the request.
    let requests = stage.api::<PgBouncerOpsRequest>();
    let bare = Patch::Merge(json!({"metadata": {"finalizers": Value::Null}}));
    requests
        .patch("lost", &PatchParams::default(), &bare)
        .await
        .unwrap();
    let _gone = requests
        .delete("lost", &DeleteParams::default())
        .await
        .unwrap();
    assert!(is_paused(&stage, "till").await);

    let daemon = Daemon::start(&stage, "second", &ALONE);
    eventually(LONG, async || {
        let pods = in_service(&stage, "till").await;
        let paused = is_paused(&stage, "till").await;
        if !paused && pods == old.pods {
            Ok(())
        } else {
            Err((paused, pods))
        }
    })
    .await;
    assert!(!holds_back(address).await, "resumed");
    let answer = transaction.wait_with_output().await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&answer.stdout).trim(),
        "7",
        "{answer:?}"
    );
    let events = stage
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .unwrap();
    assert!(
        events
            .iter()
            .any(|event| event.reason.as_deref() == Some("PutBack"))
    );
    drop(daemon);
    stage.stop().await;
}

/// Gives the journal of a request another form, which is in `plan.json`.
async fn set_form(stage: &Stage, request: &str, form: u64) {
    let kept = stage.journal(request).await.unwrap();
    let plan = &kept.data.as_ref().unwrap()["plan.json"];
    let mut plan: Value = serde_json::from_str(plan).unwrap();
    plan["form"] = json!(form);
    let maps: Api<ConfigMap> = Api::namespaced(stage.client.clone(), &kept.namespace().unwrap());
    let patch = Patch::Merge(json!({"data": {"plan.json": plan.to_string()}}));
    maps.patch(&kept.name_any(), &PatchParams::default(), &patch)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_journal_of_a_newer_daemon_is_left_alone_and_carried_on_by_that_one() {
    let stage = stage_alone().await;
    let mut daemon = Daemon::start(&stage, "newer", &ALONE);
    open_till(&stage, 2).await;
    let old = before(&stage, "till").await;
    stage
        .create(request(
            "modern",
            "till",
            json!({"rotateCertificates": true}),
        ))
        .await;
    in_the_middle(&stage, "till", &old.served).await;
    daemon.kill();
    set_form(&stage, "modern", 99).await;
    let uids = uids(&stage).await;
    let spec = stage.bouncer("till").await.spec;

    let mut daemon = Daemon::start(&stage, "older", &ALONE);
    let told = eventually(LONG, async || {
        let request: PgBouncerOpsRequest = stage.get("modern").await.unwrap();
        let status = request.status.unwrap_or_default();
        match find_condition(&status.conditions, "Running") {
            Some(told) if told.reason == "JournalIsNewer" => Ok(told.message.clone()),
            _ => Err(status),
        }
    })
    .await;
    for part in ["form 99", "newer version", "run that version"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    daemon.says("left alone", 1).await;
    daemon.says("to be tried again", 1).await;
    let events = stage
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .unwrap();
    assert!(
        events
            .iter()
            .any(|event| event.reason.as_deref() == Some("JournalIsNewer"))
    );
    assert_eq!(self::uids(&stage).await, uids, "no pod was touched");
    assert!(is_paused(&stage, "till").await);
    assert_eq!(stage.bouncer("till").await.spec, spec);
    assert_eq!(
        daemon.log().matches("left alone").count(),
        1,
        "said once, not whenever it is looked at"
    );
    daemon.kill();

    set_form(&stage, "modern", u64::from(PLAN_FORM)).await;
    let daemon = Daemon::start(&stage, "newer-again", &ALONE);
    stage.successful("modern").await;
    drop(daemon);
    stage.stop().await;
}

/// The pods and which label they carry.
async fn uids(stage: &Stage) -> Vec<(Option<String>, Option<String>)> {
    let labels = ListParams::default().labels("app.kubernetes.io/instance=till");
    let pods = stage.api::<Pod>().list(&labels).await.unwrap();
    let serving = bouncert::api::annotations::SERVING_LABEL;
    let mut all: Vec<_> = pods
        .iter()
        .map(|pod| (pod.uid(), pod.labels().get(serving).cloned()))
        .collect();
    all.sort();
    all
}
