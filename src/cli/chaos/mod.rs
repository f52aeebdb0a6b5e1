//! `chaos`: requests and faults at the same time, under load, and a report of what came of it.
//!
//! ```text
//!   clients ──► Service ──► poolers ──► PostgreSQL      the ledger: what was acknowledged
//!                  ▲           ▲            ▲
//!   daemon ──► API ┘           │            │           a process of its own, killed with -9
//!     ▲         ▲              │            │
//!     └─ faults, by a seeded schedule ──────┘           the watcher: invariants, ten times a second
//! ```
//!
//! A seed replays the schedule of requests and faults; the moments at which they meet are the
//! machine's.

mod daemon;
mod judge;
mod report;
mod requests;
mod script;
mod strike;
mod watch;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret};
use kube::ResourceExt;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::daemon::Daemon;
use self::report::{Evidence, Report};
use self::requests::{Asker, Ended};
use self::strike::Striker;
use self::watch::{Invariants, labels};
use super::args::ChaosArgs;
use super::exit::{Exit, Failure};
use super::output::{Output, Progress};
use super::scene;
use super::scene::cast::NAMESPACE;
use super::scene::client::Application;
use super::scene::load::{Ledger, Load, Tally};
use super::scene::stage::{self, Stage};
use crate::api::PgBouncerOpsRequest;
use crate::cluster::Cluster;
use crate::instants::Shift;
use crate::local::apiserver::faults::Faults;
use crate::local::store::Room;

/// For every pod to serve at the end.
const HEAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs it; fails if anything was not as it should be.
pub(super) async fn run(output: Output, args: &ChaosArgs) -> Result<(), Failure> {
    let progress = output.progress();
    let (faults, room) = (Faults::new(args.seed), Room::default());
    let elsewhere = stage::Daemon::Elsewhere {
        faults: faults.clone(),
        room: room.clone(),
    };
    let stage = Stage::start(&progress, "chaos", elsewhere, None).await?;
    let daemon = Daemon::start(stage.kubeconfig(), stage.directory()).await?;
    let props = Props {
        stage: &stage,
        daemon: &daemon,
        faults: &faults,
        room: &room,
        progress: &progress,
    };
    let played = tokio::select! {
        played = play(&props, args) => played,
        died = stage.died() => Err(died),
        interrupted = super::run::stopped() => {
            Err(interrupted.map_or_else(anyhow::Error::from, |()| anyhow::anyhow!("interrupted")))
        }
    };
    progress.now("stopping everything");
    let log = daemon.stop().await;
    let stopped = stage.stop().await;
    progress.finish();
    let is_well = played
        .as_ref()
        .is_ok_and(|report| report.complaints.is_empty());
    if let Some(log) = log.ok().filter(|_| !is_well) {
        let (_, path) = log.keep().map_err(anyhow::Error::from)?;
        output.note(&format!("the daemon's log is in {}", path.display()));
    }
    let report = played?;
    stopped?;
    output.result(&report, Report::text)?;
    if report.complaints.is_empty() {
        return Ok(());
    }
    let error = anyhow::Error::msg(report.complaints.join("; "));
    Err(Failure::new(Exit::Failed, error))
}

/// What is on the stage.
struct Props<'a> {
    stage: &'a Stage,
    daemon: &'a Daemon,
    faults: &'a Faults,
    room: &'a Room,
    progress: &'a Progress,
}

/// Everything between an empty platform and the report.
async fn play(props: &Props<'_>, args: &ChaosArgs) -> anyhow::Result<Report> {
    let cluster = Cluster::new(props.stage.client().clone());
    let application = scene::set(props.stage, scene::cast::REPLICAS, props.progress).await?;
    let ledger = Arc::new(Ledger::default());
    let load = Load::start(&application, &ledger);
    ledger.next_step();
    let invariants = Invariants::default();
    let striker = Striker {
        stage: props.stage,
        daemon: props.daemon,
        api: props.faults,
        room: props.room,
        invariants: &invariants,
        progress: props.progress,
        windows: Mutex::default(),
    };
    let begun = Instant::now();
    let ended = disturb(props, &striker, &cluster, args).await?;
    let lasted = begun.elapsed();

    props
        .progress
        .now("looking whether everything is well again");
    heal(&cluster, &application, &invariants).await?;
    load.stop().await?;
    keep_secrets(&cluster, props.daemon, &invariants).await?;
    let rows = scene::rows(props.stage.postgres()).await?;
    let tally = ledger.tallies().pop().unwrap_or_default();
    trust(&tally, &invariants);
    Ok(Report::new(Evidence {
        seed: args.seed,
        lasted,
        ended,
        windows: striker.windows(),
        struck: props.faults.struck(),
        tally: &tally,
        rows: &rows,
        invariants: &invariants,
    }))
}

/// Requests and faults for as long as is asked for, watched; then what is under way ends in peace.
async fn disturb(
    props: &Props<'_>,
    striker: &Striker<'_>,
    cluster: &Cluster,
    args: &ChaosArgs,
) -> anyhow::Result<Vec<Ended>> {
    let over = CancellationToken::new();
    let watched = CancellationToken::new();
    let client = props.stage.client();
    let invariants = striker.invariants;
    let timer = async {
        sleep(Duration::from_secs(args.minutes.saturating_mul(60))).await;
        over.cancel();
    };
    let work = async {
        let mut asker = Asker::new(client, invariants, props.progress);
        let both = tokio::try_join!(
            asker.run(args.seed, over.clone()),
            striker.run(args.seed, over.clone()),
        );
        // The daemon's own requests end as well.
        let settled = asker.settle().await;
        watched.cancel();
        both.and_then(|both| settled.map(|()| both))
    };
    let (done, (), ()) = tokio::join!(
        async {
            let done = work.await;
            over.cancel();
            watched.cancel();
            done
        },
        async {
            tokio::select! {
                () = timer => {}
                () = over.cancelled() => {}
            }
        },
        invariants.watch(cluster, watched.clone()),
    );
    Ok(done?.0)
}

/// I2: every pod lets us work in the end, at its own address; a pooler that stayed paused would not.
async fn heal(
    cluster: &Cluster,
    application: &Application,
    invariants: &Invariants,
) -> anyhow::Result<()> {
    let deadline = Instant::now().plus(HEAL_TIMEOUT);
    loop {
        let pods: Vec<Pod> = cluster.list(NAMESPACE, &labels()).await?;
        let mut sick = Vec::new();
        for pod in &pods {
            let name = pod.name_any();
            if !watch::is_serving(pod) {
                sick.push(format!("{name} is not in service"));
            } else if let Err(why) = application.work_at(scene::proof::address(pod)?).await {
                sick.push(format!("{name}: {why}"));
            }
        }
        if pods.len() != scene::cast::REPLICAS {
            sick.push(format!("there are {} pods", pods.len()));
        }
        if sick.is_empty() || Instant::now() >= deadline {
            invariants.check("I2", sick.is_empty(), || sick.join(", "));
            return Ok(());
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// I7: no line of a private key is where everybody can read it.
async fn keep_secrets(
    cluster: &Cluster,
    daemon: &Daemon,
    invariants: &Invariants,
) -> anyhow::Result<()> {
    let secrets: Vec<Secret> = cluster.list(NAMESPACE, "").await?;
    let data = secrets.iter().flat_map(|secret| &secret.data).flatten();
    let keys: Vec<String> = data
        .filter(|(name, _)| *name == "tls.key")
        .filter_map(|(_, value)| String::from_utf8(value.0.clone()).ok())
        // The second line is the first of the key itself.
        .filter_map(|pem| pem.lines().nth(1).map(str::to_owned))
        .collect();
    let texts = [
        ("the daemon's log", daemon.log()?),
        (
            "an event",
            serde_json::to_string(&cluster.list::<Event>(NAMESPACE, "").await?)?,
        ),
        (
            "a journal",
            serde_json::to_string(&cluster.list_all::<ConfigMap>("").await?)?,
        ),
        (
            "a request",
            serde_json::to_string(&cluster.list::<PgBouncerOpsRequest>(NAMESPACE, "").await?)?,
        ),
    ];
    for (place, text) in texts {
        let told = keys.iter().any(|key| text.contains(key.as_str()));
        let told = told || text.contains("PRIVATE KEY");
        invariants.check("I7", !told, || format!("a key is in {place}"));
    }
    Ok(())
}

/// I1, I6: clients trust what they meet.
fn trust(tally: &Tally, invariants: &Invariants) {
    for (why, times) in &tally.troubles {
        invariants.check("I6", !judge::is_distrust(why), || {
            format!("clients do not trust what they meet ({times} times): {why}")
        });
    }
    for _ in 0..tally.committed.len() {
        invariants.check("I6", true, String::new);
    }
}
