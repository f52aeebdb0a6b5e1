//! The battery: every kind of request, broken in every place.

use serde_json::json;
use time::Duration;

use super::testing::model::{End, Fault, Mistake, Run};
use super::testing::random::{plans, run_of, seeds};
use super::*;
use crate::ops::journal::{Entry, Event, Failure, Note};
use crate::ops::plan::tests::{issuer, plan, present};

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
fn a_clock_that_was_set_back_does_not_lengthen_a_pause() {
    let plan = plan(&present(), &issuer(), 3);
    let failed_at = time::macros::datetime!(2031-05-06 07:08 UTC);
    let mut journal = Journal::default();
    let trouble = Failure {
        kind: FailureKind::Transient,
        cause: "a storm".to_owned(),
    };
    for event in [Event::Started, Event::Failed(trouble)] {
        let (at, step) = (failed_at, 0);
        journal.record(Entry { at, step, event }).unwrap();
    }
    let earlier = failed_at - Duration::hours(1);
    let directive = decide(&plan, &journal, &Observed::default(), earlier);
    assert!(
        matches!(directive, Directive::Run { step: 0, .. }),
        "{directive:?}"
    );
}

#[test]
fn who_was_away_for_an_hour_still_tries_before_giving_up() {
    let plan = plan(&present(), &issuer(), 3);
    let began = time::macros::datetime!(2031-05-06 07:08 UTC);
    let later = began + Duration::hours(1);
    let mut undoing = Journal::default();
    for event in [Event::Started, Event::UndoStarted] {
        let (at, step) = (began, 0);
        undoing.record(Entry { at, step, event }).unwrap();
    }
    let Directive::Undo { step: 0, until } = decide(&plan, &undoing, &Observed::default(), later)
    else {
        panic!("the undo goes on")
    };
    assert!(until > later, "with time to do it");

    let mut resuming = Journal::default();
    let last = plan.steps.len() - 1;
    for step in 0..last {
        for event in [Event::Started, Event::Succeeded(Note::default())] {
            let at = began;
            resuming.record(Entry { at, step, event }).unwrap();
        }
    }
    let trouble = Failure {
        kind: FailureKind::Transient,
        cause: "a storm".to_owned(),
    };
    for event in [Event::Started, Event::Failed(trouble)] {
        let (at, step) = (began, last);
        resuming.record(Entry { at, step, event }).unwrap();
    }
    let Directive::Run { step, until } = decide(&plan, &resuming, &Observed::default(), later)
    else {
        panic!("the pause is still to be released")
    };
    assert!(step == last && until > later);
}

#[test]
fn nothing_to_do_is_a_success() {
    let plan = plan(&json!({}), &json!({ "remove": true }), 2);
    assert_eq!(end_of(Run::new(plan)).0, End::Successful);
}

#[test]
fn model_whatever_happens_in_whatever_order_the_end_is_clean() {
    let plans = plans();
    let (mut ends, mut struck) = ([0_u64; 3], 0_u64);
    for seed in seeds() {
        let mut run = run_of(&plans, seed);
        let end = run.finish();
        let violations = run.violations(end);
        assert!(
            violations.is_empty(),
            "BOUNCERT_SEED={seed}: {}\n{:?}\n{:?}",
            violations.join("\n"),
            run.plan.steps,
            run.journal
        );
        ends[match end {
            End::Successful => 0,
            End::Failed => 1,
            End::Stuck(_) => 2,
        }] += 1;
        struck += u64::from(run.daemon > 0);
    }
    if seeds().end - seeds().start > 1_000 {
        assert!(
            ends.iter().all(|n| *n > 0) && struck > 0,
            "too calm: {ends:?}"
        );
    }
}

#[test]
fn model_every_planted_mistake_is_seen_and_named() {
    let plans = plans();
    let mistakes = [
        ("I1", Mistake::IssuesUnread),
        ("I2", Mistake::KeepsPause),
        ("I3", Mistake::DrainsTwo),
        ("I4", Mistake::Cuts),
        ("I5", Mistake::RetiresEarly),
        ("I6", Mistake::DropsAnchor),
        ("I7", Mistake::TellsKey),
        ("I8", Mistake::IssuesTwice),
        ("I9", Mistake::ProvesBlindly),
        ("I10", Mistake::HearsDeposed),
    ];
    for (invariant, mistake) in mistakes {
        let is_named = |words: &String| words.starts_with(&format!("{invariant}:"));
        let seen = (0..400).any(|seed| {
            let mut run = run_of(&plans, seed);
            run.mistake = Some(mistake);
            let end = run.finish();
            run.violations(end).iter().any(is_named)
        });
        assert!(seen, "{mistake:?} is not seen to violate {invariant}");
    }
}

#[test]
fn a_daemon_that_stops_after_any_line_leaves_the_rest_to_the_next() {
    for plan in plans() {
        let (_, undisturbed) = end_of(Run::new(plan.clone()));
        for at in 0..size(&plan).1 {
            let mut run = Run::new(plan.clone());
            run.stop_after_events = Some(at);
            let (end, mut run) = end_of(run);
            assert_eq!(end, End::Successful, "stopped after line {at}");
            for (name, pod) in &mut run.world.pods {
                pod.generation = undisturbed.world.pods[name].generation;
            }
            assert_eq!(run.world, undisturbed.world, "stopped after line {at}");
        }
    }
}

#[test]
fn silence_ends_a_step_at_its_bound_or_at_the_word_to_stop() {
    let plan = plan(&present(), &issuer(), 3);
    let bound = plan.settings.step_timeout.to_time();
    for (abort, kind, most) in [
        (None, FailureKind::TimedOut, bound),
        (Some(3), FailureKind::Aborted, Duration::SECOND),
    ] {
        let mut run = with_fault(&plan, 1, Fault::Silence);
        run.abort_after_events = abort;
        let (end, run) = end_of(run);
        assert_eq!(end, End::Failed);
        let began = run.journal.of(1).started_at.unwrap();
        let failed =
            run.journal.entries().iter().find(
                |entry| matches!(&entry.event, Event::Failed(failure) if failure.kind == kind),
            );
        let took = failed.unwrap().at - began;
        assert!(took <= most && took + Duration::SECOND > most, "{took}");
    }
    let (_, run) = end_of(with_fault(&plan, 1, Fault::Silence));
    let (_, failure) = run.journal.last_failure().unwrap();
    assert!(
        failure.cause.contains("not done within 300 s"),
        "{failure:?}"
    );
}
