//! Objects: create, read, change, list, watch, delete, through `kube::Client`.

use std::sync::Arc;

use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use serde_json::json;

use super::{SOON, config, eventually, namespaced, parsed, refused, server};

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
    let secret = parsed(json!({
        "metadata": {"generateName": "login-"}, "stringData": {"password": "x y"},
    }));
    let made = api.create(&PostParams::default(), &secret).await.unwrap();
    assert!(made.name_any().starts_with("login-"));
    assert_eq!(made.data.unwrap()["password"].0, b"x y");
    assert_eq!(made.type_.as_deref(), Some("Opaque"));
}

#[tokio::test]
async fn a_watch_from_before_the_history_is_told_to_list_again() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let store = Store::open(directory.path()).unwrap();
        ApiServer::new(store, Options::default()).unwrap()
    };
    let server = open();
    let api: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    let made = api
        .create(&PostParams::default(), &config("ledger", "a"))
        .await
        .unwrap();
    let from = made.resource_version().unwrap();
    api.create(&PostParams::default(), &config("journal", "a"))
        .await
        .unwrap();
    let store = Arc::downgrade(server.store());
    drop((api, server));
    eventually("the store to close", async || {
        store.upgrade().is_none().then_some(())
    })
    .await;

    // The history is kept in memory only, so after a restart it begins with the newest revision.
    let api: Api<ConfigMap> = Api::namespaced(open().client(), "default");
    let params = WatchParams::default().timeout(5);
    let gone = refused(
        api.watch(&params, &from)
            .await
            .err()
            .expect("the watch is refused"),
    );
    assert_eq!((gone.code, gone.reason.as_str()), (410, "Expired"));
    let newest = api
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version;
    assert!(api.watch(&params, &newest.unwrap()).await.is_ok());
}

#[tokio::test]
async fn a_streaming_list_ends_with_its_bookmark() {
    let client = server().client();
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    api.create(&PostParams::default(), &config("ledger", "a"))
        .await
        .unwrap();
    let params = WatchParams {
        send_initial_events: true,
        ..WatchParams::default()
    };
    let params = WatchParams {
        bookmarks: true,
        ..params
    };
    let mut events = api.watch(&params, "0").await.unwrap().boxed();
    let mut next = async || {
        tokio::time::timeout(SOON, events.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    };
    assert!(matches!(next().await, WatchEvent::Added(object) if object.name_any() == "ledger"));
    let WatchEvent::Bookmark(bookmark) = next().await else {
        panic!("no bookmark")
    };
    assert_eq!(
        bookmark.metadata.annotations["k8s.io/initial-events-end"],
        "true"
    );
}

#[tokio::test]
async fn pages_of_a_list_join_to_the_whole() {
    let client = server().client();
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    for name in ["a", "b", "c", "d", "e"] {
        api.create(&PostParams::default(), &config(name, "x"))
            .await
            .unwrap();
    }
    let (mut names, mut params) = (Vec::new(), ListParams::default().limit(2));
    loop {
        let page = api.list(&params).await.unwrap();
        assert!(page.items.len() <= 2);
        names.extend(page.items.iter().map(ResourceExt::name_any));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = ListParams::default().limit(2).continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn an_immutable_secret_keeps_its_data() {
    let client = server().client();
    let api: Api<Secret> = Api::namespaced(client, "default");
    let secret = parsed(json!({
        "metadata": {"name": "r7"}, "immutable": true, "stringData": {"key": "one"},
    }));
    api.create(&PostParams::default(), &secret).await.unwrap();
    let patch = Patch::Merge(json!({"stringData": {"key": "two"}}));
    let status = refused(
        api.patch("r7", &PatchParams::default(), &patch)
            .await
            .unwrap_err(),
    );
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    assert_eq!(status.details.unwrap().causes[0].field, "data");
    let label = Patch::Merge(json!({"metadata": {"labels": {"old": "yes"}}}));
    api.patch("r7", &PatchParams::default(), &label)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let client = server().client();
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let made = api.create(&dry, &config("ledger", "a")).await.unwrap();
    assert!(made.uid().is_some());
    assert!(api.get_opt("ledger").await.unwrap().is_none());
    api.create(&PostParams::default(), &config("ledger", "a"))
        .await
        .unwrap();
    let patch = Patch::Merge(json!({"data": {"text": "b"}}));
    let dry = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    assert_eq!(
        api.patch("ledger", &dry, &patch)
            .await
            .unwrap()
            .data
            .unwrap()["text"],
        "b"
    );
    assert_eq!(api.get("ledger").await.unwrap().data.unwrap()["text"], "a");
}

#[tokio::test]
async fn appliers_are_told_what_belongs_to_others() {
    let client = server().client();
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let applied = |text: &str| {
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ledger"},
            "data": {"text": text},
        }))
    };
    let first = api
        .patch("ledger", &PatchParams::apply("first"), &applied("a"))
        .await
        .unwrap();
    let again = api
        .patch("ledger", &PatchParams::apply("first"), &applied("a"))
        .await
        .unwrap();
    assert_eq!(
        first.resource_version(),
        again.resource_version(),
        "nothing changed"
    );
    let second = api
        .patch("ledger", &PatchParams::apply("second"), &applied("b"))
        .await;
    let status = refused(second.unwrap_err());
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(status.details.unwrap().causes[0].field, ".data.text");
    let forced = PatchParams::apply("second").force();
    let taken = api.patch("ledger", &forced, &applied("b")).await.unwrap();
    assert_eq!(taken.data.unwrap()["text"], "b");
}

#[tokio::test]
async fn metadata_alone_is_given_to_those_who_ask_for_it() {
    let client = server().client();
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    api.create(&PostParams::default(), &config("ledger", "a"))
        .await
        .unwrap();
    let one = api.get_metadata("ledger").await.unwrap();
    assert_eq!(one.metadata.labels.unwrap()["book"], "a");
    let all = api.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(all.items.len(), 1);
}
