//! The users that a PostgreSQL's namespace labels as its own.

use bouncert::api::AppBinding;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::objects::Scene;
use super::{BACKEND_NAMESPACE, bouncer, conditions, create, secret_value};

fn user(name: &str, password: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": name, "namespace": BACKEND_NAMESPACE, "labels": {
            "app.kubernetes.io/instance": "books",
            "app.kubernetes.io/name": "postgreses.kubedb.com" } },
        "stringData": { "username": name, "password": password },
    })
}

/// A pooler that takes the users of `books`.
async fn syncing(scene: &Scene) {
    let database = json!({ "databaseName": "ledger", "syncUsers": true,
        "databaseRef": { "name": "books", "namespace": BACKEND_NAMESPACE } });
    create(
        &scene.client,
        bouncer("billing", json!({ "database": database })),
    )
    .await;
}

async fn userlist(scene: &Scene) -> String {
    secret_value(&scene.client, "billing-backend", "userlist").await
}

fn secrets(scene: &Scene) -> Api<Secret> {
    Api::namespaced(scene.client.clone(), BACKEND_NAMESPACE)
}

#[tokio::test]
async fn users_are_synced_and_leave_again() {
    let mut scene = Scene::new().await;
    create(&scene.client, user("eve", "apple")).await;
    syncing(&scene).await;
    scene.reconcile("billing").await;
    assert!(userlist(&scene).await.contains("\"eve\" \"apple\""));
    secrets(&scene)
        .delete("eve", &DeleteParams::default())
        .await
        .unwrap();
    scene.restart();
    scene.reconcile("billing").await;
    assert!(!userlist(&scene).await.contains("eve"));
}

/// Whoever writes Secrets beside the PostgreSQL fills no memory, and locks no user out.
#[tokio::test]
async fn more_users_than_a_userlist_holds_are_refused_and_the_userlist_stays() {
    let mut scene = Scene::new().await;
    for index in 0..999 {
        create(&scene.client, user(&format!("user-{index:04}"), "apple")).await;
    }
    create(&scene.client, user("eve", "apple")).await;
    syncing(&scene).await;
    scene.reconcile("billing").await;
    let full = userlist(&scene).await;
    assert!(
        full.contains("\"eve\"") && full.contains("\"user-0998\""),
        "a thousand fit"
    );

    create(&scene.client, user("one-more", "apple")).await;
    scene.restart();
    scene.reconcile("billing").await;
    let told = conditions(&scene.bouncer("billing").await);
    for words in [
        "AppBinding vault/books: its namespace has more than 1000 Secrets",
        "app.kubernetes.io/instance: books",
        "at most 1000 Secrets and 1000000 bytes",
        "spec.database.syncUsers",
    ] {
        assert!(
            told.iter().any(|it| it.contains(words)),
            "{words}: {told:?}"
        );
    }
    assert_eq!(userlist(&scene).await, full);

    let off = json!({ "metadata": { "labels": { "app.kubernetes.io/instance": null } } });
    let params = PatchParams::default();
    secrets(&scene)
        .patch("user-0000", &params, &Patch::Merge(off))
        .await
        .unwrap();
    scene.restart();
    scene.reconcile("billing").await;
    let again = userlist(&scene).await;
    assert!(again.contains("\"one-more\"") && !again.contains("\"user-0000\""));
}

#[tokio::test]
async fn users_whose_passwords_fill_the_secret_are_refused_by_their_bytes() {
    let mut scene = Scene::new().await;
    let (name, long) = ("n".repeat(96), "p".repeat(995));
    // 1,095 bytes each: 913 of them fit into 1,000,000.
    for index in 0..913 {
        create(&scene.client, user(&format!("{name}{index:04}"), &long)).await;
    }
    syncing(&scene).await;
    scene.reconcile("billing").await;
    let full = userlist(&scene).await;
    assert_eq!(full.matches(&long).count(), 913);
    create(&scene.client, user(&format!("{name}0913"), &long)).await;
    scene.restart();
    scene.reconcile("billing").await;
    let told = conditions(&scene.bouncer("billing").await);
    let words = "its namespace has 914 Secrets with 1000830 bytes of names and passwords";
    assert!(told.iter().any(|it| it.contains(words)), "{told:?}");
    assert_eq!(userlist(&scene).await, full);
}

/// The Secret has a stale `username` besides the key that the AppBinding renames.
#[tokio::test]
async fn the_key_that_an_appbinding_renames_is_the_superuser() {
    let mut scene = Scene::new().await;
    let params = PatchParams::default();
    let more = json!({ "stringData": { "PG_USER": "owner" } });
    secrets(&scene)
        .patch("books-auth", &params, &Patch::Merge(more))
        .await
        .unwrap();
    let bindings: Api<AppBinding> = Api::namespaced(scene.client.clone(), BACKEND_NAMESPACE);
    let transforms = async |list: Value| {
        let patch = json!({ "spec": { "secretTransforms": list } });
        bindings
            .patch("books", &params, &Patch::Merge(patch))
            .await
            .unwrap();
    };
    transforms(json!([{ "renameKey": { "from": "PG_USER", "to": "username" } }])).await;
    create(&scene.client, bouncer("billing", json!({}))).await;
    scene.reconcile("billing").await;
    let list = userlist(&scene).await;
    assert!(
        list.contains("\"owner\" ") && !list.contains("\"postgres\""),
        "{list}"
    );

    transforms(json!([{ "addKeysFrom": { "secretRef": { "name": "other" } } }])).await;
    scene.restart();
    scene.reconcile("billing").await;
    let told = conditions(&scene.bouncer("billing").await);
    let words = "AppBinding vault/books: spec.secretTransforms[0].addKeysFrom is not supported";
    assert!(told.iter().any(|it| it.contains(words)), "{told:?}");
    assert_eq!(userlist(&scene).await, list);
}
