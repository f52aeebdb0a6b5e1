use std::sync::Arc;

use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::brake::Recent;
use super::decide::{Openings, Verdict, Waiting, verdict};
use super::facts::{Facts, Freeze, Held, Remedy, Standing, Window, Wish};
use super::fleet::{ASSUMED_MAX, Fleet};
use super::limits::Limits;
use super::window::Windows;
use crate::names::{Alias, ObjectRef};
use crate::pki::renewal::RenewPolicy;

const NOW: OffsetDateTime = datetime!(2031-06-04 12:00 UTC);

fn at(name: &str) -> ObjectRef {
    ObjectRef::new("shop", name)
}

/// A server certificate of 90 days that is so many days old.
fn aged(days: i64) -> Facts {
    let issued = NOW - Duration::days(days);
    let life = (issued, issued + Duration::days(90));
    let held = Held::new(
        "shop/billing",
        Alias::Server,
        7,
        life,
        RenewPolicy::TwoThirds,
    );
    Facts {
        certificates: vec![held],
        ..Facts::default()
    }
}

fn decide(facts: &Facts) -> Verdict {
    verdict(facts, NOW, &mut Openings::default())
}

fn waits(facts: &Facts) -> Waiting {
    match decide(facts) {
        Verdict::At(_, waiting) | Verdict::Hold(waiting) => waiting,
        Verdict::Begin(task) => panic!("begins: {task:?}"),
    }
}

fn begins(facts: &Facts) -> bool {
    matches!(decide(facts), Verdict::Begin(_))
}

fn within(text: &str) -> Window {
    Window::Within(Arc::new(Windows::parse(text).unwrap()))
}

#[test]
fn nothing_begins_before_it_is_due_and_the_timer_says_when_that_is() {
    let young = aged(10);
    let due = young.certificates[0].renews_at;
    assert_eq!(decide(&young), Verdict::At(due, Waiting::NotDue));
    assert!(begins(&aged(60)));
    assert_eq!(waits(&Facts::default()), Waiting::Nothing);
}

#[test]
fn nothing_begins_while_a_request_waits_or_runs_however_late_it_is() {
    let mut facts = aged(89);
    facts.live = Some("by-hand".to_owned());
    assert_eq!(waits(&facts), Waiting::Request("by-hand".to_owned()));
}

#[test]
fn a_closed_window_is_waited_for_until_a_quarter_of_the_life_is_left() {
    let mut facts = aged(61);
    facts.window = within("Sat 02:00-06:00");
    let opens = datetime!(2031-06-07 02:00 UTC);
    assert_eq!(decide(&facts), Verdict::At(opens, Waiting::Closed));
    // One that opens too late is not waited for to the end.
    facts.window = within("cron 0 2 1 1 * for 4h");
    let urgent = facts.certificates[0].urgent_at();
    assert_eq!(urgent, NOW + Duration::hours(156));
    assert_eq!(decide(&facts), Verdict::At(urgent, Waiting::Closed));
    let mut late = aged(72);
    late.window = within("Sat 02:00-06:00");
    let Verdict::Begin(task) = decide(&late) else {
        panic!("waits");
    };
    assert!(task.urgent);
}

#[test]
fn an_unreadable_window_lets_only_begin_what_is_urgent_and_an_unreadable_freeze_nothing() {
    for days in [61, 67, 89] {
        let mut facts = aged(days);
        facts.freeze = Freeze::Unreadable;
        assert_eq!(decide(&facts), Verdict::Hold(Waiting::FreezeUnreadable));
        facts.freeze = Freeze::None;
        facts.window = Window::Unreadable;
        if days < 70 {
            assert_eq!(waits(&facts), Waiting::WindowUnreadable);
        } else {
            assert!(begins(&facts));
        }
    }
}

#[test]
fn a_freeze_is_read_as_it_is_meant() {
    for frozen in ["true", "True", "TRUE", " true ", "yes", "On"] {
        assert_eq!(Freeze::parse(frozen), Freeze::Frozen, "{frozen}");
    }
    for free in ["false", "False", "no", "off"] {
        assert_eq!(Freeze::parse(free), Freeze::None, "{free}");
    }
    let until = Freeze::Until(datetime!(2031-05-07 00:00 UTC));
    assert_eq!(Freeze::parse("2031-05-06"), until);
    assert_eq!(Freeze::parse("2031-05-07T02:00:00+02:00"), until);
    for odd in [
        "",
        "ture",
        "2031-02-30",
        "2031-5-6",
        "2031-05-06 07:00",
        "06.05.2031",
        "1",
        "9999-99-99",
    ] {
        assert_eq!(Freeze::parse(odd), Freeze::Unreadable, "{odd}");
    }
    assert!(matches!(Freeze::parse("9999-12-31"), Freeze::Until(_)));
    assert!(matches!(
        Freeze::parse("9999-12-31T23:59:59-12:00"),
        Freeze::Until(_)
    ));
}

// === the brake ===

/// A server certificate of an hour that is so many minutes old.
fn hourly(minutes: i64, policy: RenewPolicy) -> Facts {
    let issued = NOW - Duration::minutes(minutes);
    let life = (issued, issued + Duration::hours(1));
    let held = Held::new("shop/billing", Alias::Server, 7, life, policy);
    Facts {
        certificates: vec![held],
        ..Facts::default()
    }
}

#[test]
fn a_margin_that_nearly_fills_the_life_is_no_loop() {
    for minutes in [54, 57, 58, 59, 60, 61] {
        let policy = RenewPolicy::Before(Duration::minutes(minutes));
        for age in 0..6 {
            assert_eq!(
                waits(&hourly(age, policy)),
                Waiting::NotDue,
                "{minutes} {age}"
            );
        }
        assert!(begins(&hourly(41, policy)), "{minutes}");
    }
}

#[test]
fn what_is_due_again_waits_for_a_tenth_of_the_life_even_if_it_is_urgent() {
    let mut facts = aged(80);
    let last = NOW - Duration::days(2);
    facts.history.succeeded = Recent::of([last]);
    let released = last + Duration::days(9);
    assert_eq!(decide(&facts), Verdict::At(released, Waiting::Braked));
    assert!(Waiting::Braked.is_holding());
    facts.history.succeeded = Recent::of([NOW - Duration::days(10)]);
    assert!(begins(&facts));
    // A success of the future is a clock's fault.
    facts.history.succeeded = Recent::of([NOW + Duration::days(10)]);
    assert!(begins(&facts));
}

#[test]
fn drift_is_put_right_twice_and_then_once_a_day() {
    for remedy in [Remedy::Rotate, Remedy::Restart] {
        let mut facts = aged(5);
        facts.wish = Some(Wish {
            remedy,
            since: NOW - Duration::minutes(1),
            urgent_at: NOW - Duration::minutes(1),
            why: "the issuer has another CA".to_owned(),
        });
        let ago = |minutes| NOW - Duration::minutes(minutes);
        assert!(begins(&facts));
        facts.history.succeeded = Recent::of([ago(2)]);
        assert!(begins(&facts));
        facts.history.succeeded = Recent::of([ago(2), ago(4)]);
        let released = ago(4) + Duration::DAY;
        assert_eq!(decide(&facts), Verdict::At(released, Waiting::Braked));
        facts.history.succeeded = Recent::of([ago(2), ago(24 * 60)]);
        assert!(begins(&facts));
    }
}

#[test]
fn a_freeze_is_never_broken_and_ends_when_it_says() {
    let mut facts = aged(89);
    facts.freeze = Freeze::Frozen;
    assert_eq!(decide(&facts), Verdict::Hold(Waiting::Frozen));
    let end = NOW + Duration::hours(5);
    facts.freeze = Freeze::Until(end);
    assert_eq!(decide(&facts), Verdict::At(end, Waiting::Frozen));
    facts.freeze = Freeze::Until(NOW);
    assert!(begins(&facts));
}

#[test]
fn a_pgbouncer_that_is_not_ready_is_left_alone_until_it_is_urgent_and_a_paused_one_altogether() {
    let mut facts = aged(61);
    facts.standing = Standing::NotReady;
    assert_eq!(waits(&facts), Waiting::NotReady);
    let mut late = aged(80);
    late.standing = Standing::NotReady;
    assert!(begins(&late));
    late.standing = Standing::Paused;
    assert_eq!(waits(&late), Waiting::Paused);
    late.standing = Standing::RenewedByOthers;
    assert_eq!(waits(&late), Waiting::RenewedByOthers);
}

#[test]
fn failures_pause_even_what_is_urgent() {
    let mut facts = aged(80);
    facts.history.failures = 3;
    facts.history.failed_at = Some(NOW);
    let Verdict::At(again, Waiting::BackOff { failures: 3 }) = decide(&facts) else {
        panic!("{:?}", decide(&facts));
    };
    assert!(again > NOW + Duration::minutes(3) && again <= NOW + Duration::minutes(4));
    facts.history.failed_at = Some(NOW - Duration::minutes(4));
    assert!(begins(&facts));
}

#[test]
fn a_wish_is_granted_before_old_age_where_it_is_a_restart_and_else_with_it() {
    let wish = |remedy| Wish {
        remedy,
        since: NOW - Duration::minutes(1),
        urgent_at: NOW + Duration::days(1),
        why: "billing-0 serves something else".to_owned(),
    };
    let mut facts = aged(61);
    facts.wish = Some(wish(Remedy::Restart));
    let Verdict::Begin(task) = decide(&facts) else {
        panic!("waits");
    };
    assert_eq!((task.remedy, task.due.len()), (Remedy::Restart, 0));
    facts.wish = Some(wish(Remedy::Rotate));
    let Verdict::Begin(task) = decide(&facts) else {
        panic!("waits");
    };
    assert_eq!(task.due, [Alias::Server]);
    assert!(
        task.why.contains("server due for renewal since"),
        "{}",
        task.why
    );
}

// === the fleet ===

#[test]
fn a_request_that_was_asked_for_counts_before_it_is_seen_and_is_asked_for_once() {
    let mut fleet = Fleet::new(Limits::default());
    fleet.upsert(&at("billing"), aged(61), NOW);
    let pass = fleet.pass(NOW);
    assert_eq!(pass.starts[0].request, "billing-rotate-r8");
    assert_eq!(fleet.busy(), 1);
    // Somebody tells of a change that does not show the request yet.
    fleet.upsert(&at("billing"), aged(61), NOW);
    let again = fleet.pass(NOW + Duration::SECOND);
    assert_eq!((again.starts.len(), fleet.busy()), (0, 1));
    assert_eq!(again.wake, Some(NOW + ASSUMED_MAX));
    // It never came: the same request is asked for again.
    let later = fleet.pass(NOW + ASSUMED_MAX);
    assert_eq!(later.starts[0].request, "billing-rotate-r8");
}

#[test]
fn names_tell_attempts_apart_and_stay_within_a_label() {
    let mut fleet = Fleet::new(Limits::default());
    let mut facts = aged(61);
    facts.history.failures = 1;
    facts.history.finished = vec!["billing-rotate-r8".to_owned()];
    fleet.upsert(&at("billing"), facts.clone(), NOW);
    // The revision number of a former life: that request is over.
    facts.history.failures = 0;
    fleet.upsert(&at("ledger"), facts.clone(), NOW);
    facts.history.finished = vec!["reborn-rotate-r8".to_owned()];
    fleet.upsert(&at("reborn"), facts, NOW);
    let (one, two) = (
        format!("{}-one", "x".repeat(60)),
        format!("{}-two", "x".repeat(60)),
    );
    fleet.upsert(&at(&one), aged(61), NOW);
    let mut names: Vec<String> = fleet
        .pass(NOW)
        .starts
        .into_iter()
        .map(|start| start.request)
        .collect();
    fleet.upsert(&at(&two), aged(61), NOW);
    names.sort();
    assert_eq!(
        names[..3],
        [
            "billing-rotate-r8-2",
            "ledger-rotate-r8",
            "reborn-rotate-r8-2"
        ]
    );
    let other = fleet.pass(NOW).starts.remove(0).request;
    assert!(names[3].len() <= 63 && other.len() <= 63);
    assert_ne!(names[3], other);
}

#[test]
fn who_expires_first_goes_first_and_no_limit_is_exceeded() {
    let limits = Limits {
        concurrency: 3,
        concurrency_per_namespace: 2,
        starts_per_minute: 4,
    };
    let mut fleet = Fleet::new(limits);
    for days in 61..75 {
        fleet.upsert(&at(&format!("pooler-{days}")), aged(days), NOW);
    }
    let elsewhere = ObjectRef::new("bank", "quiet");
    fleet.upsert(&elsewhere, aged(60), NOW);
    let pass = fleet.pass(NOW);
    let names: Vec<&str> = pass
        .starts
        .iter()
        .map(|start| start.at.name.as_str())
        .collect();
    assert_eq!(names, ["pooler-74", "pooler-73", "quiet"]);
    assert_eq!(fleet.busy_in("shop"), 2);
    // All three are done within the second; of the minute one start is left.
    for start in &pass.starts {
        fleet.remove(&start.at);
    }
    for name in ["a", "b", "c", "d"] {
        let mut facts = aged(61);
        facts.history.started_at = Some(NOW);
        facts.history.newest = Some("done".to_owned());
        fleet.upsert(&at(name), facts, NOW);
    }
    let full = fleet.pass(NOW + Duration::SECOND);
    assert!(full.starts.is_empty());
    assert_eq!(full.wake, Some(NOW + Duration::minutes(1)));
    assert_eq!(fleet.pass(NOW + Duration::minutes(1)).starts.len(), 2);
}
