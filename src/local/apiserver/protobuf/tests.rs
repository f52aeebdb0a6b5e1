use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A field that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut encoded = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
    encoded.extend(bytes);
    encoded
}

/// A field that holds a small number.
fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

fn body(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
    let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    let rest = [field(3, b""), field(4, b"")].concat();
    [MAGIC.to_vec(), field(1, &type_meta), field(2, object), rest].concat()
}

fn map_entry(key: &str, value: &[u8]) -> Vec<u8> {
    [field(1, key.as_bytes()), field(2, value)].concat()
}

#[test]
fn a_secret_is_read_with_its_binary_values_in_base64() {
    let metadata = [
        field(1, b"ca"),
        field(2, b""),
        field(3, b"market"),
        field(8, b""),
        field(11, &map_entry("app", b"kiosk")),
    ]
    .concat();
    let secret = [
        field(1, &metadata),
        field(2, &map_entry("tls.key", &[0, 255])),
        field(3, b"kubernetes.io/tls"),
        number(5, 1),
    ]
    .concat();
    assert_eq!(
        decode(&body("v1", "Secret", &secret)).unwrap(),
        json!({ "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "ca", "namespace": "market", "labels": { "app": "kiosk" } },
            "data": { "tls.key": "AP8=" }, "type": "kubernetes.io/tls", "immutable": true })
    );
}

#[test]
fn numbers_lists_and_numbers_that_may_be_text_are_read() {
    let spec = [
        field(1, &[number(1, 1), field(3, b"50%")].concat()),
        field(3, &[number(1, 0), number(2, 2)].concat()),
    ]
    .concat();
    let budget = decode(&body("policy/v1", "PodDisruptionBudget", &field(2, &spec))).unwrap();
    assert_eq!(
        budget["spec"],
        json!({ "minAvailable": "50%", "maxUnavailable": 2 })
    );
    let options = [number(1, 0), field(5, b"All")].concat();
    let eviction = decode(&body("policy/v1", "Eviction", &field(2, &options))).unwrap();
    assert_eq!(
        eviction["deleteOptions"],
        json!({ "gracePeriodSeconds": 0, "dryRun": ["All"] })
    );
}

#[test]
fn what_cannot_be_read_says_so() {
    assert_eq!(
        decode(&body("apps/v1", "Deployment", &[]))
            .unwrap_err()
            .to_string(),
        "Deployment of apps/v1 cannot be read from protobuf, send JSON"
    );
    let malformed = "the body is no protobuf of Kubernetes: ";
    let cases = [
        (b"{}".to_vec(), "no envelope"),
        (body("v1", "Secret", &[10, 200]), "it ends early"),
        (body("v1", "Secret", &[11]), "unknown wire type"),
        (
            body("v1", "Secret", &number(1, 1)),
            "a field has another type",
        ),
        (body("v1", "Secret", &field(3, &[255])), "text is not UTF-8"),
    ];
    for (body, why) in cases {
        assert_eq!(
            decode(&body).unwrap_err().to_string(),
            format!("{malformed}{why}")
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(object in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = decode(&object);
        if let Ok(read) = decode(&body("v1", "Secret", &object)) {
            prop_assert_eq!(&read["kind"], "Secret");
        }
    }
}
