//! Sets of fields, as in `fieldsV1`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of paths into one object.
///
/// Steps are spelled as on the wire: `f:name` a field, `k:{"name":"x"}` the item with these keys,
/// `v:"x"` the item with this value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    /// Whether the path to here is itself in the set.
    pub(super) member: bool,
    /// What is in the set below here.
    pub(super) below: BTreeMap<String, Self>,
}

impl FieldSet {
    /// The set of just this place.
    pub(super) fn here() -> Self {
        Self {
            member: true,
            below: BTreeMap::new(),
        }
    }

    /// Whether nothing is in the set.
    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.below.values().all(Self::is_empty)
    }

    /// Adds what is in `other`.
    pub(super) fn add(&mut self, other: &Self) {
        self.member |= other.member;
        for (step, other) in &other.below {
            self.below.entry(step.clone()).or_default().add(other);
        }
    }

    /// Takes away the paths that are in `other`, not what lies below them.
    pub(super) fn take(&mut self, other: &Self) {
        self.member &= !other.member;
        for (step, other) in &other.below {
            if let Some(below) = self.below.get_mut(step) {
                below.take(other);
            }
        }
        self.below.retain(|_, below| !below.is_empty());
    }

    /// Takes away the paths that are in `other` and all that lies below them.
    pub(super) fn take_trees(&mut self, other: &Self) {
        for (step, other) in &other.below {
            if other.member {
                self.below.remove(step);
            } else if let Some(below) = self.below.get_mut(step) {
                below.take_trees(other);
            }
        }
        self.below.retain(|_, below| !below.is_empty());
    }

    /// The paths in both sets, each as Kubernetes prints it (`.spec.ports[port=80].name`).
    pub(super) fn common(&self, other: &Self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_common(other, "", &mut paths);
        paths
    }

    fn collect_common(&self, other: &Self, path: &str, paths: &mut Vec<String>) {
        if self.member && other.member {
            paths.push(path.to_owned());
        }
        for (step, below) in &self.below {
            if let Some(other) = other.below.get(step) {
                below.collect_common(other, &format!("{path}{}", printed(step)), paths);
            }
        }
    }

    /// Reads `fieldsV1`.
    pub(super) fn from_wire(wire: &Value) -> Self {
        let Value::Object(fields) = wire else {
            return Self::default();
        };
        let below = fields
            .iter()
            .filter(|(step, _)| *step != ".")
            .map(|(step, wire)| {
                let mut set = Self::from_wire(wire);
                // An empty object stands for the place itself.
                set.member |= set.below.is_empty();
                (step.clone(), set)
            });
        Self {
            member: fields.contains_key("."),
            below: below.collect(),
        }
    }

    /// Writes `fieldsV1`.
    pub(super) fn to_wire(&self) -> Value {
        let mut wire = Map::new();
        if self.member && !self.below.is_empty() {
            wire.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (step, below) in &self.below {
            wire.insert(step.clone(), below.to_wire());
        }
        Value::Object(wire)
    }
}

/// A step as it is printed in a path.
fn printed(step: &str) -> String {
    match step.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", keys.join(","))
        }
        _ => format!("[{step}]"),
    }
}
