//! A step that fails is tried again; one that takes too long takes the change back, and not before
//! every pod has been seen to serve what it served.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::daemons::orphans::{holds_back, psql};
use crate::pipeline::{before, in_service, in_the_middle, is_paused, open_till, served};
use crate::stage::{LONG, Stage, request};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_step_is_retried_and_one_that_takes_too_long_is_undone_with_proof() {
    let stage = Stage::start().await;
    open_till(&stage, 2).await;
    a_pooler_that_dies_in_its_drain_is_tried_again(&stage).await;
    a_step_that_takes_too_long_takes_the_change_back(&stage).await;
    stage.stop().await;
}

/// The lines of a request's journal: the step's name and what happened.
async fn journal(stage: &Stage, request: &str) -> Vec<(String, Value)> {
    let Some(map) = stage.journal(request).await else {
        return Vec::new();
    };
    let data = map.data.unwrap();
    let plan: Value = serde_json::from_str(&data["plan.json"]).unwrap();
    let lines: Vec<Value> = serde_json::from_str(&data["journal.json"]).unwrap();
    let step = |line: &Value| usize::try_from(line["step"].as_u64().unwrap()).unwrap();
    lines
        .iter()
        .map(|line| (plan["steps"][step(line)].to_string(), line["event"].clone()))
        .collect()
}

async fn a_pooler_that_dies_in_its_drain_is_tried_again(stage: &Stage) {
    let old = before(stage, "till").await;
    let (pod, address) = stage.pods("till").await.into_iter().max().unwrap();
    // It keeps PAUSE waiting.
    let transaction = psql(address, "SELECT pg_sleep(60)");
    stage
        .create(request(
            "stubborn",
            "till",
            json!({"rotateCertificates": true}),
        ))
        .await;
    eventually(LONG, async || {
        let pods = in_service(stage, "till").await;
        if pods.get(&pod) == Some(&false) && holds_back(address).await {
            Ok(())
        } else {
            Err(pods)
        }
    })
    .await;
    stage.kill_pooler(address);
    stage.successful("stubborn").await;
    drop(transaction);
    let lines = journal(stage, "stubborn").await;
    let of_pod: Vec<&Value> = lines
        .iter()
        .filter(|(step, _)| step.contains(&pod))
        .map(|(_, event)| event)
        .collect();
    let failure = of_pod.iter().find_map(|event| event.get("Failed"));
    let failure = failure.unwrap_or_else(|| panic!("it never failed: {lines:#?}"));
    assert_eq!(failure["kind"], "Transient", "{failure}");
    assert!(
        of_pod.last().unwrap().get("Succeeded").is_some(),
        "{of_pod:?}"
    );
    let now = before(stage, "till").await;
    assert!(now.served.iter().all(|leaf| !old.served.contains(leaf)));
    assert_eq!(now.pods, old.pods);
}

/// Somebody changes the budget, so that the second pod may not go. Its pooler dies meanwhile and comes up
/// with the new material, though the pod is of the old configuration: undoing has to see that.
async fn a_step_that_takes_too_long_takes_the_change_back(stage: &Stage) {
    let old = before(stage, "till").await;
    let (pod, address) = stage.pods("till").await.into_iter().min().unwrap();
    // It keeps the second pod in its drain for long enough to change the budget.
    let transaction = psql(address, "SELECT pg_sleep(60)");
    let mut asked = request("overdue", "till", json!({"rotateCertificates": true}));
    asked["spec"]["timeout"] = json!("12s");
    stage.create(asked).await;
    in_the_middle(stage, "till", &old.served).await;
    let budgets = stage.api::<PodDisruptionBudget>();
    let budget = budgets.get("till").await.unwrap().spec.unwrap();
    let allow = |most: Value, least: Value| {
        Patch::Merge(json!({"spec": {"maxUnavailable": most, "minAvailable": least}}))
    };
    let params = PatchParams::default();
    let nobody = allow(json!(0), Value::Null);
    budgets.patch("till", &params, &nobody).await.unwrap();
    // Once the budget is in force the pod stays; if its drain had begun already, it is put back.
    let mut looks_in_service = 0;
    eventually(LONG, async || {
        let status = budgets.get("till").await.unwrap().status.unwrap();
        let pods = in_service(stage, "till").await;
        let stays = status.disruptions_allowed == Some(0) && pods.get(&pod) == Some(&true);
        looks_in_service = if stays { looks_in_service + 1 } else { 0 };
        if looks_in_service > 40 {
            Ok(())
        } else {
            Err((status, pods))
        }
    })
    .await;
    let uid = stage.get::<Pod>(&pod).await.unwrap().metadata.uid;
    stage.kill_pooler(address);
    eventually(LONG, async || {
        let now = served_if_any(address).await;
        if now.is_some() && !old.served.contains(&now) {
            Ok(())
        } else {
            Err(now)
        }
    })
    .await;
    assert_eq!(
        stage.get::<Pod>(&pod).await.unwrap().metadata.uid,
        uid,
        "the same pod"
    );

    let late = eventually(LONG, async || {
        let lines = journal(stage, "overdue").await;
        let late = lines
            .iter()
            .find_map(|(_, event)| event.get("Failed").cloned());
        late.ok_or(lines)
    })
    .await;
    assert_eq!(late["kind"], "TimedOut", "{late}");
    let usual = allow(json!(budget.max_unavailable), json!(budget.min_available));
    budgets.patch("till", &params, &usual).await.unwrap();

    let message = stage.failed("overdue").await;
    for part in ["roll till-0", "not done within 12 s", "is as it was before"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    drop(transaction);
    assert_eq!(before(stage, "till").await, old);
    assert_eq!(served(stage, "till").await, old.served);
    assert!(!is_paused(stage, "till").await);
    assert_eq!(stage.psql("till", "sslmode=require").await.unwrap(), "42");
}

async fn served_if_any(pod: SocketAddr) -> Option<bouncert::names::Fingerprint> {
    let bound = std::time::Duration::from_secs(1);
    let seen = bouncert::pgbouncer::probe::probe(pod, None, bound).await;
    seen.ok().and_then(|seen| seen.fingerprint())
}
