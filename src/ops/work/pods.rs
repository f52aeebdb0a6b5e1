//! Pods and the workload behind them: what is there, and is it ready.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

use super::StepError;
use super::ground::Ground;
use crate::api::annotations::DIGEST;
use crate::api::holder::is_controlled_by;
use crate::api::{PetSet, PgBouncer};
use crate::blueprint::{WorkloadKind, labels, port};
use crate::cluster::{Cluster, ClusterError, Owner, reference};
use crate::names::ObjectRef;

/// Restarts of a container after which its pod counts as broken and not as slow.
const RESTARTS_MAX: i32 = 3;

/// The workload, as far as it matters here.
pub(in crate::ops) struct Set {
    uid: String,
    /// Number of pods it asks for.
    pub(in crate::ops) replicas: u32,
    /// The digest that its new pods carry.
    pub(super) digest: Option<String>,
}

impl Set {
    /// Whether the workload has made a pod.
    pub(in crate::ops) fn has_made(&self, pod: &Pod) -> bool {
        is_controlled_by(pod, &self.uid)
    }
}

/// UID of the workload, once a step has read it.
#[derive(Debug, Default)]
pub(in crate::ops) struct Maker(Mutex<String>);

/// Reads the workload of a PgBouncer; `None` before there is one.
///
/// # Errors
/// [`ClusterError::Foreign`] for a workload of that name that is not the PgBouncer's.
pub(in crate::ops) async fn workload_of(
    cluster: &Cluster,
    kind: WorkloadKind,
    bouncer: &PgBouncer,
) -> Result<Option<Set>, ClusterError> {
    read(cluster, kind, &Owner::of(bouncer), &reference(bouncer)).await
}

async fn read(
    cluster: &Cluster,
    kind: WorkloadKind,
    owner: &Owner,
    at: &ObjectRef,
) -> Result<Option<Set>, ClusterError> {
    let found = match kind {
        WorkloadKind::PetSet => {
            let set: Option<PetSet> = cluster.get(at).await?;
            set.as_ref().map_or(Ok(()), |set| owner.check(set))?;
            set.map(|set| (set.uid(), set.spec.replicas, set.spec.template))
        }
        WorkloadKind::StatefulSet => {
            let set: Option<StatefulSet> = cluster.get(at).await?;
            set.as_ref().map_or(Ok(()), |set| owner.check(set))?;
            let spec = |set: StatefulSet| (set.uid(), set.spec.replicas, set.spec.template);
            set.map(spec)
        }
    };
    Ok(found.map(|(uid, replicas, template)| {
        let annotations = template.metadata.and_then(|metadata| metadata.annotations);
        Set {
            uid: uid.unwrap_or_default(),
            replicas: u32::try_from(replicas.unwrap_or(1)).unwrap_or_default(),
            digest: annotations.and_then(|mut all| all.remove(DIGEST)),
        }
    }))
}

/// Whether a pod is ready and means to stay.
pub(in crate::ops) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    let ready = conditions
        .unwrap_or_default()
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && !is_leaving(pod)
}

/// Whether a pod is being deleted.
pub(super) fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Where a pod listens.
pub(super) fn address(bouncer: &PgBouncer, pod: &Pod) -> Option<SocketAddr> {
    let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    Some(SocketAddr::new(ip, u16::try_from(port(bouncer)).ok()?))
}

/// What a pod is doing instead of being ready, and whether there is hope.
pub(super) fn trouble(pod: &Pod) -> (String, bool) {
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_else(|| "Pending".to_owned());
    let mut text = format!("pod {} is {phase} and not ready", pod.name_any());
    let mut broken = false;
    for container in status.container_statuses.unwrap_or_default() {
        let waiting = container
            .state
            .as_ref()
            .and_then(|state| state.waiting.as_ref());
        let last = container
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        broken |= container.restart_count >= RESTARTS_MAX && !container.ready;
        for word in [
            waiting.and_then(|waiting| waiting.reason.clone()),
            waiting.and_then(|waiting| waiting.message.clone()),
            last.and_then(|last| last.message.clone()),
        ]
        .into_iter()
        .flatten()
        {
            text.push_str("; ");
            text.push_str(word.trim());
        }
    }
    (text, broken)
}

/// Reads a pod of the workload; `None` if it has made none of that name. Any other pod of that name is
/// left alone.
pub(in crate::ops) async fn pod(
    ground: &Ground<'_>,
    name: &str,
) -> Result<Option<Box<Pod>>, StepError> {
    let found = ground.cluster.get::<Pod>(&ground.beside(name)).await?;
    let found: Vec<Pod> = made(ground, found.into_iter().collect()).await?;
    Ok(found.into_iter().next().map(Box::new))
}

/// Reads all pods of the PgBouncer.
pub(super) async fn pods(ground: &Ground<'_>) -> Result<Vec<Pod>, StepError> {
    let selector = labels::to_selector_text(&labels::selector(ground.name()));
    let listed = ground.cluster.list(ground.namespace, &selector).await?;
    made(ground, listed).await
}

/// Of some pods those that the workload has made. Labels and names are anybody's to choose.
async fn made(ground: &Ground<'_>, mut pods: Vec<Pod>) -> Result<Vec<Pod>, StepError> {
    let known = |uid: &str| pods.iter().all(|pod| is_controlled_by(pod, uid));
    if known(&ground.maker.uid()) {
        return Ok(pods);
    }
    match set(ground).await {
        Ok(set) => pods.retain(|pod| set.has_made(pod)),
        Err(StepError::NoWorkload(_)) => pods.clear(),
        Err(error) => return Err(error),
    }
    Ok(pods)
}

/// Reads the workload.
pub(in crate::ops) async fn set(ground: &Ground<'_>) -> Result<Set, StepError> {
    let at = ground.at();
    let found = read(ground.cluster, ground.kind, &ground.owner(), &at).await?;
    let found = found.ok_or(StepError::NoWorkload(at))?;
    ground.maker.uid().clone_from(&found.uid);
    Ok(found)
}

/// Asks the workload for so many pods.
pub(super) async fn scale(ground: &Ground<'_>, set: &Set, replicas: u32) -> Result<(), StepError> {
    let (cluster, at) = (ground.cluster, &ground.at());
    let patch = json!({ "metadata": { "uid": set.uid }, "spec": { "replicas": replicas } });
    match ground.kind {
        WorkloadKind::PetSet => drop(cluster.patch::<PetSet>(at, &patch).await?),
        WorkloadKind::StatefulSet => drop(cluster.patch::<StatefulSet>(at, &patch).await?),
    }
    Ok(())
}

/// Writes an annotation of a pod.
pub(super) async fn annotate(
    ground: &Ground<'_>,
    pod: &Pod,
    key: &str,
    value: &str,
) -> Result<(), StepError> {
    let patch = json!({ "metadata": { "uid": pod.uid(), "annotations": { key: value } } });
    let at = ground.beside(pod.name_any());
    Ok(ground.cluster.patch::<Pod>(&at, &patch).await.map(drop)?)
}

impl Maker {
    /// UID of the workload; empty before it was read.
    pub(super) fn uid(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
