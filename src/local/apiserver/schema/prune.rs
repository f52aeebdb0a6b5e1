//! Fields that no schema knows are dropped, and missing fields with a default are filled in.

use serde_json::{Map, Value};

use super::errors::Path;
use super::node::{Additional, Node};

/// The fields every object has, whatever its schema says.
const OBJECT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// The fields of `metadata`; others are dropped.
const METADATA_FIELDS: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Drops what the schema of a whole object does not know; the paths are added to `dropped`.
pub(super) fn prune_object(
    object: &mut Value,
    schema: &Node,
    path: &Path<'_>,
    dropped: &mut Vec<String>,
) {
    let Value::Object(fields) = object else {
        return;
    };
    if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
        let here = path.field("metadata");
        retain(
            metadata,
            |name| METADATA_FIELDS.contains(&name),
            &here,
            dropped,
        );
    }
    let known = |name: &str| OBJECT_FIELDS.contains(&name) || is_known(schema, name);
    retain(fields, known, path, dropped);
    for (name, value) in fields.iter_mut() {
        if !OBJECT_FIELDS.contains(&name.as_str())
            && let Some(sub) = schema.field(name)
        {
            prune(value, sub, &path.field(name), dropped);
        }
    }
}

fn prune(value: &mut Value, schema: &Node, path: &Path<'_>, dropped: &mut Vec<String>) {
    if schema.embedded_resource {
        return prune_object(value, schema, path, dropped);
    }
    match value {
        Value::Object(fields) => {
            retain(fields, |name| is_known(schema, name), path, dropped);
            for (name, value) in fields.iter_mut() {
                if let Some(sub) = schema.field(name) {
                    prune(value, sub, &path.field(name), dropped);
                }
            }
        }
        Value::Array(items) => {
            if let Some(sub) = &schema.items {
                for (i, item) in items.iter_mut().enumerate() {
                    prune(item, sub, &path.index(i), dropped);
                }
            }
        }
        _ => {}
    }
}

fn is_known(schema: &Node, name: &str) -> bool {
    schema.preserve_unknown
        || !matches!(schema.additional, Additional::Closed)
        || schema.properties.contains_key(name)
}

fn retain(
    fields: &mut Map<String, Value>,
    known: impl Fn(&str) -> bool,
    path: &Path<'_>,
    dropped: &mut Vec<String>,
) {
    fields.retain(|name, _| {
        let keep = known(name);
        if !keep {
            dropped.push(path.field(name).to_string());
        }
        keep
    });
}

/// Fills in defaults, also inside of defaults. A null where none is allowed counts as missing.
pub(super) fn fill_in(value: &mut Value, schema: &Node) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                !(value.is_null() && schema.field(name).is_some_and(|sub| !sub.nullable))
            });
            for (name, sub) in &schema.properties {
                if let Some(default) = &sub.default
                    && !fields.contains_key(name)
                {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(sub) = schema.field(name) {
                    fill_in(value, sub);
                }
            }
        }
        Value::Array(items) => {
            if let Some(sub) = &schema.items {
                for item in items {
                    if let (true, false, Some(default)) =
                        (item.is_null(), sub.nullable, &sub.default)
                    {
                        *item = default.clone();
                    }
                    fill_in(item, sub);
                }
            }
        }
        _ => {}
    }
}
