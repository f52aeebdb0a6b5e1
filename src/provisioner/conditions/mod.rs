//! Conditions and phase: what was seen, in the words that KubeDB's users know
//! (docs/kubedb-compatibility.md, "Conditions of a PgBouncer", "Phases of a PgBouncer"); pure.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use time::OffsetDateTime;

use super::blocked::{Blocked, Reason, name_foreign};
use super::health::PodSeen;
use crate::api::common::{ConditionStatus, find_condition, set_condition};
use crate::api::pgbouncer::PgBouncerStatus;
use crate::api::{Condition, PgBouncer, Phase};
use crate::cluster::{Foreign, reference};
use crate::names::ObjectRef;

pub(super) const PROVISIONING_STARTED: &str = "ProvisioningStarted";
const REPLICA_READY: &str = "ReplicaReady";
const ACCEPTING_CONNECTION: &str = "AcceptingConnection";
const READY: &str = "Ready";
pub(super) const PROVISIONED: &str = "Provisioned";
const HALTED: &str = "Halted";
/// KubeDB's, while somebody holds its health checks.
const HEALTH_CHECK_PAUSED: &str = "HealthCheckPaused";
/// Said only while something is left to be done by somebody else.
pub(super) const RECONCILED: &str = "Reconciled";

/// What a look at an object brought.
#[derive(Debug)]
pub(super) struct Seen {
    /// The pods that it asks for.
    pub(super) pods: Vec<PodSeen>,
    /// What keeps its objects from being made.
    pub(super) blocked: Option<Blocked>,
    /// Objects that are not its own, at names of objects that the pooler works without.
    pub(super) spared: Vec<Foreign>,
}

impl Seen {
    /// Whether an object that is not its own has the name of one that the pooler needs.
    const fn is_displaced(&self) -> bool {
        matches!(self.blocked, Some(Blocked::Foreign(_)))
    }

    /// Whether a reference into another namespace is not granted: then the pods run with what was copied
    /// before, and nothing that changes reaches them.
    fn is_not_granted(&self) -> bool {
        let blocked = self.blocked.as_ref();
        blocked.is_some_and(|blocked| blocked.reason() == Reason::ReferenceNotGranted)
    }
}

/// The pods, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Health {
    wanted: i32,
    ready: i32,
    accepting: i32,
}

impl Health {
    pub(super) fn of(bouncer: &PgBouncer, seen: &Seen) -> Self {
        let count = |holds: fn(&PodSeen) -> bool| {
            i32::try_from(seen.pods.iter().filter(|pod| holds(pod)).count()).unwrap_or(i32::MAX)
        };
        Self {
            wanted: bouncer.spec.replicas.unwrap_or(1),
            ready: count(|pod| pod.is_ready),
            accepting: count(|pod| pod.is_ready && pod.trouble.is_none()),
        }
    }

    const fn has_all(self) -> bool {
        self.ready >= self.wanted
    }

    const fn accepts(self) -> bool {
        self.accepting > 0
    }

    pub(super) const fn is_ready(self) -> bool {
        self.accepting >= self.wanted
    }
}

/// The whole status after a look.
pub(super) fn status(bouncer: &PgBouncer, seen: &Seen, now: OffsetDateTime) -> PgBouncerStatus {
    let mut status = bouncer.status.clone().unwrap_or_default();
    let health = Health::of(bouncer, seen);
    let at = reference(bouncer);
    let generation = bouncer.metadata.generation;
    let mut set = |type_: &str, holds: bool, (reason, message): (Reason, String)| {
        let condition = Condition::new(type_, holds.into(), reason.as_str(), message, now);
        set_condition(
            &mut status.conditions,
            Condition {
                observed_generation: generation,
                ..condition
            },
        );
    };
    let is_ready = health.is_ready() && !seen.is_displaced();
    set(REPLICA_READY, health.has_all(), replica_ready(&at, health));
    set(
        ACCEPTING_CONNECTION,
        health.accepts(),
        accepting(&at, seen, health),
    );
    set(READY, is_ready, ready(&at, seen, health));
    if is_ready {
        let message = format!("The PgBouncer: {at} is successfully provisioned.");
        set(PROVISIONED, true, (Reason::Provisioned, message));
    }
    let open = open(seen);
    let is_open = open.is_some();
    if let Some(open) = open {
        set(RECONCILED, false, open);
    }
    let is_halted = bouncer.spec.halted == Some(true) && seen.pods.is_empty();
    if is_halted {
        let message = format!("PgBouncer {at} is halted");
        set(HALTED, true, (Reason::Halted, message));
    }
    status
        .conditions
        .retain(|condition| match condition.type_.as_str() {
            RECONCILED => is_open,
            HALTED => is_halted,
            _ => true,
        });
    let is =
        |type_: &str| find_condition(&status.conditions, type_).is_some_and(Condition::is_true);
    status.phase = Some(if is(HEALTH_CHECK_PAUSED) {
        Phase::Unknown
    } else if is_halted {
        Phase::Halted
    } else if !is(PROVISIONED) {
        Phase::Provisioning
    } else if !health.accepts() {
        Phase::NotReady
    } else if !health.has_all() || !is_ready || seen.is_not_granted() {
        Phase::Critical
    } else {
        Phase::Ready
    });
    status.observed_generation = generation;
    status
}

/// The first condition.
pub(super) fn started(bouncer: &PgBouncer, now: OffsetDateTime) -> Condition {
    let message = format!(
        "The KubeDB operator has started the provisioning of PgBouncer: {}",
        reference(bouncer)
    );
    Condition {
        observed_generation: bouncer.metadata.generation,
        ..Condition::new(
            PROVISIONING_STARTED,
            ConditionStatus::True,
            Reason::ProvisioningStarted.as_str(),
            message,
            now,
        )
    }
}

fn replica_ready(at: &ObjectRef, health: Health) -> (Reason, String) {
    if health.has_all() {
        let message = "All desired replicas are ready.".to_owned();
        return (Reason::AllReplicasReady, message);
    }
    let message = format!(
        "All desired replicas are not ready. For PetSet: {at} desired replicas: {}, ready replicas: {}.",
        health.wanted, health.ready
    );
    (Reason::SomeReplicasNotReady, message)
}

fn accepting(at: &ObjectRef, seen: &Seen, health: Health) -> (Reason, String) {
    if health.accepts() {
        let message = format!("pgBouncer {at} is accepting connection");
        return (Reason::AcceptingConnection, message);
    }
    let troubles = troubles(seen);
    let message = format!("pgBouncer {at} is not accepting connection{troubles}");
    (Reason::NotAcceptingConnection, message)
}

fn ready(at: &ObjectRef, seen: &Seen, health: Health) -> (Reason, String) {
    if let Some(Blocked::Foreign(foreign)) = &seen.blocked {
        let message = format!("pgBouncer {at} is not ready: {}", name_foreign(foreign));
        return (Reason::ForeignObject, message);
    }
    if health.is_ready() {
        return (Reason::AllReplicasReady, format!("pgBouncer {at} is ready"));
    }
    let message = format!(
        "pgBouncer {at} is not ready: {} of {} pods accept connections{}",
        health.accepting,
        health.wanted,
        troubles(seen)
    );
    (Reason::ReadinessCheckFailed, message)
}

/// What is wrong with single pods, as the end of a sentence.
fn troubles(seen: &Seen) -> String {
    let mut text = String::new();
    for pod in &seen.pods {
        if let Some(trouble) = &pod.trouble {
            // Writing to a String cannot fail.
            let _ = write!(text, "; {}: {trouble}", pod.name);
        }
    }
    text
}

/// What is still to be done by somebody else, as reason and message.
fn open(seen: &Seen) -> Option<(Reason, String)> {
    if let Some(blocked) = &seen.blocked {
        return Some((blocked.reason(), blocked.message()));
    }
    if !seen.spared.is_empty() {
        return Some((Reason::ForeignObject, name_foreign(&seen.spared)));
    }
    let stale = seen.pods.iter().filter(|pod| pod.is_stale);
    let stale: Vec<&str> = stale.map(|pod| pod.name.as_str()).collect();
    let message = format!(
        "{} run with an earlier configuration until they are deleted or a request restarts them",
        stale.join(", ")
    );
    (!stale.is_empty()).then_some((Reason::RestartPending, message))
}

/// Whether the object has ever been ready.
pub(super) fn is_provisioned(conditions: &[Condition]) -> bool {
    find_condition(conditions, PROVISIONED).is_some_and(Condition::is_true)
}
