//! The embedded API server: what controllers and `kubectl` rely on.

mod access;
mod durability;
mod edges;
mod grants;
mod kubectl;
mod lifecycle;
mod lists;
mod load;
mod objects;
mod strange;

pub(crate) use self::kubectl::{kubectl, refused_by_kubectl, with_kubectl};

use std::time::Duration;

use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::Client;
use kube::api::{Api, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Longest wait for something that is certain to come.
const SOON: Duration = Duration::from_secs(10);

fn server() -> ApiServer {
    ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap()
}

fn parsed<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

async fn namespaced(client: &Client, name: &str) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = parsed(json!({"metadata": {"name": name}}));
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
}

fn config(name: &str, text: &str) -> ConfigMap {
    parsed(json!({
        "metadata": {"name": name, "labels": {"book": text}}, "data": {"text": text},
    }))
}

/// A pod on a node, labelled `app: <app>`.
fn pod(name: &str, app: &str) -> Pod {
    parsed(json!({
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"nodeName": "bench", "containers": [{"name": "main", "image": "none"}]},
    }))
}

fn refused(error: kube::Error) -> kube::core::Status {
    match error {
        kube::Error::Api(status) => *status,
        other => panic!("not an answer of the server: {other:?}"),
    }
}

/// Waits until `look` finds something; says what it was waiting for when it does not.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited in vain for {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A definition of `Ledger` with status, scale, defaults, an enumeration and a CEL rule.
fn ledgers() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "ledgers.books.example"},
        "spec": {
            "group": "books.example", "scope": "Namespaced",
            "names": {"plural": "ledgers", "singular": "ledger", "kind": "Ledger",
                      "shortNames": ["lg"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.pages", "statusReplicasPath": ".status.pages"}},
                "additionalPrinterColumns": [
                    {"name": "Colour", "type": "string", "jsonPath": ".spec.colour"},
                    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["pages"],
                        "x-kubernetes-validations": [
                            {"rule": "self.pages < 100", "message": "a ledger has no more pages"}],
                        "properties": {
                            "pages": {"type": "integer", "minimum": 0},
                            "colour": {"type": "string", "enum": ["red", "blue"], "default": "blue"}}},
                    "status": {"type": "object", "properties": {
                        "phase": {"type": "string"}, "pages": {"type": "integer"}}}}}},
            }],
        },
    })
}
