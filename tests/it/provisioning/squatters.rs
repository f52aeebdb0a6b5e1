//! Pods of others: at the name of one of ours, or with its labels.

use bouncert::api::PgBouncer;
use bouncert::api::annotations::SERVING_LABEL;
use bouncert::api::common::{Phase, find_condition};
use bouncert::blueprint::labels;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::stage::{LONG, NS, Stage};
use crate::support::eventually;

fn bouncer(name: &str) -> Value {
    json!({
        "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "metadata": { "name": name },
        "spec": {
            "version": "1.18.0", "replicas": 1,
            "database": {
                "databaseName": "postgres", "databaseRef": { "name": "ha-postgres", "namespace": NS },
            },
        },
    })
}

/// A pod that no workload makes and no node starts.
fn pod(name: &str, labels: &labels::Map) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": labels },
        "spec": {
            "schedulerName": "somebody-elses",
            "containers": [{ "name": "front", "image": "example.org/front:1" }],
        },
    })
}

/// What of a pod its holder has written.
async fn written(stage: &Stage, name: &str) -> Value {
    let pod: Pod = stage.get(name).await.unwrap();
    json!([
        pod.uid(),
        pod.labels(),
        pod.annotations(),
        pod.owner_references(),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pod_of_another_at_the_name_of_ours_is_named_and_left_alone() {
    let stage = Stage::start().await;
    stage.create(pod("web-0", &labels::Map::new())).await;
    let before = written(&stage, "web-0").await;
    stage.create(bouncer("web")).await;
    let open = async || {
        let status = stage.bouncer("web").await.status.unwrap_or_default();
        let open = find_condition(&status.conditions, "Reconciled").cloned();
        (status.phase, open)
    };
    eventually(LONG, async || match open().await {
        (Some(phase), Some(open))
            if open.reason == "ForeignObject" && open.message.contains("Pod demo/web-0") =>
        {
            assert_ne!(phase, Phase::Ready);
            Ok(())
        }
        other => Err(other),
    })
    .await;
    assert_eq!(written(&stage, "web-0").await, before);
    let pods = stage.api::<Pod>();
    pods.delete("web-0", &DeleteParams::default())
        .await
        .unwrap();
    stage.ready("web").await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pod_of_another_with_the_labels_of_ours_is_not_drained_evicted_or_counted() {
    let mut stage = Stage::start().await;
    stage.create(bouncer("web")).await;
    stage.ready("web").await;
    let mut like_ours = labels::selector("web");
    stage.create(pod("stray", &like_ours)).await;
    like_ours.insert(SERVING_LABEL.to_owned(), "true".to_owned());
    stage.create(pod("serving", &like_ours)).await;
    let before = [
        written(&stage, "stray").await,
        written(&stage, "serving").await,
    ];
    // A daemon that begins puts back what is out of service.
    stage.dismiss_daemon().await;
    stage.start_daemon();
    stage
        .create(json!({
            "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PgBouncerOpsRequest",
            "metadata": { "name": "again" },
            "spec": { "type": "Restart", "databaseRef": { "name": "web" } },
        }))
        .await;
    stage.successful("again").await;
    let after = [
        written(&stage, "stray").await,
        written(&stage, "serving").await,
    ];
    assert_eq!(after, before);
    let bouncer: PgBouncer = stage.ready("web").await;
    let status = bouncer.status.unwrap();
    assert!(
        find_condition(&status.conditions, "Reconciled").is_none(),
        "{status:?}"
    );
    stage.stop().await;
}
