//! What lies under a change breaks in the middle of it: a pooler dies while it is paused, PostgreSQL
//! restarts. The change ends, and everything is in service again.

use std::net::SocketAddr;
use std::time::Duration;

use bouncert::api::annotations::SERVING_LABEL;
use bouncert::api::{PgBouncerOpsRequest, RequestPhase};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use crate::stage::{LONG, NS, PASSWORD, Stage};
use crate::support::eventually;

const POOLER: &str = "crane";

async fn crane() -> Stage {
    let stage = Stage::start().await;
    stage
        .create(json!({
            "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "metadata": {"name": POOLER},
            "spec": {
                "version": "1.18.0", "replicas": 2,
                "database": {
                    "databaseName": "postgres",
                    "databaseRef": {"name": "ha-postgres", "namespace": NS},
                },
                "connectionPool": {
                    "poolMode": "transaction", "maxDBConnections": 10, "maxUserConnections": 10,
                },
                "deletionPolicy": "WipeOut",
            },
        }))
        .await;
    stage.ready(POOLER).await;
    stage
}

async fn restart(stage: &Stage, name: &str) {
    stage
        .create(json!({
            "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PgBouncerOpsRequest",
            "metadata": {"name": name},
            "spec": {"type": "Restart", "databaseRef": {"name": POOLER}, "timeout": "60s"},
        }))
        .await;
}

async fn client(address: SocketAddr, tasks: &mut JoinSet<()>) -> tokio_postgres::Client {
    let config = format!(
        "host={} port={} user=postgres password={PASSWORD} dbname=postgres",
        address.ip(),
        address.port()
    );
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tasks.spawn(async move { drop(connection.await) });
    client
}

fn process_id(pod: &Pod) -> Pid {
    let status = pod.status.as_ref().unwrap();
    let statuses = status.container_statuses.as_ref().unwrap();
    let id = statuses[0].container_id.as_deref().unwrap();
    Pid::from_raw(id.strip_prefix("local://").unwrap().parse().unwrap()).unwrap()
}

/// Every pod is in service, and each of them works at its own address.
async fn all_is_well(stage: &Stage) {
    eventually(LONG, async || {
        let mut tasks = JoinSet::new();
        for (name, address) in stage.pods(POOLER).await {
            let pod: Pod = stage.get(&name).await.unwrap();
            if !pod.labels().contains_key(SERVING_LABEL) {
                return Err(format!("{name} is not in service"));
            }
            let works = async {
                client(address, &mut tasks)
                    .await
                    .simple_query("SELECT 1")
                    .await
            };
            match tokio::time::timeout(Duration::from_secs(2), works).await {
                Ok(Ok(_)) => {}
                other => return Err(format!("{name}: {other:?}")),
            }
        }
        Ok(())
    })
    .await;
    assert_eq!(stage.pods(POOLER).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pooler_killed_in_its_pause_and_a_postgresql_that_restarts_end_no_change_halfway() {
    let stage = crane().await;
    let mut tasks = JoinSet::new();
    let (victim, address) = stage.pods(POOLER).await.pop().unwrap();
    assert_eq!(victim, "crane-1", "the first to be restarted");
    let busy = client(address, &mut tasks).await;
    busy.simple_query("BEGIN; SELECT 1").await.unwrap();
    let waiting = client(address, &mut tasks).await;
    restart(&stage, "interrupted").await;
    // PAUSE waits for the open transaction, and whoever wants to begin one waits for PAUSE.
    eventually(LONG, async || {
        let asked = waiting.simple_query("SELECT 1");
        match tokio::time::timeout(Duration::from_millis(400), asked).await {
            Ok(answered) => Err(format!("not paused: {:?}", answered.map(|rows| rows.len()))),
            Err(_) => Ok(()),
        }
    })
    .await;
    let pod: Pod = stage.get(&victim).await.unwrap();
    assert!(!pod.labels().contains_key(SERVING_LABEL), "it is drained");
    kill_process(process_id(&pod), Signal::KILL).unwrap();
    stage.successful("interrupted").await;
    let anew: Pod = stage.get(&victim).await.unwrap();
    assert_ne!(anew.uid(), pod.uid());
    all_is_well(&stage).await;

    let before: Pod = stage.get(&victim).await.unwrap();
    restart(&stage, "shaken").await;
    eventually(LONG, async || {
        let now: Option<Pod> = stage.get(&victim).await;
        if now.is_some_and(|now| now.uid() != before.uid()) {
            return Ok(());
        }
        Err("the first pod is not restarted yet")
    })
    .await;
    stage
        .postgres
        .restart(Duration::from_millis(300))
        .await
        .unwrap();
    let ended: PgBouncerOpsRequest = stage.ended("shaken").await;
    let phase = ended.status.and_then(|status| status.phase);
    assert!(
        matches!(phase, Some(RequestPhase::Successful | RequestPhase::Failed)),
        "{phase:?}"
    );
    all_is_well(&stage).await;
    assert_eq!(stage.psql(POOLER, "sslmode=disable").await.unwrap(), "42");
    stage.stop().await;
}
