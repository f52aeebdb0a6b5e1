//! `run`: the daemon alone, against the Kubernetes API that is there.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::RunArgs;
use super::connect::connect;
use super::exit::Failure;
use super::output::Output;
use super::policy;
use crate::daemon::{self, DaemonOptions};

/// Runs until SIGINT or SIGTERM.
pub(super) async fn until_stopped(output: Output, args: &RunArgs) -> Result<(), Failure> {
    let connection = connect(&args.cluster).await?;
    let stop = CancellationToken::new();
    let options = DaemonOptions {
        cluster_resource_namespace: args.cluster_resource_namespace.clone(),
        watch_namespaces: args.reach.watch_namespaces.clone(),
        class: args.reach.class.clone(),
        policies: policy::in_force(args.policies.as_deref())?,
        rotation: args.history.with(&args.rotation),
        ..DaemonOptions::default()
    };
    let daemon = daemon::run(connection.client, options, stop.clone());
    tokio::pin!(daemon);
    output.note("bouncert runs; stop it with SIGINT or SIGTERM");
    tokio::select! {
        ended = &mut daemon => return Ok(ended?),
        stopped = stopped() => stopped?,
    }
    output.note("stopping");
    stop.cancel();
    Ok(daemon.await?)
}

/// Waits for SIGINT or SIGTERM.
pub(super) async fn stopped() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}
