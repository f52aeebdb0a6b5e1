//! Daemons that look after a part: some namespaces, or one class. The rights of the chart fit that.

use std::collections::BTreeSet;

use bouncert::api::annotations::{ALLOWED_NAMESPACES, FREEZE_ROTATION};
use bouncert::api::common::find_condition;
use bouncert::api::{PgBouncer, PgBouncerOpsRequest, Phase, RequestPhase};
use bouncert::clock::Clock;
use bouncert::daemon::DaemonOptions;
use bouncert::telemetry::Monitor;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::rights::{bouncer, install, issuers, maps_are_at_home, unused};
use crate::stage::{LONG, NS, Stage, request};
use crate::support::eventually;

/// Everything in the first of two namespaces, with a backend in the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_daemon_of_two_namespaces_needs_no_rights_in_the_others() {
    // Where lists come as streams, a right to watch is enough; elsewhere it takes that to list as well.
    let mut stage = Stage::without_watch_list().await;
    for name in ["banks", "elsewhere"] {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        stage.create(namespace).await;
    }
    // Both use one PostgreSQL, by the word of its namespace.
    let word = json!({"metadata": {"annotations": {ALLOWED_NAMESPACES: "banks, elsewhere"}}});
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    let params = PatchParams::default();
    namespaces
        .patch(NS, &params, &Patch::Merge(word))
        .await
        .unwrap();
    let watched = [NS.to_owned(), "banks".to_owned()];
    let changes = json!({"watchNamespaces": watched});
    let granted = install(&mut stage, &changes).await;
    maps_are_at_home(&granted);
    let of_namespaces: BTreeSet<&str> = granted.iter().map(|grain| &*grain.role).collect();
    assert!(
        !of_namespaces.contains("ClusterRole/bouncert"),
        "{of_namespaces:?}"
    );
    issuers(&stage).await;
    let monitor = Monitor::new(Clock::System);
    stage.start_daemon_with(DaemonOptions {
        watch_namespaces: watched.to_vec(),
        monitor: monitor.clone(),
        ..DaemonOptions::default()
    });

    let tls = json!({
        "sslMode": "require", "tls": {"issuerRef": {"kind": "ClusterIssuer", "name": "everywhere"}},
    });
    let place = |object: Value, namespace: &str| {
        let mut object = object;
        object["metadata"]["namespace"] = json!(namespace);
        object
    };
    let unseen = place(bouncer("unseen", tls.clone()), "elsewhere");
    stage.create(unseen).await;
    stage
        .create(place(bouncer("branch", tls.clone()), "banks"))
        .await;
    stage.create(bouncer("till", tls)).await;
    stage.ready("till").await;
    let rotate = request("anew", "till", json!({"rotateCertificates": true}));
    stage.create(rotate).await;
    stage.successful("anew").await;
    let status = async |namespace: &str, name: &str| {
        let bouncers: Api<PgBouncer> = Api::namespaced(stage.client.clone(), namespace);
        bouncers.get(name).await.unwrap().status
    };
    eventually(LONG, async || {
        let phase = status("banks", "branch").await.and_then(|told| told.phase);
        (phase == Some(Phase::Ready)).then_some(()).ok_or(phase)
    })
    .await;
    both_are_in_the_inventory(&monitor).await;
    both_are_rotated(&stage).await;
    assert_eq!(status("elsewhere", "unseen").await, None);
    // That every verb is used is shown above: the rules are the same, only where they hold is not.
    let idle = unused(&stage, &granted);
    let global = |grain: &&String| grain.starts_with("ClusterRole/bouncert-global");
    assert_eq!(idle.iter().find(global), None);
    stage.stop().await;
}

/// What the inventory says of the server certificates: PgBouncer, and how many pods serve it.
fn inventoried(monitor: &Monitor) -> Vec<String> {
    let told: Value = serde_json::from_str(&monitor.state().unwrap_or_default()).unwrap();
    let all = told["certificates"].as_array().unwrap().iter();
    all.filter(|found| found["alias"] == "server")
        .map(|found| {
            let (namespace, name) = (&found["namespace"], &found["pooler"]);
            let served = &found["served_by"];
            format!("{namespace}/{name} {}/{}", served["pods"], served["of"]).replace('"', "")
        })
        .collect()
}

async fn both_are_in_the_inventory(monitor: &Monitor) {
    eventually(LONG, async || {
        let found = inventoried(monitor);
        let both = ["banks/branch 2/2", "demo/till 2/2"];
        (found == both).then_some(()).ok_or(found)
    })
    .await;
    let told: Value = serde_json::from_str(&monitor.state().unwrap()).unwrap();
    assert_eq!(told["complete"], true, "{told}");
}

/// The ClusterIssuer gets another CA; a Namespace's word holds its PgBouncer back until it is gone.
async fn both_are_rotated(stage: &Stage) {
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    let freeze = async |word: Value| {
        let word = json!({"metadata": {"annotations": {FREEZE_ROTATION: word}}});
        let params = PatchParams::default();
        let word = Patch::Merge(&word);
        namespaces.patch("banks", &params, &word).await.unwrap();
    };
    freeze(json!("true")).await;
    let (crt, key) = stage.openssl_pair("anew", "/CN=anew");
    let other = json!({"stringData": {"tls.crt": crt, "tls.key": key}});
    let keys: Api<Secret> = Api::namespaced(stage.client.clone(), "cert-manager");
    keys.patch("everywhere", &PatchParams::default(), &Patch::Merge(&other))
        .await
        .unwrap();
    let rotations = async |namespace: &str, name: &str| {
        let requests: Api<PgBouncerOpsRequest> = Api::namespaced(stage.client.clone(), namespace);
        let all = requests.list(&ListParams::default()).await.unwrap();
        let begins = format!("{name}-rotate-r");
        let ours = all
            .into_iter()
            .filter(|one| one.name_any().starts_with(&begins));
        ours.map(|one| one.status.and_then(|status| status.phase))
            .collect::<Vec<_>>()
    };
    let rotated = async |namespace: &str, name: &str| {
        eventually(LONG, async || {
            let found = rotations(namespace, name).await;
            let done = found == [Some(RequestPhase::Successful)];
            done.then_some(()).ok_or(found)
        })
        .await;
    };
    rotated(NS, "till").await;
    let bouncers: Api<PgBouncer> = Api::namespaced(stage.client.clone(), "banks");
    eventually(LONG, async || {
        let status = bouncers.get("branch").await.unwrap().status.unwrap();
        let held = find_condition(&status.conditions, "RotationHeld");
        let reason = held.map(|held| held.reason.clone());
        (reason.as_deref() == Some("Frozen"))
            .then_some(())
            .ok_or(reason)
    })
    .await;
    assert_eq!(rotations("banks", "branch").await, []);
    freeze(Value::Null).await;
    rotated("banks", "branch").await;
}

/// Two daemons of different classes beside each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn objects_of_another_class_are_left_alone() {
    let mut stage = Stage::without_daemon().await;
    issuers(&stage).await;
    let monitor = Monitor::new(Clock::System);
    stage.start_daemon_with(DaemonOptions {
        class: "gold".to_owned(),
        monitor: monitor.clone(),
        ..DaemonOptions::default()
    });
    let of_class = |object: Value| {
        let mut object = object;
        object["metadata"]["annotations"] = json!({"bouncert.dev/class": "gold"});
        object
    };
    stage.create(bouncer("plain", json!({}))).await;
    stage.create(of_class(bouncer("till", json!({})))).await;
    let tls = json!({"issuerRef": {"kind": "Issuer", "name": "pb-issuer"}, "sslMode": "require"});
    stage
        .create(request("of-plain", "plain", tls.clone()))
        .await;
    stage.ready("till").await;
    stage.create(request("of-till", "till", tls)).await;
    stage.successful("of-till").await;
    assert!(stage.bouncer("plain").await.status.is_none());
    // A request goes with its PgBouncer.
    let request: PgBouncerOpsRequest = stage.get("of-plain").await.unwrap();
    assert!(request.status.is_none(), "{:?}", request.status);
    let told: Value = serde_json::from_str(&monitor.state().unwrap()).unwrap();
    let shown = told["poolers"].as_array().unwrap().iter();
    let shown: Vec<&Value> = shown.map(|pooler| &pooler["name"]).collect();
    assert_eq!(shown, ["till"]);
    eventually(LONG, async || {
        let metrics = monitor.metrics().unwrap();
        let counts = |line: &&str| line.starts_with("bouncert_requests{");
        let found: Vec<_> = metrics.lines().filter(counts).map(str::to_owned).collect();
        let one = found.len() == 1 && found[0].contains("Successful") && found[0].ends_with(" 1");
        one.then_some(()).ok_or(found)
    })
    .await;
    stage.stop().await;
}
