use proptest::prelude::*;
use serde_json::json;

use super::*;

fn patched(kind: &str, object: &Value, patch: &Value) -> Value {
    let mut object = object.clone();
    super::patch(&mut object, patch, Shape::built_in("", kind)).unwrap();
    object
}

fn pod(spec: &Value) -> Value {
    json!({ "spec": spec })
}

#[test]
fn maps_merge_and_null_deletes() {
    let secret = json!({ "data": { "a": "MQ==", "b": "Mg==" }, "type": "Opaque" });
    let patch = json!({ "data": { "a": null, "c": "Mw==" } });
    assert_eq!(
        patched("Secret", &secret, &patch),
        json!({ "data": { "b": "Mg==", "c": "Mw==" }, "type": "Opaque" })
    );
}

#[test]
fn items_merge_by_their_key_and_others_stay() {
    let object = pod(&json!({ "containers": [
        { "name": "a", "image": "one", "env": [{ "name": "X", "value": "1" }] },
        { "name": "b", "image": "two" } ] }));
    let patch = pod(&json!({ "containers": [
        { "name": "a", "image": "three", "env": [{ "name": "Y", "value": "2" }] },
        { "name": "c", "image": "four" } ] }));
    assert_eq!(
        patched("Pod", &object, &patch)["spec"]["containers"],
        json!([
            { "name": "a", "image": "three",
              "env": [{ "name": "X", "value": "1" }, { "name": "Y", "value": "2" }] },
            { "name": "b", "image": "two" },
            { "name": "c", "image": "four" },
        ])
    );
}

#[test]
fn lists_without_a_key_are_replaced() {
    let object = pod(&json!({ "tolerations": [{ "key": "a" }] }));
    let patch = pod(&json!({ "tolerations": [{ "key": "b" }] }));
    assert_eq!(patched("Pod", &object, &patch), patch);
}

#[test]
fn directives_delete_and_replace() {
    let object = pod(
        &json!({ "volumes": [{ "name": "a", "emptyDir": {} }, { "name": "b" }],
        "securityContext": { "runAsUser": 7, "fsGroup": 8 } }),
    );
    let cases = [
        (
            json!({ "volumes": [{ "name": "a", "$patch": "delete" }] }),
            json!({ "volumes": [{ "name": "b" }], "securityContext": { "runAsUser": 7, "fsGroup": 8 } }),
        ),
        (
            json!({ "volumes": [{ "$patch": "replace" }, { "name": "c" }] }),
            json!({ "volumes": [{ "name": "c" }], "securityContext": { "runAsUser": 7, "fsGroup": 8 } }),
        ),
        (
            json!({ "securityContext": { "$patch": "replace", "fsGroup": 9 } }),
            json!({ "volumes": [{ "name": "a", "emptyDir": {} }, { "name": "b" }],
            "securityContext": { "fsGroup": 9 } }),
        ),
        (
            json!({ "securityContext": { "$patch": "delete" }, "volumes": null }),
            json!({}),
        ),
        (
            json!({ "volumes": [{ "name": "a", "$retainKeys": ["name", "secret"],
            "secret": { "secretName": "s" } }], "securityContext": null }),
            json!({ "volumes": [{ "name": "a", "secret": { "secretName": "s" } }, { "name": "b" }] }),
        ),
    ];
    for (patch, expected) in cases {
        assert_eq!(
            patched("Pod", &object, &pod(&patch)),
            pod(&expected),
            "{patch}"
        );
    }
}

#[test]
fn an_order_is_set_for_the_items_it_names() {
    let object = json!({ "spec": { "ports": [{ "port": 1 }, { "port": 9 }, { "port": 2 }] } });
    let patch = json!({ "spec": {
        "$setElementOrder/ports": [{ "port": 2 }, { "port": 1 }],
        "ports": [{ "port": 2, "name": "two" }] } });
    assert_eq!(
        patched("Service", &object, &patch)["spec"],
        json!({ "ports": [{ "port": 2, "name": "two" }, { "port": 9 }, { "port": 1 }] })
    );
}

#[test]
fn finalizers_are_added_and_taken_away_one_by_one() {
    let object = json!({ "metadata": { "finalizers": ["a/x", "b/y"] } });
    let patch = json!({ "metadata": {
        "$deleteFromPrimitiveList/finalizers": ["a/x"],
        "$setElementOrder/finalizers": ["c/z", "b/y"],
        "finalizers": ["c/z"] } });
    assert_eq!(
        patched("ConfigMap", &object, &patch),
        json!({ "metadata": { "finalizers": ["c/z", "b/y"] } })
    );
}

#[test]
fn a_patch_without_a_meaning_says_where() {
    let wrong = |patch: &Value| {
        let mut object = json!({});
        super::patch(&mut object, patch, Shape::built_in("", "Pod"))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        wrong(&pod(&json!({ "containers": [{ "image": "x" }] }))),
        "invalid strategic merge patch at .spec.containers: an item has no \"name\", the merge key"
    );
    assert_eq!(
        wrong(&json!({ "spec": { "$patch": "burn" } })),
        "invalid strategic merge patch at .spec: unknown directive $patch: \"burn\""
    );
    assert_eq!(
        wrong(&json!([])),
        "invalid strategic merge patch at .: the patch is no object"
    );
}

prop_compose! {
    fn ports()(numbers in prop::collection::btree_map(0..5_u8, 0..3_u8, 0..4)) -> Value {
        let port = |(port, target): (&u8, &u8)| json!({ "port": port, "targetPort": target });
        json!({ "spec": { "ports": numbers.iter().map(port).collect::<Vec<_>>() } })
    }
}

proptest! {
    #[test]
    fn patching_twice_is_patching_once(object in ports(), patch in ports()) {
        let once = patched("Service", &object, &patch);
        prop_assert_eq!(patched("Service", &once, &patch), once);
    }

    #[test]
    fn all_of_the_patch_is_there_and_nothing_else_is_lost(object in ports(), patch in ports()) {
        let merged = patched("Service", &object, &patch);
        let of = |v: &Value| v["spec"]["ports"].as_array().unwrap().clone();
        for port in of(&patch) {
            prop_assert!(of(&merged).contains(&port));
        }
        let patched_ports: Vec<Value> = of(&patch).iter().map(|p| p["port"].clone()).collect();
        for port in of(&object).iter().filter(|p| !patched_ports.contains(&p["port"])) {
            prop_assert!(of(&merged).contains(port));
        }
    }
}
