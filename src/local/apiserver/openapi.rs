//! The OpenAPI documents that `kubectl explain` and field validation ask for.

use serde_json::{Value, json};

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

/// `GET /openapi/v3`: where the documents are. `(group, version)`, group `""` is core.
pub fn index(versions: &[(&str, &str)]) -> Value {
    let paths: serde_json::Map<String, Value> = versions
        .iter()
        .map(|(group, version)| {
            let path = root(group, version);
            (
                path.clone(),
                json!({ "serverRelativeURL": format!("/openapi/v3/{path}") }),
            )
        })
        .collect();
    json!({ "paths": paths })
}

/// `GET /openapi/v3/apis/{group}/{version}` (or `/openapi/v3/api/v1`).
pub fn document(group: &str, version: &str, resources: &[Resource<'_>]) -> Value {
    let (_, _, _) = (group, version, resources);
    json!({ "openapi": "3.0.0", "info": { "title": "Kubernetes", "version": "v1" }, "paths": {} })
}

/// `GET /openapi/v2`, for clients that know no better.
pub fn document_v2() -> Value {
    json!({ "swagger": "2.0", "info": { "title": "Kubernetes", "version": "v1" }, "paths": {} })
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}
