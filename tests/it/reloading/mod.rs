//! Strategy Reload: real poolers that take up new files while their clients stay.

mod load;
mod loaded;
mod trouble;

use std::collections::BTreeMap;
use std::time::Instant;

use bouncert::api::PgBouncerOpsRequest;
use bouncert::api::annotations::STRATEGY;
use bouncert::api::common::find_condition;
use bouncert::names::Fingerprint;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use self::load::{Customer, Load, Tally};
use crate::stage::{LONG, NS, Stage, request};
use crate::support::eventually;

/// A PgBouncer with TLS, in mode `require`.
struct Wanted<'a> {
    name: &'a str,
    version: &'a str,
    replicas: u32,
    pool_mode: &'a str,
    /// More of `[pgbouncer]`.
    ini: &'a str,
    strategy: Option<&'a str>,
}

impl Wanted<'_> {
    fn till() -> Wanted<'static> {
        Wanted {
            name: "till",
            version: "1.18.0",
            replicas: 1,
            pool_mode: "transaction",
            ini: "",
            strategy: None,
        }
    }

    fn object(&self) -> Value {
        let mut annotations = json!({});
        if let Some(strategy) = self.strategy {
            annotations[STRATEGY] = json!(strategy);
        }
        json!({
            "apiVersion": "kubedb.com/v1", "kind": "PgBouncer",
            "metadata": {"name": self.name, "annotations": annotations},
            "spec": {
                "version": self.version, "replicas": self.replicas, "sslMode": "require",
                "configuration": {"inline": {"pgbouncer.ini": format!("[pgbouncer]\n{}", self.ini)}},
                "database": {
                    "databaseName": "postgres",
                    "databaseRef": {"name": "ha-postgres", "namespace": NS},
                },
                "connectionPool": {
                    "poolMode": self.pool_mode, "maxDBConnections": 20, "maxUserConnections": 20,
                },
                "tls": {"issuerRef": {"kind": "Issuer", "name": "pb-issuer"}},
                "deletionPolicy": "WipeOut",
            },
        })
    }
}

async fn stage() -> Stage {
    let stage = Stage::start().await;
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage.example("pb-issuer").await;
    let table = "CREATE TABLE sales (id int)";
    stage.postgres.execute("postgres", table).await.unwrap();
    stage
}

async fn made(stage: &Stage, wanted: &Wanted<'_>) {
    stage.create(wanted.object()).await;
    stage.ready(wanted.name).await;
}

/// A request with a strategy of its own.
fn by(strategy: &str, name: &str, pooler: &str, tls: Value) -> Value {
    let mut asked = request(name, pooler, tls);
    asked["metadata"]["annotations"] = json!({ STRATEGY: strategy });
    asked
}

/// Which process runs in each pod: its pod's identity, and how it was started.
async fn processes(
    stage: &Stage,
    name: &str,
) -> BTreeMap<String, (Option<String>, Option<String>)> {
    let labels = ListParams::default().labels(&format!("app.kubernetes.io/instance={name}"));
    let pods = stage.api::<Pod>().list(&labels).await.unwrap();
    let process = |pod: &Pod| {
        let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
        status.container_id.clone()
    };
    pods.iter()
        .map(|pod| (pod.name_any(), (pod.uid(), process(pod))))
        .collect()
}

async fn leaves(stage: &Stage, name: &str) -> Vec<Option<Fingerprint>> {
    let served = stage.served(name).await;
    served
        .iter()
        .map(bouncert::pgbouncer::probe::Served::fingerprint)
        .collect()
}

/// The message of a condition of a request.
fn told(request: &PgBouncerOpsRequest, type_: &str) -> String {
    let status = request.status.as_ref().unwrap();
    let condition = find_condition(&status.conditions, type_);
    condition
        .unwrap_or_else(|| panic!("no {type_}: {status:#?}"))
        .message
        .clone()
}

/// Runs a request while clients work; what they noticed, and how long it took.
async fn under_load(
    stage: &Stage,
    asked: Value,
    customer: &Customer,
) -> (PgBouncerOpsRequest, Tally, f64) {
    let load = Load::start(customer, 6, 2).await;
    let name = asked["metadata"]["name"].as_str().unwrap().to_owned();
    let began = Instant::now();
    stage.create(asked).await;
    let ended = stage.successful(&name).await;
    let seconds = began.elapsed().as_secs_f64();
    (ended, load.stop().await, seconds)
}

fn line(what: &str, tally: &Tally, seconds: f64) {
    eprintln!(
        "{what}: {seconds:.1} s, {} committed, {} failed, {} closed, {} not let in, longest {:?}",
        tally.committed,
        tally.failed.len(),
        tally.closed.len(),
        tally.refused.len(),
        tally.longest
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_by_reload_are_not_noticed_by_anybody() {
    let stage = stage().await;
    let wanted = Wanted {
        replicas: 3,
        strategy: Some("Auto"),
        ..Wanted::till()
    };
    made(&stage, &wanted).await;
    let customer = Customer::of(&stage, "till").await;
    let (before, old) = (
        processes(&stage, "till").await,
        leaves(&stage, "till").await,
    );

    let rotate = request("rotate", "till", json!({"rotateCertificates": true}));
    let (ended, tally, seconds) = under_load(&stage, rotate, &customer).await;
    line("rotate by reload", &tally, seconds);
    tally.assert_unnoticed();
    let message = told(&ended, "ReloadPods");
    assert!(message.contains("because only files change"), "{message}");
    let new = leaves(&stage, "till").await;
    assert!(new.iter().all(|leaf| leaf.is_some() && !old.contains(leaf)));
    assert_eq!(
        processes(&stage, "till").await,
        before,
        "nobody was restarted"
    );
    not_pending(&stage, "till").await;

    let another_issuer = json!({"issuerRef": {"kind": "Issuer", "name": "pb-new-issuer"}});
    stage
        .openssl_ca("pgbouncer-new-ca", "/CN=new/O=kubedb")
        .await;
    stage.example("new-issuer").await;
    let change = request("change-issuer", "till", another_issuer);
    let (_, tally, seconds) = under_load(&stage, change, &customer).await;
    line("change issuer by reload", &tally, seconds);
    tally.assert_unnoticed();
    assert!(
        leaves(&stage, "till")
            .await
            .iter()
            .all(|leaf| !new.contains(leaf))
    );

    let mode = request("stricter", "till", json!({"sslMode": "verify-full"}));
    let (_, tally, seconds) = under_load(&stage, mode, &customer).await;
    line("require to verify-full by reload", &tally, seconds);
    tally.assert_unnoticed();
    assert_eq!(
        processes(&stage, "till").await,
        before,
        "nobody was restarted"
    );
    let refused = stage.psql("till", "sslmode=require").await.unwrap_err();
    assert!(refused.contains("certificate required"), "{refused}");
    the_login_method_too(&stage, &customer).await;

    not_pending(&stage, "till").await;
    // The same again by restart: those that keep their session are closed.
    let rotate = json!({"rotateCertificates": true});
    let asked = by("RollingRestart", "rotate-again", "till", rotate);
    let (ended, tally, seconds) = under_load(&stage, asked, &customer).await;
    line("rotate by restart", &tally, seconds);
    assert!(tally.failed.is_empty(), "{tally:?}");
    assert!(
        !tally.closed.is_empty(),
        "sessions were kept over a restart"
    );
    assert!(told(&ended, "RestartPods").contains("Restarting all pods"));
    let after = processes(&stage, "till").await;
    assert!(after.iter().all(|(pod, process)| before[pod] != *process));
    not_pending(&stage, "till").await;
    stage.stop().await;
}

/// Sessions stay whatever they logged in with.
async fn the_login_method_too(stage: &Stage, customer: &Customer) {
    let kept = customer.connect().await.unwrap();
    stage
        .create(request(
            "scram",
            "till",
            json!({"clientAuthMode": "scram-sha-256"}),
        ))
        .await;
    stage.successful("scram").await;
    kept.run("BEGIN; SELECT 1; COMMIT").await.expect("stays");
    let newcomer = customer.connect().await.expect("logs in by SCRAM");
    newcomer.run("SELECT 1").await.unwrap();
}

/// The provisioner does not think that anybody is still to be restarted.
async fn not_pending(stage: &Stage, name: &str) {
    eventually(LONG, async || {
        let status = stage.bouncer(name).await.status.unwrap_or_default();
        let pending = status
            .conditions
            .iter()
            .any(|c| c.reason == "RestartPending");
        if pending { Err(status) } else { Ok(()) }
    })
    .await;
}

/// TLS towards PostgreSQL: sessions cannot be paused and need not be before 1.24, transactions can.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_tls_towards_postgresql_nobody_notices_either() {
    let stage = stage().await;
    let ini = "server_tls_sslmode = prefer\nserver_login_retry = 1\n";
    for (name, pool_mode) in [("desk", "session"), ("till", "transaction")] {
        let wanted = Wanted {
            name,
            pool_mode,
            ini,
            ..Wanted::till()
        };
        made(&stage, &wanted).await;
        let customer = Customer::of(&stage, name).await;
        let (before, old) = (processes(&stage, name).await, leaves(&stage, name).await);
        let rotate = json!({"rotateCertificates": true});
        let asked = by("Reload", &format!("rotate-{name}"), name, rotate);
        let (ended, tally, seconds) = under_load(&stage, asked, &customer).await;
        line(pool_mode, &tally, seconds);
        tally.assert_unnoticed();
        let waits = told(&ended, "ReloadPods").contains("wait for a moment");
        assert_eq!(waits, pool_mode == "transaction");
        assert_ne!(leaves(&stage, name).await, old);
        assert_eq!(processes(&stage, name).await, before);
    }
    mode_and_login_method_together(&stage).await;
    stage.stop().await;
}

/// `sslMode` and login method come in one reload, and go in one.
async fn mode_and_login_method_together(stage: &Stage) {
    let customer = Customer::of(stage, "till").await;
    let kept = customer.connect().await.unwrap();
    let before = processes(stage, "till").await;
    for (name, mode, login) in [
        ("stricter", "verify-full", "scram-sha-256"),
        ("looser", "require", "md5"),
    ] {
        let tls = json!({"sslMode": mode, "clientAuthMode": login});
        stage.create(by("Reload", name, "till", tls)).await;
        stage.successful(name).await;
        assert_eq!(stage.ini("till").await["auth_type"], login);
        let without_certificate = stage.psql("till", "sslmode=require").await;
        assert_eq!(without_certificate.is_ok(), mode == "require", "{mode}");
        customer
            .connect()
            .await
            .expect("lets in")
            .run("SELECT 1")
            .await
            .unwrap();
        kept.run("BEGIN; SELECT 1; COMMIT").await.expect("stays");
    }
    assert_eq!(processes(stage, "till").await, before);
}

/// What the plan chooses, and how it says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn auto_restarts_where_a_reload_does_not_suffice_and_says_why() {
    let stage = stage().await;
    let hall = Wanted {
        name: "hall",
        version: "1.24.0",
        pool_mode: "session",
        ..Wanted::till()
    };
    made(&stage, &hall).await;
    let rotate = json!({"rotateCertificates": true});
    stage
        .create(by("Reload", "unsafe", "hall", rotate.clone()))
        .await;
    let message = stage.failed("unsafe").await;
    for part in [
        "1.24.0",
        "nothing has been changed",
        "RollingRestart or Auto",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let before = processes(&stage, "hall").await;
    stage.create(by("Auto", "safe", "hall", rotate)).await;
    let ended = stage.successful("safe").await;
    let message = told(&ended, "RestartPods");
    assert!(message.contains("can crash at a reload"), "{message}");
    assert_ne!(processes(&stage, "hall").await, before);

    stage
        .create(by("Reload", "gone", "hall", json!({"remove": true})))
        .await;
    let message = stage.failed("gone").await;
    assert!(
        message.contains("the pods lose volume hall-server-cert"),
        "{message}"
    );

    a_pod_that_lets_nobody_in_is_restarted(&stage).await;
    stage.stop().await;
}

/// The console's password is changed by hand: the running pooler knows only the old one.
async fn a_pod_that_lets_nobody_in_is_restarted(stage: &Stage) {
    made(stage, &Wanted::till()).await;
    let secret = Patch::Merge(json!({"stringData": {"password": "changed-by-hand-1A"}}));
    let secrets = stage.api::<k8s_openapi::api::core::v1::Secret>();
    let params = PatchParams::default();
    secrets.patch("till-auth", &params, &secret).await.unwrap();
    let rotate = json!({"rotateCertificates": true});
    let before = processes(stage, "till").await;
    stage
        .create(by("Reload", "locked", "till", rotate.clone()))
        .await;
    let message = stage.failed("locked").await;
    for part in ["cannot be reloaded", "console", "is as it was before"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(processes(stage, "till").await, before);
    stage.create(by("Auto", "unlocked", "till", rotate)).await;
    let ended = stage.successful("unlocked").await;
    let message = told(&ended, "ReloadPods");
    assert!(
        message.contains("till-0 was restarted instead"),
        "{message}"
    );
    assert_ne!(processes(stage, "till").await, before);
    assert_eq!(
        processes(stage, "till").await.len(),
        1,
        "its company has left"
    );
}
