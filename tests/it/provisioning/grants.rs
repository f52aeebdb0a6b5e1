//! References into another namespace: nothing is copied from there without its word.

use bouncert::api::annotations::ALLOWED_NAMESPACES;
use bouncert::api::common::Phase;
use bouncert::api::{AppBinding, PetSet, PgBouncerOpsRequest};
use bouncert::clock::Clock;
use bouncert::material::Materials;
use bouncert::provisioner::Provisioner;
use bouncert::surroundings::References;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};

use super::objects::Scene;
use super::poolers::Rig;
use super::*;
use crate::support::eventually;

/// A namespace that has allowed nothing yet, with a PostgreSQL of its own.
const TEAM: &str = "team-b";

/// Makes the namespace, a superuser, and the AppBinding `books`.
async fn team(client: &Client) {
    create(
        client,
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": TEAM } }),
    )
    .await;
    create(
        client,
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "books-auth", "namespace": TEAM },
            "stringData": { "username": "owner", "password": "sealed-lips" },
        }),
    )
    .await;
    create(
        client,
        json!({
            "apiVersion": "appcatalog.appscode.com/v1alpha1", "kind": "AppBinding",
            "metadata": { "name": "books", "namespace": TEAM },
            "spec": {
                "clientConfig": { "url": "postgresql://127.0.0.1:1/postgres" },
                "secret": { "name": "books-auth" },
            },
        }),
    )
    .await;
}

/// A PgBouncer that refers to an AppBinding of the other namespace.
fn stranger(name: &str, app: &str) -> Value {
    let database = json!({
        "databaseName": "ledger", "syncUsers": true,
        "databaseRef": { "name": app, "namespace": TEAM },
    });
    bouncer(name, json!({ "database": database }))
}

fn word(text: &Value) -> Patch<Value> {
    Patch::Merge(json!({ "metadata": { "annotations": { ALLOWED_NAMESPACES: text } } }))
}

/// Writes the annotation on the AppBinding.
async fn on_application(client: &Client, text: Value) {
    let api: Api<AppBinding> = Api::namespaced(client.clone(), TEAM);
    api.patch("books", &PatchParams::default(), &word(&text))
        .await
        .unwrap();
}

/// Writes the annotation on the Namespace.
async fn on_namespace(client: &Client, text: Value) {
    let api: Api<Namespace> = Api::all(client.clone());
    api.patch(TEAM, &PatchParams::default(), &word(&text))
        .await
        .unwrap();
}

/// What the condition `Reconciled` says; empty where there is none.
fn told(bouncer: &PgBouncer) -> String {
    let all = conditions(bouncer).into_iter();
    all.filter(|it| it.starts_with("Reconciled=False"))
        .collect()
}

#[tokio::test]
async fn a_reference_that_is_not_granted_copies_nothing_and_says_what_to_write_where() {
    let scene = Scene::bare().await;
    team(&scene.client).await;
    create(&scene.client, stranger("billing", "books")).await;
    scene.reconcile("billing").await;
    let said = told(&scene.bouncer("billing").await);
    for words in [
        "ReferenceNotGranted",
        "PgBouncer shop/billing",
        "spec.database.databaseRef",
        "AppBinding team-b/books",
        "add shop to the annotation bouncert.dev/allowed-namespaces",
        "Namespace team-b",
    ] {
        assert!(said.contains(words), "{words} is not in: {said}");
    }
    let events = scene.events().await;
    assert!(
        events.iter().any(|it| said.ends_with(it.as_str())),
        "{events:?}"
    );
    assert!(
        get::<Secret>(&scene.client, "billing-backend")
            .await
            .is_none()
    );
    assert!(get::<PetSet>(&scene.client, "billing").await.is_none());

    // One that does not exist is not told apart.
    create(&scene.client, stranger("orders", "nothing")).await;
    scene.reconcile("orders").await;
    let absent = told(&scene.bouncer("orders").await);
    assert_eq!(
        absent
            .replace("shop/orders", "shop/billing")
            .replace("team-b/nothing", "team-b/books"),
        said
    );
}

#[tokio::test]
async fn the_word_of_the_application_or_of_its_namespace_is_enough_and_no_other_is() {
    let scene = Scene::bare().await;
    team(&scene.client).await;
    let closed = [json!("team-c"), json!("shop-x, ashop"), json!("")];
    let unreadable = [
        json!("shop,"),
        json!("sho*"),
        json!("shop;team-c"),
        json!("*, shop"),
    ];
    let open = [json!("shop"), json!("team-c, shop"), json!("*")];
    let mut tried = 0;
    let mut is_made = async |expected: Option<&str>| {
        tried += 1;
        let name = format!("till-{tried}");
        create(&scene.client, stranger(&name, "books")).await;
        scene.reconcile(&name).await;
        let said = told(&scene.bouncer(&name).await);
        let made = get::<Secret>(&scene.client, &format!("{name}-backend")).await;
        match expected {
            None => assert!(made.is_some(), "{said}"),
            Some(words) => {
                assert!(made.is_none());
                assert!(said.contains(words), "{words} is not in: {said}");
            }
        }
    };
    for text in &closed[..2] {
        on_application(&scene.client, text.clone()).await;
        is_made(Some("add shop to the annotation")).await;
        on_application(&scene.client, Value::Null).await;
        on_namespace(&scene.client, text.clone()).await;
        is_made(Some("add shop to the annotation")).await;
        on_namespace(&scene.client, Value::Null).await;
    }
    for text in unreadable.iter().chain(&closed[2..]) {
        on_application(&scene.client, text.clone()).await;
        is_made(Some("of AppBinding team-b/books cannot be read")).await;
        on_application(&scene.client, Value::Null).await;
        on_namespace(&scene.client, text.clone()).await;
        is_made(Some("of Namespace team-b cannot be read")).await;
        on_namespace(&scene.client, Value::Null).await;
    }
    for text in open {
        on_application(&scene.client, text.clone()).await;
        is_made(None).await;
        on_application(&scene.client, json!("team-c")).await;
        on_namespace(&scene.client, text).await;
        is_made(None).await;
        on_namespace(&scene.client, Value::Null).await;
    }
}

#[tokio::test]
async fn an_open_daemon_follows_every_reference() {
    let mut scene = Scene::bare().await;
    team(&scene.client).await;
    let cluster = Cluster::new(scene.client.clone());
    let materials = Materials::new(cluster.clone(), Clock::System, "cert-manager");
    let open = Provisioner::new(cluster, materials, Clock::Fixed(NOW));
    scene.provisioner = open.with_references(References::Open);
    create(&scene.client, stranger("billing", "books")).await;
    scene.reconcile("billing").await;
    let userlist = secret_value(&scene.client, "billing-backend", "userlist").await;
    assert!(userlist.contains("\"owner\" \"sealed-lips\""), "{userlist}");

    // The next daemon does not: what was copied stays, and nothing that changes is.
    scene.restart();
    let new = json!({ "stringData": { "password": "other-lips" } });
    let secrets: Api<Secret> = Api::namespaced(scene.client.clone(), TEAM);
    secrets
        .patch("books-auth", &PatchParams::default(), &Patch::Merge(new))
        .await
        .unwrap();
    scene.reconcile("billing").await;
    assert!(told(&scene.bouncer("billing").await).contains("ReferenceNotGranted"));
    assert_eq!(
        secret_value(&scene.client, "billing-backend", "userlist").await,
        userlist
    );
}

/// A name with a slash would become another path at the API server.
#[tokio::test]
async fn names_that_lead_out_of_a_namespace_name_nothing() {
    let scene = Scene::bare().await;
    team(&scene.client).await;
    let database = json!({
        "databaseName": "ledger",
        "databaseRef": { "name": "../../team-b/appbindings/books", "namespace": NAMESPACE },
    });
    create(
        &scene.client,
        bouncer("billing", json!({ "database": database })),
    )
    .await;
    scene.reconcile("billing").await;
    let said = told(&scene.bouncer("billing").await);
    let place = "spec.database.databaseRef.name is \"../../team-b/appbindings/books\"";
    assert!(said.contains(place), "{said}");
    // Fields of text, which the API server admits whatever they hold.
    let path = "../../team-b/secrets/x";
    let issuer = json!({ "apiGroup": "cert-manager.io", "kind": "Issuer", "name": path });
    let own = json!({ "apiGroup": "cert-manager.io", "kind": "Issuer", "name": "notary" });
    let server = |entry: Value| json!({ "tls": { "issuerRef": own, "certificates": [entry] } });
    for (index, (spec, field)) in [
        (
            json!({ "authSecret": { "name": path } }),
            "spec.authSecret.name",
        ),
        (
            json!({ "configuration": { "secretName": path } }),
            "spec.configuration.secretName",
        ),
        (
            json!({ "configSecret": { "name": path } }),
            "spec.configSecret.name",
        ),
        (json!({ "version": path }), "spec.version"),
        (
            json!({ "tls": { "issuerRef": issuer } }),
            "spec.tls.issuerRef.name",
        ),
        (
            server(json!({ "alias": "server", "secretName": path })),
            "spec.tls.certificates[server].secretName",
        ),
        (
            server(json!({ "alias": "server", "issuerRef": issuer })),
            "spec.tls.certificates[server].issuerRef.name",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("till-{index}");
        create(&scene.client, bouncer(&name, spec)).await;
        scene.reconcile(&name).await;
        let said = told(&scene.bouncer(&name).await);
        let place = format!("{field} is \"{path}\": write the name of an object");
        assert!(said.contains(&place), "{place}: {said}");
    }
}

async fn phase(client: &Client) -> (Option<Phase>, String) {
    let object: PgBouncer = get(client, "billing").await.unwrap();
    (
        object.status.as_ref().and_then(|status| status.phase),
        told(&object),
    )
}

async fn becomes(client: &Client, wanted: Phase, words: &str) {
    eventually(SOON, async || {
        let (phase, said) = phase(client).await;
        let is_so = phase == Some(wanted) && said.contains(words);
        is_so.then_some(()).ok_or((phase, said))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_grant_wakes_the_object_and_its_withdrawal_breaks_no_pod() {
    let rig = Rig::start().await;
    let client = &rig.client;
    team(client).await;
    create(client, stranger("billing", "books")).await;
    becomes(client, Phase::Provisioning, "ReferenceNotGranted").await;
    assert!(get::<Secret>(client, "billing-backend").await.is_none());
    on_application(client, json!("shop")).await;
    rig.is_ready("billing").await;
    let uid = async || get::<Pod>(client, "billing-0").await.unwrap().uid();
    let (pod, copied) = (
        uid().await,
        secret_value(client, "billing-backend", "userlist").await,
    );

    on_application(client, Value::Null).await;
    becomes(client, Phase::Critical, "ReferenceNotGranted").await;
    let new = json!({ "stringData": { "password": "other-lips" } });
    let secrets: Api<Secret> = Api::namespaced(client.clone(), TEAM);
    secrets
        .patch("books-auth", &PatchParams::default(), &Patch::Merge(new))
        .await
        .unwrap();
    let request = json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PgBouncerOpsRequest",
        "metadata": { "name": "again", "namespace": NAMESPACE },
        "spec": { "type": "Restart", "databaseRef": { "name": "billing" }, "apply": "Always" },
    });
    create(client, request).await;
    eventually(SOON, async || {
        let request: PgBouncerOpsRequest = get(client, "again").await.unwrap();
        let status = serde_json::to_value(&request.status).unwrap();
        let is_so =
            status["phase"] == "Failed" && status.to_string().contains("allowed-namespaces");
        is_so.then_some(()).ok_or(status)
    })
    .await;
    assert_eq!(uid().await, pod, "the pod was restarted");
    assert_eq!(
        secret_value(client, "billing-backend", "userlist").await,
        copied
    );

    on_namespace(client, json!("shop")).await;
    becomes(client, Phase::Ready, "").await;
    let userlist = secret_value(client, "billing-backend", "userlist").await;
    assert!(userlist.contains("other-lips"), "{userlist}");
    rig.stop().await;
}
