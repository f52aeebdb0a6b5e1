//! The assembly: data directory, API server, definitions, node, informers, controllers, runner and
//! balancer, started in that order and stopped in the reverse one.
//!
//! `start` leaves nothing running but the API; `run` does the work until it is told to stop. A run
//! that is dropped instead (or killed with the daemon) leaves the poolers to the next one.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node as NodeObject, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::addresses::Addresses;
use super::apiserver::{self, ApiServer};
use super::balancer::Balancer;
use super::informer::Informer;
use super::runner::dirs::Dirs;
use super::runner::{NODE_NAME, Node, Pooler, PoolerError, Runner, find_pgbouncer};
use super::store::{Store, StoreError};
use super::workload::budgets::BudgetController;
use super::workload::services::{Copies, ServiceController};
use super::workload::sets::{Set as _, SetController};
use crate::api::petset::PetSet;
use crate::clock::Clock;
use crate::cluster::{Cluster, Reporter};
use crate::names::ObjectRef;

/// What a platform is given.
#[derive(Clone, Debug)]
pub struct PlatformOptions {
    /// Where it keeps everything that outlives it; made if missing, mode 0700.
    pub data_dir: PathBuf,
    /// Where `kubectl` reaches the API; port 0 lets the system choose.
    pub api_address: SocketAddr,
    /// Where the kubeconfig is written; `kubeconfig` in the data directory if not given.
    pub kubeconfig: Option<PathBuf>,
    /// The pgbouncer program, if not the one in the search path.
    pub pgbouncer: Option<PathBuf>,
    /// CustomResourceDefinitions to install.
    pub definitions: Vec<Value>,
    /// Time.
    pub clock: Clock,
}

/// A platform cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// The data directory cannot be made or read.
    #[error("cannot use {path} as data directory")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another platform runs on it.
    #[error("another platform uses {path}; stop it first, or choose another data directory")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
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
    /// A first object was refused.
    #[error("cannot install {what}")]
    Install {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A platform that is ready to run.
pub struct Platform {
    client: Client,
    server: ApiServer,
    data_dir: PathBuf,
    dirs: Dirs,
    pooler: Pooler,
    clock: Clock,
    // Held as long as the platform; the system lets go of it whatever happens.
    _lock: File,
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
            pgbouncer: None,
            definitions: Vec::new(),
            clock: Clock::System,
        }
    }
}

// === impl Platform ===

impl Platform {
    /// Opens the data directory and the API, and installs the definitions and the node.
    pub async fn start(options: PlatformOptions) -> Result<Self, PlatformError> {
        let PlatformOptions {
            data_dir,
            api_address: _,
            kubeconfig: _,
            pgbouncer,
            definitions,
            clock,
        } = options;
        let unusable = |source| PlatformError::DataDir {
            path: data_dir.clone(),
            source,
        };
        let pooler = find_pgbouncer(pgbouncer)?;
        let path = private_dir(&data_dir).map_err(unusable)?;
        let lock = lock(&path)?;
        let dirs = Dirs::create(&path).map_err(unusable)?;
        let in_store = |source| PlatformError::Store {
            path: path.clone(),
            source,
        };
        let store = Store::open(&path.join("store")).map_err(in_store)?;
        let options = apiserver::Options {
            clock: clock.clone(),
        };
        let server = ApiServer::new(store, options).map_err(in_store)?;
        let client = server.client();
        for definition in definitions {
            install(&client, definition).await?;
        }
        announce(&client, &pooler, &clock).await?;
        Ok(Self {
            client,
            server,
            data_dir: path,
            dirs,
            pooler,
            clock,
            _lock: lock,
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

    /// The program that pods run.
    pub fn pooler(&self) -> &Pooler {
        &self.pooler
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Where the files of running pods are.
    pub fn runtime_dir(&self) -> &Path {
        self.dirs.runtime()
    }

    /// Runs until `stop`; then ends every pooler, connection and listener.
    pub async fn run(self, stop: CancellationToken) {
        let informers = Informers::default();
        let addresses = Addresses::new(self.data_dir.display().to_string());
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
            tracing::info!(version = self.pooler.version, "local platform runs");
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
            pooler: self.pooler.clone(),
            dirs: self.dirs.clone(),
            addresses: addresses.clone(),
        };
        let runner = Runner::new(node, &informers.secrets, &informers.config_maps);
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

// === impl Informers ===

impl Informers {
    fn run(&self, client: &Client, tasks: &mut JoinSet<()>) {
        macro_rules! follow {
            ($($field:ident),*) => {$({
                let (informer, api) = (self.$field.clone(), Api::all(client.clone()));
                tasks.spawn(async move { informer.run(api).await });
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

    /// Ends once all copies but that of PetSets are complete: that kind may not be installed.
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

    fn replicas(&self) -> Box<dyn Fn(&ObjectRef, &str) -> Option<i32> + Send + Sync> {
        let (pet_sets, stateful_sets) = (self.pet_sets.clone(), self.stateful_sets.clone());
        Box::new(move |at, kind| match kind {
            "PetSet" => pet_sets.get(at).map(|set| set.view().replicas),
            "StatefulSet" => stateful_sets.get(at).map(|set| set.view().replicas),
            _ => None,
        })
    }
}

/// Makes the data directory and answers its absolute path.
fn private_dir(path: &Path) -> io::Result<PathBuf> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    path.canonicalize()
}

fn lock(data_dir: &Path) -> Result<File, PlatformError> {
    let unusable = |source| PlatformError::DataDir {
        path: data_dir.to_owned(),
        source,
    };
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(data_dir.join("lock"))
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(PlatformError::InUse {
                path: data_dir.to_owned(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(unusable(source)),
    }
    // For people who wonder who holds it.
    file.set_len(0).map_err(unusable)?;
    writeln!(file, "{}", std::process::id()).map_err(unusable)?;
    Ok(file)
}

/// Creates a definition, or brings the one that is there up to date.
async fn install(client: &Client, definition: Value) -> Result<(), PlatformError> {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let name = definition["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let refused = |source| PlatformError::Install {
        what: format!("the definition {name}"),
        source: Box::new(source),
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
    let mut object: DynamicObject = serde_json::from_value(definition)
        .map_err(|error| refused(kube::Error::SerdeError(error)))?;
    let params = PostParams::default();
    match api.get_opt(&name).await.map_err(refused)? {
        Some(there) => {
            object.metadata.resource_version = there.resource_version();
            api.replace(&name, &params, &object)
                .await
                .map_err(refused)?;
        }
        None => {
            api.create(&params, &object).await.map_err(refused)?;
        }
    }
    Ok(())
}

/// Writes the only node.
async fn announce(client: &Client, pooler: &Pooler, clock: &Clock) -> Result<(), PlatformError> {
    let refused = |source| PlatformError::Install {
        what: format!("the node {NODE_NAME}"),
        source: Box::new(source),
    };
    let api: Api<NodeObject> = Api::all(client.clone());
    if api.get_opt(NODE_NAME).await.map_err(refused)?.is_none() {
        let node: NodeObject = serde_json::from_value(json!({
            "metadata": {"name": NODE_NAME, "labels": {
                "kubernetes.io/hostname": NODE_NAME, "kubernetes.io/os": "linux"
            }},
            "spec": {}
        }))
        .map_err(|error| refused(kube::Error::SerdeError(error)))?;
        api.create(&PostParams::default(), &node)
            .await
            .map_err(refused)?;
    }
    let now = crate::api::common::rfc3339_seconds(clock.now());
    let runtime = format!("pgbouncer://{}", pooler.version);
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": NODE_NAME}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "LocalPlatform",
            "message": "poolers run as processes of this machine",
            "lastHeartbeatTime": now, "lastTransitionTime": now}],
        "nodeInfo": {"architecture": std::env::consts::ARCH, "operatingSystem": "linux",
            "kubeletVersion": format!("bouncert-{}", env!("CARGO_PKG_VERSION")),
            "kubeProxyVersion": "", "containerRuntimeVersion": runtime, "osImage": "",
            "kernelVersion": "", "machineID": "", "systemUUID": "", "bootID": ""},
    }});
    api.patch_status(NODE_NAME, &PatchParams::default(), &Patch::Merge(status))
        .await
        .map_err(refused)?;
    Ok(())
}

/// How long a stop may take: every pooler gets this long to end by itself, twice.
pub const STOP_MAX: Duration = Duration::from_secs(10);
const _: () = assert!(super::runner::STOP_GRACE.as_secs() * 2 < STOP_MAX.as_secs());
