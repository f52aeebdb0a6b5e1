//! What is served: versions, groups, resources, health, and the `OpenAPI` documents.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};

use super::ApiServer;
use super::error::ApiError;
use super::kinds::{Origin, Registry, Resource, join_version};
use super::openapi;
use super::path::Path;

/// The Kubernetes whose behaviour is followed.
const MAJOR: &str = "1";
/// Its minor version.
const MINOR: &str = "33";

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

impl ApiServer {
    /// Answers everything that is not about objects.
    pub(super) fn discover(
        &self,
        path: &Path,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Response, ApiError> {
        if method != Method::GET && method != Method::HEAD {
            return Err(ApiError::MethodNotAllowed);
        }
        let registry = self.registry();
        let aggregated = accepts_aggregated(headers);
        let answer = match path {
            Path::Health => return Ok("ok".into_response()),
            Path::Version => version(),
            Path::CoreVersions if aggregated => return Ok(aggregate(&registry, &[""])),
            Path::CoreVersions => json!({
                "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [],
            }),
            Path::Groups if aggregated => {
                let groups = registry.groups();
                let groups: Vec<&str> = groups.into_keys().filter(|g| !g.is_empty()).collect();
                return Ok(aggregate(&registry, &groups));
            }
            Path::Groups => groups(&registry),
            Path::Group(name) => group(&registry, name).ok_or(ApiError::NoSuchPath)?,
            Path::Resources { group, version } => resources(&registry, group, version)?,
            Path::OpenApiV2 if accepts(headers, openapi::V2_PROTOBUF) => {
                let media_type = [(
                    CONTENT_TYPE,
                    HeaderValue::from_static(openapi::V2_PROTOBUF_ANSWER),
                )];
                return Ok((media_type, openapi::document_v2_protobuf()).into_response());
            }
            Path::OpenApiV2 => openapi::document_v2(),
            Path::OpenApiIndex => openapi_index(&registry),
            Path::OpenApi { group, version } => openapi_document(&registry, group, version)?,
            Path::Objects(_) => return Err(ApiError::NoSuchPath),
        };
        Ok(Json(answer).into_response())
    }
}

fn version() -> Value {
    json!({
        "major": MAJOR, "minor": MINOR, "gitVersion": format!("v{MAJOR}.{MINOR}.0+bouncert"),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

fn groups(registry: &Registry) -> Value {
    let names: Vec<&str> = registry
        .groups()
        .into_keys()
        .filter(|g| !g.is_empty())
        .collect();
    let groups: Vec<Value> = names
        .iter()
        .filter_map(|name| group(registry, name))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

fn group(registry: &Registry, name: &str) -> Option<Value> {
    let versions = registry
        .groups()
        .remove(name)
        .filter(|_| !name.is_empty())?;
    let versions: Vec<Value> = versions
        .into_iter()
        .map(|version| json!({ "groupVersion": join_version(name, version), "version": version }))
        .collect();
    Some(json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": name,
        "preferredVersion": versions.first(), "versions": versions,
    }))
}

fn resources(registry: &Registry, group: &str, version: &str) -> Result<Value, ApiError> {
    let mut list = Vec::new();
    for resource in registry.of_version(group, version) {
        list.push(json!({
            "name": resource.plural, "singularName": resource.singular,
            "namespaced": resource.namespaced(), "kind": resource.kind, "verbs": VERBS,
            "shortNames": resource.short_names, "categories": resource.categories,
        }));
        for subresource in &resource.subresources {
            let part = part(resource, subresource);
            list.push(json!({
                "name": format!("{}/{subresource}", resource.plural), "singularName": "",
                "namespaced": resource.namespaced(), "kind": part.kind, "group": part.group,
                "version": part.version, "verbs": part.verbs,
            }));
        }
    }
    if list.is_empty() {
        return Err(ApiError::NoSuchPath);
    }
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": join_version(group, version), "resources": list,
    }))
}

/// What a subresource speaks.
struct Part<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    verbs: &'static [&'static str],
}

fn part<'a>(resource: &'a Resource, subresource: &str) -> Part<'a> {
    let own = |verbs| Part {
        group: &resource.group,
        version: &resource.version,
        kind: &resource.kind,
        verbs,
    };
    match subresource {
        "scale" => Part {
            group: "autoscaling",
            version: "v1",
            kind: "Scale",
            verbs: &["get", "patch", "update"],
        },
        "eviction" => Part {
            group: "policy",
            version: "v1",
            kind: "Eviction",
            verbs: &["create"],
        },
        "binding" => Part {
            group: "",
            version: "v1",
            kind: "Binding",
            verbs: &["create"],
        },
        "token" => Part {
            group: "authentication.k8s.io",
            version: "v1",
            kind: "TokenRequest",
            verbs: &["create"],
        },
        "log" => own(&["get"]),
        "finalize" => own(&["update"]),
        _ => own(&["get", "patch", "update"]),
    }
}

fn accept(headers: &HeaderMap) -> &str {
    headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
}

fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    accept(headers)
        .split(',')
        .any(|offer| offer.trim() == media_type)
}

fn accepts_aggregated(headers: &HeaderMap) -> bool {
    accept(headers).split(',').any(|offer| {
        ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"]
            .iter()
            .all(|wanted| {
                offer
                    .split(';')
                    .any(|parameter| parameter.trim() == *wanted)
            })
    })
}

/// All groups in one answer.
fn aggregate(registry: &Registry, names: &[&str]) -> Response {
    let groups = registry.groups();
    let items: Vec<Value> = names
        .iter()
        .filter_map(|name| Some((name, groups.get(name)?)))
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| aggregate_version(registry, name, version))
                .collect();
            json!({ "metadata": { "name": name, "creationTimestamp": null }, "versions": versions })
        })
        .collect();
    let answer = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": items,
    });
    let mut response = Json(answer).into_response();
    let kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn aggregate_version(registry: &Registry, group: &str, version: &str) -> Value {
    let resources: Vec<Value> = registry
        .of_version(group, version)
        .map(|resource| {
            let subresources: Vec<Value> = resource
                .subresources
                .iter()
                .map(|subresource| {
                    let part = part(resource, subresource);
                    json!({
                        "subresource": subresource, "verbs": part.verbs,
                        "responseKind": {
                            "group": part.group, "version": part.version, "kind": part.kind,
                        },
                    })
                })
                .collect();
            json!({
                "resource": resource.plural, "singularResource": resource.singular,
                "responseKind": {
                    "group": resource.group, "version": resource.version, "kind": resource.kind,
                },
                "scope": if resource.namespaced() { "Namespaced" } else { "Cluster" },
                "verbs": VERBS, "shortNames": resource.short_names,
                "categories": resource.categories, "subresources": subresources,
            })
        })
        .collect();
    json!({ "version": version, "freshness": "Current", "resources": resources })
}

fn openapi_index(registry: &Registry) -> Value {
    let groups = registry.groups();
    let versions: Vec<(&str, &str)> = groups
        .iter()
        .flat_map(|(group, versions)| versions.iter().map(move |version| (*group, *version)))
        .collect();
    openapi::index(&versions)
}

fn openapi_document(registry: &Registry, group: &str, version: &str) -> Result<Value, ApiError> {
    let served: Vec<_> = registry.of_version(group, version).collect();
    if served.is_empty() {
        return Err(ApiError::NoSuchPath);
    }
    let subresources: Vec<Vec<&str>> = served
        .iter()
        .map(|resource| resource.subresources.iter().map(String::as_str).collect())
        .collect();
    let resources: Vec<openapi::Resource<'_>> = served
        .iter()
        .zip(&subresources)
        .map(|(resource, subresources)| openapi::Resource {
            kind: &resource.kind,
            plural: &resource.plural,
            scope: resource.scope,
            subresources,
            schema: match &resource.origin {
                Origin::Custom(version) => Some(version.openapi()),
                Origin::BuiltIn(_) => None,
            },
        })
        .collect();
    Ok(openapi::document(group, version, &resources))
}
