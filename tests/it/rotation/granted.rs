//! A life that the issuer grants, shorter than what was asked for, and a `renewBefore` as long as it.

use std::time::Duration as Wait;

use bouncert::api::{PgBouncer, PgBouncerOpsRequest};
use bouncert::clock::Clock;
use bouncert::daemon::{self, DaemonOptions};
use bouncert::issuer::VaultNetworks;
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use bouncert::telemetry::Monitor;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use tokio_util::sync::CancellationToken;

use crate::keys::cluster::{NS, create, furnish, objects, secret};
use crate::support::eventually;
use crate::vault::{Holds, Vault};

/// The role grants an hour, dated back; asked are two hours, to be renewed an hour before the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_grants_half_of_what_is_asked_causes_no_rotation_at_birth() {
    let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
    let client = server.client();
    furnish(&client).await;
    let vault = Vault::start(Duration::hours(1), Holds::NoKey, "").await;
    secret(&client, "mint", &[("token", "x")]).await;
    secret(
        &client,
        "books",
        &[("username", "postgres"), ("password", "x")],
    )
    .await;
    secret(
        &client,
        "ini",
        &[("pgbouncer.ini", "[pgbouncer]\nverbose = 1\n")],
    )
    .await;
    for mut object in objects("till", ("mint", "books", "ini"), &vault.spec("mint")) {
        if object["kind"] == "PgBouncer" {
            let aliases = ["server", "client", "metrics-exporter"];
            object["spec"]["tls"]["certificates"] = aliases
                .map(|alias| json!({"alias": alias, "duration": "2h", "renewBefore": "1h"}))
                .into();
        }
        create(&client, object).await;
    }
    let monitor = Monitor::new(Clock::System);
    let options = DaemonOptions {
        monitor: monitor.clone(),
        vault_networks: VaultNetworks::RoutableAndLoopback,
        ..DaemonOptions::default()
    };
    let stop = CancellationToken::new();
    let mut running = tokio::task::JoinSet::new();
    running.spawn(daemon::run(client.clone(), options, stop.clone()));

    // Rotation has looked at what was granted.
    let poolers: Api<PgBouncer> = Api::namespaced(client.clone(), NS);
    eventually(Wait::from_secs(60), async || {
        let status = serde_json::to_value(poolers.get("till").await.unwrap().status).unwrap();
        let told = status.to_string();
        let is_told =
            told.contains("RenewalAdjusted") && told.contains("after two thirds of that life");
        is_told.then_some(()).ok_or(told)
    })
    .await;
    let state = eventually(Wait::from_secs(60), async || {
        let state: Value =
            serde_json::from_str(&monitor.state().unwrap_or_default()).unwrap_or_default();
        let all: Vec<Value> = state["certificates"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let known = all.iter().filter(|one| one["renews_at"].is_string());
        if known.count() == 3 {
            Ok(all)
        } else {
            Err(state)
        }
    })
    .await;
    let now = Clock::System.now();
    for one in &state {
        let at = one["renews_at"].as_str().unwrap();
        let at = OffsetDateTime::parse(at, &Rfc3339).unwrap();
        // Two thirds of the hour that was granted, less what is drawn.
        assert!(at > now + Duration::minutes(25), "{one}");
        assert!(at < now + Duration::minutes(50), "{one}");
    }
    let requests: Api<PgBouncerOpsRequest> = Api::namespaced(client.clone(), NS);
    let begun = requests.list(&ListParams::default()).await.unwrap().items;
    assert!(begun.is_empty(), "{begun:?}");
    assert_eq!(vault.signed(), 3, "one for each alias, once");
    stop.cancel();
    while running.join_next().await.is_some() {}
}
