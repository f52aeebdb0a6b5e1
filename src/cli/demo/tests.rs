//! The demo's witnesses, against a real PostgreSQL: they see what is cut and what is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::report::{Expected, Outcome, Report};
use crate::cli::scene::cast::DATABASE;
use crate::cli::scene::client::{Application, Secrets, TABLE};
use crate::cli::scene::load::{Ledger, Load, Tally};
use crate::cli::scene::rows;
use crate::cluster::Cluster;
use crate::local::apiserver::{ApiServer, Options};
use crate::local::postgres::{PostgresOptions, ThrowAwayPostgres};
use crate::local::store::Store;
use crate::names::ObjectRef;

/// Backends of the clients, in transactions or between them.
const BACKENDS: &str = "FROM pg_stat_activity WHERE application_name = 'shop' AND state";

async fn postgres() -> ThrowAwayPostgres {
    let postgres = ThrowAwayPostgres::start(&PostgresOptions::new("lagoon"))
        .await
        .unwrap();
    let table = format!("CREATE TABLE {TABLE} (id bigint PRIMARY KEY)");
    postgres.execute(DATABASE, &table).await.unwrap();
    postgres
}

/// Clients that connect to PostgreSQL itself; without a Secret they use no TLS.
fn application(postgres: &ThrowAwayPostgres) -> Arc<Application> {
    let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
    Arc::new(Application {
        service: postgres.address(),
        server_name: "ledger.harbour.svc".to_owned(),
        user: postgres.superuser().to_owned(),
        password: postgres.password().clone(),
        database: DATABASE.to_owned(),
        secrets: Secrets {
            cluster: Cluster::new(server.client()),
            at: ObjectRef::new("harbour", "ledger-client-cert"),
        },
    })
}

/// Looks at the present page until it is as wanted; `act` is repeated in between.
async fn until(ledger: &Ledger, wanted: impl Fn(&Tally) -> bool, act: impl AsyncFn()) -> Tally {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let tally = ledger.tallies().pop().unwrap();
        if wanted(&tally) {
            return tally;
        }
        assert!(Instant::now() < deadline, "last seen: {tally:?}");
        act().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn outcome() -> Outcome {
    Outcome {
        name: "cut".to_owned(),
        phase: "Successful".to_owned(),
        took: Duration::from_secs(1),
        pods_proved: 3,
        complaints: vec![],
        expected: Expected::Unnoticed,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn undisturbed_clients_commit_and_lose_nothing() {
    let postgres = postgres().await;
    let ledger = Arc::new(Ledger::default());
    ledger.next_step();
    let load = Load::start(&application(&postgres), &ledger);
    let many = |tally: &Tally| tally.committed.len() > 100;
    until(&ledger, many, async || {}).await;
    load.stop().await.unwrap();
    let rows = rows(&postgres).await.unwrap();
    let report = Report::new(vec![outcome()], &ledger.tallies(), &rows);
    assert_eq!(
        report.complaints().collect::<Vec<_>>(),
        Vec::<String>::new()
    );
    assert_eq!(report.steps[0].transactions_committed, rows.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_cut_counts_as_failed_and_an_idle_connection_as_closed() {
    let postgres = postgres().await;
    let ledger = Arc::new(Ledger::default());
    ledger.next_step();
    let load = Load::start(&application(&postgres), &ledger);
    let cut = async |state: &str| {
        let sql = format!("SELECT pg_terminate_backend(pid) {BACKENDS} {state}");
        postgres.execute(DATABASE, &sql).await.unwrap();
    };
    let slow = "= 'active' AND query LIKE '%pg_sleep%'";
    until(&ledger, |tally| !tally.cuts.is_empty(), || cut(slow)).await;
    until(&ledger, |tally| tally.closed > 0, || cut("= 'idle'")).await;
    load.stop().await.unwrap();
    let rows = rows(&postgres).await.unwrap();
    let report = Report::new(vec![outcome()], &ledger.tallies(), &rows);
    assert_eq!(report.steps[0].transactions_lost, 0);
    assert!(report.steps[0].transactions_failed > 0);
    assert!(report.complaints().next().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_commit_that_vanishes_counts_as_lost() {
    let postgres = postgres().await;
    let ledger = Arc::new(Ledger::default());
    ledger.next_step();
    let load = Load::start(&application(&postgres), &ledger);
    let some = |tally: &Tally| tally.committed.len() > 10;
    let tally = until(&ledger, some, async || {}).await;
    load.stop().await.unwrap();
    let vanished = tally.committed[3];
    let sql = format!("DELETE FROM {TABLE} WHERE id = {vanished}");
    postgres.execute(DATABASE, &sql).await.unwrap();
    let rows = rows(&postgres).await.unwrap();
    let report = Report::new(vec![outcome()], &ledger.tallies(), &rows);
    assert_eq!(report.steps[0].transactions_lost, 1);
}
