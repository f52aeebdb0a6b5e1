//! The entries of `metadata.managedFields`.

use serde_json::{Map, Value, json};

use super::Write;
use super::fields::FieldSet;

/// What one manager owns through one kind of operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) subresource: String,
    pub(super) api_version: String,
    pub(super) time: String,
    pub(super) fields: FieldSet,
}

/// How the fields came to be owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

impl Entry {
    /// Whether this is what `write` owns through `operation`.
    pub(super) fn is_of(&self, write: &Write<'_>, operation: Operation) -> bool {
        self.manager == write.manager
            && self.operation == operation
            && self.subresource == write.subresource.unwrap_or_default()
    }

    /// The entry that `write` makes with these fields.
    pub(super) fn new(
        write: &Write<'_>,
        operation: Operation,
        object: &Value,
        fields: FieldSet,
    ) -> Self {
        Self {
            manager: write.manager.to_owned(),
            operation,
            subresource: write.subresource.unwrap_or_default().to_owned(),
            api_version: object["apiVersion"].as_str().unwrap_or_default().to_owned(),
            time: write.now.to_owned(),
            fields,
        }
    }

    /// The manager as it is named in a conflict.
    pub(super) fn printed(&self) -> String {
        let subresource = match self.subresource.as_str() {
            "" => String::new(),
            name => format!(" with subresource {name:?}"),
        };
        let version = match self.operation {
            Operation::Apply => String::new(),
            Operation::Update => format!(" using {}", self.api_version),
        };
        format!("{:?}{subresource}{version}", self.manager)
    }

    fn from_wire(wire: &Value) -> Self {
        let text = |name: &str| wire[name].as_str().unwrap_or_default().to_owned();
        Self {
            manager: text("manager"),
            operation: match wire["operation"].as_str() {
                Some("Apply") => Operation::Apply,
                _ => Operation::Update,
            },
            subresource: text("subresource"),
            api_version: text("apiVersion"),
            time: text("time"),
            fields: FieldSet::from_wire(&wire["fieldsV1"]),
        }
    }

    fn to_wire(&self) -> Value {
        let mut wire = json!({
            "manager": self.manager,
            "operation": self.operation.as_str(),
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_wire(),
        });
        if !self.subresource.is_empty() {
            wire["subresource"] = json!(self.subresource);
        }
        wire
    }
}

/// Reads the entries of an object.
pub(super) fn read(object: Option<&Value>) -> Vec<Entry> {
    object
        .and_then(|o| o.pointer("/metadata/managedFields"))
        .and_then(Value::as_array)
        .map(|entries| entries.iter().map(Entry::from_wire).collect())
        .unwrap_or_default()
}

/// Writes the entries that own something into an object, in Kubernetes' order.
pub(super) fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    entries.sort_by(|a, b| {
        (a.operation, &a.time, &a.manager, &a.subresource).cmp(&(
            b.operation,
            &b.time,
            &b.manager,
            &b.subresource,
        ))
    });
    let Value::Object(object) = object else {
        return;
    };
    let metadata = object
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(metadata) = metadata else {
        return;
    };
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        let wire = entries.iter().map(Entry::to_wire).collect();
        metadata.insert("managedFields".to_owned(), Value::Array(wire));
    }
}
