//! The arguments of the daemon: `run` and `local`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::ClusterArgs;
use crate::cli::leader::LeaderArgs;
use crate::inventory::{CertManagerMetrics, InventoryOptions, LOOKS_PER_SECOND_DEFAULT};
use crate::issuer::{CLUSTER_RESOURCE_NAMESPACE_DEFAULT, Network};
use crate::local::runner::identity::UidRange;
use crate::rotation::RotationOptions;
use crate::rotation::limits::{self, Limits};
use crate::rotation::window::Windows;
use crate::telemetry::ListenAddress;

/// How certificates are rotated by themselves.
#[derive(Args, Clone, Debug)]
pub struct RotationArgs {
    /// `PgBouncers` that are rotated at the same time; 0 turns scheduled rotation off.
    #[arg(long, value_name = "N", default_value_t = limits::CONCURRENCY_DEFAULT)]
    pub rotation_concurrency: usize,
    /// The same in one namespace.
    #[arg(long, value_name = "N", default_value_t = limits::CONCURRENCY_PER_NAMESPACE_DEFAULT)]
    pub rotation_concurrency_per_namespace: usize,
    /// Rotations that begin within a minute.
    #[arg(long, value_name = "N", default_value_t = limits::STARTS_PER_MINUTE_DEFAULT)]
    pub rotation_starts_per_minute: usize,
    /// When rotations may begin where neither PgBouncer nor Namespace says so, such as
    /// `Mon-Fri 01:00-05:00 Europe/Berlin`; any time by default.
    #[arg(long, value_name = "WINDOW", value_parser = Windows::parse)]
    pub maintenance_window: Option<Windows>,
}

impl RotationArgs {
    /// As the daemon takes them.
    pub fn options(&self) -> RotationOptions {
        RotationOptions {
            limits: Limits {
                concurrency: self.rotation_concurrency,
                concurrency_per_namespace: self.rotation_concurrency_per_namespace,
                starts_per_minute: self.rotation_starts_per_minute,
            },
            window: self.maintenance_window.clone(),
            ..RotationOptions::default()
        }
    }
}

/// How many finished requests of the scheduled rotation are kept.
#[derive(Args, Clone, Copy, Debug)]
pub struct HistoryArgs {
    /// Successful requests of the scheduled rotation that are kept for each PgBouncer.
    #[arg(long, value_name = "N", default_value_t = limits::SUCCESSFUL_KEPT_DEFAULT)]
    pub rotation_history: usize,
    /// The same of those that failed; at least one.
    #[arg(long, value_name = "N", default_value_t = limits::FAILED_KEPT_DEFAULT)]
    pub rotation_failed_history: usize,
}

impl HistoryArgs {
    /// Puts them beside the others.
    pub fn with(self, rotation: &RotationArgs) -> RotationOptions {
        RotationOptions {
            successful_kept: self.rotation_history,
            failed_kept: self.rotation_failed_history,
            ..rotation.options()
        }
    }
}

/// How `run` and `local` show what they do.
#[derive(Args, Clone, Debug)]
pub struct AdminArgs {
    /// Where /metrics, /state.json, /livez and /readyz are served; a free port of 127.0.0.1 by
    /// default. In a pod, `:9180` (on all its addresses) lets Prometheus and the kubelet in.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub admin_listen: ListenAddress,
    /// Serve cert-manager's certificate metrics (`certmanager_certificate_expiration_timestamp_seconds`
    /// and its siblings) for our certificates as well.
    #[arg(long)]
    pub cert_manager_metrics: bool,
    /// Handshakes per second, at the most, by which it is known what each pod serves.
    #[arg(long, value_name = "N", default_value_t = LOOKS_PER_SECOND_DEFAULT)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub probes_per_second: u32,
}

impl AdminArgs {
    /// How the inventory is to work.
    pub const fn inventory(&self) -> InventoryOptions {
        InventoryOptions {
            looks_per_second: self.probes_per_second,
            cert_manager_metrics: if self.cert_manager_metrics {
                CertManagerMetrics::Served
            } else {
                CertManagerMetrics::Left
            },
        }
    }
}

/// What the daemon takes, whatever it runs against.
#[derive(Args, Clone, Debug)]
pub struct DaemonArgs {
    /// The daemon's own namespace, where journals of requests and its seal are kept; nobody else should
    /// have rights there. By default that of the pod or the kubeconfig, and `bouncert-system` for `local`.
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// How it shows what it does.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Carry over the journals of requests that an earlier version has left in their namespaces, where
    /// a tenant may have changed them; for one upgrade. Without it such requests end as failed.
    #[arg(long)]
    pub carry_journals_over: bool,
    /// Namespace of the Secrets that `ClusterIssuers` name.
    #[arg(long, value_name = "NAME", default_value = CLUSTER_RESOURCE_NAMESPACE_DEFAULT)]
    pub cluster_resource_namespace: String,
    /// Folder with `CertificateRequestPolicies` that every certificate has to pass, in place of those
    /// that are built in.
    #[arg(long, value_name = "DIR")]
    pub policies: Option<PathBuf>,
    /// Follow `databaseRef` into any namespace, whether or not that namespace allows it by the annotation
    /// `bouncert.dev/allowed-namespaces`.
    #[arg(long)]
    pub allow_cross_namespace_databases: bool,
    /// Networks that Vault servers of issuers may be in, such as `10.0.0.0/8,127.0.0.1`, and no others. By
    /// default all addresses but link-local, multicast and reserved ones, and (except in `local`) loopback.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    pub vault_networks: Vec<Network>,
    /// How certificates are rotated by themselves.
    #[command(flatten)]
    pub rotation: RotationArgs,
    /// How many finished requests are kept.
    #[command(flatten)]
    pub history: HistoryArgs,
    /// Several daemons.
    #[command(flatten)]
    pub leader: LeaderArgs,
}

/// Arguments of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Which API.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// How the daemon works.
    #[command(flatten)]
    pub daemon: DaemonArgs,
    /// File with the seconds by which the clock is fast; for `chaos`, which writes it at any time.
    #[arg(long, value_name = "FILE", hide = true)]
    pub clock_shift: Option<PathBuf>,
    /// Which objects are looked after.
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// Which objects a daemon looks after.
#[derive(Args, Clone, Debug, Default)]
pub struct ReachArgs {
    /// Namespaces whose `PgBouncers` are looked after, separated by commas; all by default. No other
    /// namespace is read.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Only objects whose annotation `bouncert.dev/class` says this; by default those without it.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub class: String,
}

/// Arguments of `local`.
#[derive(Args, Clone, Debug)]
pub struct LocalArgs {
    /// Where everything is kept that outlives a run; made if missing.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Where the kubeconfig for kubectl is written; `kubeconfig` in the data directory by default.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Where the API listens; a free port of 127.0.0.1 by default.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The pgbouncer program, if not the one in the search path. Given more than once, each pod runs
    /// the one of its PgBouncer's version.
    #[arg(long, value_name = "FILE")]
    pub pgbouncer: Vec<PathBuf>,
    /// A directory that pods may name in a hostPath, with all that is below it; may be repeated.
    /// Without it no pod reads files of this machine.
    #[arg(long, value_name = "PREFIX")]
    pub allow_host_path: Vec<PathBuf>,
    /// The user ids that pods are given where root starts the platform, one each.
    #[arg(long, value_name = "FIRST-LAST", default_value_t)]
    pub pod_uid_range: UidRange,
    /// Run the platform alone; daemons are started with `run` and its kubeconfig.
    #[arg(long)]
    pub no_daemon: bool,
    /// How the daemon works.
    #[command(flatten)]
    pub daemon: DaemonArgs,
}
