//! One pod at a time: out of the Service, drained, evicted; its successor ready, proved, in service.
//!
//! ```text
//!  others serve ─► label off ─► seen out of the EndpointSlices ─► drained ─► evicted ─► gone
//!                     ▲                                              │ refused
//!                     └───────────── put back: resumed, label on ◄───┘
//!  successor ready ─► shows the leaf ─► (canary: login) ─► seen in the EndpointSlices
//! ```
//!
//! What has been done is read from the pod itself (its digest, its UID, its label), so an act that
//! was cut anywhere goes on from there.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::sleep;

use super::drain::drain;
use super::goal::{Goal, mark};
use super::ground::Ground;
use super::look::{Look, OFTEN, SELDOM};
use super::pods::{Set, is_leaving, is_ready, pod, scale, set, trouble};
use super::proof::{prove_leaf, prove_login};
use super::service::{Serving, await_budget, await_company, await_service, label};
use super::{Bench, Side, StepError};
use crate::blueprint::loaded::digest_of;
use crate::cluster::Eviction;

/// Pause after an eviction that a disruption budget refused.
const REFUSED: Duration = Duration::from_secs(1);

/// Replaces a pod by one of the goal, unless it is one already. `not` is a UID that it must not have.
pub(in crate::ops) async fn replace(
    bench: &Bench<'_>,
    goal: &Goal,
    name: &str,
    not: Option<&str>,
) -> Result<(), StepError> {
    if let Some(pod) = pod(&bench.ground, name).await?
        && is_stale(Some(&pod), &goal.digest, not)
    {
        Box::pin(take_out(bench, goal, &pod)).await?;
    }
    // Boxed, because the steps that replace pods in several places would contain it several times.
    Box::pin(bring_in(bench, goal, name)).await
}

/// Starts one pod more than planned, and proves it.
pub(in crate::ops) async fn surge(bench: &Bench<'_>, goal: &Goal) -> Result<(), StepError> {
    let planned = bench.plan.replicas;
    let set = set(&bench.ground).await?;
    if set.replicas <= planned {
        scale(&bench.ground, &set, planned.saturating_add(1)).await?;
    }
    replace(bench, goal, &bench.plan.surge_pod(), None).await
}

/// Takes the surge pod away.
pub(in crate::ops) async fn unsurge(bench: &Bench<'_>, side: Side) -> Result<(), StepError> {
    let surging = surging(bench).await?;
    scale_back(bench, side, surging).await
}

/// Takes the surge pod away, if the workload asks for it.
pub(in crate::ops) async fn unsurge_if_any(bench: &Bench<'_>, side: Side) -> Result<(), StepError> {
    match surging(bench).await? {
        None => Ok(()),
        surging => scale_back(bench, side, surging).await,
    }
}

/// The workload, if it asks for more pods than planned.
async fn surging(bench: &Bench<'_>) -> Result<Option<Set>, StepError> {
    let set = set(&bench.ground).await?;
    Ok(Some(set).filter(|set| set.replicas > bench.plan.replicas))
}

async fn scale_back(bench: &Bench<'_>, side: Side, surging: Option<Set>) -> Result<(), StepError> {
    let (ground, name) = (&bench.ground, bench.plan.surge_pod());
    if let Some(set) = surging {
        if let Some(pod) = pod(ground, &name).await?.filter(|pod| is_ready(pod)) {
            await_company(bench, &pod, side).await?;
            let bouncer = ground.live().await?;
            let drained = drain(bench, &bouncer, &pod).await?;
            drained.count(bench, &name);
        }
        scale(ground, &set, bench.plan.replicas).await?;
    }
    if let Some(pod) = pod(ground, &name).await? {
        await_gone(ground, &pod).await?;
    }
    Ok(())
}

/// Takes a pod out of service and evicts it.
async fn take_out(bench: &Bench<'_>, goal: &Goal, pod: &Pod) -> Result<(), StepError> {
    let (ground, name) = (&bench.ground, pod.name_any());
    if is_leaving(pod) {
        return await_gone(ground, pod).await;
    }
    if !is_ready(pod) {
        // It serves no client, so none has to leave it, and a budget protects nothing.
        if let Eviction::Refused { .. } = ground.cluster.evict(pod).await? {
            ground.cluster.delete_read(pod).await?;
        }
        return await_gone(ground, pod).await;
    }
    loop {
        await_company(bench, pod, goal.side).await?;
        await_budget(ground, pod).await?;
        let drained = drain(bench, &goal.bouncer, pod).await?;
        match ground.cluster.evict(pod).await {
            Ok(Eviction::Evicted | Eviction::Gone) => {
                drained.count(bench, &name);
                return await_gone(ground, pod).await;
            }
            Ok(Eviction::Refused { message }) => {
                tracing::info!(pod = %name, message, "eviction refused");
                drained.take_back(bench, &name).await?;
                sleep(REFUSED).await;
            }
            Err(error) => {
                drained.take_back(bench, &name).await?;
                return Err(error.into());
            }
        }
    }
}

/// Waits for the pod that follows, proves it, and sees it in service.
pub(in crate::ops) async fn bring_in(
    bench: &Bench<'_>,
    goal: &Goal,
    name: &str,
) -> Result<(), StepError> {
    let never_served = bench.plan.pod(name).is_some_and(|planned| !planned.ready);
    if goal.side == Side::Former && never_served {
        return Ok(());
    }
    let ground = &bench.ground;
    loop {
        let pod = await_ready(ground, name, &goal.digest).await?;
        let proved = tokio::select! {
            proved = prove_in_service(bench, goal, &pod) => proved,
            () = loss(ground, &pod) => Ok(()),
        };
        // It may have been deleted. Its address never answers again, and no Service ever leads to it:
        // the pod that follows is proved instead.
        if !is_lost(ground, &pod).await? {
            return proved;
        }
        tracing::info!(pod = %name, "pod gone before it served");
    }
}

/// Proves a pod that is ready, and sees it in service.
async fn prove_in_service(bench: &Bench<'_>, goal: &Goal, pod: &Pod) -> Result<(), StepError> {
    let (ground, name) = (&bench.ground, pod.name_any());
    prove_leaf(bench, goal, pod).await?;
    mark(ground, pod, &goal.digest).await?;
    if goal.side == Side::Target && bench.plan.is_canary(&name) {
        prove_login(ground, &goal.bouncer, pod).await?;
    }
    label(ground, pod, Serving::Yes).await?;
    await_service(ground, pod, Serving::Yes).await?;
    tracing::info!(pod = %name, digest = goal.digest, "pod serves");
    Ok(())
}

/// Comes back when the pod is no longer there. Trouble in looking is the proof's to tell.
async fn loss(ground: &Ground<'_>, pod: &Pod) {
    while !matches!(is_lost(ground, pod).await, Ok(true)) {
        sleep(SELDOM).await;
    }
}

async fn is_lost(ground: &Ground<'_>, lost: &Pod) -> Result<bool, StepError> {
    let found = pod(ground, &lost.name_any()).await?;
    Ok(found.is_none_or(|found| found.uid() != lost.uid() || is_leaving(&found)))
}

async fn await_ready(ground: &Ground<'_>, name: &str, digest: &str) -> Result<Box<Pod>, StepError> {
    let look = || async {
        let Some(pod) = pod(ground, name).await?.filter(|pod| !is_leaving(pod)) else {
            // It is not made if what it is made for has gone.
            ground.live().await?;
            return Ok(Look::Missing(format!("pod {name} to be made")));
        };
        if digest_of(&pod) != Some(digest) {
            return Ok(Look::Missing(format!("pod {name} to be made anew")));
        }
        if is_ready(&pod) {
            return Ok(Look::Found(pod));
        }
        match trouble(&pod) {
            (word, true) => Err(StepError::Broken(word)),
            (word, false) => Ok(Look::Missing(word)),
        }
    };
    ground.waiting.until(OFTEN, look).await
}

async fn await_gone(ground: &Ground<'_>, gone: &Pod) -> Result<(), StepError> {
    let (name, uid) = (gone.name_any(), gone.uid());
    let look = || async {
        let found = pod(ground, &name).await?;
        if found.is_none_or(|found| found.uid() != uid) {
            return Ok(Look::Found(()));
        }
        Ok(Look::Missing(format!("pod {name} to end")))
    };
    ground.waiting.until(OFTEN, look).await
}

/// Whether a pod has to be replaced. One that is missing has been.
pub(in crate::ops) fn is_stale(pod: Option<&Pod>, digest: &str, not: Option<&str>) -> bool {
    pod.is_some_and(|pod| {
        digest_of(pod) != Some(digest) || (not.is_some() && pod.uid().as_deref() == not)
    })
}
