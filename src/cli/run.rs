//! `run`: the daemon alone, against the Kubernetes API that is there.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::args::{DaemonArgs, RunArgs};
use super::connect::connect;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::policy;
use crate::clock::Clock;
use crate::daemon::{self, DaemonOptions};
use crate::issuer::VaultNetworks;
use crate::ops::FormerJournals;
use crate::surroundings::References;
use crate::telemetry::admin::AdminServer;

/// How often the file that sets the clock is read.
const SHIFT_POLL: Duration = Duration::from_millis(100);

/// Runs until SIGINT or SIGTERM.
pub(super) async fn until_stopped(output: Output, args: &RunArgs) -> Result<(), Failure> {
    let connection = connect(&args.cluster).await?;
    let stop = CancellationToken::new();
    let admin = AdminServer::bind(args.daemon.admin.admin_listen)
        .await
        .map_err(|error| Failure::new(Exit::Machine, error))?;
    let shown = format!("metrics at http://{}/metrics", admin.address());
    let options = DaemonOptions {
        watch_namespaces: args.reach.watch_namespaces.clone(),
        class: args.reach.class.clone(),
        clock: match &args.clock_shift {
            Some(_) => Clock::Shifted(Arc::default()),
            None => Clock::System,
        },
        ..options(&args.daemon, &connection.namespace, VaultNetworks::Routable)?
    };
    let mut serving = JoinSet::new();
    serving.spawn(admin.run(options.monitor.clone(), stop.clone()));
    let mut watching = JoinSet::new();
    if let (Some(file), Clock::Shifted(shift)) = (&args.clock_shift, &options.clock) {
        watching.spawn(follow_shift(file.clone(), Arc::clone(shift)));
    }
    let daemon = daemon::run(connection.client, options, stop.clone());
    tokio::pin!(daemon);
    output.note(&format!(
        "bouncert runs; {shown}; stop it with SIGINT or SIGTERM"
    ));
    tokio::select! {
        ended = &mut daemon => return Ok(ended?),
        Some(ended) = serving.join_next() => ended??,
        stopped = stopped() => stopped?,
    }
    output.note("stopping");
    stop.cancel();
    Ok(daemon.await?)
}

/// What the arguments stand for; `namespace` is the daemon's own where none is named, and `networks` are
/// Vault's.
pub(super) fn options(
    args: &DaemonArgs,
    namespace: &str,
    networks: VaultNetworks,
) -> Result<DaemonOptions, Failure> {
    let namespace = args.namespace.as_deref().unwrap_or(namespace);
    Ok(DaemonOptions {
        namespace: namespace.to_owned(),
        former_journals: if args.carry_journals_over {
            FormerJournals::CarriedOver
        } else {
            FormerJournals::Left
        },
        inventory: args.admin.inventory(),
        cluster_resource_namespace: args.cluster_resource_namespace.clone(),
        references: if args.allow_cross_namespace_databases {
            References::Open
        } else {
            References::Granted
        },
        vault_networks: match &args.vault_networks[..] {
            [] => networks,
            named => VaultNetworks::Within(named.to_vec()),
        },
        policies: policy::in_force(args.policies.as_deref())?,
        rotation: args.history.with(&args.rotation),
        election: args.leader.options(namespace)?,
        ..DaemonOptions::default()
    })
}

/// Sets the clock as the file says, whenever it says something else.
async fn follow_shift(file: PathBuf, shift: Arc<AtomicI64>) {
    loop {
        let text = tokio::fs::read_to_string(&file).await.unwrap_or_default();
        if let Ok(seconds) = text.trim().parse() {
            shift.store(seconds, Ordering::Relaxed);
        }
        tokio::time::sleep(SHIFT_POLL).await;
    }
}

/// Waits for SIGINT or SIGTERM.
pub(super) async fn stopped() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}
