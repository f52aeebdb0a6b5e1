//! Definitions of custom resources: what they make served, and what their status says.

use serde_json::{Value, json};

use super::kinds::{Origin, Resource, ScalePaths};
use super::openapi::Scope;
use super::schema::errors::{FieldError, Reason};
use super::schema::{CompileError, CompiledCrdVersion};
use super::table::Columns;

/// Keeps a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The resources of all served versions.
pub fn served(definition: &Value) -> Result<Vec<Resource>, CompileError> {
    let versions = definition
        .pointer("/spec/versions")
        .and_then(Value::as_array);
    let mut resources = Vec::new();
    for version in versions
        .into_iter()
        .flatten()
        .filter(|v| v["served"] == true)
    {
        let name = version["name"].as_str().unwrap_or_default();
        resources.push(resource(definition, version, name)?);
    }
    Ok(resources)
}

fn resource(definition: &Value, version: &Value, name: &str) -> Result<Resource, CompileError> {
    let text = |pointer: &str| {
        definition
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let texts = |pointer: &str| -> Vec<String> {
        let list = definition.pointer(pointer).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(ToOwned::to_owned)
            .collect()
    };
    let kind = text("/spec/names/kind");
    let mut subresources = Vec::new();
    for subresource in ["status", "scale"] {
        if version
            .pointer(&format!("/subresources/{subresource}"))
            .is_some()
        {
            subresources.push(subresource.to_owned());
        }
    }
    Ok(Resource {
        group: text("/spec/group"),
        version: name.to_owned(),
        list_kind: non_empty(text("/spec/names/listKind"), || format!("{kind}List")),
        plural: text("/spec/names/plural"),
        singular: non_empty(text("/spec/names/singular"), || kind.to_lowercase()),
        short_names: texts("/spec/names/shortNames"),
        categories: texts("/spec/names/categories"),
        scope: if definition.pointer("/spec/scope") == Some(&json!("Cluster")) {
            Scope::Cluster
        } else {
            Scope::Namespaced
        },
        subresources,
        scale: version.pointer("/subresources/scale").map(scale_paths),
        columns: Columns::custom(definition, name),
        origin: Origin::Custom(Box::new(CompiledCrdVersion::compile(definition, name)?)),
        kind,
    })
}

fn non_empty(text: String, otherwise: impl FnOnce() -> String) -> String {
    if text.is_empty() { otherwise() } else { text }
}

fn scale_paths(scale: &Value) -> ScalePaths {
    let pointer = |field: &str| scale[field].as_str().map(|path| path.replace('.', "/"));
    ScalePaths {
        spec: pointer("specReplicasPath").unwrap_or_else(|| "/spec/replicas".to_owned()),
        status: pointer("statusReplicasPath").unwrap_or_else(|| "/status/replicas".to_owned()),
        selector: pointer("labelSelectorPath"),
    }
}

/// What is wrong with a definition itself.
pub fn check(definition: &Value) -> Vec<FieldError> {
    let text = |pointer: &str| {
        definition
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or("")
    };
    let mut errors = Vec::new();
    for field in ["group", "names/plural", "names/kind", "scope"] {
        if text(&format!("/spec/{field}")).is_empty() {
            errors.push(FieldError {
                field: format!("spec.{}", field.replace('/', ".")),
                reason: Reason::Required,
                message: "Required value".to_owned(),
            });
        }
    }
    let wanted = format!("{}.{}", text("/spec/names/plural"), text("/spec/group"));
    let name = text("/metadata/name");
    if errors.is_empty() && name != wanted {
        errors.push(FieldError {
            field: "metadata.name".to_owned(),
            reason: Reason::Invalid,
            message: format!("Invalid value: {name:?}: must be spec.names.plural+\".\"+spec.group"),
        });
    }
    let versions = definition
        .pointer("/spec/versions")
        .and_then(Value::as_array);
    let stored = versions
        .into_iter()
        .flatten()
        .filter(|v| v["storage"] == true)
        .count();
    if stored != 1 {
        errors.push(FieldError {
            field: "spec.versions".to_owned(),
            reason: Reason::Invalid,
            message: "Invalid value: must have exactly one version marked as storage version"
                .to_owned(),
        });
    }
    if errors.is_empty()
        && let Err(error) = served(definition)
    {
        errors.push(FieldError {
            field: "spec.versions".to_owned(),
            reason: Reason::Invalid,
            message: format!("Invalid value: {error}"),
        });
    }
    errors
}

/// Fills in what Kubernetes fills in: names, conversion, the status with its conditions.
pub fn complete(definition: &mut Value, now: &str) {
    let kind = definition
        .pointer("/spec/names/kind")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let (singular, list_kind) = (kind.to_lowercase(), format!("{kind}List"));
    if let Some(names) = definition
        .pointer_mut("/spec/names")
        .and_then(Value::as_object_mut)
    {
        names.entry("singular").or_insert(Value::String(singular));
        names.entry("listKind").or_insert(Value::String(list_kind));
    }
    if let Some(spec) = definition
        .pointer_mut("/spec")
        .and_then(Value::as_object_mut)
    {
        spec.entry("conversion")
            .or_insert_with(|| json!({ "strategy": "None" }));
    }
    let stored: Vec<Value> = definition
        .pointer("/spec/versions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    let since = |kind: &str, old: &Value| {
        let list = old.pointer("/status/conditions").and_then(Value::as_array);
        let mut known = list
            .into_iter()
            .flatten()
            .filter(|condition| condition["type"] == kind);
        known.next().map_or_else(
            || json!(now),
            |condition| condition["lastTransitionTime"].clone(),
        )
    };
    let (accepted, established) = (
        since("NamesAccepted", definition),
        since("Established", definition),
    );
    definition["status"] = json!({
        "acceptedNames": definition["spec"]["names"],
        "storedVersions": stored,
        "conditions": [
            { "type": "NamesAccepted", "status": "True", "reason": "NoConflicts",
              "message": "no conflicts found", "lastTransitionTime": accepted },
            { "type": "Established", "status": "True", "reason": "InitialNamesAccepted",
              "message": "the initial names have been accepted", "lastTransitionTime": established },
        ],
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        json!({
            "metadata": { "name": "ledgers.books.example" },
            "spec": {
                "group": "books.example",
                "names": { "plural": "ledgers", "kind": "Ledger", "shortNames": ["lg"] },
                "scope": "Namespaced",
                "versions": [
                    { "name": "v1", "served": true, "storage": true,
                      "subresources": { "status": {} },
                      "schema": { "openAPIV3Schema": { "type": "object" } } },
                    { "name": "v1alpha1", "served": false, "storage": false,
                      "schema": { "openAPIV3Schema": { "type": "object" } } },
                ],
            },
        })
    }

    #[test]
    fn only_served_versions_are_served() {
        let resources = served(&definition()).unwrap();
        assert_eq!(resources.len(), 1);
        assert_eq!(resources[0].api_version(), "books.example/v1");
        assert!(resources[0].has("status") && !resources[0].has("scale"));
        assert_eq!(resources[0].list_kind, "LedgerList");
    }

    #[test]
    fn a_name_that_does_not_fit_is_said() {
        let mut wrong = definition();
        wrong["metadata"]["name"] = json!("ledger");
        let errors = check(&wrong);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].field, "metadata.name");
        assert!(check(&definition()).is_empty());
    }

    #[test]
    fn completing_twice_keeps_the_time_of_the_transition() {
        let mut once = definition();
        complete(&mut once, "2031-01-01T00:00:00Z");
        let mut twice = once.clone();
        complete(&mut twice, "2032-01-01T00:00:00Z");
        assert_eq!(once, twice);
    }
}
