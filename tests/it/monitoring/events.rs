//! Events that people read in `kubectl describe`: a line per change of state, and no flood.

use bouncert::api::PgBouncer;
use bouncert::clock::Clock;
use bouncert::cluster::{Cluster, EventKind, Reporter};
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;

#[tokio::test]
async fn repeats_are_counted_similar_events_combined_and_a_flood_is_cut_short() {
    let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
    let client = server.client();
    let namespace: Namespace =
        serde_json::from_value(json!({ "metadata": { "name": "treasury" } })).unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    let ledger: PgBouncer = serde_json::from_value(json!({
        "apiVersion": "kubedb.com/v1", "kind": "PgBouncer",
        "metadata": { "name": "ledger", "namespace": "treasury", "uid": "1-2-3" },
        "spec": {
            "version": "1.18.0",
            "database": { "databaseName": "a", "databaseRef": { "name": "b", "namespace": "c" } },
        },
    }))
    .unwrap();
    let cluster = Cluster::new(client.clone());
    let now = Clock::System.now();
    let tell = async |message: String| {
        // Reporters come and go; what was told is remembered beside the client.
        let reporter = Reporter::new(cluster.clone(), "bouncert");
        reporter
            .report(&ledger, EventKind::Warning, "Failed", &message, now)
            .await;
    };
    let events: Api<Event> = Api::namespaced(client, "treasury");
    let told = async || events.list(&ListParams::default()).await.unwrap().items;

    for _ in 0..3 {
        tell("the CA slept".to_owned()).await;
    }
    let all = told().await;
    assert_eq!((all.len(), all[0].count), (1, Some(3)));

    for attempt in 0..40 {
        tell(format!("attempt {attempt} failed")).await;
    }
    let all = told().await;
    assert_eq!(
        all.len(),
        11,
        "ten in their own words, and one for the rest"
    );
    let is_combined = |event: &&Event| {
        let message = event.message.as_deref().unwrap();
        message.starts_with("(combined from similar events): attempt")
    };
    let combined: Vec<&Event> = all.iter().filter(is_combined).collect();
    assert_eq!(combined.len(), 1);
    let total: i32 = all.iter().map(|event| event.count.unwrap()).sum();
    assert_eq!(total, 25, "a burst about one object");
}
