use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::local::apiserver::schema::{CompiledCrdVersion, Shape};

fn kiosk() -> CompiledCrdVersion {
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

fn with_spec(spec: &Value) -> Value {
    json!({ "apiVersion": "market.test/v2", "kind": "Kiosk", "metadata": { "name": "north" }, "spec": spec })
}

fn by<'a>(manager: &'a str, shape: Shape<'a>) -> Write<'a> {
    Write {
        manager,
        subresource: None,
        shape,
        now: "2031-05-06T07:08:09Z",
    }
}

fn without_owners(object: &Value) -> Value {
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
fn an_update_that_changes_nothing_keeps_the_entries_whatever_the_client_sent() {
    let crd = kiosk();
    let config = with_spec(&json!({ "size": 2 }));
    let before = apply(
        None,
        &config,
        &by("gitops", crd.shape()),
        OnConflict::Refuse,
    )
    .unwrap();
    let mut after = without_owners(&before);
    record_update(Some(&before), &mut after, &by("someone", crd.shape()));
    assert_eq!(after, before);
    after["metadata"]["managedFields"] = json!([{}]);
    record_update(Some(&before), &mut after, &by("someone", crd.shape()));
    assert_eq!(after, without_owners(&before));
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

// === properties ===

prop_compose! {
    fn row()(name in 0..3_u8, size in prop::option::of(0..3), tall in prop::option::of(0..3)) -> Value {
        let mut row = json!({ "name": format!("r{name}") });
        if let Some(size) = size { row["size"] = json!(size); }
        if let Some(tall) = tall { row["tall"] = json!(tall); }
        row
    }
}

prop_compose! {
    fn config()(
        size in prop::option::of(0..3),
        boxed in prop::option::of(prop::collection::btree_map("[xy]", 0..3, 0..3)),
        plain in prop::option::of(prop::collection::vec(0..3, 0..3)),
        names in prop::option::of(prop::collection::btree_set("[pqr]", 0..4)),
        rows in prop::option::of(prop::collection::vec(row(), 0..3)),
    ) -> Value {
        let mut spec = json!({});
        if let Some(v) = size { spec["size"] = json!(v); }
        if let Some(v) = boxed { spec["box"] = json!(v); }
        if let Some(v) = plain { spec["plain"] = json!(v); }
        if let Some(v) = names { spec["names"] = json!(v); }
        if let Some(mut v) = rows {
            v.sort_by_key(|row| row["name"].to_string());
            v.dedup_by_key(|row| row["name"].to_string());
            spec["rows"] = json!(v);
        }
        with_spec(&spec)
    }
}

/// The object with lists that have no order of their own put into one.
fn sorted(object: &Value) -> Value {
    let mut object = without_owners(object);
    for list in ["/spec/names", "/spec/rows"] {
        if let Some(Value::Array(items)) = object.pointer_mut(list) {
            items.sort_by_key(ToString::to_string);
        }
    }
    object
}

fn force(live: Option<&Value>, config: &Value, manager: &str) -> Value {
    let crd = kiosk();
    apply(live, config, &by(manager, crd.shape()), OnConflict::Force).unwrap()
}

/// Whether everything that anybody owns is there.
fn owners_are_truthful(object: &Value) -> bool {
    let crd = kiosk();
    let there = merge::compare(&json!({}), object, crd.shape()).changed;
    managed::read(Some(object)).into_iter().all(|mut entry| {
        entry.fields.take(&there);
        entry.fields.is_empty()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn applying_twice_changes_nothing(a in config(), b in config()) {
        let object = force(Some(&force(None, &a, "first")), &b, "second");
        prop_assert_eq!(&force(Some(&object), &b, "second"), &object);
    }

    #[test]
    fn after_a_forced_apply_all_of_the_configuration_is_there(a in config(), b in config()) {
        let object = force(Some(&force(None, &a, "first")), &b, "second");
        let crd = kiosk();
        let again = merge::merge(&object, &b, crd.shape());
        prop_assert_eq!(&again, &object);
        prop_assert!(owners_are_truthful(&object));
    }

    #[test]
    fn what_one_manager_applied_before_leaves_no_trace(a in config(), b in config()) {
        let object = force(Some(&force(None, &a, "one")), &b, "one");
        prop_assert_eq!(sorted(&object), sorted(&force(None, &b, "one")));
    }

    #[test]
    fn a_manager_that_withdraws_leaves_what_the_other_wants(a in config(), b in config()) {
        let both = force(Some(&force(None, &a, "first")), &b, "second");
        let object = force(Some(&both), &with_spec(&json!({})), "first");
        prop_assert_eq!(sorted(&merge::merge(&object, &b, kiosk().shape())), sorted(&object));
        prop_assert!(owners_are_truthful(&object));
        let object = force(Some(&object), &with_spec(&json!({})), "second");
        prop_assert_eq!(&object["spec"], &json!({}));
    }

    #[test]
    fn updates_keep_the_owners_truthful(a in config(), b in config(), c in config()) {
        let crd = kiosk();
        let before = force(Some(&force(None, &a, "first")), &b, "second");
        let mut after = before.clone();
        after["spec"] = c["spec"].clone();
        record_update(Some(&before), &mut after, &by("editor", crd.shape()));
        prop_assert!(owners_are_truthful(&after), "{}", after["metadata"]);
    }
}
