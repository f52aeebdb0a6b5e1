//! Whatever a client sends, the server answers with a refusal or an object, never with a failure.

use http::Request;
use kube::Client;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::{ledgers, server};

/// Names that the server looks at, so that strange values land where they matter.
const FIELDS: &[&str] = &[
    "metadata",
    "name",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "uid",
    "resourceVersion",
    "generateName",
    "spec",
    "status",
    "data",
    "stringData",
    "type",
    "immutable",
    "containers",
    "initContainers",
    "ports",
    "port",
    "template",
    "selector",
    "matchLabels",
    "matchExpressions",
    "replicas",
    "names",
    "versions",
    "group",
    "scope",
    "served",
    "storage",
    "schema",
    "openAPIV3Schema",
    "properties",
    "conditions",
    "maxUnavailable",
    "clusterIP",
    "nodeName",
    "pages",
    "colour",
    "apiVersion",
    "kind",
    "$patch",
];

fn strange() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{0,6}|\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((proptest::sample::select(FIELDS), inner), 0..6).prop_map(
                |fields| fields
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect()
            ),
        ]
    })
}

/// Collection and a valid object for each kind with rules of its own.
fn kinds() -> Vec<(&'static str, Value)> {
    let named = |more: Value| {
        let mut object = json!({"metadata": {"name": "strange"}});
        json_patch::merge(&mut object, &more);
        object
    };
    let pod = json!({"containers": [{"name": "main", "image": "none"}]});
    vec![
        (
            "/api/v1/namespaces/default/secrets",
            named(json!({"data": {"a": "YQ=="}})),
        ),
        (
            "/api/v1/namespaces/default/services",
            named(json!({"spec": {"ports": [{"port": 1}]}})),
        ),
        (
            "/api/v1/namespaces/default/pods",
            named(json!({"spec": pod})),
        ),
        (
            "/api/v1/namespaces/default/events",
            named(json!({"involvedObject": {}})),
        ),
        (
            "/apis/events.k8s.io/v1/namespaces/default/events",
            named(json!({"regarding": {}})),
        ),
        (
            "/apis/apps/v1/namespaces/default/statefulsets",
            named(json!({"spec": {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod},
            }})),
        ),
        (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            ledgers(),
        ),
        (
            "/apis/books.example/v1/namespaces/default/ledgers",
            named(json!({"spec": {"pages": 1}})),
        ),
    ]
}

const PATCHES: &[&str] = &[
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/json-patch+json",
];

async fn code(client: &Client, request: http::request::Builder, body: &Value) -> u16 {
    let body = kube::client::Body::from(body.to_string().into_bytes());
    client
        .send(request.body(body).unwrap())
        .await
        .unwrap()
        .status()
        .as_u16()
}

#[test]
fn no_body_makes_the_server_fail() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (server, _entered) = (server(), runtime.enter());
    let client = server.client();
    runtime.block_on(async {
        let (collection, definition) = (
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            ledgers(),
        );
        assert_eq!(
            code(&client, Request::post(collection), &definition).await,
            201
        );
    });
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(48)
    };
    let outcome = TestRunner::new(config).run(&strange(), |part| {
        runtime.block_on(async {
            for (collection, valid) in kinds() {
                let mut mixed = valid.clone();
                json_patch::merge(&mut mixed, &part);
                for body in [&part, &mixed] {
                    let found = code(&client, Request::post(collection), body).await;
                    prop_assert!(found < 500, "POST {collection} {body}: {found}");
                }
                code(&client, Request::post(collection), &valid).await;
                let name = valid["metadata"]["name"].as_str().unwrap();
                for (patch, subresource) in PATCHES
                    .iter()
                    .flat_map(|patch| [(patch, ""), (patch, "/status"), (patch, "/scale")])
                {
                    let path = format!("{collection}/{name}{subresource}?fieldManager=strange");
                    let request = Request::patch(&path).header("content-type", *patch);
                    let found = code(&client, request, &part).await;
                    prop_assert!(found < 500, "PATCH {path} as {patch} {part}: {found}");
                }
                let put = Request::put(format!("{collection}/{name}"));
                let found = code(&client, put, &mixed).await;
                prop_assert!(found < 500, "PUT {collection} {mixed}: {found}");
            }
            Ok(())
        })
    });
    outcome.unwrap();
}
