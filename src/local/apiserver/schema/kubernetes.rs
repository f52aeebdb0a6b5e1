//! Schemas of the kinds that Kubernetes brings itself: which fields there are, and of what type.
//!
//! A type is all that is checked: what Kubernetes refuses when it decodes an object. A controller
//! that reads typed objects would stumble over anything that passed with another type.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::errors::Path;
use super::node::{Compiler, Node, Type};
use super::{prune, validate};
use crate::local::apiserver::access::RBAC_GROUP;
use crate::local::apiserver::openapi::types::Types;

/// Deepest nesting that is looked into; below, anything goes. A container's probe stands at 12.
const DEPTH_MAX: usize = 24;

/// The schema of one kind.
#[derive(Debug)]
pub struct BuiltInSchema {
    kind: &'static str,
    root: Node,
}

/// A kind and its schema, made when it is first asked for.
type Slot = (&'static str, &'static str, OnceLock<Option<BuiltInSchema>>);

static KINDS: [Slot; 21] = [
    ("", "ConfigMap", OnceLock::new()),
    ("", "Endpoints", OnceLock::new()),
    ("", "Event", OnceLock::new()),
    ("", "Namespace", OnceLock::new()),
    ("", "Node", OnceLock::new()),
    ("", "PersistentVolumeClaim", OnceLock::new()),
    ("", "Pod", OnceLock::new()),
    ("", "Secret", OnceLock::new()),
    ("", "Service", OnceLock::new()),
    ("", "ServiceAccount", OnceLock::new()),
    ("apps", "Deployment", OnceLock::new()),
    ("apps", "StatefulSet", OnceLock::new()),
    ("coordination.k8s.io", "Lease", OnceLock::new()),
    ("discovery.k8s.io", "EndpointSlice", OnceLock::new()),
    ("networking.k8s.io", "NetworkPolicy", OnceLock::new()),
    ("policy", "PodDisruptionBudget", OnceLock::new()),
    (RBAC_GROUP, "ClusterRole", OnceLock::new()),
    (RBAC_GROUP, "ClusterRoleBinding", OnceLock::new()),
    (RBAC_GROUP, "Role", OnceLock::new()),
    (RBAC_GROUP, "RoleBinding", OnceLock::new()),
    ("scheduling.k8s.io", "PriorityClass", OnceLock::new()),
];

/// The schema of a kind; `None` where objects are taken as they are.
pub fn built_in(group: &str, kind: &str) -> Option<&'static BuiltInSchema> {
    let (group, kind, slot) = KINDS.iter().find(|(g, k, _)| *g == group && *k == kind)?;
    slot.get_or_init(|| BuiltInSchema::compile(group, kind))
        .as_ref()
}

impl BuiltInSchema {
    /// Drops what the kind does not know, and nulls, which mean "not set"; returns the paths of the
    /// unknown fields.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut dropped = Vec::new();
        prune::prune_object(object, &self.root, &Path::ROOT, &mut dropped);
        prune::fill_in(object, &self.root);
        dropped
    }

    /// The first value that has another type than its field, in the words of Kubernetes' decoder.
    pub fn misfit(&self, object: &Value) -> Option<String> {
        let found = misfit(object, &self.root, self.kind)?;
        Some(format!("json: cannot unmarshal {found}"))
    }

    fn compile(group: &str, kind: &'static str) -> Option<Self> {
        let mut types = Types::new();
        let name = types.add(group, kind)?;
        let schemas = types.into_schemas();
        let whole = resolved(schemas.get(&name)?, &schemas, 0);
        let root = Compiler::default().node(&whole, kind, 0).ok()?;
        Some(Self { kind, root })
    }
}

fn misfit(value: &Value, schema: &Node, place: &str) -> Option<String> {
    if value.is_null() {
        return None;
    }
    if !validate::type_fits(value, schema) {
        let wanted = match (schema.value_type, schema.limits.format.as_deref()) {
            (Some(Type::Integer), Some(width)) => width,
            (Some(Type::Boolean), _) => "bool",
            (Some(wanted), _) => wanted.as_str(),
            (None, _) => "intstr.IntOrString",
        };
        let found = validate::type_name(value);
        return Some(format!(
            "{found} into Go struct field {place} of type {wanted}"
        ));
    }
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            misfit(value, schema.field(name)?, &format!("{place}.{name}"))
        }),
        Value::Array(items) => {
            let schema = schema.items.as_deref()?;
            items.iter().find_map(|item| misfit(item, schema, place))
        }
        _ => None,
    }
}

/// The schema with what it refers to in place.
fn resolved(schema: &Value, schemas: &Map<String, Value>, depth: usize) -> Value {
    let anything = || json!({ "x-kubernetes-preserve-unknown-fields": true });
    if depth > DEPTH_MAX {
        return anything();
    }
    // A reference with a description beside it is written as its only branch.
    let target = schema
        .get("$ref")
        .or_else(|| schema.pointer("/allOf/0/$ref"));
    if let Some(name) = target
        .and_then(Value::as_str)
        .and_then(|t| t.rsplit('/').next())
    {
        return match name.rsplit('.').next() {
            Some("IntOrString") => json!({ "x-kubernetes-int-or-string": true }),
            // Written as a number as well.
            Some("Quantity") => anything(),
            _ => schemas
                .get(name)
                .map_or_else(anything, |s| resolved(s, schemas, depth)),
        };
    }
    let mut whole = Map::new();
    for (name, sub) in schema.as_object().into_iter().flatten() {
        let sub = match (name.as_str(), sub) {
            ("properties", Value::Object(properties)) => {
                let parts = properties.iter();
                parts
                    .map(|(k, v)| (k.clone(), resolved(v, schemas, depth + 1)))
                    .collect()
            }
            ("items" | "additionalProperties", Value::Object(_)) => {
                resolved(sub, schemas, depth + 1)
            }
            ("type" | "format", _) => sub.clone(),
            _ => continue,
        };
        whole.insert(name.clone(), sub);
    }
    let has_parts = whole.contains_key("properties") || whole.contains_key("additionalProperties");
    if whole.get("type").is_some_and(|t| t == "object") && !has_parts {
        return anything();
    }
    Value::Object(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pruned(kind: &str, mut object: Value) -> (Vec<String>, Value) {
        let dropped = built_in("", kind).unwrap().prune(&mut object);
        (dropped, object)
    }

    fn misfit_of(kind: &str, object: &Value) -> Option<String> {
        built_in("", kind).unwrap().misfit(object)
    }

    #[test]
    fn every_kind_has_a_schema_that_takes_an_empty_object() {
        for (group, kind, _) in &KINDS {
            let schema = built_in(group, kind).unwrap_or_else(|| panic!("{kind}"));
            let mut object =
                json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": "n" } });
            assert_eq!(schema.prune(&mut object), Vec::<String>::new());
            assert_eq!(schema.misfit(&object), None);
        }
        assert!(built_in("apps", "DaemonSet").is_none());
    }

    #[test]
    fn unknown_fields_go_and_nulls_are_not_set() {
        let (dropped, object) = pruned(
            "ConfigMap",
            json!({
            "metadata": { "name": "n", "creationTimestamp": null, "labels": { "a": "b" } },
            "data": { "a": "b" }, "date": {}, "immutable": null }),
        );
        assert_eq!(dropped, ["date"]);
        assert_eq!(
            object,
            json!({ "metadata": { "name": "n", "labels": { "a": "b" } }, "data": { "a": "b" } })
        );
        let (dropped, _) = pruned(
            "Pod",
            json!({ "spec": { "containers": [
            { "name": "c", "prots": [], "ports": [{ "containerPort": 1, "hostport": 2 }] }] } }),
        );
        assert_eq!(
            dropped,
            [
                "spec.containers[0].prots",
                "spec.containers[0].ports[0].hostport"
            ]
        );
    }

    #[test]
    fn a_value_of_another_type_is_named() {
        let service = |port: Value, target: Value| json!({ "spec": { "ports": [{ "port": port, "targetPort": target }] } });
        assert_eq!(
            misfit_of("Service", &service(json!(80), json!("web"))),
            None
        );
        assert_eq!(misfit_of("Service", &service(json!(80), json!(8080))), None);
        assert_eq!(
            misfit_of("Service", &service(json!("web"), json!(80))).unwrap(),
            "json: cannot unmarshal string into Go struct field Service.spec.ports.port of type int32"
        );
        assert_eq!(
            misfit_of("Service", &service(json!(80), json!(true))).unwrap(),
            "json: cannot unmarshal boolean into Go struct field Service.spec.ports.targetPort of type \
             intstr.IntOrString"
        );
        assert_eq!(
            misfit_of("ConfigMap", &json!({ "data": { "a": 1 } })).unwrap(),
            "json: cannot unmarshal integer into Go struct field ConfigMap.data.a of type string"
        );
    }

    #[test]
    fn quantities_may_be_numbers() {
        let pod = json!({ "spec": { "containers": [
            { "name": "c", "resources": { "limits": { "cpu": 1, "memory": "1Gi" } } }] } });
        assert_eq!(misfit_of("Pod", &pod), None);
        assert_eq!(pruned("Pod", pod.clone()), (Vec::new(), pod));
    }
}
