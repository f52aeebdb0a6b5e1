//! What one tenant asks for keeps no other waiting: the whole daemon, against the embedded API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bouncert::api::{PgBouncer, PgBouncerOpsRequest, RequestPhase, crds};
use bouncert::daemon::{self, DaemonOptions, NAMESPACE_DEFAULT};
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use bouncert::telemetry::Monitor;
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

// === a dead issuer ===

/// Requests of one tenant, each of a PgBouncer of its own, whose issuer never comes.
const HANGING: usize = 150;
/// Those of them that have a place: three quarters of all places.
const PLACES: usize = 126;
/// Looks that may end between the creation of the other's request and its beginning.
const LOOKS_BEFORE: u64 = 20;
/// How late a timer is on a machine that has time.
const CALM: Duration = Duration::from_millis(150);

/// Looks at requests that have ended so far.
fn looks(monitor: &Monitor) -> u64 {
    let mut text = String::new();
    monitor.write_metrics(&mut text).unwrap();
    let lines = text.lines().filter(|line| {
        line.starts_with("bouncert_reconciles_total") && line.contains("\"requests\"")
    });
    let numbers = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    numbers.sum()
}

/// Measures, until it is stopped, how late timers are.
fn lateness() -> (Arc<AtomicU64>, JoinSet<()>) {
    let (worst, mut running) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
    let seen = Arc::clone(&worst);
    running.spawn(async move {
        let pause = Duration::from_millis(20);
        loop {
            let began = Instant::now();
            tokio::time::sleep(pause).await;
            let late = began.elapsed().saturating_sub(pause).as_millis();
            seen.fetch_max(u64::try_from(late).unwrap(), Ordering::Relaxed);
        }
    });
    (worst, running)
}

async fn count(requests: &Api<PgBouncerOpsRequest>, phase: RequestPhase) -> usize {
    let all = requests.list(&ListParams::default()).await.unwrap();
    let of = |request: &&PgBouncerOpsRequest| {
        request.status.as_ref().and_then(|status| status.phase) == Some(phase)
    };
    all.iter().filter(of).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_hang_on_a_dead_issuer_keep_no_other_tenant_waiting() {
    let client = server().await;
    let params = PostParams::default();
    let bouncers = |team: &str| Api::<PgBouncer>::namespaced(client.clone(), team);
    let requests = |team: &str| Api::<PgBouncerOpsRequest>::namespaced(client.clone(), team);
    let options = DaemonOptions::default();
    let monitor = options.monitor.clone();
    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    running.spawn(daemon::run(client.clone(), options, stop.clone()));
    let quiet = bouncer("quiet", 1);
    bouncers("team-b").create(&params, &quiet).await.unwrap();
    let slow = bouncer("slow", 1);
    bouncers("team-a").create(&params, &slow).await.unwrap();
    for n in 0..HANGING {
        let name = format!("hangs-{n}");
        let mut pooler = bouncer(&name, 1);
        pooler.spec.database.database_ref.namespace = "team-a".to_owned();
        bouncers("team-a").create(&params, &pooler).await.unwrap();
        let tls = json!({"issuerRef": {"kind": "Issuer", "name": "nowhere"}});
        let asked = serde_json::from_value(crate::stage::request(&name, &name, tls)).unwrap();
        requests("team-a").create(&params, &asked).await.unwrap();
    }
    for n in 0..WAITING {
        let waiting = request(&format!("wait-{n}"), ("Reconfigure", "slow"), "IfReady");
        requests("team-a").create(&params, &waiting).await.unwrap();
    }
    eventually(BOUND * 3, async || {
        let hanging = count(&requests("team-a"), RequestPhase::Progressing).await;
        (hanging == PLACES).then_some(()).ok_or(hanging)
    })
    .await;
    let mut unrest = unrest(bouncers("team-a"));
    let (late, mut measuring) = lateness();
    for n in 0..3 {
        let name = format!("restart-{n}");
        let asked = request(&name, ("Restart", "quiet"), "Always");
        let (before, began) = (looks(&monitor), Instant::now());
        late.store(0, Ordering::Relaxed);
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
        let (took, late) = (began.elapsed(), late.load(Ordering::Relaxed));
        let between = looks(&monitor) - before;
        assert!(
            between <= LOOKS_BEFORE,
            "{between} looks ended before it began"
        );
        // Nothing was given up for it: all places of the first tenant are still taken.
        let hanging = count(&requests("team-a"), RequestPhase::Progressing).await;
        assert!(hanging >= PLACES - 6, "{hanging}");
        if Duration::from_millis(late) < CALM {
            assert!(
                took < Duration::from_secs(3),
                "{took:?}, timers {late} ms late"
            );
        }
    }
    unrest.shutdown().await;
    measuring.shutdown().await;
    stop.cancel();
    let ended = tokio::time::timeout(BOUND, running.join_next());
    ended.await.unwrap().unwrap().unwrap().unwrap();
}
