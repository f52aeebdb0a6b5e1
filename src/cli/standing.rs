//! Platform and daemon in one process: what `local` and `demo` stand on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
use crate::api::{PgBouncerVersion, crds};
use crate::cluster::{FIELD_MANAGER, patient};
use crate::daemon::{self, DaemonOptions, NAMESPACE_DEFAULT};
use crate::local::platform::{Platform, PlatformOptions};
use crate::telemetry::Monitor;
use crate::telemetry::admin::AdminServer;

/// For everything to end after it has been told to.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The versions that a PgBouncer may ask for.
const CATALOG: [&str; 4] = [
    include_str!("../../deploy/catalog/1.17.0.yaml"),
    include_str!("../../deploy/catalog/1.18.0.yaml"),
    include_str!("../../deploy/catalog/1.23.1.yaml"),
    LATEST,
];
const LATEST: &str = include_str!("../../deploy/catalog/1.24.0.yaml");
const LATEST_VERSION: &str = "1.24.0";

/// The running platform and daemon.
pub(super) struct Standing {
    client: Client,
    version: String,
    kubeconfig: PathBuf,
    daemon: Option<Part>,
    platform: Part,
    admin: Option<Part>,
}

/// Starts the platform with our kinds and catalog, then the daemon, if there is to be one.
pub(super) async fn start(
    mut options: PlatformOptions,
    daemon_options: Option<DaemonOptions>,
) -> Result<Standing, Failure> {
    let wanted = crds::own().into_iter().chain(crds::borrowed());
    // This program as it was started, also when it has been replaced since.
    options.pod_init = Some("/proc/self/exe".into());
    options.definitions = wanted.map(serde_json::to_value).collect::<Result<_, _>>()?;
    let platform = Platform::start(options)
        .await
        .map_err(|error| Failure::new(Exit::Machine, error))?;
    let client = platform.client();
    let own = daemon_options.as_ref();
    own_namespace(
        &client,
        own.map_or(NAMESPACE_DEFAULT, |options| &options.namespace),
    )
    .await?;
    let versions: Vec<String> = platform.versions().map(str::to_owned).collect();
    catalog(&client, &versions).await?;
    let kubeconfig = platform.kubeconfig().to_path_buf();
    let daemon_client = patient(client.clone());
    Ok(Standing {
        client,
        version: platform.pooler().version.clone(),
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
        admin: None,
    })
}

impl Standing {
    /// The platform's API.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// The version of the program that pods run where nothing speaks for another.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Where the kubeconfig is.
    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Shows what the daemon does.
    pub(super) fn serve_admin(&mut self, server: AdminServer, monitor: Monitor) {
        self.admin = Some(Part::start("the admin server", |stop| async move {
            Ok(server.run(monitor, stop).await?)
        }));
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
            error = ended(self.admin.as_mut()) => error,
        }
    }

    /// Ends the daemon, then the platform with everything that it has started: the platform goes
    /// on until the daemon has put down what it has in hand.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let daemon = match self.daemon {
            Some(daemon) => daemon.stop().await,
            None => Ok(()),
        };
        let admin = match self.admin {
            Some(admin) => admin.stop().await,
            None => Ok(()),
        };
        self.platform.stop().await.and(daemon).and(admin)
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

/// Waits until a part ends by itself, if there is one.
async fn ended(part: Option<&mut Part>) -> anyhow::Error {
    match part {
        Some(part) => part.ended().await,
        None => std::future::pending().await,
    }
}

/// The daemon's own namespace.
async fn own_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    if api.get_opt(name).await?.is_none() {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        api.create(&PostParams::default(), &namespace).await?;
    }
    Ok(())
}

/// The catalog, and an entry like its last for every program here of a version that is not in it.
async fn catalog(client: &Client, versions: &[String]) -> anyhow::Result<()> {
    let api: Api<PgBouncerVersion> = Api::all(client.clone());
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let known: Vec<PgBouncerVersion> = CATALOG
        .iter()
        .map(|document| serde_saphyr::from_str(document))
        .collect::<Result<_, _>>()?;
    let unknown = versions
        .iter()
        .filter(|version| !known.iter().any(|entry| entry.name_any() == **version));
    let made: Vec<PgBouncerVersion> = unknown
        .map(|version| serde_saphyr::from_str(&LATEST.replace(LATEST_VERSION, version)))
        .collect::<Result<_, _>>()?;
    for version in known.iter().chain(&made) {
        api.patch(&version.name_any(), &params, &Patch::Apply(version))
            .await?;
    }
    Ok(())
}
