//! CRDs only ever grow: what a manifest could say once, it can say for ever.
//!
//! `deploy/crds/promises.txt` remembers what the CRDs have offered (`+`: versions, fields with their
//! types, values) and what they have asked for (`-`: required fields, rules, limits). `make crds`
//! adds what is new. An offer that is gone, or something new that is asked of a field that was there
//! already, fails in any case; to break a promise, take its line out by hand.

use std::collections::BTreeSet;

use bouncert::api::crds;
use serde_json::Value;

use crate::stage::repository_file;

/// What a schema asks for beside types.
const LIMITS: [&str; 9] = [
    "pattern",
    "format",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "x-kubernetes-validations",
];

/// Everything that a definition offers and asks for.
fn promises(crd: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for version in crd["spec"]["versions"].as_array().unwrap() {
        let at = format!(
            "{}/{}",
            crd["metadata"]["name"].as_str().unwrap(),
            version["name"].as_str().unwrap()
        );
        found.insert(format!("+ {at} served={}", version["served"]));
        for part in version["subresources"].as_object().into_iter().flatten() {
            found.insert(format!("+ {at} subresource {}", part.0));
        }
        schema(&version["schema"]["openAPIV3Schema"], &at, &mut found);
    }
    found
}

fn schema(node: &Value, at: &str, found: &mut BTreeSet<String>) {
    let kind = node["type"].as_str().unwrap_or("any");
    found.insert(format!("+ {at}: {kind}"));
    let open = "x-kubernetes-preserve-unknown-fields";
    if node[open] == true {
        found.insert(format!("+ {at} anything"));
    }
    for value in node["enum"].as_array().into_iter().flatten() {
        found.insert(format!("+ {at} = {value}"));
    }
    for name in node["required"].as_array().into_iter().flatten() {
        found.insert(format!("- {at} needs {}", name.as_str().unwrap()));
    }
    for limit in LIMITS {
        match &node[limit] {
            Value::Null => {}
            Value::Array(rules) => {
                let rules = rules.iter().map(|rule| &rule["rule"]);
                found.extend(rules.map(|rule| format!("- {at} {limit} {rule}")));
            }
            value => {
                found.insert(format!("- {at} {limit} {value}"));
            }
        }
    }
    for (name, part) in node["properties"].as_object().into_iter().flatten() {
        schema(part, &format!("{at}.{name}"), found);
    }
    if node["items"].is_object() {
        schema(&node["items"], &format!("{at}[]"), found);
    }
    if node["additionalProperties"].is_object() {
        schema(&node["additionalProperties"], &format!("{at}.*"), found);
    }
}

/// What of `now` breaks a promise of `kept`.
fn broken(kept: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    let gone = kept.difference(now).filter(|line| line.starts_with('+'));
    let gone = gone.map(|line| format!("no longer offered: {line}"));
    let was_there = |line: &str| {
        let at = line[2..].split(' ').next().unwrap();
        kept.iter()
            .any(|kept| kept[2..].starts_with(&format!("{at}: ")))
    };
    let asked = now
        .difference(kept)
        .filter(|line| line.starts_with('-') && was_there(line));
    let asked = asked.map(|line| format!("newly asked of what was there: {line}"));
    gone.chain(asked).collect()
}

fn lines(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.map(str::to_owned).collect()
}

#[test]
fn the_golden_promises_of_the_crds_are_kept() {
    let path = repository_file("deploy/crds/promises.txt");
    let kept = lines(&std::fs::read_to_string(&path).unwrap_or_default());
    let mut now = BTreeSet::new();
    for crd in crds::own() {
        now.extend(promises(&serde_json::to_value(crd).unwrap()));
    }
    let broken = broken(&kept, &now);
    assert!(broken.is_empty(), "{broken:#?}");
    let lines: Vec<&str> = now.iter().map(String::as_str).collect();
    let text = lines.join("\n") + "\n";
    crate::cli::golden(&path, &text);
}

#[test]
fn a_field_that_goes_and_a_rule_that_comes_are_seen() {
    let crd = |spec: Value| {
        let version = serde_json::json!({"name": "v1", "served": true, "schema": {
            "openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}});
        let crd = serde_json::json!({
            "metadata": {"name": "tills"}, "spec": {"versions": [version]},
        });
        promises(&crd)
    };
    let text = serde_json::json!({"type": "string"});
    let former = crd(serde_json::json!({"type": "object", "properties": {"a": text, "b": text}}));
    let more = serde_json::json!({"type": "object", "properties": {
        "a": text, "b": text, "c": {"type": "object", "required": ["d"],
        "properties": {"d": text}},
    }});
    assert_eq!(broken(&former, &crd(more)), Vec::<String>::new());
    let less = serde_json::json!({"type": "object", "required": ["a"], "properties": {
        "a": {"type": "string", "maxLength": 9},
    }});
    let seen = broken(&former, &crd(less));
    assert_eq!(
        seen,
        [
            "no longer offered: + tills/v1.spec.b: string",
            "newly asked of what was there: - tills/v1.spec needs a",
            "newly asked of what was there: - tills/v1.spec.a maxLength 9",
        ]
    );
}
