//! The condition `Paused` of a PgBouncer, which makes the provisioner leave the object alone
//! (docs/kubedb-compatibility.md, "Pause").
//!
//! The condition is a lock, taken and released by compare-and-swap. Its message names the request
//! and its UID, so that everybody can see who holds it, and so that a request only ever releases its
//! own.

use kube::ResourceExt;
use serde_json::json;
use time::OffsetDateTime;

use super::StepError;
use super::ground::Ground;
use super::look::{Look, OFTEN};
use crate::api::PgBouncer;
use crate::api::common::{Condition, ConditionStatus, find_condition};
use crate::names::ObjectRef;

/// Type and reason of the condition.
const PAUSED: &str = "Paused";
/// How the message of our own begins, and what is around the UID in it.
const BY_REQUEST: &str = "Paused by PgBouncerOpsRequest ";
const BEFORE_UID: &str = "(uid ";
const AFTER_UID: &str = ")";

/// The holder of a PgBouncer's pause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Held {
    /// It is not paused.
    Nobody,
    /// A request of ours, as far as the message tells.
    Request {
        /// Its UID.
        uid: String,
    },
    /// Something else.
    Other,
}

/// The request that takes the condition.
pub(in crate::ops) struct Holder<'a> {
    /// The request.
    pub(in crate::ops) at: ObjectRef,
    /// Its UID.
    pub(in crate::ops) uid: &'a str,
    /// The present instant.
    pub(in crate::ops) now: OffsetDateTime,
}

/// Reads the holder of a PgBouncer's pause.
pub(in crate::ops) fn held(live: &PgBouncer) -> Held {
    let Some(held) = find_condition(conditions(live), PAUSED).filter(|held| held.is_true()) else {
        return Held::Nobody;
    };
    let uid = held
        .message
        .strip_prefix(BY_REQUEST)
        .and_then(|rest| rest.split_once(BEFORE_UID)?.1.strip_suffix(AFTER_UID));
    uid.map_or(Held::Other, |uid| Held::Request {
        uid: uid.to_owned(),
    })
}

/// Takes the condition; refuses another holder's.
pub(in crate::ops) async fn take(
    ground: &Ground<'_>,
    holder: &Holder<'_>,
) -> Result<(), StepError> {
    let take = || async {
        let live = ground.live().await?;
        match find_condition(conditions(&live), PAUSED).filter(|held| held.is_true()) {
            Some(held) if is_held_by(held, holder.uid) => return Ok(Look::Found(())),
            Some(held) => {
                return Err(StepError::PausedByOther {
                    at: ground.at(),
                    message: held.message.clone(),
                });
            }
            None => {}
        }
        let mut next = others(&live);
        let Holder { at, uid, now } = holder;
        let message = format!("{BY_REQUEST}{at} {BEFORE_UID}{uid}{AFTER_UID}");
        let status = ConditionStatus::True;
        next.push(Condition::new(PAUSED, status, PAUSED, message, *now));
        swap(ground, &live, next).await
    };
    ground.waiting.until(OFTEN, take).await
}

/// Takes the condition off, if it is that of the request with that UID.
pub(in crate::ops) async fn release(ground: &Ground<'_>, uid: &str) -> Result<(), StepError> {
    let release = || async {
        let live = ground.live().await?;
        match find_condition(conditions(&live), PAUSED) {
            Some(held) if is_held_by(held, uid) => swap(ground, &live, others(&live)).await,
            _ => Ok(Look::Found(())),
        }
    };
    match ground.waiting.until(OFTEN, release).await {
        // Nothing is paused any more.
        Err(StepError::Gone(_)) => Ok(()),
        other => other,
    }
}

fn is_held_by(held: &Condition, uid: &str) -> bool {
    let ours = format!("{BEFORE_UID}{uid}{AFTER_UID}");
    held.message.contains(&ours)
}

async fn swap(
    ground: &Ground<'_>,
    live: &PgBouncer,
    conditions: Vec<Condition>,
) -> Result<Look<()>, StepError> {
    let patch = json!({
        "metadata": { "resourceVersion": live.resource_version() },
        "status": { "conditions": conditions },
    });
    let at = ground.at();
    match ground.cluster.patch_status::<PgBouncer>(&at, &patch).await {
        Ok(_) => Ok(Look::Found(())),
        Err(error) if error.is_conflict() => {
            Ok(Look::Missing("somebody else writes the status".to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}

fn conditions(live: &PgBouncer) -> &[Condition] {
    live.status
        .as_ref()
        .map_or(&[], |status| status.conditions.as_slice())
}

fn others(live: &PgBouncer) -> Vec<Condition> {
    let all = conditions(live).iter();
    all.filter(|condition| condition.type_ != PAUSED)
        .cloned()
        .collect()
}
