//! Drains on every version that is here, in every pool mode, and what they report compared with what
//! the clients saw. The traps of the versions (PAUSE before SIGTERM from 1.23 on, PAUSE in session
//! mode, PAUSE for longer than clients wait) are walked around here.

use std::time::Duration;

use bouncert::local::postgres::{ServerAuth, ThrowAwayPostgres};
use bouncert::pgbouncer::console::{CLIENT_IDLE_TIMEOUT, Console, PoolMode};
use bouncert::pgbouncer::drain::{self, DrainReport, EndedBy, Limits};

use super::crew::{Crew, Fate, Habit, Ledger};
use super::{BOUND, Clerk, USERS, keeper, line, postgres};
use crate::support::{Pooler, eventually};
use crate::versions::{self, Program};

/// Much less than the kubelet's grace period: SIGTERM has to be enough, and never SIGKILL.
const SIGTERM_ENDS_IT: Duration = Duration::from_secs(3);

async fn pooler(program: &Program, server: &ThrowAwayPostgres, mode: PoolMode) -> Pooler {
    let settings = format!(
        "auth_type=md5\nauth_file={{dir}}/users\nadmin_users=keeper\npool_mode={mode}\n\
         default_pool_size=30\nquery_wait_timeout=4"
    );
    let files = [("users", USERS)];
    Pooler::start_as(&program.path, &line(server), &settings, &files).await
}

/// Drains a pooler with those clients and then ends it as the kubelet does.
async fn drained(
    program: &Program,
    server: &ThrowAwayPostgres,
    mode: PoolMode,
    limits: Limits,
    habits: &[Habit],
) -> (DrainReport, Ledger) {
    let mut pooler = pooler(program, server, mode).await;
    let crew = Crew::start(server, pooler.address, mode, habits).await;
    let report = drain::drain(&keeper(&pooler, None), &limits).await.unwrap();
    let log = pooler.log();
    let pauses = log.contains("PAUSE command issued");
    let may_pause = !report.version.can_wait_for_servers() && mode != PoolMode::Session;
    assert_eq!(pauses, may_pause, "{program} {mode}: {log}");
    if pooler.ended().is_none() {
        pooler.terminate();
    }
    eventually(SIGTERM_ENDS_IT, async || {
        pooler.ended().ok_or("the process runs")
    })
    .await;
    let ledger = crew.ledger(server).await;
    assert_eq!(ledger.lost, 0, "{program} {mode}: {report:?} {ledger:?}");
    (report, ledger)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_pooler_is_ended_at_once_and_by_its_own_means() {
    let server = postgres(ServerAuth::Scram).await;
    let limits = Limits {
        leave: BOUND,
        quiesce: BOUND,
    };
    for program in versions::all() {
        for mode in [PoolMode::Session, PoolMode::Transaction] {
            let mut pooler = pooler(&program, &server, mode).await;
            Clerk::arrive(&pooler).await.run("SELECT 1").await.unwrap();
            let report = drain::drain(&keeper(&pooler, None), &limits).await.unwrap();
            assert!(report.waited < limits.leave, "{report:?}");
            match report.ended_by {
                EndedBy::ShutDown => {
                    eventually(BOUND, async || pooler.ended().ok_or("it runs")).await;
                }
                EndedBy::Paused(quiesced) => quiesced.deleted(),
                EndedBy::StillOpen => panic!("{program} {mode}"),
            }
        }
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_cuts_no_transaction_and_counts_what_the_clients_see() {
    let server = postgres(ServerAuth::Scram).await;
    let limits = Limits {
        leave: Duration::from_millis(1500),
        quiesce: Duration::from_secs(5),
    };
    let mut habits = vec![Habit::Idle; 3];
    habits.extend([Habit::Busy; 5]);
    habits.push(Habit::Leaves(Duration::from_millis(50)));
    habits.push(Habit::Holds(Duration::from_millis(2500)));
    for program in versions::all() {
        for mode in [PoolMode::Transaction, PoolMode::Statement] {
            let (report, seen) = drained(&program, &server, mode, limits, &habits).await;
            let asks = program.version.can_time_out_idle_clients();
            assert_eq!(seen.inside(), 0);
            assert_eq!(report.cut_in_transaction, 0);
            assert_eq!(report.clients_left_by_themselves, seen.count(Fate::Left));
            // Whoever is idle goes when asked to, and nobody else does.
            let asked = if asks { 3 } else { 0 };
            assert_eq!(report.clients_asked_to_leave, asked);
            assert_eq!(report.closed_between_transactions + asked, seen.between());
            assert!(report.waited >= limits.leave, "the long transaction ended");
            match report.ended_by {
                EndedBy::ShutDown => assert!(report.version.can_wait_for_servers()),
                EndedBy::Paused(quiesced) => quiesced.deleted(),
                EndedBy::StillOpen => panic!("{program} {mode}: a transaction is open"),
            }
        }
    }
    server.stop();
}

/// What a session does with its connection cannot be seen from the outside.
#[tokio::test(flavor = "multi_thread")]
async fn in_session_mode_a_drain_gives_time_and_counts_no_less_than_is_cut() {
    let server = postgres(ServerAuth::Scram).await;
    let limits = Limits {
        leave: Duration::from_millis(800),
        quiesce: Duration::from_millis(400),
    };
    let mut habits = vec![Habit::Idle; 3];
    habits.extend([Habit::Busy; 3]);
    habits.push(Habit::Leaves(Duration::from_millis(500)));
    habits.push(Habit::Holds(Duration::from_millis(500)));
    for program in versions::all() {
        let (report, seen) = drained(&program, &server, PoolMode::Session, limits, &habits).await;
        assert!(matches!(report.ended_by, EndedBy::StillOpen), "{report:?}");
        assert_eq!(report.clients_left_by_themselves, 1);
        let closed = report.closed_between_transactions + report.cut_in_transaction;
        assert_eq!(closed, seen.between() + seen.inside());
        assert!(seen.inside() <= report.cut_in_transaction);
        // Those two had their time.
        assert_eq!(seen.count(Fate::Left), 1);
        assert!(seen.inside() <= 3, "{seen:?}");
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_outlasts_the_bound_is_cut_and_counted_and_the_others_are_not() {
    let server = postgres(ServerAuth::Scram).await;
    let limits = Limits {
        leave: Duration::from_millis(300),
        quiesce: Duration::from_millis(700),
    };
    let forever = Habit::Holds(Duration::from_secs(60));
    for program in versions::all() {
        let habits = [forever, Habit::Idle, Habit::Idle];
        let mode = PoolMode::Transaction;
        let (report, seen) = drained(&program, &server, mode, limits, &habits).await;
        assert!(matches!(report.ended_by, EndedBy::StillOpen), "{report:?}");
        assert_eq!((report.cut_in_transaction, seen.inside()), (1, 1));
        let gone = report.closed_between_transactions + report.clients_asked_to_leave;
        assert_eq!((gone, seen.between()), (2, 2));
    }
    server.stop();
}

/// 4 s is what clients wait here; half of that is the longest pause.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_never_lasts_until_clients_are_turned_away() {
    let server = postgres(ServerAuth::Scram).await;
    let limits = Limits {
        leave: Duration::ZERO,
        quiesce: Duration::from_secs(60),
    };
    let pausing = |program: &Program| !program.version.can_wait_for_servers();
    for program in versions::all().into_iter().filter(pausing) {
        let pooler = pooler(&program, &server, PoolMode::Transaction).await;
        let (holder, patient) = (Clerk::arrive(&pooler).await, Clerk::arrive(&pooler).await);
        holder.run("BEGIN; SELECT 1").await.unwrap();
        let keeper = keeper(&pooler, None);
        let (report, waited) = tokio::join!(drain::drain(&keeper, &limits), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            patient.run("INSERT INTO sales VALUES (5)").await
        });
        let report = report.unwrap();
        waited.expect("not turned away");
        assert!(matches!(report.ended_by, EndedBy::StillOpen), "{report:?}");
        holder.run("COMMIT").await.expect("and nothing was cut");
    }
    server.stop();
}

/// The daemon may die in any moment of a drain; what it leaves behind is taken back by the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_was_broken_off_is_taken_back() {
    let server = postgres(ServerAuth::Scram).await;
    for program in versions::all() {
        let pooler = pooler(&program, &server, PoolMode::Transaction).await;
        let (holder, idle) = (Clerk::arrive(&pooler).await, Clerk::arrive(&pooler).await);
        holder.run("BEGIN; SELECT 1").await.unwrap();
        let keeper = keeper(&pooler, None);
        let console = Console::connect(&keeper).await.unwrap();
        let asks = program.version.can_time_out_idle_clients();
        let limits = Limits {
            leave: if asks { BOUND } else { Duration::ZERO },
            quiesce: BOUND,
        };
        let asked = async || console.config().await.unwrap().remove(CLIENT_IDLE_TIMEOUT);
        let reached = eventually(BOUND, async || {
            if asks && asked().await.as_deref() != Some("0") {
                return Ok(());
            }
            // On older versions: paused, so that nothing new begins.
            let bound = Duration::from_millis(200);
            let begins = tokio::time::timeout(bound, idle.run("SELECT 1")).await;
            if !asks && begins.is_err() {
                return Ok(());
            }
            Err("nothing has happened yet")
        });
        tokio::select! {
            report = drain::drain(&keeper, &limits) => panic!("{program}: {report:?}"),
            () = reached => {}
        }
        drain::release(&keeper).await.expect("released");
        if asks {
            assert_eq!(asked().await.as_deref(), Some("0"), "{program}");
        }
        let late = Clerk::arrive(&pooler).await;
        late.run("SELECT 1").await.expect("not paused");
        holder.run("COMMIT").await.expect("nothing was cut");
    }
    server.stop();
}
