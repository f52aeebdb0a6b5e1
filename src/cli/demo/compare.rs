//! The same changes by every means, side by side: restart, reload, and evicting without a drain.
//!
//! The last is what an operator does that replaces the Secret and then evicts every pod in turn,
//! waiting for each to be Ready again. It is done here with the same clients, pods and Service, so
//! that the rows differ in nothing but the means.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::report::{Expected, Outcome, Report};
use super::{SETTLE, carry_out, close, last_line, watched};
use crate::api::PgBouncerOpsRequest;
use crate::api::annotations::STRATEGY;
use crate::api::pod::is_ready;
use crate::cli::args::DemoArgs;
use crate::cli::exit::Failure;
use crate::cli::output::Progress;
use crate::cli::scene;
use crate::cli::scene::cast::{NAMESPACE, POOLER, named};
use crate::cli::scene::load::{Ledger, Load};
use crate::cli::scene::stage::{Daemon, Stage};
use crate::cluster::{Cluster, Eviction};
use crate::instants::Shift;

/// Replicas that are compared.
const REPLICAS: [usize; 2] = [3, 1];
/// For an evicted pod to be followed by one that is Ready.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How often that is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Compares on every number of replicas, each on a stage of its own.
pub(super) async fn run(args: &DemoArgs, progress: &Progress) -> Result<Report, Failure> {
    let mut reports = Vec::new();
    for replicas in REPLICAS {
        let program = args.pgbouncer.clone();
        let stage = Stage::start(progress, "compare", Daemon::Within, program).await?;
        let played = watched(&stage, play(&stage, replicas, progress)).await;
        reports.push(close(stage, played, progress).await?);
    }
    Ok(Report::joined(reports))
}

async fn play(stage: &Stage, replicas: usize, progress: &Progress) -> anyhow::Result<Report> {
    let cluster = Cluster::new(stage.client().clone());
    let application = scene::set(stage, replicas, progress).await?;
    let ledger = Arc::new(Ledger::default());
    let load = Load::start(&application, &ledger);
    let mut outcomes = Vec::new();
    for (name, strategy, tls) in changes() {
        tokio::time::sleep(SETTLE).await;
        ledger.next_step();
        let request = request(&name, strategy, &tls)?;
        let mut outcome = carry_out(stage, &cluster, &request, progress).await?;
        outcome.name = format!("{replicas}: {name}");
        outcomes.push(outcome);
        // What goes wrong late belongs to what caused it.
        tokio::time::sleep(SETTLE).await;
        progress.line(&last_line(&outcomes, ledger.committed_now()));
    }
    ledger.next_step();
    outcomes.push(evict_all(&cluster, replicas, progress).await?);
    tokio::time::sleep(SETTLE).await;
    progress.line(&last_line(&outcomes, ledger.committed_now()));
    load.stop().await?;
    let rows = scene::rows(stage.postgres()).await?;
    Ok(Report::new(outcomes, &ledger.tallies(), &rows))
}

/// The changes in their order: name, strategy, and what is asked for.
fn changes() -> Vec<(String, &'static str, Value)> {
    let issuer = |name| json!({ "issuerRef": { "apiGroup": "cert-manager.io", "kind": "Issuer", "name": name } });
    let rotate = json!({ "rotateCertificates": true });
    let kinds = [
        ("rotate", rotate.clone(), rotate),
        ("issuer", issuer("pb-new-issuer"), issuer("pb-issuer")),
        (
            "sslmode",
            json!({ "sslMode": "require" }),
            json!({ "sslMode": "verify-full" }),
        ),
    ];
    let mut add = issuer("pb-issuer");
    add["sslMode"] = json!("verify-full");
    let mut all = vec![("add-by-restart".to_owned(), "RollingRestart", add)];
    for (kind, first, second) in kinds {
        all.push((format!("{kind}-by-restart"), "RollingRestart", first));
        all.push((format!("{kind}-by-reload"), "Reload", second));
    }
    all
}

fn request(name: &str, strategy: &str, tls: &Value) -> anyhow::Result<PgBouncerOpsRequest> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PgBouncerOpsRequest",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "annotations": { STRATEGY: strategy },
        },
        "spec": {
            "type": "ReconfigureTLS", "databaseRef": { "name": POOLER }, "tls": tls,
            "apply": "Always",
        },
    }))?)
}

/// Evicts every pod in turn, and waits only for its successor to be Ready.
async fn evict_all(
    cluster: &Cluster,
    replicas: usize,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    for ordinal in (0..replicas).rev() {
        let at = named(format!("{POOLER}-{ordinal}"));
        progress.now(&format!("{at}: evicted without a drain"));
        let before: Option<Pod> = cluster.get(&at).await?;
        let uid = before.as_ref().and_then(ResourceExt::uid);
        let end = Instant::now().plus(EVICTION_TIMEOUT);
        if let Some(pod) = &before {
            while let Eviction::Refused { message } = cluster.evict(pod).await? {
                anyhow::ensure!(Instant::now() < end, "pod {at} is not evicted: {message}");
                tokio::time::sleep(LOOK).await;
            }
        }
        loop {
            let after: Option<Pod> = cluster.get(&at).await?;
            if after.is_some_and(|pod| pod.uid() != uid && is_ready(&pod)) {
                break;
            }
            anyhow::ensure!(Instant::now() < end, "pod {at} does not come back");
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(Outcome {
        name: format!("{replicas}: evict-undrained"),
        phase: "Evicted".to_owned(),
        took: begun.elapsed(),
        pods_proved: 0,
        complaints: Vec::new(),
        expected: Expected::Anything,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_done_by_both_means() {
        let all = changes();
        for kind in ["rotate", "issuer", "sslmode"] {
            let of = |means| {
                let name = format!("{kind}-by-{means}");
                all.iter().find(|(found, ..)| *found == name).unwrap().1
            };
            assert_eq!((of("restart"), of("reload")), ("RollingRestart", "Reload"));
        }
        for (name, strategy, tls) in &all {
            let request = request(name, strategy, tls).unwrap();
            assert_eq!(request.spec.database_ref.name, POOLER);
        }
    }
}
