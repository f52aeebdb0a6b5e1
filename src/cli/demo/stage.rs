//! What the demo stands on: a PostgreSQL, the platform and the daemon, for as long as it lasts.

use std::net::{IpAddr, SocketAddr};
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
use crate::local::platform::PlatformOptions;
use crate::local::postgres::{PostgresOptions, ThrowAwayPostgres};

/// For a look whether an address still answers.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// All that runs.
pub(super) struct Stage {
    postgres: ThrowAwayPostgres,
    client: Client,
    standing: Mutex<Standing>,
    directory: TempDir,
}

impl Stage {
    /// Starts everything, in a directory that goes with it.
    pub(super) async fn start(progress: &Progress) -> Result<Self, Failure> {
        progress.now("starting a throw-away PostgreSQL");
        let password = random_hex::<12>()?;
        let postgres = ThrowAwayPostgres::start(&PostgresOptions::new(password))
            .await
            .map_err(|error| Failure::new(Exit::Machine, error))?;
        progress.now("starting the local platform and the daemon");
        let directory = TempDir::with_prefix("bouncert-demo-")?;
        let options = PlatformOptions::new(directory.path().join("data"));
        let standing = standing::start(options, Some(DaemonOptions::default())).await?;
        Ok(Self {
            postgres,
            client: standing.client().clone(),
            standing: Mutex::new(standing),
            directory,
        })
    }

    /// The platform's API.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// The database behind the pooler.
    pub(super) const fn postgres(&self) -> &ThrowAwayPostgres {
        &self.postgres
    }

    /// Waits for the platform or the daemon to end, which neither should.
    pub(super) async fn died(&self) -> anyhow::Error {
        self.standing.lock().await.ended().await
    }

    /// Ends everything, and looks whether anything is left.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
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
