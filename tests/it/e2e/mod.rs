//! The end-to-end suite: one entry that takes a kubeconfig, `make e2e KUBECONFIG=…`.
//!
//! [`suite`] speaks to the Kubernetes API, and to pods as their clients do; it knows of nothing else.
//! Where no kubeconfig is given it runs against the program's own platform, through the kubeconfig
//! that this writes.

mod suite;

use bouncert::local::postgres::{PostgresOptions, ThrowAwayPostgres};

use self::suite::Settings;
use crate::cli::verbs::Local;

/// Password of the PostgreSQL that is started here.
const PASSWORD: &str = "marlinspike";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_lives_its_whole_life_on_any_cluster() {
    if let Some(settings) = Settings::from_environment() {
        suite::run(&settings).await;
        return;
    }
    let options = PostgresOptions::new(PASSWORD);
    let postgres = ThrowAwayPostgres::start(&options).await.unwrap();
    let local = tokio::task::spawn_blocking(Local::start).await.unwrap();
    suite::run(&Settings {
        kubeconfig: local.kubeconfig(),
        image: None,
        version: "1.18.0".to_owned(),
        postgres: postgres.address(),
        password: PASSWORD.to_owned(),
    })
    .await;
}

#[test]
fn the_suite_knows_nothing_of_the_local_platform() {
    let suite = include_str!("suite.rs");
    let crates = suite.match_indices("bouncert::local").count();
    let helpers = suite.match_indices("crate::stage").count();
    assert_eq!((crates, helpers), (0, 0));
}
