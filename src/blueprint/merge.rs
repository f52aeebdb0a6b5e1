//! Laying a user's JSON over ours.

use serde_json::{Map as JsonMap, Value};

use super::labels::Map;

/// Lays `over` on `base`: objects merge key by key, everything else is replaced; a `null` says
/// nothing.
pub(super) fn overlay(base: &mut Value, over: &Value) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                overlay(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// Merges two lists of objects that have names: an entry of `over` is laid on its namesake in
/// `base`, or comes after.
pub(super) fn overlay_by_name(base: &mut Vec<Value>, over: &[Value]) {
    for entry in over {
        match base
            .iter_mut()
            .find(|ours| ours.get("name") == entry.get("name"))
        {
            Some(ours) => overlay(ours, entry),
            None => base.push(entry.clone()),
        }
    }
}

/// The list under `key`; empty if it is not there.
pub(super) fn list(object: &JsonMap<String, Value>, key: &str) -> Vec<Value> {
    object
        .get(key)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

/// The text entries of an object.
pub(super) fn string_map(value: Option<&Value>) -> Map {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}
