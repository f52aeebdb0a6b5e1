//! An API server that misbehaves: what each fault looks like to a client, and that the operator's
//! own client lives with it.

use std::time::{Duration, Instant};

use bouncert::cluster::{Cluster, Eviction, patient};
use bouncert::local::apiserver::faults::{Fault, Faults};
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use bouncert::names::ObjectRef;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

const NAMESPACE: &str = "quarry";

/// A server with a namespace, the faults before it, and a client that meets them.
struct Quarry {
    server: ApiServer,
    faults: Faults,
    cluster: Cluster,
}

async fn quarry(seed: u64) -> Quarry {
    let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
    let namespace: Namespace =
        serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } })).unwrap();
    Api::all(server.client())
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    let faults = Faults::new(seed);
    let cluster = Cluster::new(patient(server.client_through(&faults)));
    Quarry {
        server,
        faults,
        cluster,
    }
}

fn map(name: &str) -> ConfigMap {
    let value =
        json!({ "metadata": { "name": name, "namespace": NAMESPACE }, "data": { "a": "1" } });
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str) -> Pod {
    let value: Value = json!({
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": { "containers": [{ "name": "stone", "image": "stone" }] },
    });
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn every_refusal_arrives_and_asks_to_be_tried_again() {
    let Quarry {
        server,
        faults,
        cluster,
    } = quarry(1).await;
    let stored = Cluster::new(server.client())
        .create(&map("slab"))
        .await
        .unwrap();
    for (fault, code) in [
        (Fault::Conflict, Some(409)),
        (Fault::Internal, Some(500)),
        (Fault::Unavailable, Some(503)),
        (Fault::Reset, None),
    ] {
        faults.strike(1, &[fault]);
        let error = cluster.replace(&stored).await.unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
        assert_eq!(error.retry(), bouncert::retry::Retry::Backoff, "{error:?}");
        faults.calm();
        cluster.replace(&stored).await.unwrap();
        assert!(faults.struck()[fault.name()] > 0);
    }
    faults.strike(1, &[Fault::Gone]);
    let gone = cluster.list::<ConfigMap>(NAMESPACE, "").await.unwrap_err();
    assert_eq!(gone.code(), Some(410));
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_there_and_a_repeat_adopts_it() {
    let Quarry {
        server,
        faults,
        cluster,
    } = quarry(2).await;
    faults.strike(1, &[Fault::LoseAnswer]);
    let error = cluster.create(&map("slab")).await.unwrap_err();
    assert_eq!(error.code(), None, "{error:?}");
    let at = ObjectRef::new(NAMESPACE, "slab");
    let there: Option<ConfigMap> = Cluster::new(server.client()).get(&at).await.unwrap();
    assert!(there.is_some());
    faults.calm();
    cluster.create_or_get(&map("slab")).await.unwrap();
}

#[tokio::test]
async fn who_is_asked_to_wait_waits_and_an_eviction_does_not() {
    let Quarry {
        server,
        faults,
        cluster,
    } = quarry(3).await;
    let calm = Cluster::new(server.client());
    let stone = calm.create(&pod("stone")).await.unwrap();
    faults.strike(1, &[Fault::TooManyRequests]);
    let at = ObjectRef::new(NAMESPACE, "stone");
    let evicted = cluster.evict(&stone).await.unwrap();
    assert!(matches!(evicted, Eviction::Refused { .. }), "{evicted:?}");
    assert_eq!(faults.struck().get("429"), Some(&1), "asked once");

    let begun = Instant::now();
    let (read, ()) = tokio::join!(cluster.get::<Pod>(&at), async {
        while faults.struck().get("429").is_none_or(|struck| *struck < 2) {
            tokio::task::yield_now().await;
        }
        faults.calm();
    });
    assert!(read.unwrap().is_some(), "the second try succeeds");
    assert!(
        begun.elapsed() >= Duration::from_secs(1),
        "as long as asked"
    );
}

#[tokio::test]
async fn a_watch_that_is_closed_ends_and_a_slow_answer_comes() {
    let Quarry {
        server,
        faults,
        cluster,
    } = quarry(4).await;
    Cluster::new(server.client())
        .create(&map("slab"))
        .await
        .unwrap();
    faults.strike(1, &[Fault::CloseWatch]);
    let api: Api<ConfigMap> = Api::namespaced(cluster.client().clone(), NAMESPACE);
    let watch = api.watch(&WatchParams::default(), "0").await.unwrap();
    let events: Vec<_> = tokio::time::timeout(Duration::from_secs(10), watch.collect::<Vec<_>>())
        .await
        .expect("the watch ends");
    let added = events
        .iter()
        .any(|event| matches!(event, Ok(WatchEvent::Added(_))));
    assert!(added, "{events:?}");
    faults.strike(1, &[Fault::Slow]);
    let at = ObjectRef::new(NAMESPACE, "slab");
    assert!(cluster.get::<ConfigMap>(&at).await.unwrap().is_some());
}

#[tokio::test]
async fn the_schedule_follows_from_the_seed() {
    let struck = async |seed| {
        let Quarry {
            faults, cluster, ..
        } = quarry(seed).await;
        faults.strike(3, &[Fault::Internal, Fault::Reset]);
        let at = ObjectRef::new(NAMESPACE, "slab");
        let mut codes = Vec::new();
        for _ in 0..40 {
            let code = match cluster.get::<ConfigMap>(&at).await {
                Ok(_) => Some(200),
                Err(error) => error.code(),
            };
            codes.push(code);
        }
        codes
    };
    let once = struck(11).await;
    assert_eq!(once, struck(11).await);
    assert_ne!(once, struck(12).await);
}
