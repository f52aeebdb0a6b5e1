//! `spec.secretTransforms` of an AppBinding: changes to the keys of its Secret before they are read.
//! Pure.
//!
//! They are applied in their order, as the Service Catalog's are: `renameKey`, `addKey`, `removeKey`.
//! `addKeysFrom` names another Secret, and is refused.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use serde_json::Value;

use crate::opaque;
use crate::printable::{label, quoted};

/// Keys and values of a Secret.
pub(super) type Data = BTreeMap<String, ByteString>;

/// Applies `transforms` to `data`. The error is a sentence about the AppBinding.
pub(super) fn apply(transforms: &[Value], data: &mut Data) -> Result<(), String> {
    for (position, transform) in transforms.iter().enumerate() {
        let field = format!("spec.secretTransforms[{position}]");
        let entries = transform.as_object().filter(|entries| entries.len() == 1);
        let Some((kind, what)) = entries.and_then(|entries| entries.iter().next()) else {
            return Err(format!(
                "{field} is not one transform; write one of renameKey, addKey, removeKey"
            ));
        };
        one(kind, what, data).map_err(|what| format!("{field}.{what}"))?;
    }
    Ok(())
}

fn one(kind: &str, what: &Value, data: &mut Data) -> Result<(), String> {
    let text = |name: &str| {
        let found = what.get(name).and_then(Value::as_str);
        found
            .filter(|text| !text.is_empty())
            .ok_or_else(|| format!("{kind}.{name} is missing; name a key of the Secret"))
    };
    match kind {
        "renameKey" => {
            let (from, to) = (text("from")?, text("to")?);
            let value = data.remove(from).ok_or_else(|| {
                format!(
                    "renameKey.from is {}, and the Secret has no such key",
                    quoted(&opaque::setting(from))
                )
            })?;
            data.insert(to.to_owned(), value);
        }
        "addKey" => {
            let value = added(what)?;
            data.insert(text("key")?.to_owned(), value);
        }
        "removeKey" => {
            data.remove(text("key")?);
        }
        _ => {
            return Err(format!(
                "{} is not supported; write one of renameKey, addKey, removeKey",
                label(&opaque::setting(kind))
            ));
        }
    }
    Ok(())
}

/// The value of `addKey`: `stringValue` as it is, or `value` in base64.
fn added(what: &Value) -> Result<ByteString, String> {
    let said = |name: &str| what.get(name).filter(|value| !value.is_null());
    match (said("stringValue"), said("value")) {
        (Some(Value::String(text)), None) => Ok(ByteString(text.clone().into_bytes())),
        (None, Some(Value::String(encoded))) => STANDARD
            .decode(encoded)
            .map(ByteString)
            .map_err(|_| "addKey.value is not base64; write stringValue for text".to_owned()),
        _ => Err("addKey has neither a stringValue nor a value, or both; write one".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn data(pairs: &[(&str, &str)]) -> Data {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
            .collect()
    }

    fn transformed(transforms: &Value) -> Result<Data, String> {
        let mut held = data(&[("user", "postgres"), ("pass", "xyzzy")]);
        apply(transforms.as_array().unwrap(), &mut held)?;
        Ok(held)
    }

    #[test]
    fn keys_are_renamed_added_and_removed_in_order() {
        let renamed = transformed(&json!([
            { "renameKey": { "from": "user", "to": "username" } },
            { "renameKey": { "from": "pass", "to": "password" } },
        ]));
        let expected = data(&[("username", "postgres"), ("password", "xyzzy")]);
        assert_eq!(renamed.unwrap(), expected);
        let others = transformed(&json!([
            { "addKey": { "key": "username", "stringValue": "admin" } },
            { "addKey": { "key": "password", "value": "b3Blbg==" } },
            { "removeKey": { "key": "user" } },
            { "removeKey": { "key": "pass" } },
        ]));
        let expected = data(&[("username", "admin"), ("password", "open")]);
        assert_eq!(others.unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_its_name_and_place() {
        for (transform, words) in [
            (
                json!({ "addKeysFrom": { "secretRef": { "name": "x" } } }),
                "spec.secretTransforms[0].addKeysFrom is not supported",
            ),
            (json!({}), "is not one transform"),
            (json!("renameKey"), "is not one transform"),
            (
                json!({ "renameKey": { "from": "user" } }),
                "renameKey.to is missing",
            ),
            (
                json!({ "renameKey": { "from": "nobody", "to": "username" } }),
                "renameKey.from is \"nobody\", and the Secret has no such key",
            ),
            (
                json!({ "addKey": { "key": "a" } }),
                "neither a stringValue nor a value",
            ),
            (
                json!({ "addKey": { "key": "a", "value": "%" } }),
                "addKey.value is not base64",
            ),
            (
                json!({ "addKey": { "key": "a", "jsonPathExpression": "x" } }),
                "neither a stringValue nor a value",
            ),
        ] {
            let error = transformed(&json!([transform])).unwrap_err();
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("xyzzy"), "{error}");
        }
    }
}
