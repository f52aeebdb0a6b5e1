use serde_json::{Value, json};

use super::*;

fn kiosks(schema: &Value) -> Value {
    document(
        "market.test",
        "v2",
        &[Resource {
            kind: "Kiosk",
            plural: "kiosks",
            scope: Scope::Namespaced,
            subresources: &["status"],
            schema: Some(schema),
        }],
    )
}

fn core(kind: &str, plural: &str) -> Value {
    let scope = if kind == "Node" {
        Scope::Cluster
    } else {
        Scope::Namespaced
    };
    document(
        "",
        "v1",
        &[Resource {
            kind,
            plural,
            scope,
            subresources: &[],
            schema: None,
        }],
    )
}

/// Every `$ref` in the document.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(target) if name == "$ref" => found.push(target.clone()),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn the_index_names_a_document_for_each_version() {
    assert_eq!(
        index(&[("", "v1"), ("market.test", "v2")]),
        json!({ "paths": {
            "api/v1": { "serverRelativeURL": "/openapi/v3/api/v1" },
            "apis/market.test/v2": { "serverRelativeURL": "/openapi/v3/apis/market.test/v2" },
        } })
    );
}

#[test]
fn a_patch_says_that_the_server_validates_fields() {
    let document = kiosks(&json!({ "type": "object" }));
    let patch =
        &document["paths"]["/apis/market.test/v2/namespaces/{namespace}/kiosks/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({ "group": "market.test", "version": "v2", "kind": "Kiosk" })
    );
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(
        parameters
            .iter()
            .any(|p| p["name"] == "fieldValidation" && p["in"] == "query")
    );
    assert!(
        patch["requestBody"]["content"]
            .get("application/strategic-merge-patch+json")
            .is_none()
    );
}

#[test]
fn a_custom_kind_is_found_by_its_kind_with_its_descriptions() {
    let document = kiosks(&json!({ "type": "object", "properties": {
        "spec": { "type": "object", "description": "What is wanted." },
        "metadata": { "type": "object" } } }));
    let schema = &document["components"]["schemas"]["test.market.v2.Kiosk"];
    assert_eq!(
        schema["x-kubernetes-group-version-kind"],
        json!([{ "group": "market.test", "version": "v2", "kind": "Kiosk" }])
    );
    assert_eq!(
        schema["properties"]["spec"]["description"],
        "What is wanted."
    );
    assert_eq!(
        schema["properties"]["metadata"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
}

#[test]
fn kinds_of_kubernetes_bring_their_schemas_and_all_they_refer_to() {
    let document = core("Pod", "pods");
    let pod = &document["components"]["schemas"]["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["x-kubernetes-group-version-kind"][0]["kind"], "Pod");
    assert!(
        document["paths"]
            .get("/api/v1/namespaces/{namespace}/pods")
            .is_some()
    );
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 100);
    for target in found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target}");
    }
}

#[test]
fn a_cluster_wide_kind_has_no_namespace_in_its_path() {
    let document = core("Node", "nodes");
    assert!(document["paths"].get("/api/v1/nodes/{name}").is_some());
    assert_eq!(document["paths"].as_object().unwrap().len(), 2);
}

#[test]
fn a_kind_that_nobody_knows_may_hold_anything() {
    let document = core("Riddle", "riddles");
    let schema = &document["components"]["schemas"]["v1.Riddle"];
    assert_eq!(schema["x-kubernetes-preserve-unknown-fields"], true);
}
