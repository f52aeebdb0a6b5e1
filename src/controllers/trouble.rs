//! What people read of a look that panicked: condition `InternalError` and an event on the object.

use serde_json::json;

use crate::api::common::{
    Condition, ConditionStatus, INTERNAL_ERROR, has_internal_error, internal_error, set_condition,
};
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::clock::Clock;
use crate::cluster::{Cluster, EventKind, Namespaced, Reporter};
use crate::names::ObjectRef;
use crate::panics::{InternalErrors, Panicked};

/// Source of the events.
const COMPONENT: &str = "bouncert";
/// How often a write is tried that others are faster than.
const TRIES: usize = 3;

/// An object that carries conditions.
pub(super) trait Subject: Namespaced {
    /// Its conditions.
    fn conditions(&self) -> &[Condition];
}

impl Subject for PgBouncer {
    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| &status.conditions)
    }
}

impl Subject for PgBouncerOpsRequest {
    fn conditions(&self) -> &[Condition] {
        self.status
            .as_ref()
            .map_or(&[], |status| &status.conditions)
    }
}

/// Tells of panics on the objects that they came from.
#[derive(Clone)]
pub struct Bystander {
    pub(super) cluster: Cluster,
    pub(super) clock: Clock,
    pub(super) errors: InternalErrors,
}

impl Bystander {
    /// Writes in the name of the daemon, and counts in `errors`.
    pub const fn new(cluster: Cluster, clock: Clock, errors: InternalErrors) -> Self {
        Self {
            cluster,
            clock,
            errors,
        }
    }

    /// Whether the object says that a look of that controller at it panicked.
    pub(super) fn is_told<K: Subject>(object: &K, controller: &str) -> bool {
        has_internal_error(object.conditions(), controller)
    }

    /// Says on the object that a look at it panicked. That it cannot be written costs nothing else.
    pub(super) async fn tell<K: Subject>(
        &self,
        controller: &'static str,
        at: &ObjectRef,
        panicked: &Panicked,
    ) {
        let message = internal_error(controller, panicked);
        let now = self.clock.now();
        let status = ConditionStatus::True;
        let condition = Condition::new(INTERNAL_ERROR, status, INTERNAL_ERROR, &*message, now);
        let changed = self.write::<K>(at, |all| set_condition(all, condition.clone()));
        if let Ok(Some(object)) = self.errors.guarded(controller, changed).await {
            Reporter::new(self.cluster.clone(), COMPONENT)
                .report(
                    &object,
                    EventKind::Warning,
                    (INTERNAL_ERROR, message.as_str()),
                    now,
                )
                .await;
        }
    }

    /// Takes the condition off again, unless another controller has written it since.
    pub(super) async fn take_back<K: Subject>(&self, at: &ObjectRef, controller: &str) {
        self.write::<K>(at, |all| {
            let is_ours = has_internal_error(all, controller);
            all.retain(|condition| condition.type_ != INTERNAL_ERROR || !is_ours);
            is_ours
        })
        .await;
    }

    /// Changes conditions; the object, if there was something to change and it is written.
    async fn write<K: Subject>(
        &self,
        at: &ObjectRef,
        change: impl Fn(&mut Vec<Condition>) -> bool,
    ) -> Option<K> {
        for _ in 0..TRIES {
            let object = self.cluster.get::<K>(at).await.ok()??;
            let mut conditions = object.conditions().to_vec();
            if !change(&mut conditions) {
                return None;
            }
            let patch = json!({
                "metadata": { "resourceVersion": object.meta().resource_version },
                "status": { "conditions": conditions },
            });
            match self.cluster.patch_status::<K>(at, &patch).await {
                Err(error) if error.is_conflict() => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(object = %at, error, "condition not written");
                    return None;
                }
                Ok(written) => return Some(written),
            }
        }
        None
    }
}
