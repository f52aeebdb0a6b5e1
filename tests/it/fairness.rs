//! What one tenant asks for keeps no other waiting: the whole daemon, against the embedded API server.

use std::time::Duration;

use bouncert::api::{PgBouncer, PgBouncerOpsRequest, RequestPhase, crds};
use bouncert::daemon::{self, DaemonOptions, NAMESPACE_DEFAULT};
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::eventually;

/// Requests of one tenant that wait.
const WAITING: usize = 400;
/// Long enough for the slowest machine; a queue that all share takes longer.
const BOUND: Duration = Duration::from_secs(60);

/// An API server with the daemon's definitions and two tenants.
pub(crate) async fn server() -> Client {
    let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
    let client = server.client();
    let definitions = Api::all(client.clone());
    for definition in crds::own().into_iter().chain(crds::borrowed()) {
        definitions
            .create(&PostParams::default(), &definition)
            .await
            .unwrap();
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in ["team-a", "team-b", "cert-manager", NAMESPACE_DEFAULT] {
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
    }
    client
}

fn bouncer(name: &str, replicas: i32) -> PgBouncer {
    serde_json::from_value(json!({
        "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "metadata": {"name": name},
        "spec": {
            "version": "1.18.0", "replicas": replicas,
            "database": {"databaseName": "l", "databaseRef": {"name": "p", "namespace": "team-b"}},
        },
    }))
    .unwrap()
}

fn request(name: &str, (type_, bouncer): (&str, &str), apply: &str) -> PgBouncerOpsRequest {
    serde_json::from_value(json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PgBouncerOpsRequest",
        "metadata": {"name": name},
        "spec": {"type": type_, "databaseRef": {"name": bouncer}, "apply": apply},
    }))
    .unwrap()
}

/// Texts of the conditions.
fn said(bouncer: &PgBouncer) -> String {
    let status = bouncer.status.clone().unwrap_or_default();
    let all = status
        .conditions
        .into_iter()
        .map(|condition| condition.message);
    all.collect::<Vec<_>>().join("; ")
}

/// Something happens around the requests of `slow` all the time.
fn unrest(bouncers: Api<PgBouncer>) -> JoinSet<()> {
    let mut unrest = JoinSet::new();
    unrest.spawn(async move {
        for n in 0.. {
            let patch: Value =
                json!({"metadata": {"annotations": {"example.com/n": n.to_string()}}});
            let patch = Patch::Merge(&patch);
            let _may_conflict = bouncers
                .patch("slow", &PatchParams::default(), &patch)
                .await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    unrest
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_waiting_requests_and_huge_poolers_keep_no_other_tenant_waiting() {
    let client = server().await;
    let params = PostParams::default();
    let bouncers = |team: &str| Api::<PgBouncer>::namespaced(client.clone(), team);
    let requests = |team: &str| Api::<PgBouncerOpsRequest>::namespaced(client.clone(), team);
    for (team, name, replicas) in [
        ("team-a", "slow", 1),
        ("team-a", "huge", i32::MAX),
        ("team-a", "vast", i32::MAX),
        ("team-b", "quiet", 1),
    ] {
        bouncers(team)
            .create(&params, &bouncer(name, replicas))
            .await
            .unwrap();
    }
    // They wait for a pooler that is never ready, and none of them replaces another.
    for n in 0..WAITING {
        let waiting = request(&format!("wait-{n}"), ("Reconfigure", "slow"), "IfReady");
        requests("team-a").create(&params, &waiting).await.unwrap();
    }
    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    let work = daemon::run(client.clone(), DaemonOptions::default(), stop.clone());
    running.spawn(work);
    let pending = ListParams::default();
    eventually(BOUND * 3, async || {
        let all = requests("team-a").list(&pending).await.unwrap().items;
        let is_pending = |request: &&PgBouncerOpsRequest| {
            let status = request.status.as_ref();
            status.and_then(|status| status.phase) == Some(RequestPhase::Pending)
        };
        let waiting = all.iter().filter(is_pending).count();
        if waiting == WAITING {
            Ok(())
        } else {
            Err(waiting)
        }
    })
    .await;
    let mut unrest = unrest(bouncers("team-a"));
    for n in 0..3 {
        let name = format!("restart-{n}");
        let asked = request(&name, ("Restart", "quiet"), "Always");
        requests("team-b").create(&params, &asked).await.unwrap();
        eventually(BOUND, async || {
            let request = requests("team-b").get(&name).await.unwrap();
            let phase = request.status.and_then(|status| status.phase);
            match phase {
                Some(RequestPhase::Pending) | None => Err(phase),
                Some(_) => Ok(()),
            }
        })
        .await;
    }
    for name in ["huge", "vast"] {
        eventually(BOUND, async || {
            let said = said(&bouncers("team-a").get(name).await.unwrap());
            if said.contains("spec.replicas is 2147483647: write 0 to 1000") {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await;
    }
    unrest.shutdown().await;
    // It stops at once, whatever waits.
    stop.cancel();
    let ended = tokio::time::timeout(BOUND, running.join_next())
        .await
        .unwrap();
    ended.unwrap().unwrap().unwrap();
    assert!(
        requests("team-a")
            .list(&pending)
            .await
            .unwrap()
            .items
            .iter()
            .all(|request| { request.name_any().starts_with("wait-") })
    );
}
