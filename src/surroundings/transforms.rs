//! `spec.secretTransforms` of an AppBinding: what its Secret's keys become before they are read. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;

use crate::printable::quoted;

/// Most transforms: a login has two keys.
const TRANSFORMS_MAX: usize = 64;
/// The transforms that are carried out.
const KNOWN: [&str; 3] = ["renameKey", "addKey", "removeKey"];

/// Carries the transforms out, in their order. An error names the field and never a value: it may be a
/// password.
pub(super) fn apply(transforms: &[Value], secret: &mut Secret) -> Result<(), String> {
    if transforms.len() > TRANSFORMS_MAX {
        return Err(format!(
            "spec.secretTransforms has {} entries: write at most {TRANSFORMS_MAX}",
            transforms.len()
        ));
    }
    for (index, transform) in transforms.iter().enumerate() {
        let at = format!("spec.secretTransforms[{index}]");
        let members = transform.as_object().into_iter().flatten();
        let mut members = members.filter(|(_, member)| !member.is_null());
        let (Some((name, member)), None) = (members.next(), members.next()) else {
            return Err(format!(
                "{at} must have one member: write one of {}",
                KNOWN.join(", ")
            ));
        };
        let at = format!("{at}.{name}");
        match name.as_str() {
            "renameKey" => rename(secret, member, &at)?,
            "addKey" => add(secret, member, &at)?,
            "removeKey" => {
                let key = text(member, "key", &at)?;
                secret.data.get_or_insert_default().remove(key);
            }
            "addKeysFrom" => {
                return Err(format!(
                    "{at} is not supported: put the keys into the Secret itself, or write them with addKey"
                ));
            }
            _ => {
                return Err(format!(
                    "spec.secretTransforms[{index}] has {}: write one of {}",
                    quoted(name),
                    KNOWN.join(", ")
                ));
            }
        }
    }
    Ok(())
}

/// Gives a key another name; what had that name before is replaced.
fn rename(secret: &mut Secret, member: &Value, at: &str) -> Result<(), String> {
    let (from, to) = (text(member, "from", at)?, text(member, "to", at)?);
    let data = secret.data.get_or_insert_default();
    let Some(value) = data.remove(from) else {
        return Err(format!(
            "{at}.from is {}, and the Secret has no such key: write one that it has",
            quoted(from)
        ));
    };
    data.insert(to.to_owned(), value);
    Ok(())
}

/// Adds a key; `stringValue` counts where both values are given.
fn add(secret: &mut Secret, member: &Value, at: &str) -> Result<(), String> {
    let key = text(member, "key", at)?;
    let value = match (member["stringValue"].as_str(), member["value"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(encoded)) => STANDARD
            .decode(encoded)
            .map_err(|_| format!("{at}.value is not base64: write base64, or use stringValue"))?,
        (None, None) => return Err(format!("{at} has no value: write value or stringValue")),
    };
    let data = secret.data.get_or_insert_default();
    data.insert(key.to_owned(), ByteString(value));
    Ok(())
}

fn text<'a>(member: &'a Value, field: &str, at: &str) -> Result<&'a str, String> {
    let text = member[field].as_str().filter(|text| !text.is_empty());
    text.ok_or_else(|| format!("{at}.{field} is missing: write the name of a key"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn after(transforms: &Value, data: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let data = data
            .iter()
            .map(|(key, text)| ((*key).to_owned(), bytes(text)));
        let mut secret = Secret {
            data: Some(data.collect()),
            ..Secret::default()
        };
        apply(transforms.as_array().unwrap(), &mut secret)?;
        let data = secret.data.unwrap().into_iter();
        let text = |value: ByteString| String::from_utf8(value.0).unwrap();
        Ok(data.map(|(key, value)| (key, text(value))).collect())
    }

    #[test]
    fn a_renamed_key_is_used_and_replaces_a_stale_one() {
        let rename = json!([{"renameKey": {"from": "PG_USER", "to": "username"}}]);
        for data in [
            &[("PG_USER", "jane")][..],
            &[("PG_USER", "jane"), ("username", "stale")],
        ] {
            let found = after(&rename, data).unwrap();
            assert_eq!(found, [("username".to_owned(), "jane".to_owned())]);
        }
    }

    #[test]
    fn transforms_are_carried_out_in_their_order() {
        let all = json!([
            {"addKey": {"key": "a", "stringValue": "text", "value": "eA=="}},
            {"addKey": {"key": "b", "value": "Ynl0ZXM="}},
            {"renameKey": {"from": "a", "to": "c"}},
            {"removeKey": {"key": "b"}},
            {"removeKey": {"key": "absent"}},
            {"addKey": {"key": "b", "stringValue": ""}, "renameKey": null},
        ]);
        let found = after(&all, &[]).unwrap();
        let expected = [("b", ""), ("c", "text")];
        assert_eq!(
            found,
            expected.map(|(key, text)| (key.to_owned(), text.to_owned()))
        );
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_by_its_field_and_without_its_value() {
        for (transform, told) in [
            (
                json!({"renameKey": {"from": "x", "to": "y"}}),
                "[0].renameKey.from is \"x\", and the Secret has no such key",
            ),
            (
                json!({"renameKey": {"from": "a"}}),
                "[0].renameKey.to is missing",
            ),
            (
                json!({"addKey": {"stringValue": "s3cret"}}),
                "[0].addKey.key is missing",
            ),
            (
                json!({"addKey": {"key": "b", "value": "s3cret!"}}),
                "[0].addKey.value is not base64",
            ),
            (json!({"addKey": {"key": "b"}}), "[0].addKey has no value"),
            (
                json!({"addKeysFrom": {"secretRef": {"name": "z"}}}),
                "[0].addKeysFrom is not supported",
            ),
            (
                json!({"shout": {"key": "s3cret"}}),
                "[0] has \"shout\": write one of renameKey",
            ),
            (json!({}), "[0] must have one member"),
            (json!("s3cret"), "[0] must have one member"),
            (
                json!({"removeKey": {"key": "a"}, "addKey": {"key": "s3cret"}}),
                "[0] must have one member",
            ),
        ] {
            let error = after(&json!([transform]), &[("a", "b")]).unwrap_err();
            assert!(
                error.starts_with("spec.secretTransforms") && error.contains(told),
                "{error}"
            );
            assert!(!error.contains("s3cret"), "{error}");
        }
        let many = vec![json!({"removeKey": {"key": "a"}}); 65];
        assert!(after(&json!(many), &[]).unwrap_err().contains("65 entries"));
    }
}
