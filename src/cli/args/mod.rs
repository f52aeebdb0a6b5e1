//! The arguments as they are typed.

mod daemon;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use serde::de::DeserializeOwned;

pub use self::daemon::{
    AdminArgs, DaemonArgs, HistoryArgs, LocalArgs, ReachArgs, RotationArgs, RunArgs,
};
use super::exit;
use super::output::Format;
use crate::api::opsrequest::ApplyPolicy;
use crate::api::{AuthType, SslMode};
use crate::duration::{GoDuration, ParseDurationError};
use crate::ops::request::Strategy;

/// Certificate lifecycle for PgBouncer: issues, publishes, rotates and proves TLS without cutting
/// a transaction.
#[derive(Debug, Parser)]
#[command(name = "bouncert", version, after_help = exit::TABLE, propagate_version = true)]
pub struct Cli {
    /// How results are written.
    #[arg(long, short, global = true, value_enum, default_value_t)]
    pub output: Format,
    /// What is logged, such as `info` or `bouncert=debug` (`RUST_LOG` by default).
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// How a line of the log looks.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub log_format: LogFormatArg,
    /// Let the kernel write a core dump when the program crashes. It is off, because a dump of `run`,
    /// `local`, `demo` or `chaos` holds private keys.
    #[arg(long, global = true)]
    pub core_dumps: bool,
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
    /// Show the main job on this machine: TLS added, rotated, re-issued and removed under load.
    #[command(after_help = exit::TABLE)]
    Demo(DemoArgs),
    /// Break everything that can break on this machine while requests run under load, and report.
    #[command(after_help = exit::TABLE)]
    Chaos(ChaosArgs),
    /// Run a Kubernetes-compatible API, pooler processes and the daemon on this machine.
    #[command(after_help = exit::TABLE)]
    Local(LocalArgs),
    /// Run the daemon against a Kubernetes API.
    #[command(after_help = exit::TABLE)]
    Run(RunArgs),
    /// Print the `CustomResourceDefinitions` to install in a cluster.
    #[command(after_help = exit::TABLE)]
    Crds(CrdsArgs),
    /// List every certificate that is managed.
    #[command(after_help = exit::TABLE)]
    Certs(CertsArgs),
    /// List what will be rotated when, and what keeps the rest.
    #[command(after_help = exit::TABLE)]
    Schedule(ScheduleArgs),
    /// Issue all certificates of a PgBouncer anew.
    #[command(after_help = exit::TABLE)]
    Rotate(RotateArgs),
    /// Give TLS to a PgBouncer.
    #[command(after_help = exit::TABLE)]
    AddTls(AddTlsArgs),
    /// Let another issuer sign the certificates of a PgBouncer.
    #[command(after_help = exit::TABLE)]
    ChangeIssuer(ChangeIssuerArgs),
    /// Take TLS away from a PgBouncer.
    #[command(after_help = exit::TABLE)]
    RemoveTls(RemoveTlsArgs),
    /// List the poolers and what is being done to them.
    #[command(after_help = exit::TABLE)]
    Status(ListArgs),
    /// Say what policies make of the certificates that manifests ask for.
    #[command(subcommand)]
    Policy(PolicyArgs),
    /// Show the certificates that an address serves to PostgreSQL clients.
    #[command(after_help = exit::TABLE)]
    Probe(ProbeArgs),
    /// Print the script that completes arguments in a shell.
    #[command(after_help = exit::TABLE)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for every verb.
    #[command(after_help = exit::TABLE)]
    Man(ManArgs),
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

/// Which namespace of which API.
#[derive(Args, Clone, Debug, Default)]
pub struct NamespaceArgs {
    /// Which API.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Namespace; that of the kubeconfig by default.
    #[arg(long, short, value_name = "NAME")]
    pub namespace: Option<String>,
}

/// Arguments of `demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// The pgbouncer program, if not the one in the search path.
    #[arg(long, value_name = "FILE")]
    pub pgbouncer: Option<PathBuf>,
    /// Leave it to itself for so long instead, such as `10m`, with certificates that are renewed
    /// every half minute.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub soak: Option<Duration>,
    /// Compare instead: each kind of change by restart and by reload, beside evicting every pod in turn
    /// without a drain; on three replicas and on one.
    #[arg(long, conflicts_with = "soak")]
    pub compare: bool,
}

/// Arguments of `schedule`.
#[derive(Args, Clone, Debug)]
pub struct ScheduleArgs {
    /// Where to look.
    #[command(flatten)]
    pub list: ListArgs,
    /// How many days ahead.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub days: u16,
    /// What the daemon was started with.
    #[command(flatten)]
    pub rotation: RotationArgs,
}

/// Arguments of `status`.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// Where to look.
    #[command(flatten)]
    pub scope: NamespaceArgs,
    /// Look in all namespaces.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub all_namespaces: bool,
}

/// Arguments of `certs`.
#[derive(Args, Clone, Debug)]
pub struct CertsArgs {
    /// Which ones.
    #[command(flatten)]
    pub list: ListArgs,
    /// Look again and again, and print the list when it has changed.
    #[arg(long, short)]
    pub watch: bool,
}

/// Arguments of `chaos`.
#[derive(Args, Clone, Copy, Debug)]
pub struct ChaosArgs {
    /// For how long requests and faults come.
    #[arg(long, value_name = "M", default_value_t = 10)]
    pub minutes: u64,
    /// Which schedule of requests and faults; the same seed is the same schedule.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
}

/// What all changing verbs take.
#[derive(Args, Clone, Debug)]
pub struct ChangeArgs {
    /// Name of the PgBouncer.
    #[arg(value_name = "PGBOUNCER")]
    pub name: String,
    /// Where it is.
    #[command(flatten)]
    pub scope: NamespaceArgs,
    /// Bound of each step, such as `5m`.
    #[arg(long, value_name = "DURATION", value_parser = go_duration)]
    pub timeout: Option<GoDuration>,
    /// When to begin: once the PgBouncer is Ready, or in any phase.
    #[arg(long, value_parser = one_of::<ApplyPolicy>(&["IfReady", "Always"]))]
    #[arg(default_value = "IfReady")]
    pub apply: ApplyPolicy,
    /// How the change reaches the pods; what the PgBouncer is annotated with, or else
    /// `RollingRestart`.
    #[arg(long, value_parser = one_of::<Strategy>(&["RollingRestart", "Reload", "Auto"]))]
    pub strategy: Option<Strategy>,
    /// Return as soon as the request is created.
    #[arg(long)]
    pub no_wait: bool,
    /// Print what would be done, and do nothing.
    #[arg(long, conflicts_with = "no_wait")]
    pub dry_run: bool,
}

/// Arguments of `rotate`.
#[derive(Args, Clone, Debug)]
pub struct RotateArgs {
    /// What all changing verbs take.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Arguments of `add-tls`.
#[derive(Args, Clone, Debug)]
pub struct AddTlsArgs {
    /// What all changing verbs take.
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Who signs.
    #[command(flatten)]
    pub issuer: IssuerArgs,
    /// What TLS asks of clients; `verify-full` by default.
    #[arg(long, value_name = "MODE", value_parser = one_of::<SslMode>(&SSL_MODES))]
    pub ssl_mode: Option<SslMode>,
    /// How clients prove who they are; unchanged by default.
    #[arg(long, value_name = "MODE", value_parser = one_of::<AuthType>(&AUTH_MODES))]
    pub client_auth_mode: Option<AuthType>,
}

/// Arguments of `change-issuer`.
#[derive(Args, Clone, Debug)]
pub struct ChangeIssuerArgs {
    /// What all changing verbs take.
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Who signs from now on.
    #[command(flatten)]
    pub issuer: IssuerArgs,
}

/// Arguments of `remove-tls`.
#[derive(Args, Clone, Debug)]
pub struct RemoveTlsArgs {
    /// What all changing verbs take.
    #[command(flatten)]
    pub change: ChangeArgs,
    /// How clients prove who they are; unchanged by default.
    #[arg(long, value_name = "MODE", value_parser = one_of::<AuthType>(&AUTH_MODES))]
    pub client_auth_mode: Option<AuthType>,
}

/// Who signs.
#[derive(Args, Clone, Debug)]
pub struct IssuerArgs {
    /// Name of the issuer.
    #[arg(id = "issuer", long, value_name = "NAME")]
    pub name: String,
    /// Kind of the issuer.
    #[arg(
        id = "issuer-kind",
        long,
        value_name = "KIND",
        default_value = "Issuer"
    )]
    #[arg(value_parser = ["Issuer", "ClusterIssuer"])]
    pub kind: String,
}

/// Values of `--ssl-mode`.
const SSL_MODES: [&str; 6] = [
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

/// Values of `--client-auth-mode`.
const AUTH_MODES: [&str; 2] = ["md5", "scram-sha-256"];

/// Arguments of `crds`.
#[derive(Args, Clone, Debug)]
pub struct CrdsArgs {
    /// Which API, for `--missing`.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Leave out those that the cluster has from somebody else, such as KubeDB.
    #[arg(long)]
    pub missing: bool,
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
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = duration)]
    pub timeout: Duration,
}

/// Arguments of `completions`.
#[derive(Args, Clone, Copy, Debug)]
pub struct CompletionsArgs {
    /// Which shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Arguments of `man`.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// Folder to write a page for every verb to; made if missing.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What to do with policies.
#[derive(Clone, Debug, Subcommand)]
pub enum PolicyArgs {
    /// Judge every certificate of a manifest; fails if one would be denied.
    #[command(after_help = exit::TABLE)]
    Check(PolicyCheckArgs),
}

/// Arguments of `policy check`.
#[derive(Args, Clone, Debug)]
pub struct PolicyCheckArgs {
    /// Manifests of `PgBouncers`, `PgBouncerOpsRequests` or `CertificateRequests`; a Namespace
    /// among them gives the labels that policies select by.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// File or folder with `CertificateRequestPolicies`, in place of those that are built in;
    /// may be given several times.
    #[arg(long = "policy", value_name = "PATH")]
    pub policies: Vec<PathBuf>,
}

/// Reads one of `names` as manifests write it.
fn one_of<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names)
        .try_map(|name| serde_json::from_value::<T>(serde_json::Value::String(name)))
}

/// Reads a duration as manifests write them, such as `90s` or `5m`.
fn go_duration(text: &str) -> Result<GoDuration, ParseDurationError> {
    text.parse()
}

/// Reads a duration that has to be positive.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: GoDuration = text.parse().map_err(|error| format!("{error}"))?;
    parsed
        .to_std()
        .ok_or_else(|| "a duration cannot be negative here".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_of_every_verb_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn modes_are_written_as_in_manifests() {
        let parse = |mode| {
            let verb = [
                "bouncert",
                "add-tls",
                "billing",
                "--issuer",
                "x",
                "--ssl-mode",
            ];
            Cli::try_parse_from(verb.into_iter().chain([mode]))
        };
        let Verb::AddTls(args) = parse("verify-ca").unwrap().verb else {
            panic!("another verb");
        };
        assert_eq!(args.ssl_mode, Some(SslMode::VerifyCa));
        assert!(parse("disabled").is_err());
    }
}
