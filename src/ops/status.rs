//! Writing a request: its status, and the finalizer by which deleting it undoes it. One writer, one patch
//! per change. What was read of it is handed on, and read again only where others have written since.

use kube::ResourceExt;
use serde_json::json;

use super::context::Context;
use super::error::OpsError;
use super::hands::Identity;
use super::ledger;
use super::metrics::RequestOutcome;
use super::view::{self, News, Reason, Topic};
use crate::api::annotations::REQUEST_FINALIZER;
use crate::api::common::{Condition, set_condition};
use crate::api::{PgBouncerOpsRequest, RequestPhase};
use crate::cluster::reference;

/// Moves `request` to `phase` with one more condition, if it was not written since it was read.
pub(super) async fn move_to(
    context: &Context,
    request: &PgBouncerOpsRequest,
    phase: RequestPhase,
    condition: Option<Condition>,
) -> Result<PgBouncerOpsRequest, OpsError> {
    let patch = patch(request, condition.as_slice(), Some(phase));
    let cluster = &context.cluster;
    Ok(cluster.patch_status(&reference(request), &patch).await?)
}

/// Writes conditions, and the phase if there is one, into the very request that was read, which only we
/// write. That others (a label, a finalizer) wrote in between is a reason to read it again, not to fail.
/// Returns the request as it is then; `None` if it is gone.
pub(super) async fn write(
    context: &Context,
    request: &PgBouncerOpsRequest,
    conditions: &[Condition],
    phase: Option<RequestPhase>,
) -> Result<Option<PgBouncerOpsRequest>, OpsError> {
    let own = Identity::of(request);
    let mut read = Some(request.clone());
    while let Some(request) = read {
        let patch = patch(&request, conditions, phase);
        match context.cluster.patch_status(&own.at, &patch).await {
            Err(error) if error.is_conflict() => read = context.read_again(&own).await?,
            Err(error) if error.is_not_found() => break,
            written => return Ok(Some(written?)),
        }
    }
    Ok(None)
}

/// Ends a request before it has touched anything.
pub(super) async fn refuse(
    context: &Context,
    request: &PgBouncerOpsRequest,
    why: &str,
) -> Result<(), OpsError> {
    end_early(context, request, view::refused(why, context.now())).await
}

/// Ends a request as failed without carrying anything out.
pub(super) async fn end_early(
    context: &Context,
    request: &PgBouncerOpsRequest,
    condition: Condition,
) -> Result<(), OpsError> {
    context.count(request, RequestOutcome::Refused);
    tracing::info!(ops.request = %reference(request), why = condition.message, "request refused");
    let news = News {
        trouble: true,
        reason: Reason::Failed,
        message: condition.message.clone(),
    };
    let failed = Some(RequestPhase::Failed);
    let Some(ended) = write(context, request, &[condition], failed).await? else {
        return Ok(());
    };
    context.report(&ended, &news).await;
    put_away(context, &ended).await
}

/// Puts our finalizer on a request, so that deleting it undoes it.
pub(super) async fn hold(
    context: &Context,
    request: &PgBouncerOpsRequest,
) -> Result<PgBouncerOpsRequest, OpsError> {
    let mut finalizers = request.finalizers().to_vec();
    let is_ours = |finalizer: &String| finalizer == REQUEST_FINALIZER;
    if finalizers.iter().any(is_ours) {
        return Ok(request.clone());
    }
    finalizers.push(REQUEST_FINALIZER.to_owned());
    let patch = json!({ "metadata": {
        "finalizers": finalizers, "resourceVersion": request.resource_version(),
    } });
    Ok(context.cluster.patch(&reference(request), &patch).await?)
}

/// Leaves a request that has ended: its journal keeps what people may ask for.
pub(super) async fn put_away(
    context: &Context,
    request: &PgBouncerOpsRequest,
) -> Result<(), OpsError> {
    // The finalizer says that this is still to be done.
    let is_held = |finalizer: &String| finalizer == REQUEST_FINALIZER;
    if request.finalizers().iter().any(is_held) {
        ledger::finish(&context.cluster, &context.home, request).await?;
        unhold(context, request).await?;
    }
    Ok(())
}

/// Takes our finalizer off the very request that was read.
pub(super) async fn unhold(
    context: &Context,
    request: &PgBouncerOpsRequest,
) -> Result<(), OpsError> {
    let own = Identity::of(request);
    let mut read = Some(request.clone());
    while let Some(request) = read {
        let all = request.finalizers().iter();
        let rest: Vec<&String> = all.filter(|name| *name != REQUEST_FINALIZER).collect();
        if rest.len() == request.finalizers().len() {
            return Ok(());
        }
        let patch = json!({ "metadata": {
            "finalizers": rest, "resourceVersion": request.resource_version(),
        } });
        let patched = context
            .cluster
            .patch::<PgBouncerOpsRequest>(&own.at, &patch);
        match patched.await {
            Err(error) if error.is_conflict() => read = context.read_again(&own).await?,
            Err(error) if error.is_not_found() => return Ok(()),
            other => return Ok(other.map(drop)?),
        }
    }
    Ok(())
}

fn patch(
    request: &PgBouncerOpsRequest,
    conditions: &[Condition],
    phase: Option<RequestPhase>,
) -> serde_json::Value {
    let status = request.status.clone().unwrap_or_default();
    let mut all = status.conditions;
    for condition in conditions {
        let mut condition = condition.clone();
        condition.observed_generation = request.metadata.generation;
        set_condition(&mut all, condition);
    }
    // What a step waits for goes when it no longer does.
    let running = Topic::Running.as_str();
    let waits = conditions
        .iter()
        .any(|condition| condition.type_ == running);
    all.retain(|condition| waits || condition.type_ != running);
    json!({
        "metadata": { "resourceVersion": request.resource_version() },
        "status": {
            "phase": phase.or(status.phase),
            "observedGeneration": request.metadata.generation,
            "conditions": all,
        },
    })
}
