//! The language of schemas, word by word.

use serde_json::{Value, json};

use super::*;

/// A definition of `Kiosk.market.test/v2` with this schema for `spec`.
fn kiosk(spec: &Value) -> CompiledCrdVersion {
    kiosk_of(&json!({ "type": "object", "properties": { "spec": spec } }))
}

fn kiosk_of(schema: &Value) -> CompiledCrdVersion {
    CompiledCrdVersion::compile(&definition(schema), "v2").unwrap()
}

fn definition(schema: &Value) -> Value {
    json!({
        "metadata": { "name": "kiosks.market.test" },
        "spec": {
            "group": "market.test",
            "names": { "kind": "Kiosk", "plural": "kiosks" },
            "versions": [{ "name": "v2", "schema": { "openAPIV3Schema": schema } }],
        },
    })
}

fn with_spec(spec: &Value) -> Value {
    json!({ "apiVersion": "market.test/v2", "kind": "Kiosk", "metadata": { "name": "north" }, "spec": spec })
}

fn lines(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn broken(schema: &Value, spec: &Value) -> Vec<String> {
    lines(&kiosk(schema).validate(&with_spec(spec), None))
}

#[test]
fn unknown_fields_are_dropped_and_named() {
    let compiled = kiosk(&json!({
        "type": "object",
        "properties": {
            "size": { "type": "integer" },
            "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            "tags": { "type": "object", "additionalProperties": { "type": "string" } },
            "rows": { "type": "array", "items": {
                "type": "object", "properties": { "name": { "type": "string" } } } },
        },
    }));
    let mut object = with_spec(&json!({
        "size": 3,
        "colour": "red",
        "free": { "anything": { "goes": 1 } },
        "tags": { "any": "key" },
        "rows": [{ "name": "a" }, { "name": "b", "shade": 1 }],
    }));
    object["metadata"]["shelf"] = json!(1);
    object["extra"] = json!({});
    let mut dropped = compiled.prune(&mut object);
    dropped.sort();
    assert_eq!(
        dropped,
        [
            "extra",
            "metadata.shelf",
            "spec.colour",
            "spec.rows[1].shade"
        ]
    );
    assert_eq!(object["spec"]["free"], json!({ "anything": { "goes": 1 } }));
    assert_eq!(
        object["spec"]["rows"],
        json!([{ "name": "a" }, { "name": "b" }])
    );
    assert_eq!(compiled.prune(&mut object), Vec::<String>::new());
}

#[test]
fn an_embedded_object_keeps_its_own_three_fields() {
    let compiled = kiosk(&json!({
        "type": "object",
        "properties": { "inner": {
            "type": "object",
            "x-kubernetes-embedded-resource": true,
            "properties": { "spec": { "type": "object" } },
        } },
    }));
    let inner = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "odd": 1 },
        "spec": { "odd": 1 } });
    let mut object = with_spec(&json!({ "inner": inner }));
    assert_eq!(
        compiled.prune(&mut object),
        ["spec.inner.metadata.odd", "spec.inner.spec.odd"]
    );
    object["spec"]["inner"] = json!({ "kind": "" });
    assert_eq!(
        lines(&compiled.validate(&object, None)),
        [
            "spec.inner.apiVersion: Required value: must not be empty",
            "spec.inner.kind: Required value: must not be empty",
        ]
    );
}

#[test]
fn defaults_fill_missing_keys_also_inside_of_defaults_and_replace_nulls() {
    let compiled = kiosk(&json!({
        "type": "object",
        "properties": {
            "mode": { "type": "string", "default": "open" },
            "note": { "type": "string" },
            "may": { "type": "string", "nullable": true, "default": "x" },
            "box": { "type": "object", "default": {}, "properties": {
                "depth": { "type": "integer", "default": 7 } } },
            "absent": { "type": "object", "properties": {
                "depth": { "type": "integer", "default": 7 } } },
            "rows": { "type": "array", "items": { "type": "object", "properties": {
                "depth": { "type": "integer", "default": 7 } } } },
        },
    }));
    let mut object = with_spec(&json!({ "mode": null, "note": null, "may": null, "rows": [{}] }));
    compiled.default(&mut object);
    assert_eq!(
        object["spec"],
        json!({ "mode": "open", "may": null, "box": { "depth": 7 }, "rows": [{ "depth": 7 }] })
    );
}

#[test]
fn a_value_outside_an_enumeration_is_told_which_values_are_in_it() {
    let schema = json!({ "type": "object", "properties": { "tls": { "type": "object", "properties": {
        "sslMode": { "type": "string", "enum": ["disable", "allow"] } } } } });
    let errors = kiosk(&schema).validate(
        &with_spec(&json!({ "tls": { "sslMode": "disabled" } })),
        None,
    );
    assert_eq!(
        invalid_message("market.test", "Kiosk", "north", &errors),
        "Kiosk.market.test \"north\" is invalid: spec.tls.sslMode: Unsupported value: \"disabled\": \
         supported values: \"disable\", \"allow\""
    );
    assert_eq!(
        errors[0].cause(),
        json!({
            "reason": "FieldValueNotSupported",
            "message": "Unsupported value: \"disabled\": supported values: \"disable\", \"allow\"",
            "field": "spec.tls.sslMode",
        })
    );
}

#[test]
fn types_bounds_and_lengths_are_checked_in_kubernetes_words() {
    let schema = json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": { "type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$" },
            "count": { "type": "integer", "minimum": 1, "maximum": 9 },
            "above": { "type": "number", "minimum": 0, "exclusiveMinimum": true },
            "small": { "type": "integer", "format": "int32" },
            "at": { "type": "string", "format": "date-time" },
            "rows": { "type": "array", "minItems": 1, "maxItems": 1, "items": { "type": "string" } },
            "port": { "x-kubernetes-int-or-string": true },
        },
    });
    let cases = [
        (json!({}), "spec.name: Required value"),
        (
            json!({ "name": 5 }),
            "spec.name: Invalid value: \"integer\": spec.name in body must be of type string: \"integer\"",
        ),
        (
            json!({ "name": "a" }),
            "spec.name: Invalid value: \"a\": spec.name in body should be at least 2 chars long",
        ),
        (
            json!({ "name": "abcde" }),
            "spec.name: Too long: may not be more than 4 bytes",
        ),
        (
            json!({ "name": "A1" }),
            "spec.name: Invalid value: \"A1\": spec.name in body should match '^[a-z]+$'",
        ),
        (
            json!({ "name": "ab", "count": 0 }),
            "spec.count: Invalid value: 0: spec.count in body should be greater than or equal to 1",
        ),
        (
            json!({ "name": "ab", "count": 10 }),
            "spec.count: Invalid value: 10: spec.count in body should be less than or equal to 9",
        ),
        (
            json!({ "name": "ab", "above": 0 }),
            "spec.above: Invalid value: 0: spec.above in body should be greater than 0",
        ),
        (
            json!({ "name": "ab", "small": 3_000_000_000_u64 }),
            "spec.small: Invalid value: 3000000000: spec.small in body must be of type int32: \"int64\"",
        ),
        (
            json!({ "name": "ab", "at": "noon" }),
            "spec.at: Invalid value: \"noon\": spec.at in body must be of type date-time: \"noon\"",
        ),
        (
            json!({ "name": "ab", "rows": [] }),
            "spec.rows: Invalid value: 0: spec.rows in body should have at least 1 items",
        ),
        (
            json!({ "name": "ab", "rows": ["a", "b"] }),
            "spec.rows: Too many: 2: must have at most 1 item",
        ),
        (
            json!({ "name": "ab", "rows": [1] }),
            "spec.rows[0]: Invalid value: \"integer\": spec.rows[0] in body must be of type string: \"integer\"",
        ),
        (
            json!({ "name": "ab", "port": true }),
            "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(broken(&schema, &spec), [expected], "{spec}");
    }
    let fine = json!({ "name": "abc", "count": 1.0, "port": "http", "at": "2031-05-06T07:08:09Z" });
    assert_eq!(broken(&schema, &fine), Vec::<String>::new());
}

#[test]
fn an_item_may_stand_in_a_set_or_map_list_once() {
    let schema = json!({ "type": "object", "properties": {
        "names": { "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } },
        "ports": { "type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["port", "protocol"],
            "items": { "type": "object", "properties": {
                "port": { "type": "integer" },
                "protocol": { "type": "string", "default": "TCP" } } } },
    } });
    let spec = json!({ "names": ["a", "b", "a"],
        "ports": [{ "port": 1 }, { "port": 1, "protocol": "UDP" }, { "port": 1, "protocol": "TCP" }] });
    assert_eq!(
        broken(&schema, &spec),
        [
            "spec.names[2]: Duplicate value: \"a\"",
            "spec.ports[2]: Duplicate value: map[string]interface {}{\"port\":1, \"protocol\":\"TCP\"}",
        ]
    );
}

#[test]
fn one_of_any_of_and_not_hold() {
    let schema = json!({ "type": "object",
        "properties": { "a": { "type": "string" }, "b": { "type": "string" } },
        "oneOf": [{ "required": ["a"] }, { "required": ["b"] }],
        "not": { "required": ["a"], "properties": { "a": { "enum": ["never"] } } } });
    let none = "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). \
                Found none valid";
    assert_eq!(broken(&schema, &json!({})), [none]);
    assert_eq!(broken(&schema, &json!({ "a": "x", "b": "y" })).len(), 1);
    assert_eq!(broken(&schema, &json!({ "b": "y" })), Vec::<String>::new());
    let not = "<nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)";
    assert_eq!(broken(&schema, &json!({ "a": "never" })), [not]);
}

#[test]
fn what_was_wrong_before_may_stay_but_not_change() {
    let compiled = kiosk(&json!({ "type": "object", "properties": {
        "count": { "type": "integer", "maximum": 9 }, "note": { "type": "string" } } }));
    let old = with_spec(&json!({ "count": 12 }));
    let touched = with_spec(&json!({ "count": 12, "note": "n" }));
    assert_eq!(compiled.validate(&touched, Some(&old)), []);
    let changed = with_spec(&json!({ "count": 13 }));
    assert_eq!(compiled.validate(&changed, Some(&old)).len(), 1);
}

#[test]
fn rules_see_the_old_object_and_speak_with_their_own_message() {
    let compiled = kiosk(&json!({
        "type": "object",
        "properties": { "rows": { "type": "integer" }, "side": { "type": "string" } },
        "x-kubernetes-validations": [
            { "rule": "self == oldSelf", "message": "spec is immutable" },
            { "rule": "self.rows < 5", "messageExpression": "'rows is ' + string(self.rows)",
              "fieldPath": ".rows", "reason": "FieldValueForbidden" },
        ],
    }));
    let small = with_spec(&json!({ "rows": 2 }));
    let large = with_spec(&json!({ "rows": 6 }));
    assert_eq!(compiled.validate(&small, None), []);
    assert_eq!(
        lines(&compiled.validate(&large, None)),
        ["spec.rows: Forbidden: rows is 6"]
    );
    let other = with_spec(&json!({ "rows": 3 }));
    assert_eq!(
        lines(&compiled.validate(&other, Some(&small))),
        ["spec: Invalid value: \"object\": spec is immutable"]
    );
    assert_eq!(compiled.validate(&small, Some(&small)), []);
}

#[test]
fn a_rule_on_items_finds_the_old_item_by_its_key() {
    let compiled = kiosk(&json!({ "type": "object", "properties": { "rows": {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": { "type": "object",
            "properties": { "name": { "type": "string" }, "size": { "type": "integer" } },
            "x-kubernetes-validations": [
                { "rule": "self.size >= oldSelf.size", "message": "rows may only grow" }] } } } }));
    let old =
        with_spec(&json!({ "rows": [{ "name": "a", "size": 1 }, { "name": "b", "size": 9 }] }));
    let moved =
        with_spec(&json!({ "rows": [{ "name": "b", "size": 9 }, { "name": "a", "size": 1 }] }));
    assert_eq!(compiled.validate(&moved, Some(&old)), []);
    let less = with_spec(&json!({ "rows": [{ "name": "b", "size": 8 }] }));
    assert_eq!(
        lines(&compiled.validate(&less, Some(&old))),
        ["spec.rows[0]: Invalid value: \"object\": rows may only grow"]
    );
}

#[test]
fn a_rule_that_is_no_cel_and_a_pattern_that_is_no_pattern_are_refused_with_their_place() {
    let refused = |schema: &Value| {
        CompiledCrdVersion::compile(&definition(schema), "v2")
            .unwrap_err()
            .to_string()
    };
    let rule =
        refused(&json!({ "type": "object", "x-kubernetes-validations": [{ "rule": "self ==" }] }));
    assert!(
        rule.starts_with("openAPIV3Schema.x-kubernetes-validations: "),
        "{rule}"
    );
    let deep = "(".repeat(20_000);
    for (rule, why) in [
        ("!!self.open", "stands twice"),
        ("- -self.size == 1", "stands twice"),
        (&deep[..12_000], "brackets"),
        (&deep, "longer"),
    ] {
        for rule in [
            json!({ "rule": rule }),
            json!({ "rule": "true", "messageExpression": rule }),
        ] {
            let schema = json!({ "type": "object", "x-kubernetes-validations": [rule] });
            let error = refused(&schema);
            assert!(error.contains(why), "{error}");
        }
    }
    let pattern = refused(&json!({ "properties": { "a": { "pattern": "(" } } }));
    assert!(
        pattern.starts_with("openAPIV3Schema.properties[a].pattern: "),
        "{pattern}"
    );
    let missing = CompiledCrdVersion::compile(&definition(&json!({})), "v9").unwrap_err();
    assert_eq!(
        missing.to_string(),
        "kiosks.market.test has no schema for version v9"
    );
}

#[test]
fn unknown_fields_are_reported_in_the_words_kubectl_shows() {
    assert_eq!(
        strict_message(
            "Kiosk",
            "v2",
            &["spec.foo".to_owned(), "spec.bar".to_owned()]
        ),
        "Kiosk in version \"v2\" cannot be handled as a Kiosk: strict decoding error: \
         unknown field \"spec.foo\", unknown field \"spec.bar\""
    );
}
