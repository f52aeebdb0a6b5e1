//! A pod that goes on running and reads its files again.
//!
//! The pod stays in the Service, its established sessions stay as they are, and what it has taken up
//! is seen from outside ([`super::takeup`]).
//!
//! What has been proved is marked on the pod ([`crate::blueprint::loaded`]), and before the first
//! reload that nothing is; an act that was cut anywhere goes on from there. A pause that was left by
//! one is lifted by the next, by undoing, and when the daemon stops. A reload that spoils a pod is
//! taken back at once, through the console that is still open.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::sleep;

use super::drain::is_shut_out;
use super::goal::{Recipe, mark, recipe};
use super::pods::{is_ready, pod};
use super::proof::console;
use super::publish::publish_back;
use super::replace::{replace, surge};
use super::service::{Serving, is_labelled, label};
use super::takeup::{Session, now_ms, preflight, take_up};
use super::{Bench, Side, StepError};
use crate::api::annotations::FILES_ASKED_AT;
use crate::blueprint::loaded;
use crate::ops::journal::NoReload;
use crate::ops::plan::PlannedPod;
use crate::pgbouncer::console::{Console, ConsoleError};
use crate::pgbouncer::reload::BETWEEN_RELOADS;

/// Brings a pod back to the former side, by a reload where that is possible.
pub(in crate::ops) async fn bring_back(
    bench: &Bench<'_>,
    recipe: &Recipe,
    planned: &PlannedPod,
) -> Result<(), StepError> {
    let (name, goal) = (&planned.name, &recipe.goal);
    let Some(pod) = pod(&bench.ground, name).await?.filter(|pod| is_ready(pod)) else {
        return replace(bench, goal, name, None).await;
    };
    let holds = loaded::digest_of(&pod) == Some(&goal.digest) && is_unmoved(planned, &pod);
    if !holds {
        match reload_pod(bench, recipe, &pod).await {
            Ok(()) => {}
            // What was there before matters more than how it is brought back.
            Err(StepError::NoReload { why, .. }) => {
                tracing::warn!(pod = %name, %why, "restarted to go back");
                return restart_instead(bench, recipe, name).await;
            }
            Err(error) => return Err(error),
        }
    }
    if !is_labelled(&pod) {
        label(&bench.ground, &pod, Serving::Yes).await?;
    }
    Ok(())
}

/// Restarts a pod that cannot be reloaded; a single one gets company.
pub(in crate::ops) async fn restart_instead(
    bench: &Bench<'_>,
    recipe: &Recipe,
    name: &str,
) -> Result<(), StepError> {
    if bench.plan.replicas == 1 {
        surge(bench, &recipe.goal).await?;
    }
    let uid = pod(&bench.ground, name).await?.and_then(|pod| pod.uid());
    replace(bench, &recipe.goal, name, uid.as_deref()).await
}

/// Reloads a pod until it shows what its recipe wants.
pub(in crate::ops) async fn reload_pod(
    bench: &Bench<'_>,
    recipe: &Recipe,
    pod: &Pod,
) -> Result<(), StepError> {
    let (ground, goal, name) = (&bench.ground, &recipe.goal, pod.name_any());
    let target = console(ground, &goal.bouncer, pod).await?;
    let console = Console::connect(&target).await;
    let mut session = Session {
        console: console.map_err(|error| no_console(&name, error))?,
        admin: target.user.clone(),
    };
    preflight(bench, recipe, &name, &session.console).await?;
    keep_distance(bench, pod).await;
    mark(ground, pod, loaded::UNKNOWN).await?;
    let done = Box::pin(take_up(bench, recipe, pod, &mut session)).await;
    if let (Err(StepError::Spoilt { why, .. }), Side::Target) = (&done, goal.side) {
        tracing::error!(pod = %name, why, "reload spoilt the pod; going back");
        Box::pin(save(bench, pod, &mut session)).await;
    }
    done?;
    session.console.close().await;
    ground.waiting.clear();
    mark(ground, pod, &goal.digest).await?;
    tracing::info!(pod = %name, digest = goal.digest, "pod has reloaded and serves");
    Ok(())
}

/// Reloads of one pod keep their distance also when an earlier attempt made the last one.
async fn keep_distance(bench: &Bench<'_>, pod: &Pod) {
    if loaded::digest_of(pod) != Some(loaded::UNKNOWN) {
        return;
    }
    let asked = pod.annotations().get(FILES_ASKED_AT);
    let asked: Option<i128> = asked.and_then(|text| text.parse().ok());
    let since = now_ms(bench) - asked.unwrap_or_default();
    let since = Duration::from_millis(u64::try_from(since).unwrap_or_default());
    sleep(BETWEEN_RELOADS.saturating_sub(since)).await;
}

/// Puts back what was there before, through the console that is still open: a pod that has read a
/// broken file may let in nothing else, not even its administrator. Undoing does the same once
/// more, with whatever means there are.
async fn save(bench: &Bench<'_>, pod: &Pod, session: &mut Session) {
    let saved = async {
        publish_back(bench).await?;
        let recipe = recipe(bench, Side::Former).await?;
        take_up(bench, &recipe, pod, session).await
    };
    if let Err(error) = saved.await {
        let error = &error as &(dyn std::error::Error + 'static);
        tracing::error!(pod = %pod.name_any(), error, "not put back yet");
    }
}

/// Whether what a pod's annotations say still holds: its process is the one that was there when the
/// plan was made, or one that was proved since.
pub(in crate::ops) fn is_unmoved(planned: &PlannedPod, pod: &Pod) -> bool {
    let same =
        pod.uid() == planned.uid && loaded::container_of(pod) == planned.container.as_deref();
    same || loaded::is_witnessed(pod)
}

fn no_console(name: &str, error: ConsoleError) -> StepError {
    if is_shut_out(&error) {
        return StepError::NoReload {
            name: name.to_owned(),
            why: NoReload::ShutOut,
        };
    }
    StepError::console(format!("pod {name}"), error)
}
