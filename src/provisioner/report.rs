//! Conditions and phase (CONTRACT 4.1, 4.2): what was seen, in the words that KubeDB's users know.

use std::fmt::Write as _;

use serde_json::json;
use time::OffsetDateTime;

use super::health::PodSeen;
use super::validate::{Blocked, compare_and_swap};
use super::{ProvisionError, Provisioner};
use crate::api::common::{ConditionStatus, find_condition, set_condition};
use crate::api::pgbouncer::PgBouncerStatus;
use crate::api::{Condition, PgBouncer, Phase};
use crate::cluster::{ClusterError, EventKind, reference};

const PROVISIONING_STARTED: &str = "ProvisioningStarted";
const REPLICA_READY: &str = "ReplicaReady";
const ACCEPTING_CONNECTION: &str = "AcceptingConnection";
const READY: &str = "Ready";
const PROVISIONED: &str = "Provisioned";
const HALTED: &str = "Halted";
/// Said only while something is left to be done by somebody else.
const RECONCILED: &str = "Reconciled";

/// What a look at an object brought.
#[derive(Debug)]
pub(super) struct Seen {
    /// The pods that it asks for.
    pub(super) pods: Vec<PodSeen>,
    /// What keeps its objects from being made.
    pub(super) blocked: Option<Blocked>,
}

impl Provisioner {
    /// Says that work has begun, once.
    pub(super) async fn report_started(
        &self,
        bouncer: PgBouncer,
    ) -> Result<PgBouncer, ProvisionError> {
        let mut status = bouncer.status.clone().unwrap_or_default();
        if find_condition(&status.conditions, PROVISIONING_STARTED).is_some() {
            return Ok(bouncer);
        }
        set_condition(&mut status.conditions, started(&bouncer, self.clock.now()));
        Ok(self.write_status(&bouncer, status).await?)
    }

    /// Writes what was seen, if it is news. Says whether the object is ready.
    pub(super) async fn report(
        &self,
        bouncer: &PgBouncer,
        seen: &Seen,
    ) -> Result<bool, ProvisionError> {
        let is_healthy = Health::of(bouncer, seen).is_ready();
        let failed_looks = self.memory.looked(&reference(bouncer), is_healthy);
        let was = bouncer.status.clone().unwrap_or_default();
        let is_patient = failed_looks < bouncer.spec.health_checker.failure_threshold;
        if !is_healthy && is_patient && was.phase == Some(Phase::Ready) && seen.blocked.is_none() {
            return Ok(false);
        }
        let status = status(bouncer, seen, self.clock.now());
        if status != was {
            self.write_status(bouncer, status.clone()).await?;
            self.tell(bouncer, &was, &status).await;
        }
        Ok(status.phase == Some(Phase::Ready) && seen.blocked.is_none())
    }

    async fn tell(&self, bouncer: &PgBouncer, was: &PgBouncerStatus, is: &PgBouncerStatus) {
        tracing::info!(pgbouncer = %reference(bouncer), phase = ?is.phase, "status written");
        let news = |type_: &str| {
            let now = find_condition(&is.conditions, type_)?;
            let before = find_condition(&was.conditions, type_);
            (before.map(|before| &before.message) != Some(&now.message)).then_some(now)
        };
        if let Some(blocked) = news(RECONCILED) {
            self.event(
                bouncer,
                EventKind::Warning,
                &blocked.reason,
                &blocked.message,
            )
            .await;
        }
        if let Some(provisioned) = news(PROVISIONED) {
            self.event(
                bouncer,
                EventKind::Normal,
                "Successful",
                &provisioned.message,
            )
            .await;
        }
    }

    /// Status is written only on the version that was read: conditions of other writers (`Paused`)
    /// stand in the same list.
    async fn write_status(
        &self,
        bouncer: &PgBouncer,
        status: PgBouncerStatus,
    ) -> Result<PgBouncer, ClusterError> {
        let patch = compare_and_swap(bouncer, json!({ "status": status }));
        self.cluster.patch_status(&reference(bouncer), &patch).await
    }
}

/// The pods, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Health {
    wanted: i32,
    ready: i32,
    accepting: i32,
}

impl Health {
    fn of(bouncer: &PgBouncer, seen: &Seen) -> Self {
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

    const fn is_ready(self) -> bool {
        self.accepting >= self.wanted
    }
}

/// The whole status after a look.
fn status(bouncer: &PgBouncer, seen: &Seen, now: OffsetDateTime) -> PgBouncerStatus {
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
    if health.is_ready() {
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

fn started(bouncer: &PgBouncer, now: OffsetDateTime) -> Condition {
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
    let (reason, message) = if health.is_ready() {
        ("AllReplicasReady", format!("pgBouncer {at} is ready"))
    } else {
        let message = format!(
            "pgBouncer {at} is not ready: {} of {} pods accept connections{}",
            health.accepting,
            health.wanted,
            troubles(seen)
        );
        ("ReadinessCheckFailed", message)
    };
    Condition::new(READY, health.is_ready().into(), reason, message, now)
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

/// The phase that conditions stand for; the first match wins (CONTRACT 4.1).
fn phase(conditions: &[Condition]) -> Phase {
    let is = |type_: &str, status: &str| {
        find_condition(conditions, type_).is_some_and(|condition| condition.status == status)
    };
    let is_provisioned = is_provisioned(conditions);
    if is("HealthCheckPaused", "True") {
        Phase::Unknown
    } else if is(HALTED, "True") {
        Phase::Halted
    } else if is_provisioned && is(ACCEPTING_CONNECTION, "False") {
        Phase::NotReady
    } else if is_provisioned && (is(REPLICA_READY, "False") || is(READY, "False")) {
        Phase::Critical
    } else if is_provisioned && is(READY, "True") {
        Phase::Ready
    } else {
        Phase::Provisioning
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::testing;
    use crate::names::ObjectRef;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2031-05-06 07:08 UTC);

    fn pod(name: &str, is_ready: bool, trouble: Option<&str>) -> PodSeen {
        PodSeen {
            name: name.into(),
            is_ready,
            is_stale: false,
            trouble: trouble.map(Into::into),
        }
    }

    fn seen(pods: Vec<PodSeen>) -> Seen {
        Seen {
            pods,
            blocked: None,
        }
    }

    fn of_two(pods: Vec<PodSeen>) -> PgBouncerStatus {
        let mut bouncer = testing::bouncer("billing");
        bouncer.spec.replicas = Some(2);
        bouncer.status = Some(status(
            &bouncer,
            &seen(vec![
                pod("billing-0", true, None),
                pod("billing-1", true, None),
            ]),
            NOW,
        ));
        status(&bouncer, &seen(pods), NOW)
    }

    #[test]
    fn an_object_whose_pods_all_answer_is_ready_with_the_words_of_kubedb() {
        let mut bouncer = testing::bouncer("billing");
        bouncer.status = Some(PgBouncerStatus {
            conditions: vec![started(&bouncer, NOW)],
            ..PgBouncerStatus::default()
        });
        let status = status(&bouncer, &seen(vec![pod("billing-0", true, None)]), NOW);
        assert_eq!(status.phase, Some(Phase::Ready));
        let shown: Vec<_> = status
            .conditions
            .iter()
            .map(|it| (it.type_.as_str(), it.reason.as_str(), it.message.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (
                    "ProvisioningStarted",
                    "DatabaseProvisioningStartedSuccessfully",
                    "The KubeDB operator has started the provisioning of PgBouncer: shop/billing",
                ),
                (
                    "ReplicaReady",
                    "AllReplicasReady",
                    "All desired replicas are ready."
                ),
                (
                    "AcceptingConnection",
                    "AcceptingConnection",
                    "pgBouncer shop/billing is accepting connection",
                ),
                (
                    "Ready",
                    "AllReplicasReady",
                    "pgBouncer shop/billing is ready"
                ),
                (
                    "Provisioned",
                    "DatabaseSuccessfullyProvisioned",
                    "The PgBouncer: shop/billing is successfully provisioned.",
                ),
            ]
        );
    }

    #[test]
    fn an_object_that_was_never_ready_is_provisioning_and_says_what_it_waits_for() {
        let bouncer = testing::bouncer("billing");
        let blocked = Some(Blocked::ForeignAuthSecret(ObjectRef::new(
            "shop",
            "other-auth",
        )));
        let status = status(
            &bouncer,
            &Seen {
                pods: vec![],
                blocked,
            },
            NOW,
        );
        assert_eq!(status.phase, Some(Phase::Provisioning));
        let told = find_condition(&status.conditions, RECONCILED).unwrap();
        assert_eq!(
            (told.status.as_str(), told.reason.as_str()),
            ("False", "AuthSecretUnusable")
        );
        assert!(told.message.contains("shop/other-auth"));
    }

    #[test]
    fn losing_one_pod_is_critical_and_losing_all_is_not_ready() {
        let one = of_two(vec![
            pod("billing-0", true, None),
            pod("billing-1", false, None),
        ]);
        assert_eq!(one.phase, Some(Phase::Critical));
        let mute = of_two(vec![
            pod("billing-0", true, None),
            pod("billing-1", true, Some("mute")),
        ]);
        assert_eq!(mute.phase, Some(Phase::Critical));
        let message = &find_condition(&mute.conditions, READY).unwrap().message;
        assert!(
            message.ends_with("1 of 2 pods accept connections; billing-1: mute"),
            "{message}"
        );
        assert_eq!(of_two(vec![]).phase, Some(Phase::NotReady));
    }

    #[test]
    fn another_writers_condition_is_kept_and_ours_goes_when_it_is_over() {
        let mut bouncer = testing::bouncer("billing");
        let paused = Condition::new("Paused", ConditionStatus::True, "Paused", "", NOW);
        let blocked = Condition::new(RECONCILED, ConditionStatus::False, "X", "y", NOW);
        bouncer.status = Some(PgBouncerStatus {
            conditions: vec![paused, blocked],
            ..PgBouncerStatus::default()
        });
        let status = status(&bouncer, &seen(vec![]), NOW);
        assert!(find_condition(&status.conditions, "Paused").is_some());
        assert!(find_condition(&status.conditions, RECONCILED).is_none());
    }

    #[test]
    fn a_halted_object_without_pods_is_halted() {
        let mut bouncer = testing::bouncer("billing");
        bouncer.spec.halted = Some(true);
        assert_eq!(
            status(&bouncer, &seen(vec![]), NOW).phase,
            Some(Phase::Halted)
        );
    }
}
