//! `local`: the platform and the daemon on this machine, until stopped; continues from its data
//! directory next time.

use super::args::LocalArgs;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::{run, standing};
use crate::daemon::NAMESPACE_DEFAULT;
use crate::issuer::VaultNetworks;
use crate::local::datadir;
use crate::local::platform::PlatformOptions;
use crate::telemetry::admin::AdminServer;

/// File of the data directory that holds the address of the admin server.
const ADMIN_FILE: &str = "admin.url";

/// Runs until SIGINT or SIGTERM.
pub(super) async fn until_stopped(output: Output, args: LocalArgs) -> Result<(), Failure> {
    let mut options = PlatformOptions::new(&args.data);
    options.api_address = args.listen;
    options.kubeconfig = args.kubeconfig;
    options.pgbouncer = args.pgbouncer;
    options.allow_host_paths = args.allow_host_path;
    options.pod_uids = args.pod_uid_range;
    let admin = AdminServer::bind(args.daemon.admin.admin_listen)
        .await
        .map_err(|error| Failure::new(Exit::Machine, error))?;
    let url = format!("http://{}", admin.address());
    // Whoever says so starts daemons beside it.
    let daemon = run::options(
        &args.daemon,
        NAMESPACE_DEFAULT,
        VaultNetworks::RoutableAndLoopback,
    )?;
    let daemon = (!args.no_daemon).then_some(daemon);
    let monitor = daemon.as_ref().map(|daemon| daemon.monitor.clone());
    let mut standing = standing::start(options, daemon).await?;
    let shown = match monitor {
        Some(monitor) => {
            standing.serve_admin(admin, monitor);
            // For scripts, and for whoever has scrolled the line below away.
            datadir::write(&args.data, ADMIN_FILE, &format!("{url}\n"))?;
            format!("  metrics and state: {url}/metrics, {url}/state.json\n")
        }
        None => String::new(),
    };
    output.note(&format!(
        "bouncert local runs on {}\n  export KUBECONFIG={}\n{shown}stop it with SIGINT or SIGTERM",
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
