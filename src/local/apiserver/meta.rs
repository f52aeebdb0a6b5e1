//! `metadata` of an object, read and written in place, and what the status of a pod says of it.

use data_encoding::HEXLOWER;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Letters of a generated name: no vowels and nothing that reads as another.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of the generated part.
const SUFFIX_LEN: usize = 5;
/// Longest generated name.
const GENERATED_MAX: usize = 63;

/// The object's `metadata`; every object that came through [`super::body`] has one.
pub fn metadata(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata").and_then(Value::as_object_mut)
}

/// A text field of `metadata`; empty where there is none.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Sets a field of `metadata`, or takes it away.
pub fn set(object: &mut Value, field: &str, value: Option<Value>) {
    let Some(metadata) = metadata(object) else {
        return;
    };
    match value {
        Some(value) => metadata.insert(field.to_owned(), value),
        None => metadata.remove(field),
    };
}

/// Copies `field` of `metadata` from one object to another, or removes it there.
pub fn copy(from: &Value, to: &mut Value, field: &str) {
    set(to, field, from["metadata"].get(field).cloned());
}

/// Whether the object is being deleted.
pub fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Whether the kubelet calls a pod ready.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The finalizers.
pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = object["metadata"]["finalizers"].as_array();
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Adds a finalizer if it is not there.
pub fn add_finalizer(object: &mut Value, finalizer: &str) {
    if !finalizers(object).contains(&finalizer) {
        let mut list: Vec<Value> = finalizers(object).into_iter().map(|f| json!(f)).collect();
        list.push(json!(finalizer));
        set(object, "finalizers", Some(Value::Array(list)));
    }
}

/// Takes a finalizer away.
pub fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let left: Vec<Value> = finalizers(object)
        .into_iter()
        .filter(|f| *f != finalizer)
        .map(|f| json!(f))
        .collect();
    set(
        object,
        "finalizers",
        (!left.is_empty()).then_some(Value::Array(left)),
    );
}

/// Kubernetes' form of an instant: whole seconds, UTC.
pub fn timestamp(now: OffsetDateTime) -> String {
    let whole = now.replace_nanosecond(0).unwrap_or(now);
    whole.format(&Rfc3339).unwrap_or_default()
}

/// A random (version 4) UUID.
pub fn uid(random: &SystemRandom) -> String {
    let mut bytes = [0_u8; 16];
    // The system's random source does not fail after start; were it to, the uid would be all zero
    // but for the marks, and the duplicate would be visible.
    let _ = random.fill(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = HEXLOWER.encode(&bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// `prefix` with a random ending.
pub fn generated_name(prefix: &str, random: &SystemRandom) -> String {
    let mut bytes = [0_u8; SUFFIX_LEN];
    let _ = random.fill(&mut bytes);
    let suffix = bytes.iter().map(|byte| {
        let at = usize::from(*byte) % SUFFIX_LETTERS.len();
        char::from(SUFFIX_LETTERS[at])
    });
    let prefix: String = prefix.chars().take(GENERATED_MAX - SUFFIX_LEN).collect();
    prefix.chars().chain(suffix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_are_version_four_and_differ() {
        let random = SystemRandom::new();
        let (one, two) = (uid(&random), uid(&random));
        assert_ne!(one, two);
        assert_eq!(one.len(), 36);
        assert_eq!(&one[14..15], "4");
    }

    #[test]
    fn a_generated_name_keeps_its_prefix_within_bounds() {
        let name = generated_name("rotate-", &SystemRandom::new());
        assert!(name.starts_with("rotate-") && name.len() == 12, "{name}");
        assert_eq!(
            generated_name(&"x".repeat(90), &SystemRandom::new()).len(),
            63
        );
    }

    #[test]
    fn finalizers_come_and_go() {
        let mut object = json!({"metadata": {"name": "a"}});
        add_finalizer(&mut object, "books.example/close");
        add_finalizer(&mut object, "books.example/close");
        assert_eq!(finalizers(&object), ["books.example/close"]);
        remove_finalizer(&mut object, "books.example/close");
        assert_eq!(object, json!({"metadata": {"name": "a"}}));
    }

    #[test]
    fn times_have_whole_seconds() {
        let at = time::macros::datetime!(2031-05-06 07:08:09.123 UTC);
        assert_eq!(timestamp(at), "2031-05-06T07:08:09Z");
    }
}
