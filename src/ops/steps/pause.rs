//! Pause and resume: the condition that makes the provisioner leave the object alone
//! (docs/kubedb-compatibility.md, "Pause").
//!
//! The condition is a lock, taken and released by compare-and-swap. Its message names the request
//! and its UID, so that everybody can see who holds it, and so that a request only ever releases its
//! own.

use kube::ResourceExt;
use serde_json::json;

use super::look::{Look, OFTEN};
use super::{Bench, StepError};
use crate::api::PgBouncer;
use crate::api::common::{Condition, ConditionStatus, find_condition};

/// Type and reason of the condition.
const PAUSED: &str = "Paused";
/// How the message of our own begins, and what is around the UID in it.
const BY_REQUEST: &str = "Paused by PgBouncerOpsRequest ";
const UID: (&str, &str) = ("(uid ", ")");

/// Who has paused a PgBouncer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Held {
    /// Nobody.
    Nobody,
    /// A request of ours, as far as the message tells.
    Request {
        /// Its UID.
        uid: String,
    },
    /// Somebody else.
    Other,
}

/// Who has paused it.
pub(in crate::ops) fn held(live: &PgBouncer) -> Held {
    let Some(held) = find_condition(conditions(live), PAUSED).filter(|held| held.is_true()) else {
        return Held::Nobody;
    };
    let uid = held
        .message
        .strip_prefix(BY_REQUEST)
        .and_then(|rest| rest.split_once(UID.0)?.1.strip_suffix(UID.1));
    uid.map_or(Held::Other, |uid| Held::Request {
        uid: uid.to_owned(),
    })
}

impl Bench<'_> {
    /// Takes the condition; refuses another holder's.
    pub(super) async fn pause(&self) -> Result<(), StepError> {
        self.waiting
            .until(OFTEN, || async {
                let live = self.live().await?;
                match find_condition(conditions(&live), PAUSED).filter(|held| held.is_true()) {
                    Some(held) if self.is_ours(held) => return Ok(Look::Found(())),
                    Some(held) => {
                        return Err(StepError::PausedByOther {
                            at: self.plan.database_at(),
                            message: held.message.clone(),
                        });
                    }
                    None => {}
                }
                let mut next = others(&live);
                let (at, (before, after)) = (self.plan.request_at(), UID);
                let uid = &self.plan.request.uid;
                let message = format!("{BY_REQUEST}{at} {before}{uid}{after}");
                let now = self.clock.now();
                next.push(Condition::new(
                    PAUSED,
                    ConditionStatus::True,
                    PAUSED,
                    message,
                    now,
                ));
                self.swap(&live, next).await
            })
            .await
    }

    /// Takes the condition off, if it is ours.
    pub(super) async fn resume(&self) -> Result<(), StepError> {
        let resumed = self.waiting.until(OFTEN, || async {
            let live = self.live().await?;
            match find_condition(conditions(&live), PAUSED) {
                Some(held) if self.is_ours(held) => self.swap(&live, others(&live)).await,
                _ => Ok(Look::Found(())),
            }
        });
        match resumed.await {
            // Nothing is paused any more.
            Err(StepError::Gone(_)) => Ok(()),
            other => other,
        }
    }

    fn is_ours(&self, held: &Condition) -> bool {
        let (before, after) = UID;
        let ours = format!("{before}{}{after}", self.plan.request.uid);
        held.message.contains(&ours)
    }

    async fn swap(
        &self,
        live: &PgBouncer,
        conditions: Vec<Condition>,
    ) -> Result<Look<()>, StepError> {
        let patch = json!({
            "metadata": { "resourceVersion": live.resource_version() },
            "status": { "conditions": conditions },
        });
        let at = &self.plan.database_at();
        match self.cluster.patch_status::<PgBouncer>(at, &patch).await {
            Ok(_) => Ok(Look::Found(())),
            Err(error) if error.is_conflict() => {
                Ok(Look::Missing("somebody else writes the status".to_owned()))
            }
            Err(error) => Err(error.into()),
        }
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
