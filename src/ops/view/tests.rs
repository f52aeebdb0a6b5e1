//! The view against KubeDB's conditions and events.

use serde_json::json;
use time::Duration;
use time::macros::datetime;

use super::*;
use crate::ops::journal::{Closed, NoReload, Note};
use crate::ops::plan::Step;
use crate::ops::plan::tests::{issuer, plan, present, reload_plan};
use crate::ops::request::Strategy;

const START: OffsetDateTime = datetime!(2031-05-06 07:00 UTC);

/// The journal of a run in which the first `n` steps succeed.
fn after(plan: &Plan, n: usize) -> Journal {
    let mut journal = Journal::default();
    for step in 0..n {
        let at = START + Duration::seconds(i64::try_from(step).unwrap());
        let mut note = Note::default();
        if let Step::Roll(pod) = &plan.steps[step] {
            let closed = Closed {
                between_transactions: 2,
                in_transactions: 1,
                asked_to_leave: 3,
                drained_ms: 0,
            };
            note.add(pod, closed);
        }
        for event in [Event::Started, Event::Succeeded(note)] {
            journal.record(Entry { at, step, event }).unwrap();
        }
    }
    journal
}

fn types(conditions: &[Condition]) -> Vec<&str> {
    conditions.iter().map(|c| c.type_.as_str()).collect()
}

#[test]
fn a_rotation_shows_the_conditions_of_the_contract_in_their_order() {
    let plan = plan(&present(), &json!({ "rotateCertificates": true }), 2);
    let all = conditions(&plan, &after(&plan, plan.steps.len()), None);
    assert_eq!(
        types(&all),
        [
            "DatabasePauseSucceeded",
            "IssueCertificatesSucceeded",
            "CertificateSynced",
            "UpdatePetSets",
            "RestartPods",
            "UpdateDatabase",
        ]
    );
    assert!(all.iter().all(Condition::is_true));
    assert_eq!(all[4].reason, "RestartPodsSucceeded");
    let closed = "(client connections closed between transactions: 4, in a transaction: 2, asked to \
                  leave while idle: 6; billing-0: 2, 1, 3; billing-1: 2, 1, 3)";
    assert!(all[4].message.ends_with(closed), "{}", all[4].message);
}

#[test]
fn conditions_grow_with_the_journal() {
    let plan = plan(&present(), &issuer(), 2);
    assert!(conditions(&plan, &after(&plan, 0), None).is_empty());
    assert_eq!(
        types(&conditions(&plan, &after(&plan, 3), None)),
        ["DatabasePauseSucceeded"],
        "certificates are synced when the last is issued"
    );
    let removal = self::plan(&present(), &json!({ "remove": true }), 2);
    let all = conditions(&removal, &after(&removal, removal.steps.len()), None);
    assert_eq!(
        types(&all),
        [
            "DatabasePauseSucceeded",
            "UpdatePetSets",
            "RestartPods",
            "UpdateDatabase"
        ]
    );
}

#[test]
fn a_step_that_waits_says_for_what() {
    let plan = plan(&present(), &issuer(), 2);
    let mut journal = after(&plan, 1);
    let event = Event::Started;
    journal
        .record(Entry {
            at: START,
            step: 1,
            event,
        })
        .unwrap();
    let all = conditions(&plan, &journal, Some("Issuer shop/new-ca is not there"));
    let waits = all.last().unwrap();
    assert_eq!(
        (waits.type_.as_str(), waits.is_true()),
        ("CertificateSynced", false)
    );
    assert!(waits.message.contains("shop/new-ca"), "{}", waits.message);
}

#[test]
fn success_and_failure_are_said_in_the_contracts_words() {
    let plan = plan(&present(), &issuer(), 2);
    let journal = after(&plan, plan.steps.len());
    let end = End::Outcome(Outcome::Successful);
    assert_eq!(
        ended(&plan, &journal, end, START).message,
        "Controller has successfully completed  with ReconfigureTLS of PgBouncerOpsRequest: \
         shop/change-7"
    );
    let mut journal = after(&plan, 1);
    let failure = Failure {
        kind: FailureKind::TimedOut,
        cause: "Issuer shop/new-ca is not there".to_owned(),
    };
    for event in [Event::Started, Event::Failed(failure)] {
        journal
            .record(Entry {
                at: START,
                step: 1,
                event,
            })
            .unwrap();
    }
    let failed = ended(&plan, &journal, End::Outcome(Outcome::Failed), START);
    assert_eq!(failed.type_, "Failed");
    for part in [
        "issue server",
        "did not end within",
        "new-ca",
        "is as it was before",
    ] {
        assert!(failed.message.contains(part), "{}", failed.message);
    }
}

#[test]
fn a_success_without_pods_says_that_none_was_proved() {
    let plan = plan(&present(), &issuer(), 0);
    let journal = after(&plan, plan.steps.len());
    let end = ended(&plan, &journal, End::Outcome(Outcome::Successful), START);
    assert!(end.is_true());
    let none = "(no pod runs, so none was proved; those that start will have it)";
    assert!(end.message.ends_with(none), "{}", end.message);
}

#[test]
fn successes_are_never_warnings() {
    let plan = plan(&present(), &issuer(), 2);
    let journal = after(&plan, plan.steps.len());
    let all: Vec<News> = journal
        .entries()
        .iter()
        .filter_map(|entry| news(&plan, &journal, entry))
        .collect();
    assert!(all.iter().all(|news| !news.trouble));
    assert!(
        all.iter()
            .any(|news| news.message.contains("Pausing PgBouncer databse"))
    );
    assert!(all.iter().any(|news| news.reason.as_str() == "RestartPods"));
}

#[test]
fn a_reload_says_why_and_which_pod_was_restarted_after_all() {
    let rotation = json!({ "rotateCertificates": true });
    let plan = reload_plan(&present(), &rotation, 2, Strategy::Auto);
    let mut journal = Journal::default();
    for step in 0..plan.steps.len() {
        let restarted = (plan.steps[step] == Step::Reload("billing-0".to_owned()))
            .then_some(NoReload::Unsafe(1, 24, 1));
        let note = Note {
            restarted,
            ..Note::default()
        };
        for event in [Event::Started, Event::Succeeded(note)] {
            let at = START;
            journal.record(Entry { at, step, event }).unwrap();
        }
    }
    let all = conditions(&plan, &journal, None);
    let reloaded = find(&all, "ReloadPods");
    for part in [
        "because only files change",
        "billing-0 was restarted",
        "1.24.1",
    ] {
        assert!(
            reloaded.message.contains(part),
            "{part}: {}",
            reloaded.message
        );
    }
    assert!(!types(&all).contains(&"RestartPods"));
}

fn find<'a>(all: &'a [Condition], type_: &str) -> &'a Condition {
    all.iter()
        .find(|condition| condition.type_ == type_)
        .unwrap()
}
