//! `local`: the platform and the daemon on this machine, until stopped; continues from its data
//! directory next time.

use super::args::LocalArgs;
use super::exit::Failure;
use super::output::Output;
use super::{policy, run, standing};
use crate::daemon::DaemonOptions;
use crate::local::platform::PlatformOptions;

/// Where the Lease is by default: every platform has it.
const LEASE_NAMESPACE: &str = "default";

/// Runs until SIGINT or SIGTERM.
pub(super) async fn until_stopped(output: Output, args: LocalArgs) -> Result<(), Failure> {
    let mut options = PlatformOptions::new(&args.data);
    options.api_address = args.listen;
    options.kubeconfig = args.kubeconfig;
    options.pgbouncer = args.pgbouncer;
    // Whoever says so starts daemons beside it.
    let daemon = (!args.no_daemon).then_some(DaemonOptions {
        cluster_resource_namespace: args.cluster_resource_namespace,
        policies: policy::in_force(args.policies.as_deref())?,
        rotation: args.history.with(&args.rotation),
        election: args.leader.options(LEASE_NAMESPACE)?,
        ..DaemonOptions::default()
    });
    let mut standing = standing::start(options, daemon).await?;
    output.note(&format!(
        "bouncert local runs on {}\n  export KUBECONFIG={}\nstop it with SIGINT or SIGTERM",
        args.data.display(),
        standing.kubeconfig().display()
    ));
    let ended = tokio::select! {
        ended = standing.ended() => Err(ended),
        stopped = run::stopped() => stopped.map_err(anyhow::Error::from),
    };
    output.note("stopping");
    let stopped = standing.stop().await;
    ended?;
    Ok(stopped?)
}
