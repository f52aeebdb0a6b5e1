//! Text in fields of objects that a file cannot hold: refused before anything is made for it, with
//! object, field and reason in the status.

use bouncert::api::common::find_condition;
use bouncert::api::{AppBinding, PgBouncer};
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::stage::{LONG, NS, Stage};
use crate::support::eventually;

/// The merge patch of an object's specification.
async fn change<K>(stage: &Stage, name: &str, spec: Value)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let patch = Patch::Merge(json!({ "spec": spec }));
    let api = stage.api::<K>();
    api.patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// Waits until the status says all of `parts`.
async fn refused(stage: &Stage, name: &str, parts: &[&str]) {
    let message = eventually(LONG, async || {
        let status = stage.bouncer(name).await.status.unwrap_or_default();
        let condition = find_condition(&status.conditions, "Reconciled");
        let message = condition
            .map(|condition| condition.message.clone())
            .unwrap_or_default();
        if parts.iter().all(|part| message.contains(part)) {
            Ok(message)
        } else {
            Err(format!("{parts:?} are not in: {message}"))
        }
    })
    .await;
    assert!(!message.contains(char::is_control), "{message:?}");
}

fn bouncer(name: &str, database: &str) -> Value {
    json!({
        "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "metadata": {"name": name},
        "spec": {
            "version": "1.18.0",
            "tls": {"issuerRef": {
                "apiGroup": "cert-manager.io", "kind": "Issuer", "name": "notary",
            }},
            "database": {
                "databaseName": database,
                "databaseRef": {"name": "ha-postgres", "namespace": NS},
            },
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn text_that_a_file_cannot_hold_is_refused_before_anything_is_made() {
    let stage = Stage::start().await;
    stage.openssl_ca("notary-ca", "/CN=notary").await;
    stage
        .create(json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "notary"},
            "spec": {"ca": {"secretName": "notary-ca"}},
        }))
        .await;
    let injected = "ledger = host=x\n[pgbouncer]\nauth_type = any\n[databases]\ny";
    for (name, database, reason) in [
        (
            "spaced",
            "sales 2026",
            "PgBouncer 1.18.0 reads names of letters",
        ),
        ("dollar", "acme$prod", "others are read from 1.26.1 on"),
        (
            "umlaut",
            "bücher",
            "spec.database.databaseName is \"bücher\"",
        ),
        (
            "injected",
            injected,
            "it holds the control character U+000A",
        ),
        (
            "included",
            "%include /tmp/x",
            "spec.database.databaseName is \"%include /tmp/x\"",
        ),
    ] {
        stage.create(bouncer(name, database)).await;
        let object = format!("PgBouncer {NS}/{name}: spec.database.databaseName is");
        refused(&stage, name, &[&object, reason]).await;
        assert!(
            stage.get::<Service>(name).await.is_none(),
            "{name} has a Service"
        );
        let secrets = stage
            .api::<Secret>()
            .list(&kube::api::ListParams::default())
            .await
            .unwrap();
        let made: Vec<String> = secrets
            .iter()
            .map(ResourceExt::name_any)
            .filter(|secret| secret.starts_with(name) && *secret != format!("{name}-auth"))
            .collect();
        assert!(made.is_empty(), "{made:?} were made");
    }

    a_live_pooler_keeps_what_it_has(&stage).await;
    an_appbinding_is_named(&stage).await;
    stage.stop().await;
}

/// An edit that cannot be written changes nothing of a pooler that runs, and says so; a rotation of it
/// is not `Successful`.
async fn a_live_pooler_keeps_what_it_has(stage: &Stage) {
    let mut live = bouncer("live", "postgres");
    live["spec"]["sslMode"] = json!("require");
    stage.create(live).await;
    stage.ready("live").await;
    let before = stage.ini("live").await;
    change::<PgBouncer>(
        stage,
        "live",
        json!({"database": {"databaseName": "sales 2026"}}),
    )
    .await;
    refused(
        stage,
        "live",
        &["spec.database.databaseName is \"sales 2026\""],
    )
    .await;
    assert_eq!(stage.ini("live").await, before);
    let mut rotate = crate::stage::request("rotate", "live", json!({"rotateCertificates": true}));
    rotate["metadata"]["annotations"] = json!({"bouncert.dev/strategy": "Reload"});
    stage.create(rotate).await;
    let message = stage.failed("rotate").await;
    assert!(
        message.contains("spec.database.databaseName is \"sales 2026\""),
        "{message}"
    );
    assert_eq!(stage.ini("live").await, before);

    change::<PgBouncer>(
        stage,
        "live",
        json!({"database": {"databaseName": "postgres"}}),
    )
    .await;
    let pool = json!({"connectionPool": {"ignoreStartupParameters": "a\nauth_type = any"}});
    change::<PgBouncer>(stage, "live", pool).await;
    let field = "spec.connectionPool.ignoreStartupParameters is";
    refused(stage, "live", &[field, "U+000A"]).await;
    assert_eq!(stage.ini("live").await, before);
    change::<PgBouncer>(stage, "live", json!({"connectionPool": null})).await;
    let inline = json!({"inline": {"pgbouncer.ini": "[pgbouncer]\nverbose = 1\u{0}\n"}});
    change::<PgBouncer>(stage, "live", json!({"configuration": inline})).await;
    refused(
        stage,
        "live",
        &["spec.configuration.inline", "line 2", "U+0000"],
    )
    .await;
    assert_eq!(stage.ini("live").await, before);
    change::<PgBouncer>(stage, "live", json!({"configuration": null})).await;
    stage.ready("live").await;
}

/// What stands in an AppBinding is refused with the AppBinding's name.
async fn an_appbinding_is_named(stage: &Stage) {
    let object = format!("AppBinding {NS}/ha-postgres: spec.clientConfig.");
    let before = stage.ini("live").await;
    for (config, reason) in [
        (
            json!({"service": null, "url": "postgresql://h1:5432,h2:5432/db"}),
            "several hosts",
        ),
        (json!({"url": "postgresql:///db"}), "names no host"),
        (
            json!({"service": null, "url": "host=a\nauth_type=any"}),
            "has \"auth_type\"",
        ),
        (json!({"url": "host=a user='x\n[pgbouncer]'"}), "U+000A"),
        (
            json!({"url": "postgresql://a%0Ab/db"}),
            "names the host \"a\\u{a}b\"",
        ),
        (
            json!({"service": {"scheme": "postgresql", "name": "a\n[pgbouncer]", "port": 5432}}),
            "service.name is \"a\\u{a}[pgbouncer]\"",
        ),
        (
            json!({"service": {
                "scheme": "postgresql", "name": "a", "namespace": "b user=c", "port": 5432,
            }}),
            "service.namespace is \"b user=c\"",
        ),
    ] {
        change::<AppBinding>(stage, "ha-postgres", json!({ "clientConfig": config })).await;
        refused(stage, "live", &[&object, reason]).await;
    }
    assert_eq!(
        stage.ini("live").await,
        before,
        "what runs keeps its configuration"
    );
    let path = json!({"database": {"databaseRef": {"name": "../../secrets/x"}}});
    change::<PgBouncer>(stage, "live", path).await;
    refused(
        stage,
        "live",
        &["spec.database.databaseRef.name is \"../../secrets/x\""],
    )
    .await;
}
