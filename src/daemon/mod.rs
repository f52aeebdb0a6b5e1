//! The daemon: a list of controllers, started together and stopped together.
//!
//! Where several daemons may run, they elect one ([`ElectionOptions`]): the others stand by, and the
//! controllers run from election to the loss of the Lease, any number of times.
//!
//! It holds a client and knows nothing of what answers it: a cluster, or the platform embedded in
//! the same process.

mod election;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use election::ElectionOptions;
use kube::Client;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::election::Candidate;
use crate::blueprint::WorkloadKind;
use crate::clock::Clock;
use crate::cluster::{ApiMetrics, Cluster, ClusterError, counted};
use crate::controllers::{self, Bystander, ReconcileMetrics, SchedulerMetrics};
use crate::inventory::{Inventory, InventoryOptions, Reach};
use crate::issuer::VaultNetworks;
use crate::material::{IssuanceMetrics, Materials, SealError, seal_of};
use crate::names::Area;
use crate::ops::{FormerJournals, Operator, OperatorOptions, OpsMetrics};
use crate::panics::InternalErrors;
use crate::policy::Policies;
use crate::provisioner::Provisioner;
use crate::retry::{Retry, backoff};
use crate::rotation::{RotationMetrics, RotationOptions, Rotator};
use crate::seal::Seal;
use crate::surroundings::{self, References};
use crate::telemetry::Monitor;

/// The daemon's own namespace where nothing else is said, as in the chart's documentation.
pub const NAMESPACE_DEFAULT: &str = "bouncert-system";

/// How the daemon runs.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// The daemon's own namespace: journals of requests and the key of the seal are there, and nobody
    /// else may write there. It must exist.
    pub namespace: String,
    /// What becomes of journals that an earlier version has left beside their requests.
    pub former_journals: FormerJournals,
    /// Namespace of the Secrets that ClusterIssuers name; cert-manager calls it the cluster
    /// resource namespace, and its default is `cert-manager`, as here.
    pub cluster_resource_namespace: String,
    /// Namespaces whose objects are looked after, and read; all if empty.
    pub watch_namespaces: Vec<String>,
    /// The `bouncert.dev/class` that objects must have; those without one if empty.
    pub class: String,
    /// Which references into other namespaces are followed.
    pub references: References,
    /// Networks that Vault servers may be in.
    pub vault_networks: VaultNetworks,
    /// What may be issued.
    pub policies: Policies,
    /// Where the time comes from.
    pub clock: Clock,
    /// How certificates are rotated by themselves.
    pub rotation: RotationOptions,
    /// Where it shows what it does; for one daemon only.
    pub monitor: Monitor,
    /// How it looks at what is stored and served.
    pub inventory: InventoryOptions,
    /// How to compete with other daemons; `None` for one that is alone for sure.
    pub election: Option<ElectionOptions>,
}

impl Default for DaemonOptions {
    fn default() -> Self {
        Self {
            namespace: NAMESPACE_DEFAULT.to_owned(),
            former_journals: FormerJournals::default(),
            cluster_resource_namespace: "cert-manager".to_owned(),
            watch_namespaces: Vec::new(),
            class: String::new(),
            references: References::default(),
            vault_networks: VaultNetworks::default(),
            policies: Policies::builtin(),
            clock: Clock::System,
            rotation: RotationOptions::default(),
            monitor: Monitor::new(Clock::System),
            inventory: InventoryOptions::default(),
            election: None,
        }
    }
}

/// What the daemon counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// What is asked of the API server.
    pub api: ApiMetrics,
    /// Requests and their steps.
    pub ops: OpsMetrics,
    /// Certificates asked for.
    pub issuance: IssuanceMetrics,
    /// Looks of the controllers.
    pub reconciles: ReconcileMetrics,
    /// Passes of the scheduled rotation.
    pub scheduler: SchedulerMetrics,
    /// What rotation has found and made.
    pub rotation: RotationMetrics,
    /// Panics that were caught.
    pub internal: InternalErrors,
    /// Whether this daemon leads.
    pub leading: Gauge,
}

impl Metrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        let Self {
            api,
            ops,
            issuance,
            reconciles,
            scheduler,
            rotation,
            internal,
            leading,
        } = self;
        api.register(registry);
        ops.register(registry);
        issuance.register(registry);
        reconciles.register(registry);
        scheduler.register(registry);
        rotation.register(registry);
        internal.register(registry);
        registry.register(
            "bouncert_leading",
            "Whether this daemon does the work (1) or stands by (0)",
            leading.clone(),
        );
    }
}

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The API server refuses us.
    #[error("cannot find out what the cluster knows")]
    Discover(#[from] ClusterError),
    /// There is no key to seal with.
    #[error("cannot prove what this daemon has made")]
    Seal(#[from] SealError),
    /// The API server does not let us compete.
    #[error("cannot use the Lease by which daemons elect one")]
    Elect(#[source] ClusterError),
    /// A controller ended by itself, which none does.
    #[error("a controller ended before it was told to")]
    Ended,
    /// A controller panicked outside the look at an object, so that its own state is not sound.
    #[error("a controller panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

/// Runs the daemon until `cancel` is cancelled; whatever it is in the middle of is finished first.
pub async fn run(
    client: Client,
    options: DaemonOptions,
    cancel: CancellationToken,
) -> Result<(), DaemonError> {
    let shown = Shown::new(&options);
    let cluster = Cluster::new(counted(client, shown.metrics.api.clone()));
    let monitor = options.monitor.clone();
    // One that stands by is ready as well: to take over.
    monitor.ready();
    let ended = match options.election.clone() {
        None => Box::pin(lead(cluster, options, shown, cancel)).await,
        Some(election) => compete(cluster, options, shown, (election, cancel)).await,
    };
    monitor.not_ready();
    ended
}

/// What is shown of the daemon, over all its terms.
#[derive(Clone)]
struct Shown {
    metrics: Metrics,
    inventory: Inventory,
}

impl Shown {
    fn new(options: &DaemonOptions) -> Self {
        let metrics = Metrics::default();
        let inventory = Inventory::new(options.clock.clone(), options.inventory.clone())
            .counting(metrics.internal.clone());
        options.monitor.register(|registry| {
            metrics.register(registry);
            inventory.register(registry);
        });
        let believed = inventory.clone();
        options.monitor.believe(move || believed.to_json());
        Self { metrics, inventory }
    }
}

/// Leads whenever it is elected.
async fn compete(
    cluster: Cluster,
    options: DaemonOptions,
    shown: Shown,
    (election, cancel): (ElectionOptions, CancellationToken),
) -> Result<(), DaemonError> {
    let mut candidate = Candidate::new(cluster.clone(), options.clock.clone(), election);
    while let Some(fence) = candidate.stand(&cancel).await.map_err(DaemonError::Elect)? {
        let over = cancel.child_token();
        let behind = cluster.behind(fence.clone());
        let mut leading = Box::pin(lead(behind, options.clone(), shown.clone(), over.clone()));
        tokio::select! {
            ended = &mut leading => {
                candidate.release(&fence).await;
                return ended;
            }
            () = candidate.keep(&fence) => {}
        }
        over.cancel();
        // Behind a closed fence nothing can be done any more, not even in order.
        tokio::select! {
            ended = &mut leading => ended?,
            () = fence.closed() => {}
        }
    }
    Ok(())
}

/// Runs all controllers until `cancel` is cancelled; whatever they are in the middle of is finished
/// first.
async fn lead(
    cluster: Cluster,
    options: DaemonOptions,
    Shown { metrics, inventory }: Shown,
    cancel: CancellationToken,
) -> Result<(), DaemonError> {
    let Some((kind, seal)) = prepare(&cluster, &options, &cancel).await? else {
        return Ok(());
    };
    let DaemonOptions {
        namespace,
        former_journals,
        cluster_resource_namespace,
        watch_namespaces,
        class,
        references,
        vault_networks,
        policies,
        clock,
        rotation,
        monitor: _,
        inventory: _,
        election: _,
    } = options;
    tracing::info!(workload = %kind, "started");
    let materials = Materials::new(cluster.clone(), clock.clone(), &cluster_resource_namespace)
        .with_seal(seal)
        .with_policies(policies)
        .with_vault_networks(vault_networks)
        .with_metrics(metrics.issuance);
    let cancel = cancel.child_token();
    let provisioner = Provisioner::new(cluster.clone(), materials.clone(), clock.clone());
    let provisioner = Arc::new(provisioner.of_class(&class).with_references(references));
    let rotation = RotationOptions {
        cluster_resource_namespace,
        class: class.clone(),
        namespaces: watch_namespaces.clone(),
        ..rotation
    };
    let rotator = Rotator::new(cluster.clone(), materials.clone(), clock.clone(), rotation)
        .counting(metrics.internal.clone());
    let rotator = followed(rotator, &metrics.rotation);
    let operating = OperatorOptions {
        kind,
        namespace,
        former: former_journals,
        cancel: cancel.clone(),
        metrics: metrics.ops,
        references,
    };
    let operator = Operator::new(cluster.clone(), materials, clock.clone(), operating);
    let operator = Arc::new(operator.of_class(&class).counting(metrics.internal.clone()));
    let bystander = Bystander::new(cluster.clone(), clock, metrics.internal.clone());

    let mut running = JoinSet::new();
    running.spawn(controllers::rotation::run(
        cluster.clone(),
        (rotator, inventory.clone()),
        bystander.clone(),
        metrics.scheduler,
        cancel.clone(),
    ));
    let reach = Reach {
        namespaces: watch_namespaces.clone(),
        class,
    };
    running.spawn(inventory.run(cluster.clone(), reach, cancel.clone()));
    running.spawn(controllers::orphans::run(
        Arc::clone(&operator),
        watch_namespaces.clone(),
        cancel.clone(),
    ));
    for scope in controllers::Scope::covering(&watch_namespaces) {
        let reconciles = (metrics.reconciles.clone(), bystander.clone());
        let work = (Arc::clone(&operator), Arc::clone(&provisioner));
        let of = (kind, scope);
        watch(&mut running, &cluster, work, of, (reconciles, &cancel));
    }
    metrics.leading.set(1);
    let outcome = all_ended(running, &cancel).await;
    metrics.leading.set(0);
    tracing::info!("stopped");
    outcome
}

/// Starts the controllers of one scope.
fn watch(
    running: &mut JoinSet<()>,
    cluster: &Cluster,
    (operator, provisioner): (Arc<Operator>, Arc<Provisioner>),
    (kind, scope): (WorkloadKind, controllers::Scope),
    (reconciles, cancel): ((ReconcileMetrics, Bystander), &CancellationToken),
) {
    running.spawn(controllers::requests::run(
        cluster.clone(),
        operator,
        scope.clone(),
        reconciles.clone(),
        cancel.clone(),
    ));
    running.spawn(controllers::pgbouncers::run(
        cluster.clone(),
        provisioner,
        (kind, scope),
        reconciles,
        cancel.clone(),
    ));
}

/// Shows how things stand with a rotator, for as long as it is there.
fn followed(rotator: Rotator, metrics: &RotationMetrics) -> Arc<Rotator> {
    let rotator = Arc::new(rotator);
    let shown = Arc::downgrade(&rotator);
    metrics.follow(move || Some(shown.upgrade()?.snapshot()));
    rotator
}

/// Waits for all parts to end. Whoever ends, for whatever reason, takes the others along.
async fn all_ended(
    mut running: JoinSet<()>,
    cancel: &CancellationToken,
) -> Result<(), DaemonError> {
    let mut outcome = Ok(());
    while let Some(ended) = running.join_next().await {
        if let Err(panic) = ended {
            outcome = Err(DaemonError::Panicked(panic));
        } else if !cancel.is_cancelled() {
            outcome = Err(DaemonError::Ended);
        }
        cancel.cancel();
    }
    outcome
}

/// Finds out what a daemon has to know before it begins; `None` if it is told to stop first.
async fn prepare(
    cluster: &Cluster,
    options: &DaemonOptions,
    cancel: &CancellationToken,
) -> Result<Option<(WorkloadKind, Seal)>, DaemonError> {
    let watched = &options.watch_namespaces;
    let Some(kind) = discover(cluster, watched, cancel).await? else {
        return Ok(None);
    };
    if let Some(area) = Area::covering(watched).first() {
        cluster.find_out_whether_lists_stream(area).await;
    }
    let seal = keep_seal(cluster, &options.namespace, cancel).await?;
    Ok(seal.map(|seal| (kind, seal)))
}

/// Reads the key of the seal, or makes it, until it is there; `None` if we are told to stop first.
async fn keep_seal(
    cluster: &Cluster,
    namespace: &str,
    cancel: &CancellationToken,
) -> Result<Option<Seal>, SealError> {
    for attempt in 0.. {
        match seal_of(cluster, namespace).await {
            Ok(seal) => return Ok(Some(seal)),
            Err(error) if error.retry() == Retry::Never => return Err(error),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(namespace, error, "no key to seal with; trying again");
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return Ok(None),
            () = tokio::time::sleep(backoff(attempt)) => {}
        }
    }
    Ok(None)
}

/// Asks the API server what makes pods here, until it answers; `None` if we are told to stop first.
async fn discover(
    cluster: &Cluster,
    watched: &[String],
    cancel: &CancellationToken,
) -> Result<Option<WorkloadKind>, ClusterError> {
    let namespace = watched.first().map_or("default", String::as_str);
    for attempt in 0.. {
        match surroundings::workload_kind(cluster, namespace).await {
            Ok(kind) => return Ok(Some(kind)),
            Err(error) if error.retry() == Retry::Never => return Err(error),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the API server does not answer; trying again");
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return Ok(None),
            () = tokio::time::sleep(backoff(attempt)) => {}
        }
    }
    Ok(None)
}
