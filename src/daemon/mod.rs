//! The daemon: a list of controllers, started together and stopped together.
//!
//! It holds a client and knows nothing of what answers it: a cluster, or the platform embedded in
//! the same process.

use std::sync::Arc;

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterError};
use crate::controllers;
use crate::material::Materials;
use crate::ops::{Operator, OperatorOptions};
use crate::policy::Policies;
use crate::provisioner::Provisioner;
use crate::retry::{Retry, backoff};
use crate::rotation::{RotationOptions, Rotator};
use crate::surroundings;

/// How the daemon runs.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// Namespace of the Secrets that ClusterIssuers name; cert-manager calls it the cluster
    /// resource namespace, and its default is `cert-manager`, as here.
    pub cluster_resource_namespace: String,
    /// Namespaces whose objects are looked after, and read; all if empty.
    pub watch_namespaces: Vec<String>,
    /// The `bouncert.dev/class` that objects must have; those without one if empty.
    pub class: String,
    /// What may be issued.
    pub policies: Policies,
    /// Where the time comes from.
    pub clock: Clock,
    /// How certificates are rotated by themselves.
    pub rotation: RotationOptions,
}

impl Default for DaemonOptions {
    fn default() -> Self {
        Self {
            cluster_resource_namespace: "cert-manager".to_owned(),
            watch_namespaces: Vec::new(),
            class: String::new(),
            policies: Policies::builtin(),
            clock: Clock::System,
            rotation: RotationOptions::default(),
        }
    }
}

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The API server refuses us.
    #[error("cannot find out what the cluster knows")]
    Discover(#[from] ClusterError),
    /// A controller ended by itself, which none does.
    #[error("a controller ended before it was told to")]
    Ended,
    /// A controller panicked.
    #[error("a controller panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

/// Runs all controllers until `cancel` is cancelled; whatever they are in the middle of is finished
/// first.
pub async fn run(
    client: Client,
    options: DaemonOptions,
    cancel: CancellationToken,
) -> Result<(), DaemonError> {
    let DaemonOptions {
        cluster_resource_namespace,
        watch_namespaces,
        class,
        policies,
        clock,
        rotation,
    } = options;
    let cluster = Cluster::new(client);
    let Some(kind) = discover(&cluster, &watch_namespaces, &cancel).await? else {
        return Ok(());
    };
    tracing::info!(workload = %kind, "started");
    let materials = Materials::new(cluster.clone(), clock.clone(), &cluster_resource_namespace)
        .with_policies(policies);
    // Whoever ends, for whatever reason, takes the others along.
    let cancel = cancel.child_token();
    let provisioner = Provisioner::new(cluster.clone(), materials.clone(), clock.clone());
    let provisioner = Arc::new(provisioner.of_class(&class));
    let rotation = RotationOptions {
        cluster_resource_namespace,
        ..rotation
    };
    let rotator = Rotator::new(cluster.clone(), materials.clone(), clock.clone(), rotation);
    let operating = OperatorOptions {
        kind,
        cancel: cancel.clone(),
    };
    let operator = Operator::new(cluster.clone(), materials, clock.clone(), operating);
    let operator = Arc::new(operator.of_class(&class));

    let mut running = JoinSet::new();
    // It keeps one index over everything, and would be refused the lists it is made from.
    if watch_namespaces.is_empty() {
        running.spawn(controllers::rotation::run(
            cluster.clone(),
            Arc::new(rotator),
            clock,
            cancel.clone(),
        ));
    } else {
        tracing::warn!("scheduled rotation is off: it needs to watch all namespaces");
    }
    for scope in controllers::Scope::covering(&watch_namespaces) {
        running.spawn(controllers::requests::run(
            cluster.clone(),
            Arc::clone(&operator),
            scope.clone(),
            cancel.clone(),
        ));
        running.spawn(controllers::pgbouncers::run(
            cluster.clone(),
            Arc::clone(&provisioner),
            (kind, scope),
            cancel.clone(),
        ));
    }
    let mut outcome = Ok(());
    while let Some(ended) = running.join_next().await {
        if let Err(panic) = ended {
            outcome = Err(DaemonError::Panicked(panic));
        } else if !cancel.is_cancelled() {
            outcome = Err(DaemonError::Ended);
        }
        cancel.cancel();
    }
    tracing::info!("stopped");
    outcome
}

/// Asks the API server what makes pods here, until it answers; `None` if we are told to stop first.
async fn discover(
    cluster: &Cluster,
    watched: &[String],
    cancel: &CancellationToken,
) -> Result<Option<crate::blueprint::WorkloadKind>, ClusterError> {
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
