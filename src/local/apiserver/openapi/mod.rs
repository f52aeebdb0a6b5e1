//! The API descriptions that `kubectl explain` and field validation ask for.
//!
//! A document has what those two look up: the paths of each resource with the kind that is found
//! there and the query parameters a write takes, and the schema of each kind. Patches do not name
//! the strategic content type: `kubectl` then computes such a patch from its own types.

pub(super) mod types;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use types::{OBJECT_META, Types, reference};

/// One resource of a group and version.
#[derive(Clone, Copy, Debug)]
pub struct Resource<'a> {
    /// Kind.
    pub kind: &'a str,
    /// Name in URLs.
    pub plural: &'a str,
    /// Whether it lives in a namespace.
    pub scope: Scope,
    /// Subresources, `status`, `eviction`.
    pub subresources: &'a [&'a str],
    /// The structural schema of a custom resource; `None` for kinds Kubernetes brings itself.
    pub schema: Option<&'a Value>,
}

/// Where a resource lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// Beside the namespaces.
    Cluster,
}

/// The query parameters of a write.
const WRITE_PARAMETERS: [&str; 4] = ["dryRun", "fieldManager", "fieldValidation", "pretty"];

/// `GET /openapi/v3`: where the documents are. `(group, version)`, group `""` is core.
pub fn index(versions: &[(&str, &str)]) -> Value {
    let paths: Map<String, Value> = versions
        .iter()
        .map(|(group, version)| {
            let path = root(group, version);
            let url = format!("/openapi/v3/{path}");
            (path, json!({ "serverRelativeURL": url }))
        })
        .collect();
    json!({ "paths": paths })
}

/// `GET /openapi/v3/apis/{group}/{version}` (or `/openapi/v3/api/v1`).
pub fn document(group: &str, version: &str, resources: &[Resource<'_>]) -> Value {
    let mut types = Types::new();
    let mut paths = Map::new();
    let mut own = Map::new();
    let mut kinds: Vec<(String, Value)> = Vec::new();
    for resource in resources {
        let gvk = json!({ "group": group, "version": version, "kind": resource.kind });
        let name = match resource.schema {
            None => types.add(group, resource.kind),
            Some(_) => None,
        };
        let name = name.unwrap_or_else(|| {
            let name = custom_name(group, version, resource.kind);
            own.insert(name.clone(), whole_object(resource.schema));
            name
        });
        add_paths(&mut paths, &root(group, version), resource, &gvk, &name);
        kinds.push((name, gvk));
    }
    let mut schemas = types.into_schemas();
    schemas.extend(own);
    for (name, gvk) in kinds {
        if let Some(Value::Object(schema)) = schemas.get_mut(&name) {
            schema.insert("x-kubernetes-group-version-kind".to_owned(), json!([gvk]));
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": "v1" },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

/// `GET /openapi/v2`, for clients that know no better.
pub fn document_v2() -> Value {
    json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": "v1" },
        "paths": {},
        "definitions": {},
    })
}

/// The media type in which `kubectl` asks for version 2, to check a `List` before it sends the parts.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// How that type is written in an answer, where the `@` would not be allowed.
pub const V2_PROTOBUF_ANSWER: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// [`document_v2`] in protobuf: the `swagger` field (1) alone. A kind it does not describe is not
/// checked by the client but by the server.
pub fn document_v2_protobuf() -> &'static [u8] {
    b"\x0a\x032.0"
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// `kubedb.com/v1 PgBouncer` as `com.kubedb.v1.PgBouncer`.
fn custom_name(group: &str, version: &str, kind: &str) -> String {
    let mut parts: Vec<&str> = group.split('.').filter(|part| !part.is_empty()).collect();
    parts.reverse();
    parts.extend([version, kind]);
    parts.join(".")
}

/// A structural schema with what every object has; without one, anything goes.
fn whole_object(schema: Option<&Value>) -> Value {
    let mut whole = match schema {
        Some(Value::Object(schema)) => schema.clone(),
        _ => Map::from_iter([
            ("type".to_owned(), json!("object")),
            (
                "x-kubernetes-preserve-unknown-fields".to_owned(),
                json!(true),
            ),
        ]),
    };
    let properties = whole
        .entry("properties")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(properties) = properties {
        for (name, description) in [
            (
                "apiVersion",
                "Group and version of the schema this object follows.",
            ),
            ("kind", "The kind of this object."),
        ] {
            properties
                .entry(name)
                .or_insert_with(|| json!({ "type": "string", "description": description }));
        }
        let metadata = json!({
            "description": "Name, labels and what else every object carries.",
            "allOf": [reference(OBJECT_META)],
            "default": {},
        });
        properties.insert("metadata".to_owned(), metadata);
    }
    Value::Object(whole)
}

fn add_paths(
    paths: &mut Map<String, Value>,
    root: &str,
    resource: &Resource<'_>,
    gvk: &Value,
    schema: &str,
) {
    let list = match resource.scope {
        Scope::Namespaced => format!("/{root}/namespaces/{{namespace}}/{}", resource.plural),
        Scope::Cluster => format!("/{root}/{}", resource.plural),
    };
    let operation = |action: &str, parameters: &[&str]| {
        json!({
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
            "parameters": parameters.iter().map(|p| query_parameter(p)).collect::<Vec<_>>(),
            "responses": { "200": {
                "description": "OK",
                "content": { "application/json": { "schema": reference(schema) } },
            } },
        })
    };
    let write = |action: &str, content: &[&str]| {
        let mut written = operation(action, &WRITE_PARAMETERS);
        let content: Map<String, Value> = content
            .iter()
            .map(|kind| ((*kind).to_owned(), json!({ "schema": reference(schema) })))
            .collect();
        written["requestBody"] = json!({ "required": true, "content": content });
        written
    };
    let patches = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/apply-patch+yaml",
    ];
    let one = json!({
        "get": operation("get", &["pretty"]),
        "put": write("put", &["application/json"]),
        "patch": write("patch", &patches),
        "delete": operation("delete", &["dryRun", "gracePeriodSeconds", "propagationPolicy"]),
    });
    let all = json!({
        "get": operation("list", &["fieldSelector", "labelSelector", "limit", "continue", "watch"]),
        "post": write("post", &["application/json"]),
    });
    for subresource in resource.subresources.iter().filter(|s| **s == "status") {
        let mut status = one.clone();
        if let Value::Object(status) = &mut status {
            status.remove("delete");
        }
        paths.insert(format!("{list}/{{name}}/{subresource}"), status);
    }
    paths.insert(format!("{list}/{{name}}"), one);
    paths.insert(list, all);
}

fn query_parameter(name: &str) -> Value {
    let kind = match name {
        "limit" | "gracePeriodSeconds" => "integer",
        "watch" => "boolean",
        _ => "string",
    };
    json!({ "name": name, "in": "query", "schema": { "type": kind, "uniqueItems": true } })
}
