//! What a scene stands on: a PostgreSQL, the platform and the daemon, for as long as it lasts.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use kube::{Api, Client};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::cast;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Progress;
use crate::cli::random_hex;
use crate::cli::standing::{self, Standing};
use crate::daemon::DaemonOptions;
use crate::issuer::VaultNetworks;
use crate::local::apiserver::faults::Faults;
use crate::local::platform::PlatformOptions;
use crate::local::postgres::{PostgresOptions, ThrowAwayPostgres};
use crate::local::store::Room;

/// For a look whether an address still answers.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the daemon runs.
pub(in crate::cli) enum Daemon {
    /// In this process.
    Within,
    /// In one that somebody else starts.
    Elsewhere {
        /// What it meets on its way to the API.
        faults: Faults,
        /// Room for the API's store.
        room: Room,
    },
}

/// All that runs.
pub(in crate::cli) struct Stage {
    postgres: ThrowAwayPostgres,
    client: Client,
    kubeconfig: PathBuf,
    version: String,
    standing: Mutex<Standing>,
    directory: TempDir,
}

impl Stage {
    /// Starts everything, in a directory that goes with it.
    pub(in crate::cli) async fn start(
        progress: &Progress,
        verb: &str,
        daemon: Daemon,
        pgbouncer: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        progress.now("starting a throw-away PostgreSQL");
        let password = random_hex::<12>()?;
        let postgres = ThrowAwayPostgres::start(&PostgresOptions::new(password))
            .await
            .map_err(|error| Failure::new(Exit::Machine, error))?;
        progress.now("starting the local platform and the daemon");
        let directory = TempDir::with_prefix(format!("bouncert-{verb}-"))?;
        let mut options = PlatformOptions::new(directory.path().join("data"));
        options.pgbouncer = pgbouncer.into_iter().collect();
        let within = match daemon {
            Daemon::Within => Some(DaemonOptions {
                vault_networks: VaultNetworks::RoutableAndLoopback,
                ..DaemonOptions::default()
            }),
            Daemon::Elsewhere { faults, room } => {
                options.faults = Some(faults);
                options.room = room;
                None
            }
        };
        let standing = standing::start(options, within).await?;
        let kubeconfig = standing.kubeconfig().to_path_buf();
        Ok(Self {
            postgres,
            client: standing.client().clone(),
            kubeconfig,
            version: standing.version().to_owned(),
            standing: Mutex::new(standing),
            directory,
        })
    }

    /// The platform's API.
    pub(in crate::cli) const fn client(&self) -> &Client {
        &self.client
    }

    /// How others reach that API.
    pub(in crate::cli) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A directory that goes when everything ends.
    pub(in crate::cli) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The version of the program that pods run.
    pub(in crate::cli) fn version(&self) -> &str {
        &self.version
    }

    /// The database behind the pooler.
    pub(in crate::cli) const fn postgres(&self) -> &ThrowAwayPostgres {
        &self.postgres
    }

    /// Waits for the platform or the daemon to end, which neither should.
    pub(in crate::cli) async fn died(&self) -> anyhow::Error {
        self.standing.lock().await.ended().await
    }

    /// Ends everything, and looks whether anything is left.
    pub(in crate::cli) async fn stop(self) -> anyhow::Result<()> {
        let mut addresses = addresses(&self.client).await.unwrap_or_default();
        addresses.push(self.postgres.address());
        self.standing.into_inner().stop().await?;
        self.postgres.stop();
        self.directory.close()?;
        for address in addresses {
            if let Ok(Ok(_)) = timeout(LOOK_TIMEOUT, TcpStream::connect(address)).await {
                anyhow::bail!("something still listens at {address}");
            }
        }
        let children = children()?;
        anyhow::ensure!(children.is_empty(), "processes are left: {children}");
        Ok(())
    }
}

/// The processes that this one has started and that have not ended; nothing where the system does
/// not tell.
fn children() -> std::io::Result<String> {
    let mut children = String::new();
    for thread in std::fs::read_dir("/proc/self/task")? {
        let list = thread?.path().join("children");
        children.push_str(&std::fs::read_to_string(list).unwrap_or_default());
    }
    Ok(children.trim().to_owned())
}

/// Where pods and Services listen.
async fn addresses(client: &Client) -> anyhow::Result<Vec<SocketAddr>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), cast::NAMESPACE);
    let services: Api<Service> = Api::namespaced(client.clone(), cast::NAMESPACE);
    let pods = pods.list(&ListParams::default()).await?.items;
    let pods = pods.into_iter().filter_map(|pod| pod.status?.pod_ip);
    let services = services.list(&ListParams::default()).await?.items;
    let services = services
        .into_iter()
        .filter_map(|service| service.spec?.cluster_ip);
    let ips = pods.chain(services).filter_map(|ip| ip.parse().ok());
    Ok(ips
        .map(|ip: IpAddr| SocketAddr::new(ip, cast::PORT))
        .collect())
}
