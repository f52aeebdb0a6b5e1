//! The arguments as they are typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::exit;
use super::output::Format;

/// Certificate lifecycle for PgBouncer: issues, publishes, rotates and proves TLS without cutting
/// a transaction.
#[derive(Debug, Parser)]
#[command(name = "bouncert", version, after_help = exit::TABLE, propagate_version = true)]
pub struct Cli {
    /// How results are written.
    #[arg(long, short, global = true, value_enum, default_value_t)]
    pub output: Format,
    /// What is logged, such as `info` or `bouncert=debug` [env: RUST_LOG].
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// How a line of the log looks.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub log_format: LogFormatArg,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum LogFormatArg {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print the CustomResourceDefinitions to install in a cluster.
    #[command(after_help = exit::TABLE)]
    Crds(CrdsArgs),
    /// Show the certificates that an address serves to PostgreSQL clients.
    #[command(after_help = exit::TABLE)]
    Probe(ProbeArgs),
}

/// Which Kubernetes API.
#[derive(Args, Clone, Debug, Default)]
pub struct ClusterArgs {
    /// Kubeconfig file; else $KUBECONFIG, ~/.kube/config, or the cluster this runs in.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// Arguments of `crds`.
#[derive(Args, Clone, Copy, Debug)]
pub struct CrdsArgs {
    /// Add stand-ins for cert-manager's and PetSet's kinds, for a cluster that has neither.
    #[arg(long)]
    pub with_cert_manager: bool,
}

/// Arguments of `probe`.
#[derive(Args, Clone, Debug)]
pub struct ProbeArgs {
    /// Who to ask, such as `pb.demo.svc:5432`.
    #[arg(value_name = "HOST:PORT")]
    pub address: String,
    /// Name to ask for in the handshake; the host by default.
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// How long to wait for an answer, such as `5s`.
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = super::duration)]
    pub timeout: std::time::Duration,
}
