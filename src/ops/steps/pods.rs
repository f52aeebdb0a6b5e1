//! Pods and the workload behind them: what is there, is it ready, do clients reach it.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::look::{Look, OFTEN};
use super::reach::Reach;
use super::{Bench, Side, StepError};
use crate::api::annotations::SERVING_LABEL;
use crate::api::holder::is_controlled_by;
use crate::api::{PgBouncer, pod};
use crate::blueprint::{WorkloadKind, labels, port};
use crate::cluster::{Cluster, ClusterError, Eviction, Owner};
use crate::names::ObjectRef;
use crate::ops::plan::PlannedPod;

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
pub struct Maker(Mutex<String>);

/// Reads the workload of a PgBouncer; `None` before there is one.
///
/// # Errors
/// [`ClusterError::Foreign`] for a workload of that name that is not the PgBouncer's.
pub(in crate::ops) async fn workload(
    cluster: &Cluster,
    kind: WorkloadKind,
    (owner, at): (&Owner, &ObjectRef),
) -> Result<Option<Set>, ClusterError> {
    let found = cluster.owned_workload(kind, owner, at).await?;
    Ok(found.map(|found| Set {
        uid: found.uid().unwrap_or_default(),
        replicas: u32::try_from(found.replicas()).unwrap_or_default(),
        digest: found.digest().map(ToOwned::to_owned),
    }))
}

/// Whether a pod is ready and means to stay.
pub(in crate::ops) fn is_ready(pod: &Pod) -> bool {
    pod::is_ready(pod) && !is_leaving(pod)
}

/// Whether a pod is being deleted.
pub(super) fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the Service may send clients to a pod.
pub(super) fn is_labelled(pod: &Pod) -> bool {
    labels::serving_selector("")
        .get(SERVING_LABEL)
        .is_some_and(|value| pod.labels().get(SERVING_LABEL) == Some(value))
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

impl Bench<'_> {
    /// A pod of the workload; `None` if it has made none of that name. Any other pod of that name is
    /// left alone.
    pub(super) async fn pod(&self, name: &str) -> Result<Option<Box<Pod>>, StepError> {
        let found = self.cluster.get::<Pod>(&self.beside(name)).await?;
        let found: Vec<Pod> = self.made(found.into_iter().collect()).await?;
        Ok(found.into_iter().next().map(Box::new))
    }

    /// All pods of the PgBouncer.
    pub(super) async fn pods(&self) -> Result<Vec<Pod>, StepError> {
        let selector = labels::to_selector_text(&labels::selector(self.name()));
        let namespace = &self.plan.namespace;
        self.made(self.cluster.list(namespace, &selector).await?)
            .await
    }

    /// Of some pods those that the workload has made. Labels and names are anybody's to choose.
    async fn made(&self, mut pods: Vec<Pod>) -> Result<Vec<Pod>, StepError> {
        let known = |uid: &str| pods.iter().all(|pod| is_controlled_by(pod, uid));
        if known(&self.maker()) {
            return Ok(pods);
        }
        match self.set().await {
            Ok(set) => pods.retain(|pod| set.has_made(pod)),
            Err(StepError::NoWorkload(_)) => pods.clear(),
            Err(error) => return Err(error),
        }
        Ok(pods)
    }

    /// UID of the workload; empty before it was read.
    pub(super) fn maker(&self) -> MutexGuard<'_, String> {
        self.maker.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workload.
    pub(super) async fn set(&self) -> Result<Set, StepError> {
        let at = self.plan.database_at();
        let found = workload(self.cluster, self.kind, (&self.owner(), &at)).await?;
        let found = found.ok_or(StepError::NoWorkload(at))?;
        self.maker().clone_from(&found.uid);
        Ok(found)
    }

    /// Asks the workload for so many pods.
    pub(super) async fn scale(&self, replicas: u32) -> Result<(), StepError> {
        let at = &self.plan.database_at();
        let uid = self.set().await?.uid;
        let patch = json!({ "metadata": { "uid": uid }, "spec": { "replicas": replicas } });
        self.cluster.patch_workload(self.kind, at, &patch).await?;
        Ok(())
    }

    /// Lets the Service send clients to a pod, or stops that (`on` is `None`).
    pub(super) async fn label(&self, pod: &Pod, serving: Serving) -> Result<(), StepError> {
        if is_labelled(pod) == (serving == Serving::Yes) {
            return Ok(());
        }
        let value = match serving {
            Serving::Yes => labels::serving_selector("")
                .remove(SERVING_LABEL)
                .map_or(Value::Null, Value::String),
            Serving::No => Value::Null,
        };
        let patch = json!({ "metadata": { "uid": pod.uid(), "labels": { SERVING_LABEL: value } } });
        let patched = self
            .cluster
            .patch::<Pod>(&self.beside(pod.name_any()), &patch)
            .await;
        match patched {
            // The pod, or the one with that UID, has gone: nobody is sent there any more.
            Err(error) if is_gone(&error) && serving == Serving::No => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Waits until the Service sends all its clients to a pod, or until it sends none there.
    pub(super) async fn await_service(&self, pod: &Pod, serving: Serving) -> Result<(), StepError> {
        let name = pod.name_any();
        self.waiting
            .until(OFTEN, || async {
                let reach = self.reach(pod).await?;
                let missing = match serving {
                    Serving::Yes if reach.is_whole() => return Ok(Look::Found(())),
                    Serving::No if reach.is_none() => return Ok(Look::Found(())),
                    Serving::Yes => {
                        let over = reach.families(false);
                        format!("the Service to lead to pod {name}{over}")
                    }
                    Serving::No => {
                        let over = reach.families(true);
                        format!("the Service to lead to pod {name}{over} no longer")
                    }
                };
                self.live().await?;
                Ok(Look::Missing(missing))
            })
            .await
    }

    /// Over which families the Service leads to the pod.
    async fn reach(&self, pod: &Pod) -> Result<Reach, StepError> {
        let selector = format!("kubernetes.io/service-name={}", self.name());
        let namespace = &self.plan.namespace;
        let slices: Vec<EndpointSlice> = self.cluster.list(namespace, &selector).await?;
        Ok(Reach::of(pod, &slices))
    }

    /// Waits until `pod` may go: enough others serve (I3).
    pub(super) async fn await_company(&self, pod: &Pod, side: Side) -> Result<(), StepError> {
        let name = pod.name_any();
        let least = self.company(&name, side);
        self.waiting
            .until(OFTEN, || async {
                let pods = self.pods().await?;
                let others = pods
                    .iter()
                    .filter(|other| other.name_any() != name && is_ready(other))
                    .filter(|other| is_labelled(other))
                    .count();
                if others < least {
                    self.live().await?;
                    let text = format!("{least} other pods to serve before {name} goes");
                    return Ok(Look::Missing(text));
                }
                Ok(Look::Found(()))
            })
            .await
    }

    /// Waits until no disruption budget objects to the eviction of `pod`: a drain that ends in a
    /// refusal would have closed connections for nothing.
    pub(super) async fn await_budget(&self, pod: &Pod) -> Result<(), StepError> {
        let name = pod.name_any();
        self.waiting
            .until(OFTEN, || async {
                match self.cluster.try_eviction(pod).await? {
                    Eviction::Evicted | Eviction::Gone => Ok(Look::Found(())),
                    Eviction::Refused { message } => {
                        self.live().await?;
                        let text = format!("the eviction of {name} to be allowed: {message}");
                        Ok(Look::Missing(text))
                    }
                }
            })
            .await
    }

    /// How many others have to serve before a pod goes: all but those that go along with it. Going
    /// back they go one by one; there, one that did not serve before
    /// the request is not waited for; and where the only pod did not, it needs no company.
    fn company(&self, name: &str, side: Side) -> usize {
        let served = |pod: &&PlannedPod| side == Side::Target || pod.ready;
        if self.plan.replicas > 1 {
            let along = |pod: &PlannedPod| {
                side == Side::Target && self.plan.together(name).contains(&pod.name)
            };
            let others = self.plan.pods.iter().filter(|pod| pod.name != name);
            return others.filter(|pod| !along(pod)).filter(served).count();
        }
        usize::from(self.plan.pods.iter().all(|pod| served(&pod)))
    }
}

/// Whether the Service sends clients to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serving {
    /// It does.
    Yes,
    /// It does not.
    No,
}

fn is_gone(error: &ClusterError) -> bool {
    error.is_not_found() || error.is_conflict()
}
