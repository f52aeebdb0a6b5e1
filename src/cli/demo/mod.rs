//! `demo`: the main job on this machine, from nothing to done.
//!
//! A throw-away PostgreSQL, the local platform and the daemon run inside this process (and its
//! children). Clients that know nothing of Bouncert run transactions while four requests add,
//! rotate, re-issue and remove TLS. What the table says afterwards was seen by the demo itself: the
//! clients' own ledger, PostgreSQL's rows, and handshakes with every pod.

mod compare;
mod report;
mod soak;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::report::{Expected, Outcome, Report};
use super::args::DemoArgs;
use super::exit::{Exit, Failure};
use super::follow;
use super::output::{Output, Progress};
use super::scene;
use super::scene::cast::{self, REPLICAS, named};
use super::scene::load::{self, Ledger, Load};
use super::scene::proof::{self, Wanted};
use super::scene::stage::{Daemon, Stage};
use crate::api::{PgBouncerOpsRequest, RequestPhase};
use crate::cluster::Cluster;

/// For one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// Load before the first request and after each: what goes wrong late is seen too.
const SETTLE: Duration = Duration::from_millis(1_500);

/// Runs the demo; fails if anything was not as it should be.
pub(super) async fn run(output: Output, args: DemoArgs) -> Result<(), Failure> {
    let progress = output.progress();
    let report = if args.compare {
        compare::run(&args, &progress).await
    } else {
        once(&args, &progress).await
    };
    progress.finish();
    let report = report?;
    output.result(&report, Report::text)?;
    let complaints: Vec<String> = report.complaints().collect();
    if complaints.is_empty() {
        return Ok(());
    }
    let error = anyhow::Error::msg(complaints.join("; "));
    Err(Failure::new(Exit::Failed, error))
}

/// One stage, from an empty platform to the report.
async fn once(args: &DemoArgs, progress: &Progress) -> Result<Report, Failure> {
    let stage = Stage::start(progress, "demo", Daemon::Within, args.pgbouncer.clone()).await?;
    let played = watched(&stage, play(&stage, progress, args.soak)).await;
    close(stage, played, progress).await
}

/// Plays until the end, or until something dies or somebody interrupts.
async fn watched<T>(
    stage: &Stage,
    playing: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        played = Box::pin(playing) => played,
        died = stage.died() => Err(died),
        interrupted = super::run::stopped() => {
            Err(interrupted.map_or_else(anyhow::Error::from, |()| anyhow::anyhow!("interrupted")))
        }
    }
}

/// Stops everything, and tells what was played.
async fn close<T>(
    stage: Stage,
    played: anyhow::Result<T>,
    progress: &Progress,
) -> Result<T, Failure> {
    progress.now("stopping everything");
    let stopped = stage.stop().await;
    let played = played?;
    stopped?;
    Ok(played)
}

/// Everything between an empty platform and the report.
async fn play(
    stage: &Stage,
    progress: &Progress,
    soak: Option<Duration>,
) -> anyhow::Result<Report> {
    let cluster = Cluster::new(stage.client().clone());
    let application = scene::set(stage, REPLICAS, progress).await?;
    let ledger = Arc::new(Ledger::default());
    let load = Load::start(&application, &ledger);
    progress.now(&format!("{} clients run transactions", load::CLIENTS));
    tokio::time::sleep(SETTLE).await;
    let outcomes = match soak {
        Some(length) => soak::watch(stage, &cluster, &ledger, length, progress).await?,
        None => requests(stage, &cluster, &ledger, progress).await?,
    };
    load.stop().await?;

    progress.now("comparing acknowledged commits with PostgreSQL's rows");
    let rows = scene::rows(stage.postgres()).await?;
    Ok(Report::new(outcomes, &ledger.tallies(), &rows))
}

/// The four requests, one after the other.
async fn requests(
    stage: &Stage,
    cluster: &Cluster,
    ledger: &Ledger,
    progress: &Progress,
) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for request in cast::requests()? {
        ledger.next_step();
        outcomes.push(carry_out(stage, cluster, &request, progress).await?);
        tokio::time::sleep(SETTLE).await;
        let committed = ledger.committed_now();
        progress.line(&last_line(&outcomes, committed));
    }
    Ok(outcomes)
}

fn last_line(outcomes: &[Outcome], committed: usize) -> String {
    outcomes.last().map_or_else(String::new, |outcome| {
        format!(
            "{}: {} in {:.1} s, {} pods proved, {committed} transactions committed",
            outcome.name,
            outcome.phase,
            outcome.took.as_secs_f64(),
            outcome.pods_proved
        )
    })
}

/// Creates one request, follows it to its end, and looks at every pod.
async fn carry_out(
    stage: &Stage,
    cluster: &Cluster,
    request: &PgBouncerOpsRequest,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let name = request.metadata.name.clone().unwrap_or_default();
    progress.now(&format!("{name}: created"));
    cluster.create(request).await?;
    follow_up(stage, cluster, request, begun, progress).await
}

/// Follows a request that is there to its end, and looks at every pod.
async fn follow_up(
    stage: &Stage,
    cluster: &Cluster,
    request: &PgBouncerOpsRequest,
    begun: Instant,
    progress: &Progress,
) -> anyhow::Result<Outcome> {
    let name = request.metadata.name.clone().unwrap_or_default();
    let ended = follow::request(stage.client(), &named(&name), REQUEST_TIMEOUT, progress).await?;
    let took = begun.elapsed();
    let phase = ended.status.as_ref().and_then(|status| status.phase);
    let mut complaints = Vec::new();
    let mut pods_proved = 0;
    if phase == Some(RequestPhase::Successful) {
        let proof = proof::look(cluster, Wanted::after(request)).await?;
        pods_proved = proof.proved;
        complaints.extend(proof.complaints);
    } else {
        complaints.push(follow::verdict(&ended));
    }
    Ok(Outcome {
        name,
        phase: phase.map_or("Pending", RequestPhase::as_str).to_owned(),
        took,
        pods_proved,
        complaints,
        expected: Expected::Unnoticed,
    })
}

#[cfg(test)]
mod tests;
