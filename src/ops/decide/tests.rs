//! The battery: every kind of request, broken in every place.

use proptest::prelude::*;
use serde_json::{Value, json};
use time::Duration;

use super::model::{End, Fault, Run};
use super::*;
use crate::ops::journal::{Entry, Event, Failure};
use crate::ops::plan::tests::{issuer, plan, plan_with, present};
use crate::ops::request::{MaxUnavailable, Settings};

/// Every kind of request, on three replicas and on one; and two kinds on five, two at a time.
fn plans() -> Vec<Plan> {
    let off = json!({ "sslMode": "disable" });
    let asked = [
        (off, issuer()),
        (present(), issuer()),
        (present(), json!({ "rotateCertificates": true })),
        (
            present(),
            json!({ "certificates": [{ "alias": "client" }] }),
        ),
        (present(), json!({ "sslMode": "require" })),
        (present(), json!({ "remove": true })),
        (present(), Value::Null),
    ];
    let wide = Settings {
        max_unavailable: MaxUnavailable::Pods(2),
        ..Settings::default()
    };
    asked
        .iter()
        .flat_map(|(before, asked)| [1, 3].map(|replicas| plan(before, asked, replicas)))
        .chain([plan_with(&present(), &issuer(), 5, wide)])
        .chain([plan_with(&present(), &Value::Null, 5, wide)])
        .collect()
}

/// Effects and journal lines of an undisturbed run.
fn size(plan: &Plan) -> (usize, usize) {
    let mut run = Run::new(plan.clone());
    run.finish();
    (run.effects, run.journal.entries().len())
}

fn end_of(mut run: Run) -> (End, Run) {
    let end = run.finish();
    run.check_end(end);
    (end, run)
}

fn with_fault(plan: &Plan, at: usize, fault: Fault) -> Run {
    let mut run = Run::new(plan.clone());
    run.faults.insert(at, fault);
    run
}

/// Whether the run got past the point of no return.
fn returned(run: &Run) -> bool {
    run.journal.is_unwinding(&run.plan)
}

#[test]
fn every_kind_of_request_succeeds_undisturbed() {
    for plan in plans() {
        let (end, run) = end_of(Run::new(plan));
        assert_eq!(end, End::Successful, "{:?}", run.journal);
    }
}

#[test]
fn each_step_twice_ends_the_same() {
    for plan in plans() {
        let (_, once) = end_of(Run::new(plan.clone()));
        let mut run = Run::new(plan);
        run.twice = true;
        let (end, twice) = end_of(run);
        assert_eq!((end, &twice.world), (End::Successful, &once.world));
    }
}

#[test]
fn a_passing_error_at_every_effect_is_outlived() {
    for plan in plans() {
        for at in 0..size(&plan).0 {
            let (end, run) = end_of(with_fault(&plan, at, Fault::Transient));
            assert_eq!(end, End::Successful, "{at}: {:?}", run.journal);
        }
    }
}

#[test]
fn a_lasting_error_at_every_effect_unwinds_and_leaves_nothing() {
    for plan in plans() {
        for at in 0..size(&plan).0 {
            let (end, run) = end_of(with_fault(&plan, at, Fault::Permanent));
            match end {
                End::Failed => assert!(returned(&run)),
                // Cleaning up is not worth a failure; a pause that stays is.
                End::Successful => assert!(!returned(&run)),
                End::Stuck(_) => panic!("{at}: {:?}", run.journal),
            }
        }
    }
}

#[test]
fn each_undo_twice_leaves_nothing_either() {
    for plan in plans() {
        for at in 0..size(&plan).0 {
            let mut run = with_fault(&plan, at, Fault::Permanent);
            run.twice = true;
            end_of(run);
        }
    }
}

#[test]
fn a_crash_at_every_effect_ends_the_same() {
    for plan in plans() {
        let (_, undisturbed) = end_of(Run::new(plan.clone()));
        for at in 0..size(&plan).0 {
            for fault in [Fault::CrashBefore, Fault::CrashAfter] {
                let (end, mut run) = end_of(with_fault(&plan, at, fault));
                assert_eq!(end, End::Successful);
                for (name, pod) in &mut run.world.pods {
                    // A pod may have been replaced once more than needed.
                    pod.generation = undisturbed.world.pods[name].generation;
                }
                assert_eq!(run.world, undisturbed.world, "{at} {fault:?}");
            }
        }
    }
}

#[test]
fn the_journal_can_be_cut_after_every_line() {
    for plan in plans() {
        for at in 0..size(&plan).1 {
            let mut run = Run::new(plan.clone());
            run.cut_at = Some(at);
            let (end, _) = end_of(run);
            assert_eq!(end, End::Successful, "cut at line {at}");
        }
    }
}

#[test]
fn stopping_after_every_line_undoes_or_comes_too_late() {
    for plan in plans() {
        for at in 0..size(&plan).1 {
            let mut run = Run::new(plan.clone());
            run.abort_after_events = Some(at);
            let (end, run) = end_of(run);
            assert_eq!(end == End::Failed, returned(&run) || at == 0);
        }
    }
}

#[test]
fn an_undo_that_fails_for_good_is_named_and_the_pause_is_released() {
    let plan = plan(&present(), &issuer(), 3);
    let prove = plan.steps.iter().position(|s| *s == Step::Prove).unwrap();
    let hand_out = plan.steps.iter().position(|s| *s == Step::HandOut).unwrap();
    // Before Prove there is one effect for each step but Switch (2) and Roll (3).
    let effects_before = prove + 1 + 3 * 2;
    let mut run = with_fault(&plan, effects_before, Fault::Permanent);
    run.faults.insert(effects_before + 1, Fault::Permanent);
    let (end, run) = end_of(run);
    assert_eq!(end, End::Stuck(hand_out), "{:?}", run.journal);
    assert_eq!(
        run.world.issued,
        crate::names::Alias::ALL,
        "material is kept"
    );
}

#[test]
fn retries_are_counted_and_spaced() {
    let plan = plan(&present(), &issuer(), 3);
    let now = time::macros::datetime!(2030-01-01 00:00 UTC);
    let mut journal = Journal::default();
    let line = |journal: &mut Journal, event| {
        journal
            .record(Entry {
                at: now,
                step: 0,
                event,
            })
            .unwrap();
    };
    let trouble = || Failure {
        kind: FailureKind::Transient,
        cause: "a storm".to_owned(),
    };
    line(&mut journal, Event::Started);
    line(&mut journal, Event::Failed(trouble()));
    let look = |journal: &Journal, at| decide(&plan, journal, &Observed::default(), at);
    assert!(matches!(look(&journal, now), Directive::Wait { on: 0, .. }));
    let later = now + Duration::seconds(1);
    assert!(matches!(
        look(&journal, later),
        Directive::Run { step: 0, .. }
    ));
    line(&mut journal, Event::Started);
    line(&mut journal, Event::Failed(trouble()));
    assert!(matches!(
        look(&journal, later),
        Directive::Undo { step: 0, .. }
    ));
}

#[test]
fn a_step_that_was_running_keeps_its_deadline_over_a_crash() {
    let plan = plan(&present(), &issuer(), 3);
    let began = time::macros::datetime!(2030-01-01 00:00 UTC);
    let mut journal = Journal::default();
    let event = Event::Started;
    journal
        .record(Entry {
            at: began,
            step: 0,
            event,
        })
        .unwrap();
    let expected = began + plan.settings.step_timeout.to_time();
    let look = |at| decide(&plan, &journal, &Observed::default(), at);
    let after_a_minute = look(began + Duration::minutes(1));
    assert_eq!(
        after_a_minute,
        Directive::Run {
            step: 0,
            until: expected
        }
    );
    let Directive::Run { until, .. } = look(began - Duration::hours(1)) else {
        panic!("a clock that was set back stops the step")
    };
    assert!(until < began, "nor does it give the step an hour more");
}

#[test]
fn nothing_to_do_is_a_success() {
    let plan = plan(&json!({}), &json!({ "remove": true }), 2);
    assert_eq!(end_of(Run::new(plan)).0, End::Successful);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn whatever_happens_in_whatever_order_the_end_is_clean(
        which in 0_usize..16,
        faults in prop::collection::btree_map(
            0_usize..60,
            prop::sample::select(vec![
                Fault::Transient, Fault::Permanent, Fault::CrashBefore, Fault::CrashAfter,
            ]),
            0..6,
        ),
        cut_at in prop::option::of(0_usize..60),
        abort_after_events in prop::option::of(0_usize..40),
        twice: bool,
    ) {
        let mut run = Run::new(plans().swap_remove(which));
        run.faults = faults;
        run.cut_at = cut_at;
        run.abort_after_events = abort_after_events;
        run.twice = twice;
        let end = run.finish();
        run.check_end(end);
    }
}
