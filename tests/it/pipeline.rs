//! Requests that do not go the straight way: what they wait for, what stops them, what dies under
//! them. The straight way is in `acceptance`.

use std::collections::BTreeMap;
use std::time::Duration;

use bouncert::api::annotations::SERVING_LABEL;
use bouncert::api::common::find_condition;
use bouncert::api::{PgBouncer, PgBouncerOpsRequest, RequestPhase, SslMode};
use bouncert::names::Fingerprint;
use bouncert::ops::ABORT;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::stage::{LONG, NS, Stage, request};
use crate::support::eventually;

/// A stage with an issuer and a PgBouncer `till` that has TLS.
async fn till(replicas: u32) -> Stage {
    let stage = Stage::start().await;
    open_till(&stage, replicas).await;
    stage
}

/// The PgBouncer `till` with its issuer, once it is Ready.
pub(crate) async fn open_till(stage: &Stage, replicas: u32) {
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage.example("pb-issuer").await;
    stage
        .create(json!({
            "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "metadata": {"name": "till"},
            "spec": {
                "version": "1.18.0", "replicas": replicas, "sslMode": "require",
                "database": {
                    "databaseName": "postgres",
                    "databaseRef": {"name": "ha-postgres", "namespace": NS},
                },
                "connectionPool": {
                    "poolMode": "transaction", "maxDBConnections": 10, "maxUserConnections": 10,
                },
                "tls": {"issuerRef": {"kind": "Issuer", "name": "pb-issuer"}},
                "deletionPolicy": "WipeOut",
            },
        }))
        .await;
    stage.ready("till").await;
}

/// What must be the same after a request that came to nothing.
#[derive(Debug, PartialEq)]
pub(crate) struct Before {
    pub(crate) spec: Value,
    pub(crate) served: Vec<Option<Fingerprint>>,
    pub(crate) secrets: BTreeMap<String, Value>,
    pub(crate) pods: BTreeMap<String, bool>,
}

pub(crate) async fn before(stage: &Stage, name: &str) -> Before {
    let labels = ListParams::default().labels(&format!("app.kubernetes.io/instance={name}"));
    let secrets = stage.api::<Secret>().list(&labels).await.unwrap();
    Before {
        spec: serde_json::to_value(&stage.bouncer(name).await.spec).unwrap(),
        served: served(stage, name).await,
        secrets: secrets
            .into_iter()
            .map(|secret| {
                (
                    secret.name_any(),
                    serde_json::to_value(secret.data).unwrap(),
                )
            })
            .collect(),
        pods: in_service(stage, name).await,
    }
}

/// The pods, and whether the Service may send clients to them.
pub(crate) async fn in_service(stage: &Stage, name: &str) -> BTreeMap<String, bool> {
    let labels = ListParams::default().labels(&format!("app.kubernetes.io/instance={name}"));
    let pods = stage.api::<Pod>().list(&labels).await.unwrap();
    pods.into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .map(|pod| (pod.name_any(), pod.labels().contains_key(SERVING_LABEL)))
        .collect()
}

pub(crate) async fn served(stage: &Stage, name: &str) -> Vec<Option<Fingerprint>> {
    let served = stage.served(name).await;
    served
        .iter()
        .map(bouncert::pgbouncer::probe::Served::fingerprint)
        .collect()
}

pub(crate) async fn is_paused(stage: &Stage, name: &str) -> bool {
    let status = stage.bouncer(name).await.status.unwrap_or_default();
    find_condition(&status.conditions, "Paused").is_some()
}

/// Waits until a pod shows another leaf than `old`: then the request is in the middle of its roll.
pub(crate) async fn in_the_middle(stage: &Stage, name: &str, old: &[Option<Fingerprint>]) {
    eventually(LONG, async || {
        let mut now = Vec::new();
        for (pod, address) in stage.pods(name).await {
            let bound = Duration::from_secs(1);
            if let Ok(served) = bouncert::pgbouncer::probe::probe(address, None, bound).await {
                now.push((pod, served.fingerprint()));
            }
        }
        if now
            .iter()
            .any(|(_, leaf)| leaf.is_some() && !old.contains(leaf))
        {
            return Ok(());
        }
        Err(now)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_issuer_that_never_comes_ends_the_request_and_changes_nothing() {
    let stage = Stage::start().await;
    stage.example("pb").await;
    stage.ready("pb").await;
    let old = before(&stage, "pb").await;

    let tls = json!({"issuerRef": {"kind": "Issuer", "name": "nobody"}, "sslMode": "require"});
    let mut asked = request("hopeful", "pb", tls);
    asked["spec"]["timeout"] = json!("4s");
    stage.create(asked).await;
    eventually(LONG, async || {
        let request: PgBouncerOpsRequest = stage.get("hopeful").await.unwrap();
        let status = request.status.unwrap_or_default();
        let waits = find_condition(&status.conditions, "CertificateSynced");
        match (status.phase, waits) {
            (Some(RequestPhase::Progressing), Some(waits)) if waits.message.contains("nobody") => {
                Ok(())
            }
            _ => Err(status),
        }
    })
    .await;
    assert!(is_paused(&stage, "pb").await);
    let message = stage.failed("hopeful").await;
    for part in ["issue server", "nobody", "4 s", "is as it was before"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(before(&stage, "pb").await, old);
    assert!(!is_paused(&stage, "pb").await);
    assert_eq!(stage.psql("pb", "sslmode=disable").await.unwrap(), "42");

    modes_can_be_changed_alone(&stage).await;
    a_restart_makes_new_pods_with_the_old_leaf(&stage).await;
    stage.stop().await;
}

/// An issuer with TLS off, then `sslMode` alone, then `clientAuthMode` alone.
async fn modes_can_be_changed_alone(stage: &Stage) {
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage.example("pb-issuer").await;
    let by = json!({"kind": "Issuer", "name": "pb-issuer"});
    let asked = json!({"issuerRef": by, "sslMode": "disable"});
    stage.request("issue-only", asked).await;
    stage.successful("issue-only").await;
    assert_eq!(
        served(stage, "pb").await,
        [None],
        "certificates, and no TLS yet"
    );
    let server = stage.secret("pb-server-cert", "tls.crt").await;

    stage
        .request("stricter", json!({"sslMode": "require"}))
        .await;
    stage.successful("stricter").await;
    assert_eq!(
        stage.bouncer("pb").await.spec.ssl_mode,
        Some(SslMode::Require)
    );
    assert!(stage.psql("pb", "sslmode=disable").await.is_err());
    assert_eq!(stage.psql("pb", "sslmode=require").await.unwrap(), "42");
    let same = stage.secret("pb-server-cert", "tls.crt").await;
    assert_eq!(same, server, "a mode issues nothing");

    stage
        .request("scram", json!({"clientAuthMode": "scram-sha-256"}))
        .await;
    stage.successful("scram").await;
    assert_eq!(stage.ini("pb").await["auth_type"], "scram-sha-256");
    assert_eq!(stage.psql("pb", "sslmode=require").await.unwrap(), "42");
}

async fn a_restart_makes_new_pods_with_the_old_leaf(stage: &Stage) {
    let old: Pod = stage.get("pb-0").await.unwrap();
    let leaf = served(stage, "pb").await;
    let mut restart = request("again", "pb", Value::Null);
    restart["spec"]["type"] = json!("Restart");
    restart["spec"].as_object_mut().unwrap().remove("tls");
    stage.create(restart).await;
    stage.successful("again").await;
    let new: Pod = stage.get("pb-0").await.unwrap();
    assert_ne!(old.uid(), new.uid());
    assert_eq!(served(stage, "pb").await, leaf, "and the surge pod is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_that_is_deleted_halfway_is_undone() {
    let mut stage = till(3).await;
    let old = before(&stage, "till").await;
    stage
        .create(request(
            "regretted",
            "till",
            json!({"rotateCertificates": true}),
        ))
        .await;
    in_the_middle(&stage, "till", &old.served).await;
    let requests = stage.api::<PgBouncerOpsRequest>();
    requests
        .delete("regretted", &DeleteParams::default())
        .await
        .unwrap();
    eventually(LONG, async || {
        let left: Option<PgBouncerOpsRequest> = stage.get("regretted").await;
        left.map_or(Ok(()), |left| Err(left.status))
    })
    .await;
    assert_eq!(before(&stage, "till").await, old);
    assert!(!is_paused(&stage, "till").await);
    assert_eq!(stage.psql("till", "sslmode=require").await.unwrap(), "42");

    deaths_of_the_daemon_are_survived(&mut stage, &old).await;
    no_key_is_told_to_anybody(&stage).await;
    stage.stop().await;
}

async fn deaths_of_the_daemon_are_survived(stage: &mut Stage, old: &Before) {
    stage
        .create(request(
            "sturdy",
            "till",
            json!({"rotateCertificates": true}),
        ))
        .await;
    // Each life is a little longer than the one before, so that deaths come at different places.
    for life in 1_u64..40 {
        tokio::time::sleep(Duration::from_millis(150 + life * 60)).await;
        let request: PgBouncerOpsRequest = stage.get("sturdy").await.unwrap();
        let phase = request.status.and_then(|status| status.phase);
        if phase.is_some_and(RequestPhase::is_terminal) {
            break;
        }
        if life % 2 == 0 {
            stage.kill_daemon().await;
        } else {
            stage.dismiss_daemon().await;
            let pods = in_service(stage, "till").await;
            assert!(
                pods.values().all(|serving| *serving),
                "left in order: {pods:?}"
            );
        }
        stage.start_daemon();
    }
    stage.successful("sturdy").await;
    let now = before(stage, "till").await;
    assert_eq!(now.spec, old.spec);
    assert_eq!(now.pods, old.pods, "all there, and all in service");
    assert!(
        now.served
            .iter()
            .all(|leaf| leaf.is_some() && !old.served.contains(leaf))
    );
    assert_eq!(stage.psql("till", "sslmode=require").await.unwrap(), "42");
}

/// Invariant I7, as far as the API can tell.
async fn no_key_is_told_to_anybody(stage: &Stage) {
    let labels = ListParams::default().labels("app.kubernetes.io/instance=till");
    let secrets = stage.api::<Secret>().list(&labels).await.unwrap();
    let mut keys = Vec::new();
    for secret in secrets {
        if let Some(key) = secret.data.unwrap_or_default().remove("tls.key") {
            let text = String::from_utf8(key.0).unwrap();
            let line = text.lines().nth(1).expect("a line of the key").to_owned();
            keys.push(line);
        }
    }
    assert!(keys.len() >= 6, "contract Secrets and revisions");
    let all = ListParams::default();
    let journals: Api<ConfigMap> = Api::all(stage.client.clone());
    let journals = journals.list(&all).await.unwrap();
    let kept = stage.journal("sturdy").await.unwrap().name_any();
    let events = stage.api::<Event>().list(&all).await.unwrap();
    let requests = stage.api::<PgBouncerOpsRequest>().list(&all).await.unwrap();
    let bouncers = stage.api::<PgBouncer>().list(&all).await.unwrap();
    assert!(journals.iter().any(|map| map.name_any() == kept));
    let told = [
        serde_json::to_string(&journals.items).unwrap(),
        serde_json::to_string(&events.items).unwrap(),
        serde_json::to_string(&requests.items).unwrap(),
        serde_json::to_string(&bouncers.items).unwrap(),
    ];
    for text in told {
        assert!(!keys.iter().any(|key| text.contains(key)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_single_replica_that_is_stopped_halfway_goes_back_and_never_to_zero() {
    let stage = till(1).await;
    let old = before(&stage, "till").await;
    let tls = json!({"certificates": [{"alias": "server", "dnsNames": ["till.example"]}]});
    stage.create(request("wavering", "till", tls)).await;
    in_the_middle(&stage, "till", &old.served).await;
    let abort = Patch::Merge(json!({"metadata": {"annotations": {ABORT: "true"}}}));
    let requests = stage.api::<PgBouncerOpsRequest>();
    requests
        .patch("wavering", &PatchParams::default(), &abort)
        .await
        .unwrap();
    loop {
        let pods = stage
            .api::<Pod>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let serve = |pod: &&Pod| {
            let conditions = pod
                .status
                .as_ref()
                .and_then(|status| status.conditions.as_ref());
            pod.labels().contains_key(SERVING_LABEL)
                && conditions
                    .is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
        };
        assert!(pods.iter().filter(serve).count() > 0, "nobody serves");
        let request: PgBouncerOpsRequest = stage.get("wavering").await.unwrap();
        let phase = request.status.and_then(|status| status.phase);
        if phase.is_some_and(RequestPhase::is_terminal) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let message = stage.failed("wavering").await;
    assert!(message.contains("stop"), "{message}");
    assert_eq!(before(&stage, "till").await, old);
    assert_eq!(stage.psql("till", "sslmode=require").await.unwrap(), "42");
    stage.stop().await;
}

/// The cipher list is read only when TLS is on, so nothing but a new pod can tell that it is bad.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pod_that_does_not_come_up_takes_the_whole_change_back() {
    let stage = Stage::start().await;
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage.example("pb-issuer").await;
    let ini = "[pgbouncer]\nclient_tls_ciphers = NO-SUCH-CIPHER\n";
    stage
        .create(json!({
            "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "metadata": {"name": "fragile"},
            "spec": {
                "version": "1.18.0", "replicas": 2,
                "configuration": {"inline": {"pgbouncer.ini": ini}},
                "database": {
                    "databaseName": "postgres",
                    "databaseRef": {"name": "ha-postgres", "namespace": NS},
                },
                "connectionPool": {"poolMode": "transaction", "maxUserConnections": 5},
            },
        }))
        .await;
    stage.ready("fragile").await;
    let old = before(&stage, "fragile").await;
    let tls = json!({"issuerRef": {"kind": "Issuer", "name": "pb-issuer"}, "sslMode": "require"});
    let mut asked = request("doomed", "fragile", tls);
    asked["spec"]["timeout"] = json!("20s");
    stage.create(asked).await;
    let message = stage.failed("doomed").await;
    for part in ["roll fragile-1", "fragile-1 is", "is as it was before"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(before(&stage, "fragile").await, old);
    assert!(!is_paused(&stage, "fragile").await);
    let untouched = stage.psql("fragile", "sslmode=disable").await;
    assert_eq!(untouched.unwrap(), "42");
    stage.stop().await;
}
