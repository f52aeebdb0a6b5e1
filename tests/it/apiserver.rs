//! The embedded API server through `kube::Client`: what a controller relies on.

use std::time::Duration;

use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::{Client, ResourceExt};
use serde_json::json;

/// Longest wait for an event that is certain to come.
const SOON: Duration = Duration::from_secs(10);

fn server() -> ApiServer {
    ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap()
}

async fn namespaced(client: &Client, name: &str) {
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
}

fn config(name: &str, text: &str) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"book": text}}, "data": {"text": text},
    }))
    .unwrap()
}

fn refused(error: kube::Error) -> kube::core::Status {
    match error {
        kube::Error::Api(status) => *status,
        other => panic!("not an answer of the server: {other:?}"),
    }
}

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let client = server().client();
    namespaced(&client, "books").await;
    let api: Api<ConfigMap> = Api::namespaced(client, "books");
    let made = api
        .create(&PostParams::default(), &config("ledger", "a"))
        .await
        .unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    let again = api
        .create(&PostParams::default(), &config("ledger", "a"))
        .await;
    assert_eq!(refused(again.unwrap_err()).reason, "AlreadyExists");

    let patch = Patch::Merge(json!({"data": {"text": "b"}}));
    let changed = api
        .patch("ledger", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(changed.data.as_ref().unwrap()["text"], "b");
    let same = api
        .patch("ledger", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(
        same.resource_version(),
        changed.resource_version(),
        "nothing changed"
    );

    let mut stale = made;
    stale.data = changed.data.clone();
    let conflict = api.replace("ledger", &PostParams::default(), &stale).await;
    let conflict = refused(conflict.unwrap_err());
    assert_eq!((conflict.code, conflict.reason.as_str()), (409, "Conflict"));

    api.delete("ledger", &DeleteParams::default())
        .await
        .unwrap();
    assert!(api.get_opt("ledger").await.unwrap().is_none());
    let status = refused(api.get("ledger").await.unwrap_err());
    assert_eq!(status.message, "configmaps \"ledger\" not found");
}

#[tokio::test]
async fn an_object_in_a_namespace_that_is_not_there_is_refused() {
    let api: Api<ConfigMap> = Api::namespaced(server().client(), "attic");
    let status = api
        .create(&PostParams::default(), &config("ledger", "a"))
        .await;
    let status = refused(status.unwrap_err());
    assert_eq!(
        (status.code, status.message.as_str()),
        (404, "namespaces \"attic\" not found")
    );
}

#[tokio::test]
async fn a_watch_tells_what_enters_and_leaves_its_selector() {
    let client = server().client();
    namespaced(&client, "books").await;
    let api: Api<ConfigMap> = Api::namespaced(client, "books");
    api.create(&PostParams::default(), &config("first", "a"))
        .await
        .unwrap();
    let listed = api
        .list(&ListParams::default().labels("book=a"))
        .await
        .unwrap();
    assert_eq!(listed.items.len(), 1);
    let from = listed.metadata.resource_version.unwrap();
    let params = WatchParams::default().labels("book=a").timeout(20);
    let mut events = api.watch(&params, &from).await.unwrap().boxed();

    api.create(&PostParams::default(), &config("second", "b"))
        .await
        .unwrap();
    let relabel = |to: &str| Patch::Merge(json!({"metadata": {"labels": {"book": to}}}));
    api.patch("second", &PatchParams::default(), &relabel("a"))
        .await
        .unwrap();
    api.patch("first", &PatchParams::default(), &relabel("b"))
        .await
        .unwrap();
    api.delete("second", &DeleteParams::default())
        .await
        .unwrap();

    let mut seen = Vec::new();
    while seen.len() < 3 {
        let event = tokio::time::timeout(SOON, events.next()).await;
        let event = event
            .unwrap_or_else(|_| panic!("only {seen:?}"))
            .unwrap()
            .unwrap();
        seen.push(match event {
            WatchEvent::Added(object) => format!("added {}", object.name_any()),
            WatchEvent::Modified(object) => format!("modified {}", object.name_any()),
            WatchEvent::Deleted(object) => format!("deleted {}", object.name_any()),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(seen, ["added second", "deleted first", "deleted second"]);
}

#[tokio::test]
async fn plain_text_of_a_secret_becomes_data() {
    let client = server().client();
    let api: Api<Secret> = Api::namespaced(client, "default");
    let secret = serde_json::from_value(json!({
        "metadata": {"generateName": "login-"}, "stringData": {"password": "x y"},
    }))
    .unwrap();
    let made = api.create(&PostParams::default(), &secret).await.unwrap();
    assert!(made.name_any().starts_with("login-"));
    assert_eq!(made.data.unwrap()["password"].0, b"x y");
    assert_eq!(made.type_.as_deref(), Some("Opaque"));
}
