//! Pods as their users see them: up, reached, configured, logged, scaled.

use std::os::unix::fs::MetadataExt as _;

use bouncert::local::platform::PlatformOptions;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{ListParams, LogParams, Patch, PatchParams};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_postgres::SimpleQueryMessage;

use super::{INI, Rig, SOON, console, listens_on, pod_address, process_id, template, volumes};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_set_comes_up_and_its_service_reaches_every_pod() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    let mut tasks = JoinSet::new();
    let begun = std::time::Instant::now();
    rig.till(2).await;
    let mut wanted = Vec::new();
    for name in ["till-0", "till-1"] {
        let pod = rig.ready_pod(name).await;
        assert_eq!(pod.labels()["statefulset.kubernetes.io/pod-name"], name);
        wanted.push(pod_address(&pod).ip().to_string());
    }
    println!("ready after {:?}", begun.elapsed());
    eventually(SOON, async || {
        let ready = rig.ready_endpoints("till").await;
        (ready == ["till-0", "till-1"]).then_some(()).ok_or(ready)
    })
    .await;
    let address = rig.address("till").await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let console = console(address, &mut tasks).await;
        seen.push(listens_on(&console).await.unwrap());
    }
    seen.sort();
    wanted.sort();
    assert_eq!(seen, wanted, "in turn");
    eventually(SOON, async || {
        let set = rig.api::<StatefulSet>().get("till").await.unwrap();
        let status = set.status.unwrap_or_default();
        let done = status.ready_replicas == Some(2) && status.observed_generation.is_some();
        done.then_some(()).ok_or(status)
    })
    .await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_reaches_the_file_in_one_step() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    rig.till(1).await;
    let pid = process_id(&rig.ready_pod("till-0").await);
    let file = volumes(pid).join("till-ini/userlist");
    let patch = json!({"stringData": {"userlist": "\"keeper\" \"\"\n\"guest\" \"\"\n"}});
    rig.api::<Secret>()
        .patch("till-ini", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    eventually(SOON, async || {
        // Whoever reads through the link sees one version or the other, and never none.
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("\"keeper\" \"\"\n"), "{text:?}");
        text.contains("guest").then_some(()).ok_or(text)
    })
    .await;
    assert_eq!(
        process_id(&rig.ready_pod("till-0").await),
        pid,
        "no restart"
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_the_label_leaves_the_service_and_keeps_its_connections() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    let mut tasks = JoinSet::new();
    rig.till(2).await;
    let first = pod_address(&rig.ready_pod("till-0").await).ip().to_string();
    rig.ready_pod("till-1").await;
    let address = rig.address("till").await;
    let held = eventually(SOON, async || {
        let console = console(address, &mut tasks).await;
        let on = listens_on(&console).await.unwrap();
        if on == first { Ok(console) } else { Err(on) }
    })
    .await;
    let patch = json!({"metadata": {"labels": {"in-service": null}}});
    rig.api::<Pod>()
        .patch("till-0", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    eventually(SOON, async || {
        let ready = rig.ready_endpoints("till").await;
        (ready == ["till-1"]).then_some(()).ok_or(ready)
    })
    .await;
    eventually(SOON, async || {
        let on = listens_on(&console(address, &mut tasks).await)
            .await
            .unwrap();
        let again = listens_on(&console(address, &mut tasks).await)
            .await
            .unwrap();
        (on != first && again != first)
            .then_some(())
            .ok_or((on, again))
    })
    .await;
    assert_eq!(listens_on(&held).await.unwrap(), first);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_named_and_its_arrival_starts_the_pod() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    let mut pod = json!({"metadata": {"name": "lone"}, "spec": template()["spec"]});
    pod["spec"]["securityContext"] = json!({"runAsUser": 7070, "fsGroup": 7071});
    pod["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({
            "name": "exporter", "image": "somewhere/exporter"
        }));
    rig.create::<Pod>(pod).await;
    eventually(SOON, async || {
        let pod = rig.api::<Pod>().get("lone").await.unwrap();
        let waiting = pod
            .status
            .and_then(|s| s.container_statuses)
            .and_then(|c| c[0].state.clone())
            .and_then(|s| s.waiting);
        let named = waiting.as_ref().is_some_and(|w| {
            w.reason.as_deref() == Some("CreateContainerConfigError")
                && w.message
                    .as_ref()
                    .is_some_and(|m| m.contains("\"till-ini\" not found"))
        });
        named.then_some(()).ok_or(waiting)
    })
    .await;
    rig.secret("").await;
    let pod = rig.ready_pod("lone").await;
    let process = std::fs::metadata(format!("/proc/{}", process_id(&pod))).unwrap();
    if rustix::process::geteuid().is_root() {
        // The id of a security context is a user of a cluster's image, and here one of the machine.
        let range = PlatformOptions::new("").pod_uids;
        assert!(
            range.holds(process.uid()),
            "{} is no id of pods",
            process.uid()
        );
        assert_eq!(process.gid(), process.uid());
    } else {
        assert_eq!(process.uid(), rustix::process::geteuid().as_raw());
    }
    let exporter = &pod.status.unwrap().container_statuses.unwrap()[1];
    let waiting = exporter.state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("NotRunOnLocalPlatform"));
    let events = rig.events().await;
    assert!(events.iter().any(|(r, _)| r == "FailedMount"), "{events:?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_pod_is_that_of_its_pooler() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    rig.till(1).await;
    rig.ready_pod("till-0").await;
    let whole = rig
        .api::<Pod>()
        .logs("till-0", &LogParams::default())
        .await
        .unwrap();
    assert!(whole.contains("process up"), "{whole}");
    let last = LogParams {
        tail_lines: Some(1),
        timestamps: true,
        ..LogParams::default()
    };
    let last = rig.api::<Pod>().logs("till-0", &last).await.unwrap();
    assert_eq!(last.lines().count(), 1);
    assert!(last.split(' ').next().unwrap().ends_with('Z'), "{last}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_named_by_its_service_is_followed_when_it_moves() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    let mut tasks = JoinSet::new();
    rig.create::<Secret>(json!({
        "metadata": {"name": "till-ini"},
        "stringData": {"pgbouncer.ini": INI.replace("127.0.0.1 port", "ledger.default.svc port"), "userlist": "\"keeper\" \"\"\n"}
    }))
    .await;
    rig.create::<Service>(json!({
        "metadata": {"name": "ledger"}, "spec": {"clusterIP": "None", "ports": [{"port": 5432}]}
    }))
    .await;
    rig.create::<Pod>(json!({"metadata": {"name": "lone"}, "spec": template()["spec"]}))
        .await;
    let pod = rig.ready_pod("lone").await;
    let console = console(pod_address(&pod), &mut tasks).await;
    let host = async || {
        let rows = console.simple_query("SHOW DATABASES").await.unwrap();
        let found = rows.iter().find_map(|row| match row {
            SimpleQueryMessage::Row(row) if row.get("name") == Some("nowhere") => row.get("host"),
            _ => None,
        });
        found.unwrap_or_default().to_owned()
    };
    assert_eq!(
        host().await,
        "ledger.default.svc",
        "nobody stands behind it yet"
    );
    rig.create::<EndpointSlice>(json!({
        "metadata": {"name": "ledger", "labels": {"kubernetes.io/service-name": "ledger"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["127.9.8.7"]}], "ports": [{"port": 5432}]
    }))
    .await;
    eventually(SOON, async || {
        let host = host().await;
        (host == "127.9.8.7").then_some(()).ok_or(host)
    })
    .await;
    assert_eq!(process_id(&rig.ready_pod("lone").await), process_id(&pod));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_changes_the_number_of_pods_and_the_budget_follows() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    rig.till(1).await;
    rig.create::<PodDisruptionBudget>(json!({
        "metadata": {"name": "till"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "till"}}}
    }))
    .await;
    let scale = async |replicas: i32| {
        let patch = json!({"spec": {"replicas": replicas}});
        rig.api::<StatefulSet>()
            .patch("till", &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    };
    scale(3).await;
    rig.ready_pod("till-2").await;
    eventually(SOON, async || {
        let budget = rig.api::<PodDisruptionBudget>().get("till").await.unwrap();
        let status = budget.status.unwrap_or_default();
        let counts = (
            status.expected_pods,
            status.desired_healthy,
            status.disruptions_allowed,
        );
        (counts == (Some(3), Some(2), Some(1)))
            .then_some(())
            .ok_or(counts)
    })
    .await;
    scale(1).await;
    eventually(SOON, async || {
        let pods = rig.api::<Pod>().list(&ListParams::default()).await.unwrap();
        let names: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
        (names == ["till-0"]).then_some(()).ok_or(names)
    })
    .await;
    rig.stop().await;
}
