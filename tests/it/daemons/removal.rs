//! The daemon is taken away and comes back: poolers do not notice either.

use std::collections::BTreeMap;

use bouncert::api::PgBouncer;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

use crate::pipeline::{before, open_till};
use crate::stage::{LONG, Stage};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn poolers_serve_without_the_daemon_and_are_not_touched_when_it_is_installed_again() {
    let mut stage = Stage::start().await;
    open_till(&stage, 2).await;
    let (was, pods) = (before(&stage, "till").await, processes(&stage).await);
    assert_eq!(pods.len(), 2);

    stage.dismiss_daemon().await;
    assert_eq!(stage.psql("till", "sslmode=require").await.unwrap(), "42");
    assert_eq!(before(&stage, "till").await, was);

    // A label that goes along to the Service shows that the new one works.
    let labelled = json!({ "metadata": { "labels": { "team": "books" } } });
    let (params, merge) = (PatchParams::default(), Patch::Merge(&labelled));
    let bouncers = stage.api::<PgBouncer>();
    bouncers.patch("till", &params, &merge).await.unwrap();
    stage.start_daemon();
    let services = stage.api::<Service>();
    eventually(LONG, async || {
        let service = services.get("till").await.unwrap();
        let has = service.labels().contains_key("team");
        if has { Ok(()) } else { Err(service.metadata) }
    })
    .await;
    stage.ready("till").await;
    assert_eq!(before(&stage, "till").await, was);
    assert_eq!(processes(&stage).await, pods);
    assert_eq!(stage.psql("till", "sslmode=require").await.unwrap(), "42");
    stage.stop().await;
}

/// The containers that run, by the UIDs of their pods.
async fn processes(stage: &Stage) -> BTreeMap<String, Option<String>> {
    let labels = ListParams::default().labels("app.kubernetes.io/instance=till");
    let pods = stage.api::<Pod>().list(&labels).await.unwrap();
    let container = |pod: &Pod| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        statuses.first()?.container_id.clone()
    };
    pods.iter()
        .map(|pod| (pod.uid().unwrap(), container(pod)))
        .collect()
}
