//! Platform and daemon in one process: what `local` and `demo` stand on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
use crate::api::{PgBouncerVersion, crds};
use crate::cluster::FIELD_MANAGER;
use crate::daemon::{self, DaemonOptions};
use crate::local::platform::{Platform, PlatformOptions};

/// For everything to end after it has been told to.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The versions that a PgBouncer may ask for.
const CATALOG: [&str; 4] = [
    include_str!("../../deploy/catalog/1.17.0.yaml"),
    include_str!("../../deploy/catalog/1.18.0.yaml"),
    include_str!("../../deploy/catalog/1.23.1.yaml"),
    include_str!("../../deploy/catalog/1.24.0.yaml"),
];

/// The running platform and daemon.
pub(super) struct Standing {
    client: Client,
    kubeconfig: PathBuf,
    daemon: Option<Part>,
    platform: Part,
}

/// Starts the platform with our kinds and catalog, then the daemon if there is to be one.
pub(super) async fn start(
    mut options: PlatformOptions,
    daemon_options: Option<DaemonOptions>,
) -> Result<Standing, Failure> {
    let wanted = crds::own().into_iter().chain(crds::borrowed());
    options.definitions = wanted.map(serde_json::to_value).collect::<Result<_, _>>()?;
    let platform = Platform::start(options)
        .await
        .map_err(|error| Failure::new(Exit::Machine, error))?;
    let client = platform.client();
    catalog(&client).await?;
    let kubeconfig = platform.kubeconfig().to_path_buf();
    let daemon_client = client.clone();
    Ok(Standing {
        client,
        kubeconfig,
        platform: Part::start("the platform", |stop| async move {
            platform.run(stop).await;
            Ok(())
        }),
        daemon: daemon_options.map(|options| {
            Part::start("the daemon", |stop| async move {
                Ok(daemon::run(daemon_client, options, stop).await?)
            })
        }),
    })
}

impl Standing {
    /// The platform's API.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// Where the kubeconfig is.
    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Waits until either of them ends by itself, and says how.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        let daemon = async {
            match &mut self.daemon {
                Some(daemon) => daemon.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            error = daemon => error,
            error = self.platform.ended() => error,
        }
    }

    /// Ends the daemon, then the platform with everything that it has started: the platform goes
    /// on until the daemon has put down what it has in hand.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let daemon = match self.daemon {
            Some(daemon) => daemon.stop().await,
            None => Ok(()),
        };
        self.platform.stop().await.and(daemon)
    }
}

/// Something that runs until it is stopped.
struct Part {
    name: &'static str,
    task: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Part {
    fn start<F>(name: &'static str, run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(run(stop.clone()));
        Self { name, task, stop }
    }

    /// Waits until it ends by itself, which it should not.
    async fn ended(&mut self) -> anyhow::Error {
        match self.task.join_next().await {
            Some(Ok(Err(error))) => error.context(format!("{} failed", self.name)),
            Some(Err(error)) => anyhow::Error::new(error).context(format!("{} failed", self.name)),
            Some(Ok(Ok(()))) | None => anyhow::anyhow!("{} ended by itself", self.name),
        }
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        match timeout(STOP_TIMEOUT, self.task.join_next()).await {
            Ok(Some(ended)) => ended?,
            // It had ended before.
            Ok(None) => Ok(()),
            Err(_) => Err(anyhow::anyhow!(
                "{} did not stop within {STOP_TIMEOUT:?}",
                self.name
            )),
        }
    }
}

async fn catalog(client: &Client) -> anyhow::Result<()> {
    let api: Api<PgBouncerVersion> = Api::all(client.clone());
    let params = PatchParams::apply(FIELD_MANAGER).force();
    for document in CATALOG {
        let version: PgBouncerVersion = serde_saphyr::from_str(document)?;
        api.patch(&version.name_any(), &params, &Patch::Apply(&version))
            .await?;
    }
    Ok(())
}
