//! `local`: the platform and the daemon on this machine, until stopped; continues from its data
//! directory next time.

use super::args::LocalArgs;
use super::exit::Failure;
use super::output::Output;
use super::{policy, run, standing};
use crate::daemon::DaemonOptions;
use crate::local::platform::PlatformOptions;

/// Runs until SIGINT or SIGTERM.
pub(super) async fn until_stopped(output: Output, args: LocalArgs) -> Result<(), Failure> {
    let mut options = PlatformOptions::new(&args.data);
    options.api_address = args.listen;
    options.kubeconfig = args.kubeconfig;
    options.pgbouncer = args.pgbouncer;
    let daemon = DaemonOptions {
        cluster_resource_namespace: args.cluster_resource_namespace,
        policies: policy::in_force(args.policies.as_deref())?,
        ..DaemonOptions::default()
    };
    let mut standing = standing::start(options, Some(daemon)).await?;
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
