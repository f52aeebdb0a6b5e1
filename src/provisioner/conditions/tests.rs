//! What is said of what was seen.

use super::*;
use crate::blueprint::testing;
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
        spared: Vec::new(),
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
            spared: Vec::new(),
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

fn foreign(kind: &str, name: &str) -> Foreign {
    Foreign {
        kind: kind.to_owned(),
        at: ObjectRef::new("shop", name),
        holder: None,
        needed_by: ("PgBouncer".to_owned(), "billing".to_owned()),
    }
}

#[test]
fn an_object_of_another_at_a_name_that_the_pooler_needs_keeps_the_phase_from_ready() {
    let bouncer = testing::bouncer("billing");
    let pods = vec![pod("billing-0", true, None)];
    let displaced = Seen {
        pods: pods.clone(),
        blocked: Some(Blocked::Foreign(vec![foreign("Service", "billing")])),
        spared: Vec::new(),
    };
    let told = status(&bouncer, &displaced, NOW);
    assert_ne!(told.phase, Some(Phase::Ready));
    let ready = find_condition(&told.conditions, READY).unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "ForeignObject")
    );
    assert!(ready.message.contains("Service shop/billing"), "{ready:?}");
    let open = find_condition(&told.conditions, RECONCILED).unwrap();
    assert!(
        open.message.contains("bouncert.dev/adopt: billing"),
        "{open:?}"
    );

    let spared = Seen {
        pods,
        blocked: None,
        spared: vec![foreign("PodDisruptionBudget", "billing")],
    };
    let told = status(&bouncer, &spared, NOW);
    assert_eq!(told.phase, Some(Phase::Ready), "the pooler works without");
    let open = find_condition(&told.conditions, RECONCILED).unwrap();
    assert!(
        open.message.contains("PodDisruptionBudget shop/billing"),
        "{open:?}"
    );
}
