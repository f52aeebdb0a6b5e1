//! A reload is proved by the configuration that was loaded, not by the leaf alone.

use bouncert::api::PgBouncer;
use bouncert::api::common::find_condition;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::trouble::vandalise;
use super::{Wanted, by, leaves, made, processes, stage};
use crate::stage::{LONG, Stage};
use crate::support::eventually;

/// The Secret with the configuration of `till`.
async fn config_of(stage: &Stage) -> String {
    let uid = stage.bouncer("till").await.uid().unwrap();
    format!("till-{}", &uid[uid.len() - 6..])
}

/// A line before `[pgbouncer]` is refused: PgBouncer 1.18 answers `RELOAD`, serves the new leaf, and has
/// loaded nothing of its configuration.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_leaf_without_the_new_configuration_is_taken_back() {
    let stage = stage().await;
    made(&stage, &Wanted::till()).await;
    let config = config_of(&stage).await;
    let good = stage.secret(&config, "pgbouncer.ini").await;
    let (before, old) = (
        processes(&stage, "till").await,
        leaves(&stage, "till").await,
    );
    let broken = good.replace(
        "[databases]\n",
        "[databases]\nsales 2026 = host=127.0.0.1\n",
    );
    assert_ne!(broken, good);

    let vandal = vandalise(&stage, &config, &broken);
    let rotate = json!({"rotateCertificates": true});
    let asked = async {
        tokio::task::yield_now().await;
        stage
            .create(by("Reload", "spoilt", "till", rotate.clone()))
            .await;
    };
    tokio::join!(vandal, asked);
    let message = stage.failed("spoilt").await;
    for part in ["does not load its new configuration", "is as it was before"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(leaves(&stage, "till").await, old);
    assert_eq!(stage.secret(&config, "pgbouncer.ini").await, good);
    assert_eq!(
        processes(&stage, "till").await,
        before,
        "nothing was restarted"
    );

    // And without a vandal it is proved.
    stage.create(by("Reload", "sound", "till", rotate)).await;
    stage.successful("sound").await;
    assert_ne!(leaves(&stage, "till").await, old);
    assert_eq!(processes(&stage, "till").await, before);
    stage.stop().await;
}

/// Pods of a daemon that wrote no marker: the upgrade writes the configuration anew, calls no pod stale,
/// restarts none, and the next reload is proved.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_upgrade_restarts_nothing_and_the_next_reload_is_proved() {
    let mut stage = stage().await;
    made(&stage, &Wanted::till()).await;
    let config = config_of(&stage).await;
    let marked = stage.secret(&config, "pgbouncer.ini").await;
    let (before, old) = (
        processes(&stage, "till").await,
        leaves(&stage, "till").await,
    );
    stage.dismiss_daemon().await;

    let unmarked: String = marked
        .lines()
        .filter(|line| !line.starts_with("stats_users"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let text = ByteString(unmarked.into_bytes());
    let patch = Patch::Merge(json!({"data": {"pgbouncer.ini": text}}));
    let secrets = stage.api::<Secret>();
    secrets
        .patch(&config, &PatchParams::default(), &patch)
        .await
        .unwrap();
    stage.start_daemon();
    eventually(LONG, async || {
        let now = stage.secret(&config, "pgbouncer.ini").await;
        if now == marked { Ok(()) } else { Err(now) }
    })
    .await;
    stage.ready("till").await;
    let live: PgBouncer = stage.bouncer("till").await;
    let status = live.status.unwrap_or_default();
    assert_eq!(
        find_condition(&status.conditions, "Reconciled"),
        None,
        "no pod is stale"
    );
    assert_eq!(processes(&stage, "till").await, before);

    let rotate = json!({"rotateCertificates": true});
    stage.create(by("Reload", "renew", "till", rotate)).await;
    stage.successful("renew").await;
    assert_ne!(leaves(&stage, "till").await, old);
    assert_eq!(
        processes(&stage, "till").await,
        before,
        "nothing was restarted"
    );
    stage.stop().await;
}
