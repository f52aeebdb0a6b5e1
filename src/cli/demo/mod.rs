//! `demo`: the main job on this machine, from nothing to done.
//!
//! A throw-away PostgreSQL, the local platform and the daemon run inside this process (and its
//! children). Clients that know nothing of Bouncert run transactions while four requests add,
//! rotate, re-issue and remove TLS. What the table says afterwards was seen by the demo itself: the
//! clients' own ledger, PostgreSQL's rows, and handshakes with every pod.

mod cast;
mod client;
mod load;
mod proof;
mod report;
mod soak;
mod stage;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;

use self::cast::{DATABASE, NAMESPACE, POOLER, named};
use self::client::{Application, Secrets, TABLE};
use self::load::{Ledger, Load};
use self::report::{Outcome, Report};
use self::stage::Stage;
use super::args::DemoArgs;
use super::exit::{Exit, Failure};
use super::follow;
use super::output::{Output, Progress};
use crate::api::common::Phase;
use crate::api::{PgBouncer, PgBouncerOpsRequest, RequestPhase};
use crate::cluster::Cluster;
use crate::local::postgres::ThrowAwayPostgres;

/// For the PgBouncer to become Ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// For one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// Load before the first request and after each: what goes wrong late is seen too.
const SETTLE: Duration = Duration::from_millis(1_500);

/// Runs the demo; fails if anything was not as it should be.
pub(super) async fn run(output: Output, args: DemoArgs) -> Result<(), Failure> {
    let progress = output.progress();
    let stage = Stage::start(&progress, args.pgbouncer).await?;
    let played = tokio::select! {
        played = play(&stage, &progress, args.soak) => played,
        died = stage.died() => Err(died),
        interrupted = super::run::stopped() => {
            Err(interrupted.map_or_else(anyhow::Error::from, |()| anyhow::anyhow!("interrupted")))
        }
    };
    progress.now("stopping everything");
    let stopped = stage.stop().await;
    progress.finish();
    let report = played?;
    stopped?;
    output.result(&report, Report::text)?;
    let complaints: Vec<String> = report.complaints().collect();
    if complaints.is_empty() {
        return Ok(());
    }
    let error = anyhow::Error::msg(complaints.join("; "));
    Err(Failure::new(Exit::Failed, error))
}

/// Everything between an empty platform and the report.
async fn play(
    stage: &Stage,
    progress: &Progress,
    soak: Option<Duration>,
) -> anyhow::Result<Report> {
    let cluster = Cluster::new(stage.client().clone());
    let postgres = stage.postgres();
    let table = format!("CREATE TABLE {TABLE} (id bigint PRIMARY KEY)");
    postgres.execute(DATABASE, &table).await?;

    progress.now("applying CA Secrets, Issuers, AppBinding and a PgBouncer with three replicas");
    let backend = cast::Backend {
        address: postgres.address(),
        user: postgres.superuser(),
        password: postgres.password(),
    };
    cast::apply(&cluster, &backend, stage.version()).await?;
    until_ready(stage, progress).await?;

    let application = Arc::new(Application {
        service: service_address(&cluster).await?,
        server_name: format!("{POOLER}.{NAMESPACE}.svc"),
        user: postgres.superuser().to_owned(),
        password: postgres.password().clone(),
        database: DATABASE.to_owned(),
        secrets: Secrets {
            cluster: cluster.clone(),
            at: named(format!("{POOLER}-client-cert")),
        },
    });
    let ledger = Arc::new(Ledger::default());
    let load = Load::start(&application, &ledger);
    progress.now(&format!("{} clients run transactions", load::CLIENTS));
    tokio::time::sleep(SETTLE).await;
    let outcomes = match soak {
        Some(length) => soak::watch(stage, &cluster, &ledger, (length, progress)).await?,
        None => requests(stage, &cluster, &ledger, progress).await?,
    };
    load.stop().await?;

    progress.now("comparing acknowledged commits with PostgreSQL's rows");
    let rows = rows(postgres).await?;
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

async fn until_ready(stage: &Stage, progress: &Progress) -> anyhow::Result<()> {
    let mut phase = None;
    let at = named(POOLER);
    let ready = follow::until(
        stage.client(),
        &at,
        READY_TIMEOUT,
        |pooler: Option<&PgBouncer>| {
            phase = pooler.and_then(|pooler| pooler.status.as_ref()?.phase);
            progress.now(
                &format!("PgBouncer {at}: {phase:?}")
                    .replace("Some(", "")
                    .replace(')', ""),
            );
            phase == Some(Phase::Ready)
        },
    );
    ready.await.map(drop)
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
    follow_up(stage, cluster, request, (begun, progress)).await
}

/// Follows a request that is there to its end, and looks at every pod.
async fn follow_up(
    stage: &Stage,
    cluster: &Cluster,
    request: &PgBouncerOpsRequest,
    (begun, progress): (Instant, &Progress),
) -> anyhow::Result<Outcome> {
    let name = request.metadata.name.clone().unwrap_or_default();
    let ended = follow::request(stage.client(), &named(&name), REQUEST_TIMEOUT, progress).await?;
    let took = begun.elapsed();
    let phase = ended.status.as_ref().and_then(|status| status.phase);
    let mut complaints = Vec::new();
    let mut pods_proved = 0;
    if phase == Some(RequestPhase::Successful) {
        let proof = proof::look(cluster, request).await?;
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
    })
}

/// Where clients connect to.
async fn service_address(cluster: &Cluster) -> anyhow::Result<SocketAddr> {
    let at = named(POOLER);
    let service: Option<Service> = cluster.get(&at).await?;
    let spec = service.and_then(|service| service.spec).unwrap_or_default();
    let ip = spec.cluster_ip.as_deref().map(str::parse::<IpAddr>);
    let port = spec.ports.iter().flatten().map(|port| port.port).next();
    match (ip, port.and_then(|port| u16::try_from(port).ok())) {
        (Some(Ok(ip)), Some(port)) => Ok(SocketAddr::new(ip, port)),
        _ => Err(anyhow::anyhow!("Service {at} has no address")),
    }
}

/// The rows that are really there, asked of PostgreSQL itself.
async fn rows(postgres: &ThrowAwayPostgres) -> anyhow::Result<HashSet<i64>> {
    let query = format!("SELECT id FROM {TABLE}");
    let rows = postgres.execute(DATABASE, &query).await?;
    rows.iter()
        .map(|row| {
            let id = row.get("id").map(|id| id.parse());
            id.ok_or_else(|| anyhow::anyhow!("a row of {TABLE} has no id"))?
                .map_err(anyhow::Error::from)
        })
        .collect()
}

#[cfg(test)]
mod tests;
