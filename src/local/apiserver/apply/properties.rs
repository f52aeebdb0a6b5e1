//! What holds of apply and update whatever the objects.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{by, kiosk, with_spec, without_owners};
use super::*;

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
