//! The Service in front of the pods: which of them it leads to, and how many have to serve.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::ground::Ground;
use super::look::{Look, OFTEN};
use super::pods::{is_ready, pods};
use super::reach::Reach;
use super::{Bench, Side, StepError};
use crate::api::annotations::SERVING_LABEL;
use crate::blueprint::labels;
use crate::cluster::{ClusterError, Eviction};
use crate::ops::plan::PlannedPod;

/// Whether the Service sends clients to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Serving {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// Whether the Service may send clients to a pod.
pub(super) fn is_labelled(pod: &Pod) -> bool {
    labels::serving_selector("")
        .get(SERVING_LABEL)
        .is_some_and(|value| pod.labels().get(SERVING_LABEL) == Some(value))
}

/// Lets the Service send clients to a pod, or stops that.
pub(in crate::ops) async fn label(
    ground: &Ground<'_>,
    pod: &Pod,
    serving: Serving,
) -> Result<(), StepError> {
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
    let at = ground.beside(pod.name_any());
    match ground.cluster.patch::<Pod>(&at, &patch).await {
        // The pod, or the one with that UID, has gone: no client is sent there any more.
        Err(error) if is_gone(&error) && serving == Serving::No => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

/// Waits until the Service sends all its clients to a pod, or until it sends none there.
pub(super) async fn await_service(
    ground: &Ground<'_>,
    pod: &Pod,
    serving: Serving,
) -> Result<(), StepError> {
    let name = pod.name_any();
    let look = || async {
        let reach = reach(ground, pod).await?;
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
        ground.live().await?;
        Ok(Look::Missing(missing))
    };
    ground.waiting.until(OFTEN, look).await
}

/// Over which families the Service leads to the pod.
async fn reach(ground: &Ground<'_>, pod: &Pod) -> Result<Reach, StepError> {
    let selector = format!("kubernetes.io/service-name={}", ground.name());
    let slices: Vec<EndpointSlice> = ground.cluster.list(ground.namespace, &selector).await?;
    Ok(Reach::of(pod, &slices))
}

/// Waits until `pod` may go: enough others serve (I3).
pub(super) async fn await_company(
    bench: &Bench<'_>,
    pod: &Pod,
    side: Side,
) -> Result<(), StepError> {
    let (ground, name) = (&bench.ground, pod.name_any());
    let least = company(bench, &name, side);
    let look = || async {
        let pods = pods(ground).await?;
        let others = pods
            .iter()
            .filter(|other| other.name_any() != name && is_ready(other))
            .filter(|other| is_labelled(other))
            .count();
        if others < least {
            ground.live().await?;
            let text = format!("{least} other pods to serve before {name} goes");
            return Ok(Look::Missing(text));
        }
        Ok(Look::Found(()))
    };
    ground.waiting.until(OFTEN, look).await
}

/// Waits until no disruption budget objects to the eviction of `pod`: a drain that ends in a
/// refusal would have closed connections for nothing.
pub(super) async fn await_budget(ground: &Ground<'_>, pod: &Pod) -> Result<(), StepError> {
    let name = pod.name_any();
    let look = || async {
        match ground.cluster.try_eviction(pod).await? {
            Eviction::Evicted | Eviction::Gone => Ok(Look::Found(())),
            Eviction::Refused { message } => {
                ground.live().await?;
                let text = format!("the eviction of {name} to be allowed: {message}");
                Ok(Look::Missing(text))
            }
        }
    };
    ground.waiting.until(OFTEN, look).await
}

/// How many others have to serve before a pod goes: all but those that go along with it. Going
/// back they go one by one; there, one that did not serve before the request is not waited for; and
/// where the only pod did not, it needs no company.
fn company(bench: &Bench<'_>, name: &str, side: Side) -> usize {
    let plan = bench.plan;
    let served = |pod: &&PlannedPod| side == Side::Target || pod.ready;
    if plan.replicas > 1 {
        let along =
            |pod: &PlannedPod| side == Side::Target && plan.together(name).contains(&pod.name);
        let others = plan.pods.iter().filter(|pod| pod.name != name);
        return others.filter(|pod| !along(pod)).filter(served).count();
    }
    usize::from(plan.pods.iter().all(|pod| served(&pod)))
}

fn is_gone(error: &ClusterError) -> bool {
    error.is_not_found() || error.is_conflict()
}
