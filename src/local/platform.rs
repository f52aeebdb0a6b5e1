//! The assembly: data directory, API server, definitions, node, informers, controllers, runner and
//! balancer, started in that order and stopped in the reverse one.
//!
//! `start` leaves nothing running but the API; `run` does the work until it is told to stop. A run
//! that is dropped instead (or killed with the daemon) leaves the poolers to the next one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{Client, ResourceExt as _};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::addresses::Addresses;
use super::apiserver::faults::Faults;
use super::apiserver::serve::{Listening, ServeError, ServeOptions};
use super::apiserver::{self, ApiServer};
use super::balancer::Balancer;
use super::datadir::{DataDir, DataDirError};
use super::informer::Informer;
use super::install::{self, InstallError};
use super::runner::confine;
use super::runner::dirs::Dirs;
use super::runner::host::HostPaths;
use super::runner::identity::UidRange;
use super::runner::node::Mounted;
use super::runner::podlogs::NodeLogs;
use super::runner::{Node, Pooler, PoolerError, Poolers, Runner};
use super::store::{Room, Store, StoreError};
use super::workload::budgets::{BudgetController, Replicas};
use super::workload::services::{Copies, ServiceController};
use super::workload::sets::{Set as _, SetController};
use crate::api::petset::PetSet;
use crate::clock::Clock;
use crate::cluster::{Cluster, Reporter};

/// What a platform is given.
#[derive(Clone, Debug)]
pub struct PlatformOptions {
    /// Where it keeps everything that outlives it; made if missing, mode 0700.
    pub data_dir: PathBuf,
    /// Where `kubectl` reaches the API; port 0 lets the system choose.
    pub api_address: SocketAddr,
    /// Where the kubeconfig is written; `kubeconfig` in the data directory if not given.
    pub kubeconfig: Option<PathBuf>,
    /// The pgbouncer programs, one of each version that pods ask for; empty for the one in the search
    /// path.
    pub pgbouncer: Vec<PathBuf>,
    /// Directories of the machine that pods may name in a `hostPath`; no others.
    pub allow_host_paths: Vec<PathBuf>,
    /// Users that pods run as where root starts the platform.
    pub pod_uids: UidRange,
    /// The program `bouncert`, which confines each pooler before it becomes it. Without it poolers
    /// have their own user, and nothing else keeps them.
    pub pod_init: Option<PathBuf>,
    /// Definitions of custom resources to install.
    pub definitions: Vec<Value>,
    /// Time.
    pub clock: Clock,
    /// What stands between the API and those who reach it through its socket, for tests and chaos.
    pub faults: Option<Faults>,
    /// Room on the disk of the store, which tests and chaos take away.
    pub room: Room,
    /// Whether the API does as a server whose feature `WatchList` is off.
    pub without_watch_list: bool,
}

/// A platform cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The runtime directory cannot be made.
    #[error("cannot make a directory for the files of pods")]
    RuntimeDir(#[source] io::Error),
    /// No pooler to run.
    #[error("cannot run poolers")]
    Pooler(#[from] PoolerError),
    /// The store does not open.
    #[error("cannot open the store of {path}")]
    Store {
        /// The data directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The API cannot be reached.
    #[error("cannot serve the API")]
    Serve(#[from] ServeError),
    /// A first object was refused.
    #[error(transparent)]
    Install(#[from] InstallError),
}

/// A platform that is ready to run.
pub struct Platform {
    client: Client,
    server: ApiServer,
    listening: Option<Listening>,
    kubeconfig: PathBuf,
    data: DataDir,
    dirs: Dirs,
    poolers: Poolers,
    host_paths: HostPaths,
    pod_init: Option<PathBuf>,
    clock: Clock,
}

/// The copies that controllers share.
#[derive(Default)]
struct Informers {
    pods: Arc<Informer<Pod>>,
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
    secrets: Arc<Informer<Secret>>,
    config_maps: Arc<Informer<ConfigMap>>,
    pet_sets: Arc<Informer<PetSet>>,
    stateful_sets: Arc<Informer<StatefulSet>>,
    budgets: Arc<Informer<PodDisruptionBudget>>,
}

impl PlatformOptions {
    /// Usual options over `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            api_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            kubeconfig: None,
            pgbouncer: Vec::new(),
            allow_host_paths: Vec::new(),
            pod_uids: UidRange::default(),
            pod_init: None,
            definitions: Vec::new(),
            clock: Clock::System,
            faults: None,
            room: Room::default(),
            without_watch_list: false,
        }
    }
}

// === impl Platform ===

impl Platform {
    /// Opens the data directory and the API, and installs the definitions and the node.
    pub async fn start(options: PlatformOptions) -> Result<Self, PlatformError> {
        let PlatformOptions {
            data_dir,
            api_address,
            kubeconfig,
            pgbouncer,
            allow_host_paths,
            pod_uids,
            pod_init,
            definitions,
            clock,
            faults,
            room,
            without_watch_list,
        } = options;
        let poolers = Poolers::find(&pgbouncer)?;
        raise_descriptor_limit();
        let data = DataDir::open(&data_dir)?;
        let path = data.path().to_owned();
        let in_store = |source| PlatformError::Store {
            path: path.clone(),
            source,
        };
        let store = Store::open_on(&path.join("store"), room).map_err(in_store)?;
        let options = apiserver::Options {
            clock: clock.clone(),
            without_watch_list,
        };
        let server = ApiServer::new(store, options).map_err(in_store)?;
        let serve = ServeOptions {
            listen: api_address,
            dir: path.clone(),
            kubeconfig: kubeconfig.unwrap_or_else(|| path.join("kubeconfig")),
            faults,
        };
        let kubeconfig = serve.kubeconfig.clone();
        let listening = server.listen(&serve).await?;
        let client = server.client();
        for definition in definitions {
            install::definition(&client, definition).await?;
        }
        install::node(&client, &poolers.first().version, &clock).await?;
        let dirs = Dirs::create(&path, pod_uids).map_err(PlatformError::RuntimeDir)?;
        Ok(Self {
            client,
            server,
            listening: Some(listening),
            kubeconfig,
            data,
            dirs,
            poolers,
            host_paths: HostPaths::new(allow_host_paths),
            pod_init,
            clock,
        })
    }

    /// A client of the platform's API.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The API server.
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// The file that tells `kubectl` how to reach the API.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The program that pods run where nothing speaks for another.
    pub fn pooler(&self) -> &Pooler {
        self.poolers.first()
    }

    /// The versions of all programs that pods may run.
    pub fn versions(&self) -> impl Iterator<Item = &str> {
        self.poolers.versions()
    }

    /// Where the files of running pods are.
    pub fn runtime_dir(&self) -> &Path {
        self.dirs.runtime()
    }

    /// Runs until `stop`; then ends every pooler, connection and listener, the API last.
    pub async fn run(mut self, stop: CancellationToken) {
        let over = CancellationToken::new();
        let listening = self.listening.take();
        let serving = async {
            if let Some(listening) = listening {
                listening.run(over.clone()).await;
            }
        };
        let working = async {
            self.work(stop).await;
            over.cancel();
        };
        tokio::join!(serving, self.server.collect_garbage(over.clone()), working);
    }

    async fn work(&self, stop: CancellationToken) {
        let informers = Informers::default();
        let addresses = Addresses::new(self.data.path().display().to_string());
        let cluster = Cluster::new(self.client.clone());
        let mut controllers: JoinSet<()> = JoinSet::new();
        let runner = self.controllers(&informers, &cluster, &addresses, &mut controllers);
        let balancer = Balancer::new(informers.services.clone(), informers.slices.clone());
        informers.run(&self.client, &mut controllers);
        let synced = tokio::select! {
            () = informers.synced() => true,
            () = stop.cancelled() => false,
        };
        if synced {
            // Before anybody takes an address, those in use are noted.
            for pod in informers.pods.all() {
                let address = pod.status.as_ref().and_then(|s| s.pod_ip.as_ref());
                if let Some(address) = address.and_then(|a| a.parse().ok()) {
                    addresses.claim(address, &pod.uid().unwrap_or_default());
                }
            }
            let confinement = match &self.pod_init {
                Some(_) => confine::support(),
                None => "none".to_owned(),
            };
            tracing::info!(
                version = self.poolers.first().version,
                confinement,
                "local platform runs"
            );
            tokio::join!(runner.run(stop.clone()), balancer.run(stop));
        }
        controllers.shutdown().await;
    }

    /// Makes the controllers, which subscribe, and starts all but the runner.
    fn controllers(
        &self,
        informers: &Informers,
        cluster: &Cluster,
        addresses: &Addresses,
        tasks: &mut JoinSet<()>,
    ) -> Runner {
        let node = Node {
            cluster: cluster.clone(),
            reporter: Reporter::new(cluster.clone(), "local-runner"),
            clock: self.clock.clone(),
            pods: informers.pods.clone(),
            poolers: self.poolers.clone(),
            dirs: self.dirs.clone(),
            addresses: addresses.clone(),
            host_paths: self.host_paths.clone(),
            pod_init: self.pod_init.clone(),
        };
        self.server.serve_logs_from(Arc::new(NodeLogs {
            pods: informers.pods.clone(),
            dirs: self.dirs.clone(),
            clock: self.clock.clone(),
        }));
        let runner = Runner::new(
            node,
            &Mounted {
                secrets: &informers.secrets,
                config_maps: &informers.config_maps,
                services: &informers.services,
                slices: &informers.slices,
            },
        );
        let copies = Copies {
            services: informers.services.clone(),
            slices: informers.slices.clone(),
            pods: informers.pods.clone(),
        };
        let (clock, pods) = (self.clock.clone(), informers.pods.clone());
        let services =
            ServiceController::new(cluster.clone(), clock.clone(), addresses.clone(), copies);
        let pet_sets = SetController::new(
            cluster.clone(),
            clock.clone(),
            informers.pet_sets.clone(),
            pods.clone(),
        );
        let stateful_sets = SetController::new(
            cluster.clone(),
            clock,
            informers.stateful_sets.clone(),
            pods.clone(),
        );
        let budgets = BudgetController::new(
            cluster.clone(),
            informers.budgets.clone(),
            pods,
            informers.replicas(),
        );
        let synced = informers.synced_later();
        tasks.spawn(async move {
            synced.await;
            tokio::join!(
                services.run(),
                pet_sets.run(),
                stateful_sets.run(),
                budgets.run()
            );
        });
        runner
    }
}

impl Drop for Platform {
    /// A platform that never ran leaves no directory behind; that of running pods is not empty.
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(self.dirs.runtime());
    }
}

// === impl Informers ===

impl Informers {
    fn run(&self, client: &Client, tasks: &mut JoinSet<()>) {
        macro_rules! follow {
            ($($field:ident),*) => {$({
                let (informer, client) = (self.$field.clone(), client.clone());
                tasks.spawn(async move { informer.run(client).await });
            })*};
        }
        follow!(
            pods,
            services,
            slices,
            secrets,
            config_maps,
            pet_sets,
            stateful_sets,
            budgets
        );
    }

    async fn synced(&self) {
        self.synced_later().await;
    }

    /// Ends once all copies but that of kind PetSet are complete: that kind may not be installed.
    fn synced_later(&self) -> impl Future<Output = ()> + Send + use<> {
        let (pods, services, slices) = (
            self.pods.clone(),
            self.services.clone(),
            self.slices.clone(),
        );
        let (secrets, maps) = (self.secrets.clone(), self.config_maps.clone());
        let (sets, budgets) = (self.stateful_sets.clone(), self.budgets.clone());
        async move {
            tokio::join!(
                pods.wait_synced(),
                services.wait_synced(),
                slices.wait_synced(),
                secrets.wait_synced(),
                maps.wait_synced(),
                sets.wait_synced(),
                budgets.wait_synced(),
            );
        }
    }

    fn replicas(&self) -> Replicas {
        let (pet_sets, stateful_sets) = (self.pet_sets.clone(), self.stateful_sets.clone());
        Box::new(move |at, kind| match kind {
            "PetSet" => pet_sets.get(at).map(|set| set.view().replicas),
            "StatefulSet" => stateful_sets.get(at).map(|set| set.view().replicas),
            _ => None,
        })
    }
}

/// Lets this process and its poolers open as many files as the system allows: the balancer holds
/// two per connection, and the usual soft limit is 1,024.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "limit of open files not raised");
    }
}

/// How long a stop may take: every pooler gets this long to end by itself, twice.
pub const STOP_MAX: Duration = Duration::from_secs(10);
const _: () = assert!(super::runner::STOP_GRACE.as_secs() * 2 < STOP_MAX.as_secs());
