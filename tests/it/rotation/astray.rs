//! A pod that serves something else than the Secret holds, with and without a freeze.

use std::collections::BTreeSet;

use bouncert::api::annotations::FREEZE_ROTATION;
use bouncert::api::common::find_condition;
use bouncert::clock::Clock;
use bouncert::daemon::DaemonOptions;
use bouncert::pki::facts::read_chain;
use bouncert::telemetry::Monitor;
use kube::ResourceExt;
use serde_json::json;

use super::platform::{
    MINUTE, POOLER, annotate, condition, foreign, leaf, open, patch, requests, served,
};
use crate::stage::{LONG, Stage};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pod_astray_is_noticed_said_and_put_right_but_not_under_a_freeze() {
    let monitor = Monitor::new(Clock::System);
    let mut stage = Stage::without_daemon().await;
    stage.start_daemon_with(DaemonOptions {
        monitor: monitor.clone(),
        ..DaemonOptions::default()
    });
    open(&stage).await;
    let stored = leaf(&stage).await.unwrap();
    let (crt, key) = foreign(&stage, &stored);
    let other = read_chain(&crt).unwrap().remove(0).fingerprint;

    // Somebody in the pod has it load something else, while everything is frozen.
    annotate(&stage, FREEZE_ROTATION, Some("true")).await;
    let (_, pod) = stage.pods(POOLER).await.remove(0);
    stage.lead_astray(pod, (&crt, &key));
    eventually(MINUTE, async || match served(&stage).await {
        seen if seen == Some(other) => Ok(()),
        seen => Err(seen),
    })
    .await;
    let message = condition(&stage, "CertificateDrift", "PodServesOther").await;
    assert!(message.contains("pb-tls-0"), "{message}");
    condition(&stage, "RotationHeld", "Frozen").await;
    shows(
        &monitor,
        "bouncert_drifting_pgbouncers{reason=\"PodServesOther\"} 1",
    )
    .await;
    shows(&monitor, "bouncert_served_certificate_matches{namespace=\"demo\",pgbouncer=\"pb-tls\",alias=\"server\",pod=\"pb-tls-0\"} 0").await;
    assert_eq!(requests(&stage).await.len(), 0);
    assert_eq!(served(&stage).await, Some(other), "said, not touched");

    // The freeze is lifted.
    annotate(&stage, FREEZE_ROTATION, None).await;
    restarted(&stage, 1).await;
    assert_eq!(served(&stage).await, Some(stored.fingerprint));
    calm(&stage).await;

    // Another sound certificate is stored under a freeze: it stays, and pods get it when they may.
    annotate(&stage, FREEZE_ROTATION, Some("true")).await;
    let sound = json!({ "stringData": { "tls.crt": crt, "tls.key": key } });
    patch(&stage, &sound).await;
    let message = condition(&stage, "CertificateDrift", "PodServesOther").await;
    assert!(message.contains("Bouncert did not issue"), "{message}");
    condition(&stage, "RotationHeld", "Frozen").await;
    assert_eq!(leaf(&stage).await.unwrap().fingerprint, other, "it stays");
    assert_eq!(served(&stage).await, Some(stored.fingerprint));
    assert_eq!(requests(&stage).await.len(), 1, "that of before");
    annotate(&stage, FREEZE_ROTATION, None).await;
    restarted(&stage, 2).await;
    assert_eq!(served(&stage).await, Some(other));
    assert_eq!(leaf(&stage).await.unwrap().fingerprint, other);
    stage.stop().await;
}

/// Waits until the daemon's metrics have that line.
async fn shows(monitor: &Monitor, line: &str) {
    eventually(MINUTE, async || {
        let text = monitor.metrics().unwrap();
        if text.lines().any(|found| found == line) {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
}

/// Waits until rotation has made so many requests, all to restart, and all have succeeded.
async fn restarted(stage: &Stage, wanted: usize) {
    let names = eventually(LONG, async || {
        let all = requests(stage).await;
        let names: BTreeSet<String> = all.iter().map(ResourceExt::name_any).collect();
        if names.len() == wanted {
            Ok(names)
        } else {
            Err(names)
        }
    })
    .await;
    for name in names {
        assert!(name.starts_with("pb-tls-restart-r"), "{name}");
        stage.successful(&name).await;
    }
}

/// Waits until nothing is left to say.
async fn calm(stage: &Stage) {
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
}
