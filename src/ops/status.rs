//! Writing what people read: the status of a request. One writer, one patch per change.

use kube::ResourceExt;
use serde_json::json;

use super::error::OpsError;
use super::hands::Identity;
use super::operator::Operator;
use crate::api::common::{Condition, set_condition};
use crate::api::{PgBouncerOpsRequest, RequestPhase};
use crate::cluster::reference;

/// Condition that says what a step waits for; it goes when the request ends.
pub(super) const WAITS: &str = "Running";

/// Writes conditions.
pub(super) async fn tell(
    operator: &Operator,
    own: &Identity,
    conditions: &[Condition],
) -> Result<(), OpsError> {
    write(operator, own, conditions, None).await
}

/// Writes the last conditions and the phase.
pub(super) async fn end(
    operator: &Operator,
    own: &Identity,
    phase: RequestPhase,
    conditions: &[Condition],
) -> Result<(), OpsError> {
    write(operator, own, conditions, Some(phase)).await
}

/// Moves `request` to `phase` with one more condition, if nobody has written it since it was read.
pub(super) async fn move_to(
    operator: &Operator,
    request: &PgBouncerOpsRequest,
    phase: RequestPhase,
    condition: Option<Condition>,
) -> Result<PgBouncerOpsRequest, OpsError> {
    let patch = patch(request, condition.as_slice(), Some(phase));
    Ok(operator
        .cluster
        .patch_status(&reference(request), &patch)
        .await?)
}

/// Writes conditions into the very request that is meant, which only we write. That somebody else (a label, a finalizer)
/// wrote in between is a reason to look again, not to fail.
async fn write(
    operator: &Operator,
    own: &Identity,
    conditions: &[Condition],
    phase: Option<RequestPhase>,
) -> Result<(), OpsError> {
    loop {
        let Some(request) = operator.read_again(own).await? else {
            return Ok(());
        };
        let patch = patch(&request, conditions, phase);
        let written = operator
            .cluster
            .patch_status::<PgBouncerOpsRequest>(&own.at, &patch)
            .await;
        match written {
            Err(error) if error.is_conflict() => {}
            Err(error) if error.is_not_found() => return Ok(()),
            other => return Ok(other.map(drop)?),
        }
    }
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
    let waits = conditions.iter().any(|condition| condition.type_ == WAITS);
    all.retain(|condition| waits || condition.type_ != WAITS);
    json!({
        "metadata": { "resourceVersion": request.resource_version() },
        "status": {
            "phase": phase.or(status.phase),
            "observedGeneration": request.metadata.generation,
            "conditions": all,
        },
    })
}
