//! What apply and update do, case by case.

use serde_json::{Value, json};

use super::*;
use crate::local::apiserver::schema::{CompiledCrdVersion, Shape};

pub(super) fn kiosk() -> CompiledCrdVersion {
    let crd = json!({
        "metadata": { "name": "kiosks.market.test" },
        "spec": { "group": "market.test", "names": { "kind": "Kiosk" }, "versions": [{
            "name": "v2",
            "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": {
                "type": "object",
                "properties": {
                    "size": { "type": "integer" },
                    "note": { "type": "string", "nullable": true },
                    "box": { "type": "object", "additionalProperties": { "type": "integer" } },
                    "plain": { "type": "array", "items": { "type": "integer" } },
                    "names": { "type": "array", "x-kubernetes-list-type": "set",
                        "items": { "type": "string" } },
                    "rows": { "type": "array", "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": { "type": "object", "properties": {
                            "name": { "type": "string" },
                            "size": { "type": "integer" },
                            "tall": { "type": "integer" } } } },
                },
            } } } },
        }] },
    });
    CompiledCrdVersion::compile(&crd, "v2").unwrap()
}

pub(super) fn with_spec(spec: &Value) -> Value {
    json!({ "apiVersion": "market.test/v2", "kind": "Kiosk", "metadata": { "name": "north" }, "spec": spec })
}

pub(super) fn by<'a>(manager: &'a str, shape: Shape<'a>) -> Write<'a> {
    Write {
        manager,
        subresource: None,
        shape,
        now: "2031-05-06T07:08:09Z",
    }
}

pub(super) fn without_owners(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    object
}

fn owned_by(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    entries
        .into_iter()
        .find(|e| e["manager"] == manager)
        .map_or(Value::Null, |e| e["fieldsV1"].clone())
}

#[test]
fn the_first_apply_stores_the_configuration_and_owns_its_leaves() {
    let crd = kiosk();
    let config = with_spec(&json!({ "size": 2, "rows": [{ "name": "a", "size": 1 }], "box": {} }));
    let made = apply(
        None,
        &config,
        &by("gitops", crd.shape()),
        OnConflict::Refuse,
    )
    .unwrap();
    assert_eq!(without_owners(&made), config);
    assert_eq!(
        made["metadata"]["managedFields"],
        json!([{
            "manager": "gitops", "operation": "Apply", "apiVersion": "market.test/v2",
            "time": "2031-05-06T07:08:09Z", "fieldsType": "FieldsV1",
            "fieldsV1": { "f:spec": {
                "f:size": {}, "f:box": {},
                "f:rows": { "k:{\"name\":\"a\"}": { ".": {}, "f:name": {}, "f:size": {} } },
            } },
        }])
    );
}

#[test]
fn a_field_dropped_from_the_configuration_goes_unless_another_owns_it() {
    let crd = kiosk();
    let first = with_spec(&json!({ "size": 2, "note": "n", "box": { "x": 1 },
        "rows": [{ "name": "a", "size": 1 }, { "name": "b" }], "names": ["p", "q"] }));
    let object = apply(None, &first, &by("gitops", crd.shape()), OnConflict::Refuse).unwrap();
    let theirs =
        with_spec(&json!({ "note": "n", "rows": [{ "name": "a", "tall": 3 }], "names": ["q"] }));
    let object = apply(
        Some(&object),
        &theirs,
        &by("other", crd.shape()),
        OnConflict::Refuse,
    )
    .unwrap();
    let config = with_spec(&json!({ "size": 2 }));
    let object = apply(
        Some(&object),
        &config,
        &by("gitops", crd.shape()),
        OnConflict::Refuse,
    )
    .unwrap();
    assert_eq!(
        object["spec"],
        json!({ "size": 2, "note": "n", "rows": [{ "name": "a", "tall": 3 }], "names": ["q"] })
    );
}

#[test]
fn another_managers_value_is_a_conflict_in_kubernetes_words() {
    let crd = kiosk();
    let mut object = with_spec(&json!({ "size": 2, "rows": [{ "name": "a", "size": 1 }] }));
    record_update(None, &mut object, &by("kubectl-edit", crd.shape()));
    let config = with_spec(&json!({ "size": 3 }));
    let refused = apply(
        Some(&object),
        &config,
        &by("gitops", crd.shape()),
        OnConflict::Refuse,
    );
    let refused = refused.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using market.test/v2: .spec.size"
    );
    assert_eq!(
        refused.causes(),
        [
            json!({ "reason": "FieldManagerConflict", "field": ".spec.size",
            "message": "conflict with \"kubectl-edit\" using market.test/v2" })
        ]
    );
    let config = with_spec(&json!({ "size": 3, "rows": [{ "name": "a", "size": 2 }] }));
    let refused = apply(
        Some(&object),
        &config,
        &by("gitops", crd.shape()),
        OnConflict::Refuse,
    );
    assert_eq!(
        refused.unwrap_err().to_string(),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-edit\" using market.test/v2:\n\
         - .spec.rows[name=\"a\"].size\n- .spec.size"
    );
}

#[test]
fn force_takes_the_field_over_and_the_other_no_longer_owns_it() {
    let crd = kiosk();
    let size = |n: i64| with_spec(&json!({ "size": n }));
    let object = apply(
        None,
        &size(2),
        &by("first", crd.shape()),
        OnConflict::Refuse,
    )
    .unwrap();
    let object = apply(
        Some(&object),
        &size(3),
        &by("second", crd.shape()),
        OnConflict::Force,
    )
    .unwrap();
    assert_eq!(object["spec"]["size"], 3);
    assert_eq!(owned_by(&object, "first"), Value::Null);
    assert_eq!(
        owned_by(&object, "second"),
        json!({ "f:spec": { "f:size": {} } })
    );
}

#[test]
fn the_same_value_is_owned_by_both() {
    let crd = kiosk();
    let config = with_spec(&json!({ "size": 2 }));
    let object = apply(None, &config, &by("first", crd.shape()), OnConflict::Refuse).unwrap();
    let object = apply(
        Some(&object),
        &config,
        &by("second", crd.shape()),
        OnConflict::Refuse,
    )
    .unwrap();
    assert_eq!(owned_by(&object, "first"), owned_by(&object, "second"));
}

#[test]
fn an_update_owns_what_it_changed_and_takes_it_from_an_applier() {
    let crd = kiosk();
    let config = with_spec(&json!({ "size": 2, "note": "n", "box": { "x": 1 } }));
    let before = apply(
        None,
        &config,
        &by("gitops", crd.shape()),
        OnConflict::Refuse,
    )
    .unwrap();
    let mut after = before.clone();
    after["spec"] = json!({ "size": 5, "box": { "x": 1, "y": 2 } });
    record_update(Some(&before), &mut after, &by("kubectl-edit", crd.shape()));
    assert_eq!(
        owned_by(&after, "gitops"),
        json!({ "f:spec": { "f:box": { "f:x": {} } } })
    );
    assert_eq!(
        owned_by(&after, "kubectl-edit"),
        json!({ "f:spec": { "f:size": {}, "f:box": { "f:y": {} } } })
    );
}

#[test]
fn an_update_that_changes_nothing_keeps_the_entries() {
    let crd = kiosk();
    let config = with_spec(&json!({ "size": 2 }));
    let before = apply(
        None,
        &config,
        &by("gitops", crd.shape()),
        OnConflict::Refuse,
    )
    .unwrap();
    for sent in [
        Value::Null,
        json!([]),
        before["metadata"]["managedFields"].clone(),
    ] {
        let mut after = without_owners(&before);
        after["metadata"]["managedFields"] = sent;
        record_update(Some(&before), &mut after, &by("someone", crd.shape()));
        assert_eq!(after, before);
    }
}

#[test]
fn a_client_may_rewrite_the_entries_or_have_them_forgotten_but_not_through_a_subresource() {
    let crd = kiosk();
    let config = with_spec(&json!({ "size": 2 }));
    let before = apply(
        None,
        &config,
        &by("gitops", crd.shape()),
        OnConflict::Refuse,
    )
    .unwrap();
    let mut after = before.clone();
    after["metadata"]["managedFields"][0]["manager"] = json!("renamed");
    let renamed = after.clone();
    record_update(Some(&before), &mut after, &by("someone", crd.shape()));
    assert_eq!(after, renamed);
    let status = Write {
        subresource: Some("status"),
        ..by("someone", crd.shape())
    };
    record_update(Some(&before), &mut after, &status);
    assert_eq!(after, before);
    after["metadata"]["managedFields"] = json!([{}]);
    record_update(Some(&before), &mut after, &by("someone", crd.shape()));
    assert_eq!(after, without_owners(&before));
}

#[test]
fn what_a_creator_owns_reads_as_in_kubernetes() {
    let mut object = json!({ "apiVersion": "v1", "kind": "Secret",
        "metadata": { "name": "s", "uid": "7", "labels": { "a": "b" } }, "data": { "k": "MQ==" } });
    record_update(
        None,
        &mut object,
        &by("creator", Shape::built_in("", "Secret")),
    );
    assert_eq!(
        owned_by(&object, "creator"),
        json!({
            "f:metadata": { "f:labels": { ".": {}, "f:a": {} } },
            "f:data": { ".": {}, "f:k": {} },
        })
    );
}

#[test]
fn the_status_endpoint_applies_the_status_alone() {
    let crd = kiosk();
    let config = with_spec(&json!({ "size": 2 }));
    let object = apply(
        None,
        &config,
        &by("gitops", crd.shape()),
        OnConflict::Refuse,
    )
    .unwrap();
    let status = json!({ "apiVersion": "market.test/v2", "kind": "Kiosk", "metadata": { "name": "north" },
        "spec": { "size": 9 }, "status": { "phase": "Open" } });
    let write = Write {
        subresource: Some("status"),
        ..by("operator", crd.shape())
    };
    let object = apply(Some(&object), &status, &write, OnConflict::Refuse).unwrap();
    assert_eq!(
        (&object["spec"]["size"], &object["status"]["phase"]),
        (&json!(2), &json!("Open"))
    );
    assert_eq!(
        owned_by(&object, "operator"),
        json!({ "f:status": { "f:phase": {} } })
    );
    assert_eq!(
        object["metadata"]["managedFields"][1]["subresource"],
        "status"
    );
    assert_eq!(object["metadata"]["managedFields"][0]["manager"], "gitops");
}

#[test]
fn built_in_lists_merge_by_their_keys_with_the_defaults_of_those() {
    let shape = Shape::built_in("", "Service");
    let service = |ports: &Value| {
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "shop" },
            "spec": { "ports": ports } })
    };
    let first = service(&json!([{ "port": 80 }, { "port": 80, "protocol": "UDP" }]));
    let mut object = apply(None, &first, &by("gitops", shape), OnConflict::Refuse).unwrap();
    object["spec"]["ports"][0]["protocol"] = json!("TCP");
    let second = service(&json!([{ "port": 80, "name": "web" }]));
    let object = apply(
        Some(&object),
        &second,
        &by("gitops", shape),
        OnConflict::Refuse,
    )
    .unwrap();
    assert_eq!(
        object["spec"]["ports"],
        json!([{ "port": 80, "protocol": "TCP", "name": "web" }])
    );
}

#[test]
fn finalizers_and_owners_of_any_kind_are_kept_apart_by_manager() {
    let with = |finalizer: &str, uid: &str| {
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s",
            "finalizers": [finalizer], "ownerReferences": [{ "uid": uid, "name": uid }] } })
    };
    let shape = Shape::built_in("", "Secret");
    let object = apply(
        None,
        &with("a/x", "1"),
        &by("first", shape),
        OnConflict::Refuse,
    )
    .unwrap();
    let object = apply(
        Some(&object),
        &with("b/y", "2"),
        &by("second", shape),
        OnConflict::Refuse,
    );
    let object = object.unwrap();
    assert_eq!(object["metadata"]["finalizers"], json!(["a/x", "b/y"]));
    let empty = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" } });
    let object = apply(
        Some(&object),
        &empty,
        &by("first", shape),
        OnConflict::Refuse,
    )
    .unwrap();
    assert_eq!(object["metadata"]["finalizers"], json!(["b/y"]));
    assert_eq!(
        object["metadata"]["ownerReferences"],
        json!([{ "uid": "2", "name": "2" }])
    );
}

#[test]
fn nulls_of_a_manifest_are_not_values_unless_the_schema_allows_them() {
    let crd = kiosk();
    let mut config = with_spec(&json!({ "size": null, "note": null }));
    config["metadata"]["creationTimestamp"] = Value::Null;
    let object = apply(
        None,
        &config,
        &by("gitops", crd.shape()),
        OnConflict::Refuse,
    )
    .unwrap();
    assert_eq!(without_owners(&object), with_spec(&json!({ "note": null })));
}

#[test]
fn a_configuration_that_cannot_be_applied_says_why() {
    let crd = kiosk();
    let refused = |config: &Value, manager| {
        apply(None, config, &by(manager, crd.shape()), OnConflict::Refuse)
            .unwrap_err()
            .to_string()
    };
    let twice = with_spec(&json!({ "rows": [{ "name": "a" }, { "name": "a" }] }));
    assert_eq!(
        refused(&twice, "m"),
        ".spec.rows: duplicate entries for key [{\"name\":\"a\"}]"
    );
    let nameless = with_spec(&json!({ "rows": [{ "size": 1 }] }));
    assert_eq!(
        refused(&nameless, "m"),
        ".spec.rows: element 0: associative list with keys has an element that omits key field \"name\""
    );
    let mut owned = with_spec(&json!({}));
    owned["metadata"]["managedFields"] = json!([{ "manager": "m" }]);
    assert_eq!(refused(&owned, "m"), "metadata.managedFields must be nil");
    assert_eq!(
        refused(&with_spec(&json!({})), ""),
        "fieldManager is required for apply patch"
    );
}
