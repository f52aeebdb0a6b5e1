//! Platform and daemon in one process: what `local` and `demo` stand on.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
use crate::api::{PgBouncerVersion, crds};
use crate::cluster::FIELD_MANAGER;
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
    tasks: JoinSet<anyhow::Result<()>>,
    stop_daemon: CancellationToken,
    stop_platform: CancellationToken,
}

/// Starts the platform with our kinds and catalog, then the daemon.
pub(super) async fn start(mut options: PlatformOptions) -> Result<Standing, Failure> {
    let wanted = crds::own().into_iter().chain(crds::borrowed());
    options.definitions = wanted.map(serde_json::to_value).collect::<Result<_, _>>()?;
    let platform = Platform::start(options)
        .await
        .map_err(|error| Failure::new(Exit::Machine, error))?;
    let client = platform.client();
    catalog(&client).await?;

    let (stop_daemon, stop_platform) = (CancellationToken::new(), CancellationToken::new());
    let mut tasks = JoinSet::new();
    let stop = stop_platform.clone();
    tasks.spawn(async move {
        platform.run(stop).await;
        Ok(())
    });
    tasks.spawn(super::run::daemon(client.clone(), stop_daemon.clone()));
    Ok(Standing {
        client,
        tasks,
        stop_daemon,
        stop_platform,
    })
}

impl Standing {
    /// The platform's API.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until either of them ends by itself, and says how.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => error.into(),
            Some(Ok(Ok(()))) | None => anyhow::anyhow!("platform or daemon ended by itself"),
        }
    }

    /// Ends the daemon, then the platform with everything that it has started.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop_daemon.cancel();
        // The platform goes on until the daemon has put down what it has in hand.
        let in_time = timeout(STOP_TIMEOUT, self.tasks.join_next()).await;
        self.stop_platform.cancel();
        flatten(in_time.ok().flatten())?;
        let in_time = timeout(STOP_TIMEOUT, self.tasks.join_next()).await;
        flatten(in_time.ok().flatten())
    }
}

fn flatten(ended: Option<Result<anyhow::Result<()>, JoinError>>) -> anyhow::Result<()> {
    ended.ok_or_else(|| anyhow::anyhow!("not ended within {STOP_TIMEOUT:?}"))??
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
