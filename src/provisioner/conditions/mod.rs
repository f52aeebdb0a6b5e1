//! Conditions and phase: what was seen, in the words that KubeDB's users know
//! (docs/kubedb-compatibility.md, "Conditions of a PgBouncer"); pure.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use time::OffsetDateTime;

use super::health::PodSeen;
use super::validate::{Blocked, FOREIGN_OBJECT, REFERENCE_NOT_GRANTED, told};
use crate::api::common::{ConditionStatus, find_condition, set_condition};
use crate::api::pgbouncer::PgBouncerStatus;
use crate::api::{Condition, PgBouncer, Phase};
use crate::cluster::{Foreign, reference};

pub(super) const PROVISIONING_STARTED: &str = "ProvisioningStarted";
const REPLICA_READY: &str = "ReplicaReady";
const ACCEPTING_CONNECTION: &str = "AcceptingConnection";
const READY: &str = "Ready";
pub(super) const PROVISIONED: &str = "Provisioned";
const HALTED: &str = "Halted";
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

    pub(super) const fn is_ready(self) -> bool {
        self.accepting >= self.wanted
    }
}

/// The whole status after a look.
pub(super) fn status(bouncer: &PgBouncer, seen: &Seen, now: OffsetDateTime) -> PgBouncerStatus {
    let mut status = bouncer.status.clone().unwrap_or_default();
    let health = Health::of(bouncer, seen);
    let generation = bouncer.metadata.generation;
    let mut set = |condition: Condition| {
        set_condition(
            &mut status.conditions,
            Condition {
                observed_generation: generation,
                ..condition
            },
        );
    };
    set(replica_ready(bouncer, health, now));
    set(accepting(bouncer, seen, health, now));
    set(ready(bouncer, seen, health, now));
    if health.is_ready() && !seen.is_displaced() {
        set(Condition::new(
            PROVISIONED,
            ConditionStatus::True,
            "DatabaseSuccessfullyProvisioned",
            format!(
                "The PgBouncer: {} is successfully provisioned.",
                reference(bouncer)
            ),
            now,
        ));
    }
    let open = open(seen);
    let is_open = open.is_some();
    if let Some((reason, message)) = open {
        set(Condition::new(
            RECONCILED,
            ConditionStatus::False,
            reason,
            message,
            now,
        ));
    }
    let is_halted = bouncer.spec.halted == Some(true) && seen.pods.is_empty();
    if is_halted {
        set(Condition::new(
            HALTED,
            ConditionStatus::True,
            "DatabaseHaltedSuccessfully",
            format!("PgBouncer {} is halted", reference(bouncer)),
            now,
        ));
    }
    status
        .conditions
        .retain(|condition| match condition.type_.as_str() {
            RECONCILED => is_open,
            HALTED => is_halted,
            _ => true,
        });
    status.phase = Some(phase(&status.conditions));
    status.observed_generation = generation;
    status
}

/// The first condition.
pub(super) fn started(bouncer: &PgBouncer, now: OffsetDateTime) -> Condition {
    let message = format!(
        "The KubeDB operator has started the provisioning of PgBouncer: {}",
        reference(bouncer)
    );
    let reason = "DatabaseProvisioningStartedSuccessfully";
    Condition {
        observed_generation: bouncer.metadata.generation,
        ..Condition::new(
            PROVISIONING_STARTED,
            ConditionStatus::True,
            reason,
            message,
            now,
        )
    }
}

fn replica_ready(bouncer: &PgBouncer, health: Health, now: OffsetDateTime) -> Condition {
    let (reason, message) = if health.has_all() {
        (
            "AllReplicasReady",
            "All desired replicas are ready.".to_owned(),
        )
    } else {
        let message = format!(
            "All desired replicas are not ready. For PetSet: {} desired replicas: {}, ready \
             replicas: {}.",
            reference(bouncer),
            health.wanted,
            health.ready
        );
        ("SomeReplicasNotReady", message)
    };
    Condition::new(REPLICA_READY, health.has_all().into(), reason, message, now)
}

fn accepting(bouncer: &PgBouncer, seen: &Seen, health: Health, now: OffsetDateTime) -> Condition {
    let at = reference(bouncer);
    let holds = health.accepting > 0;
    let (reason, message) = if holds {
        (
            "AcceptingConnection",
            format!("pgBouncer {at} is accepting connection"),
        )
    } else {
        let message = format!(
            "pgBouncer {at} is not accepting connection{}",
            troubles(seen)
        );
        ("DatabaseNotAcceptingConnectionRequest", message)
    };
    Condition::new(ACCEPTING_CONNECTION, holds.into(), reason, message, now)
}

fn ready(bouncer: &PgBouncer, seen: &Seen, health: Health, now: OffsetDateTime) -> Condition {
    let at = reference(bouncer);
    let is_ready = health.is_ready() && !seen.is_displaced();
    let (reason, message) = if is_ready {
        ("AllReplicasReady", format!("pgBouncer {at} is ready"))
    } else if let Some(Blocked::Foreign(foreign)) = &seen.blocked {
        let message = format!("pgBouncer {at} is not ready: {}", told(foreign));
        (FOREIGN_OBJECT, message)
    } else {
        let message = format!(
            "pgBouncer {at} is not ready: {} of {} pods accept connections{}",
            health.accepting,
            health.wanted,
            troubles(seen)
        );
        ("ReadinessCheckFailed", message)
    };
    Condition::new(READY, is_ready.into(), reason, message, now)
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
fn open(seen: &Seen) -> Option<(&'static str, String)> {
    if let Some(blocked) = &seen.blocked {
        return Some((blocked.reason(), blocked.message()));
    }
    if !seen.spared.is_empty() {
        return Some((FOREIGN_OBJECT, told(&seen.spared)));
    }
    let stale = seen.pods.iter().filter(|pod| pod.is_stale);
    let stale: Vec<&str> = stale.map(|pod| pod.name.as_str()).collect();
    let message = format!(
        "{} run with an earlier configuration until they are deleted or a request restarts them",
        stale.join(", ")
    );
    (!stale.is_empty()).then_some(("RestartPending", message))
}

/// Whether the object has ever been ready.
pub(super) fn is_provisioned(conditions: &[Condition]) -> bool {
    find_condition(conditions, PROVISIONED).is_some_and(Condition::is_true)
}

/// The phase that conditions stand for; the first match wins
/// (docs/kubedb-compatibility.md, "Phases of a PgBouncer").
fn phase(conditions: &[Condition]) -> Phase {
    let is = |type_: &str, status: &str| {
        find_condition(conditions, type_).is_some_and(|condition| condition.status == status)
    };
    let is_provisioned = is_provisioned(conditions);
    // Its pods run with what was copied before, and nothing that changes reaches them.
    let is_not_granted = find_condition(conditions, RECONCILED)
        .is_some_and(|condition| condition.reason == REFERENCE_NOT_GRANTED);
    if is("HealthCheckPaused", "True") {
        Phase::Unknown
    } else if is(HALTED, "True") {
        Phase::Halted
    } else if is_provisioned && is(ACCEPTING_CONNECTION, "False") {
        Phase::NotReady
    } else if is_provisioned && (is(REPLICA_READY, "False") || is(READY, "False") || is_not_granted)
    {
        Phase::Critical
    } else if is_provisioned && is(READY, "True") {
        Phase::Ready
    } else {
        Phase::Provisioning
    }
}
