//! A fleet to which nothing happens asks for nothing. `make fleet` measures a large one.

pub(crate) mod process;
pub(crate) mod rig;

use std::time::Duration;

use bouncert::api::PgBouncer;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use process::{Daemon, Metrics, count};
use rig::{Rig, pooler};
use serde_json::json;

use crate::support::eventually;

const SIZE: usize = 90;
const BOUND: Duration = Duration::from_secs(120);
/// Longer than two looks at the pods of each.
const WINDOW: Duration = Duration::from_secs(25);
/// MiB, of a build that is not optimised.
const RESIDENT_MAX: f64 = 150.0;
/// The Lease, every two seconds, and watches that end by themselves.
const IDLE_REQUESTS: f64 = 30.0;

/// Lists and watches of a daemon that begins, and what it asks about itself.
const START_REQUESTS: f64 = 60.0;
/// A look at a PgBouncer of which something has changed, and one more that sees that it stays so.
const FULL_LOOK_REQUESTS: f64 = 60.0;
/// Looks at one that waits for somebody: one, or two, within [`WINDOW`].
const STUCK_REQUESTS: f64 = 30.0;
/// Where the first PgBouncers are.
const TEAM: &str = "team-0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_to_which_nothing_happens_asks_the_api_server_for_nothing() {
    let rig = Rig::start(SIZE).await;
    let first = rig.daemon().await;
    // What somebody makes goes before what was there when the daemon began.
    rig.ready(1, BOUND).await;
    rig.one_more("late", BOUND).await;
    let ready = rig.count_ready().await;
    // Those that were begun already go on.
    assert!(ready < SIZE * 3 / 4, "it was number {ready}");
    rig.ready(SIZE + 1, BOUND).await;
    first.quiet(SIZE + 1, BOUND).await;
    first.stop().await;

    // Nothing has changed, so nothing is asked about any of them.
    let second = rig.daemon().await;
    second.quiet(SIZE, BOUND).await;
    let cold = second.metrics().await.requests();
    assert!(cold <= START_REQUESTS + IDLE_REQUESTS, "{cold}");
    second.stop().await;

    // What changes while nobody watches is seen, and only that.
    let touched = while_nobody_watches(&rig).await;
    let daemon = rig.daemon().await;
    eventually(BOUND, async || is_straight(&rig).await).await;
    daemon.quiet(SIZE, BOUND).await;
    let cold = daemon.metrics().await.requests();
    let allowed = START_REQUESTS + IDLE_REQUESTS + touched * FULL_LOOK_REQUESTS;
    assert!(cold <= allowed, "{cold} of {allowed}");

    let before = daemon.metrics().await;
    tokio::time::sleep(WINDOW).await;
    let after = daemon.metrics().await;
    assert!(
        asked(&before, &after) <= IDLE_REQUESTS,
        "{}",
        asked(&before, &after)
    );
    let probes = after.looks() - before.looks();
    assert!(probes >= count(SIZE), "pods are looked at: {probes}");

    // A kubelet writes what is of no consequence.
    daemon.hold_up(true);
    rig.touch_pods(1).await;
    daemon.hold_up(false);
    daemon.looked(&after, SIZE, BOUND).await;
    let touched = daemon.metrics().await;
    assert!(
        asked(&after, &touched) <= IDLE_REQUESTS,
        "{}",
        asked(&after, &touched)
    );
    let (resident, _) = daemon.memory();
    assert!(resident < RESIDENT_MAX, "{resident} MiB");

    who_waits_in_vain_asks_less_and_less(&rig, &daemon).await;
    daemon.stop().await;
    rig.stop().await;
}

/// One PgBouncer's backend is not there.
async fn who_waits_in_vain_asks_less_and_less(rig: &Rig, daemon: &Daemon) {
    let mut stuck = pooler("stuck");
    stuck["spec"]["database"]["databaseRef"]["name"] = json!("nowhere");
    let stuck = serde_json::from_value(stuck).unwrap();
    let bouncers = rig.api::<PgBouncer>(TEAM);
    bouncers
        .create(&PostParams::default(), &stuck)
        .await
        .unwrap();
    daemon.quiet(SIZE, BOUND).await;
    let before = daemon.metrics().await;
    tokio::time::sleep(WINDOW).await;
    let cost = asked(&before, &daemon.metrics().await);
    let allowed = IDLE_REQUESTS + STUCK_REQUESTS;
    assert!(cost <= allowed, "{cost} of {allowed}");
}

/// Changes things around three PgBouncers, and one itself; how many these are.
async fn while_nobody_watches(rig: &Rig) -> f64 {
    let (merge, params) = (Patch::Merge, PatchParams::default());
    let bent = json!({ "spec": { "selector": { "app.kubernetes.io/instance": "other" } } });
    let services = rig.api::<Service>(TEAM);
    services
        .patch("pooler-1", &params, &merge(&bent))
        .await
        .unwrap();
    let accounts = rig.api::<ServiceAccount>(TEAM);
    accounts
        .delete("pooler-2", &DeleteParams::default())
        .await
        .unwrap();
    let secrets = rig.api::<Secret>(TEAM);
    let bent = json!({ "stringData": { "userlist": "" } });
    secrets
        .patch("pooler-3-backend", &params, &merge(&bent))
        .await
        .unwrap();
    let labelled = json!({ "metadata": { "labels": { "team": "books" } } });
    rig.api::<PgBouncer>(TEAM)
        .patch("pooler-4", &params, &merge(&labelled))
        .await
        .unwrap();
    4.0
}

/// Whether all that is straight again; what is not, if not.
async fn is_straight(rig: &Rig) -> Result<(), String> {
    let service = rig.api::<Service>(TEAM).get("pooler-1").await.unwrap();
    let selector = service.spec.unwrap().selector.unwrap();
    if selector["app.kubernetes.io/instance"] != "pooler-1" {
        return Err(format!("{selector:?}"));
    }
    let accounts = rig.api::<ServiceAccount>(TEAM);
    if accounts.get_opt("pooler-2").await.unwrap().is_none() {
        return Err("no ServiceAccount".to_owned());
    }
    let secrets = rig.api::<Secret>(TEAM);
    let secret = secrets.get("pooler-3-backend").await.unwrap();
    if secret
        .data
        .unwrap()
        .values()
        .any(|value| value.0.is_empty())
    {
        return Err("an empty userlist".to_owned());
    }
    let service = rig.api::<Service>(TEAM).get("pooler-4").await.unwrap();
    if service.labels().get("team").map(String::as_str) != Some("books") {
        return Err("a label has not gone along".to_owned());
    }
    Ok(())
}

fn asked(before: &Metrics, after: &Metrics) -> f64 {
    after.requests() - before.requests()
}
