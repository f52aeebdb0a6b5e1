//! Ends and restarts: of a process, of a pod, of the platform.

use bouncert::local::datadir::DataDirError;
use bouncert::local::platform::{Platform, PlatformError, PlatformOptions};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use tempfile::TempDir;

use super::{Rig, SOON, condition, kill, pod_address, process_id, restarts, runs};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_ends_gracefully_and_returns_from_the_present_template() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    rig.till(1).await;
    let before = rig.ready_pod("till-0").await;
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"digest": "two"}}}}});
    rig.api::<StatefulSet>()
        .patch("till", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    rig.api::<Pod>()
        .delete("till-0", &DeleteParams::default())
        .await
        .unwrap();
    let after = eventually(SOON, async || {
        let pod = rig.ready_pod("till-0").await;
        (pod.uid() != before.uid())
            .then_some(pod)
            .ok_or("the old pod")
    })
    .await;
    assert_eq!(after.annotations()["digest"], "two");
    assert_eq!(
        pod_address(&after),
        pod_address(&before),
        "it keeps its address"
    );
    assert!(!runs(process_id(&before)));
    let killed = rig.events().await;
    assert!(
        !killed.iter().any(|(_, m)| m.contains("SIGKILL")),
        "{killed:?}"
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_is_killed_starts_again_with_growing_pauses() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    rig.till(1).await;
    let first = process_id(&rig.ready_pod("till-0").await);
    kill(first);
    let again = eventually(SOON, async || {
        let pod = rig.ready_pod("till-0").await;
        (restarts(&pod) == 1).then_some(pod).ok_or("no restart")
    })
    .await;
    let container = &again
        .status
        .as_ref()
        .unwrap()
        .container_statuses
        .as_ref()
        .unwrap()[0];
    let last = container.last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.signal), (137, Some(9)));
    kill(process_id(&again));
    eventually(SOON, async || {
        let pod = rig.api::<Pod>().get("till-0").await.unwrap();
        let status = pod.status.unwrap();
        let container = status.container_statuses.unwrap().remove(0);
        let reason = container
            .state
            .and_then(|s| s.waiting)
            .and_then(|w| w.reason);
        (reason.as_deref() == Some("CrashLoopBackOff"))
            .then_some(())
            .ok_or(reason)
    })
    .await;
    assert!(!condition(
        &rig.api::<Pod>().get("till-0").await.unwrap(),
        "Ready"
    ));
    eventually(SOON, async || {
        let pod = rig.ready_pod("till-0").await;
        (restarts(&pod) == 2)
            .then_some(())
            .ok_or_else(|| restarts(&pod))
    })
    .await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poolers_outlive_a_platform_that_dies_and_are_taken_over_or_ended_by_the_next() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    rig.till(2).await;
    let kept = process_id(&rig.ready_pod("till-0").await);
    let orphan = process_id(&rig.ready_pod("till-1").await);
    let pods = rig.api::<Pod>();
    rig.vanish().await;
    assert!(runs(kept) && runs(orphan));
    // The pod goes while nobody looks.
    pods.delete("till-1", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    drop(pods);

    let rig = Rig::start(&data).await;
    eventually(SOON, async || (!runs(orphan)).then_some(()).ok_or(orphan)).await;
    eventually(SOON, async || {
        let pod = rig.ready_pod("till-1").await;
        let pid = process_id(&pod);
        (pid != orphan).then_some(()).ok_or(pid)
    })
    .await;
    let pod = rig.ready_pod("till-0").await;
    assert_eq!((process_id(&pod), restarts(&pod)), (kept, 0));
    // An adopted process is watched like a child.
    kill(kept);
    eventually(SOON, async || {
        let pod = rig.ready_pod("till-0").await;
        (process_id(&pod) != kept)
            .then_some(())
            .ok_or("still the old")
    })
    .await;
    let last = process_id(&rig.ready_pod("till-0").await);
    rig.stop().await;
    assert!(!runs(last), "a clean stop leaves nothing running");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_platforms_cannot_share_a_directory_and_a_missing_program_is_named() {
    let data = TempDir::new().unwrap();
    let options = PlatformOptions::new(data.path().join("data"));
    let first = Platform::start(options.clone()).await.unwrap();
    let second = Platform::start(options.clone()).await.err().unwrap();
    assert!(
        matches!(second, PlatformError::DataDir(DataDirError::InUse { .. })),
        "{second}"
    );
    drop(first);
    let without = PlatformOptions {
        pgbouncer: vec!["/nonexistent/pgbouncer".into()],
        ..options
    };
    let error = Platform::start(without).await.err().unwrap();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("install the package pgbouncer"), "{cause}");
}
