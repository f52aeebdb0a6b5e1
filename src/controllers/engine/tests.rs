//! A planted panic, against the embedded API server.

use std::collections::HashMap;
use std::sync::Mutex as Shared;

use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::CustomResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;

use super::*;
use crate::api::PgBouncer;
use crate::api::common::INTERNAL_ERROR;
use crate::api::common::find_condition;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::controllers::backlog::Looks;
use crate::controllers::watched::{copied, slim};
use crate::local::apiserver::{ApiServer, Options};
use crate::local::store::Store;
use crate::panics::InternalErrors;

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Trouble for Never {
    fn retry(&self) -> Retry {
        Retry::Never
    }
}

fn bouncer(name: &str) -> PgBouncer {
    serde_json::from_value(json!({
        "apiVersion": "kubedb.com/v1", "kind": "PgBouncer",
        "metadata": { "name": name, "namespace": "shop", "generation": 1 },
        "spec": {
            "version": "1.18.0",
            "database": { "databaseName": "l", "databaseRef": { "name": "p", "namespace": "s" } },
        },
    }))
    .unwrap()
}

/// An API server with these PgBouncers.
async fn cluster(names: &[&str]) -> Cluster {
    let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
    let (client, params) = (server.client(), PostParams::default());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&params, &namespace).await.unwrap();
    let definitions = Api::all(client.clone());
    definitions
        .create(&params, &PgBouncer::crd())
        .await
        .unwrap();
    let cluster = Cluster::new(client);
    for name in names {
        cluster.create(&bouncer(name)).await.unwrap();
    }
    cluster
}

#[tokio::test]
async fn a_look_that_panics_is_told_on_its_object_and_its_neighbours_are_looked_at() {
    let names = ["alpha", "broken", "gamma", "omega"];
    let cluster = cluster(&names).await;
    let broken = ObjectRef::new("shop", "broken");
    let backlog = Backlog::new(Looks {
        listed: 1,
        others: 3,
    });
    let listed = Arc::clone(&backlog);
    let api: Api<PgBouncer> = Api::all(cluster.client().clone());
    let (events, store) = copied(
        api,
        cluster.every(),
        slim,
        |_| (),
        move |all| listed.fill(all),
    );
    let controller = Controller::for_stream(events, store);
    let errors = InternalErrors::default();
    let bystander = Bystander::new(cluster.clone(), Clock::System, errors.clone());
    let seen: Arc<Shared<HashMap<String, usize>>> = Arc::default();
    let (counted, cancel) = (Arc::clone(&seen), CancellationToken::new());
    let is_mended = CancellationToken::new();
    let mended = is_mended.clone();
    let running = run(
        "pgbouncers",
        (controller, backlog),
        (ReconcileMetrics::default(), bystander),
        cancel.clone(),
        move |at| {
            *counted.lock().unwrap().entry(at.name.clone()).or_default() += 1;
            let mended = mended.clone();
            async move {
                tokio::task::yield_now().await;
                assert!(at.name != "broken" || mended.is_cancelled(), "planted");
                Ok::<_, Never>(Action::await_change())
            }
        },
    );
    let told = |object: &PgBouncer| find_condition(object.conditions(), INTERNAL_ERROR).cloned();
    let checked = async {
        // The neighbours are looked at, and the object says what happened.
        let condition = loop {
            let object = cluster.get::<PgBouncer>(&broken).await.unwrap().unwrap();
            if let Some(condition) = told(&object).filter(|_| seen.lock().unwrap().len() == 4) {
                break condition;
            }
        };
        assert!(condition.is_true() && condition.message.contains("panic at"));
        assert!(
            !condition.message.contains("planted"),
            "{}",
            condition.message
        );
        assert!(errors.caught("pgbouncers") >= 1);
        let events: Api<Event> = Api::namespaced(cluster.client().clone(), "shop");
        loop {
            let all = events.list(&ListParams::default()).await.unwrap();
            if all
                .iter()
                .any(|event| event.reason.as_deref() == Some(INTERNAL_ERROR))
            {
                break;
            }
        }
        // It rests, whatever happens to it, until its specification is changed.
        let looks = seen.lock().unwrap()["broken"];
        is_mended.cancel();
        let patch = json!({"spec": {"replicas": 2}});
        cluster.patch::<PgBouncer>(&broken, &patch).await.unwrap();
        loop {
            let object = cluster.get::<PgBouncer>(&broken).await.unwrap().unwrap();
            if told(&object).is_none() {
                break;
            }
        }
        assert!(seen.lock().unwrap()["broken"] > looks);
        cancel.cancel();
    };
    let both = async { tokio::join!(running, checked) };
    tokio::time::timeout(Duration::from_secs(60), both)
        .await
        .unwrap();
}

#[test]
fn what_panics_rests_longer_each_time_and_not_when_it_has_been_changed() {
    let attempts = Attempts::default();
    let (at, now) = (ObjectRef::new("shop", "broken"), Instant::now());
    let mut pauses = Vec::new();
    for _ in 0..9 {
        pauses.push(attempts.panicked(&at, Some(1), now));
    }
    assert_eq!(pauses[..3], [PANIC_FIRST, PANIC_FIRST * 2, PANIC_FIRST * 4]);
    assert_eq!(pauses[8], PANIC_MAX);
    assert!(attempts.rests(&at, Some(1), now).is_some());
    assert_eq!(attempts.rests(&at, Some(2), now), None);
    let now = now.plus(PANIC_MAX);
    assert_eq!(attempts.rests(&at, Some(1), now), None);
    assert!(attempts.succeeded(&at));
    assert!(attempts.0.lock().unwrap().is_empty());
}
