//! Tables, so that `kubectl get` shows columns.

mod age;
mod builtin;
mod jsonpath;
mod pod;

#[cfg(test)]
mod tests;

use serde_json::{Value, json};
use time::OffsetDateTime;

use jsonpath::JsonPath;

/// The columns of one kind.
#[derive(Clone, Debug)]
pub struct Columns {
    definitions: Vec<Column>,
    cells: Cells,
}

/// One column.
#[derive(Clone, Debug)]
struct Column {
    name: String,
    value_type: String,
    format: String,
    description: String,
    priority: i64,
}

/// Where the cells of a row come from.
#[derive(Clone, Debug)]
enum Cells {
    BuiltIn(fn(&Value, OffsetDateTime) -> Vec<Value>),
    /// Behind the name, one path a column; a path that cannot be read leaves its column empty.
    Paths(Vec<Option<JsonPath>>),
}

/// How much of the object each row carries (`?includeObject=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata, as a `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// Reads the query parameter; anything unknown is the default.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("None") => Self::None,
            Some("Object") => Self::Object,
            _ => Self::Metadata,
        }
    }
}

impl Columns {
    /// The columns of a kind that Kubernetes brings itself; group `""` is core.
    pub fn built_in(group: &str, kind: &str) -> Self {
        let (definitions, cells) = builtin::find(group, kind);
        let definitions = definitions.iter().map(Column::built_in).collect();
        Self {
            definitions,
            cells: Cells::BuiltIn(cells),
        }
    }

    /// The columns of one version of a `CustomResourceDefinition`: name and age if it says nothing.
    pub fn custom(crd: &Value, version: &str) -> Self {
        let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
        let columns = versions
            .and_then(|versions| versions.iter().find(|v| v["name"] == version))
            .and_then(|version| version["additionalPrinterColumns"].as_array())
            .filter(|columns| !columns.is_empty());
        let age = [json!({ "name": "Age", "type": "date",
            "description": "Time since the object was created.",
            "jsonPath": ".metadata.creationTimestamp" })];
        let columns = columns.map_or(&age[..], Vec::as_slice);
        let path = |column: &Value| column["jsonPath"].as_str().and_then(JsonPath::parse);
        Self {
            definitions: std::iter::once(Column::name())
                .chain(columns.iter().map(Column::custom))
                .collect(),
            cells: Cells::Paths(columns.iter().map(path).collect()),
        }
    }

    /// A `Table` of `objects`. `list_metadata` is the `metadata` of the list, or of the single
    /// object, of which only the version counts. A watch event carries a table of one row.
    pub fn table(
        &self,
        objects: &[&Value],
        list_metadata: &Value,
        include: IncludeObject,
        now: OffsetDateTime,
    ) -> Value {
        let mut metadata = serde_json::Map::new();
        for name in ["resourceVersion", "continue", "remainingItemCount"] {
            if let Some(value) = list_metadata.get(name) {
                metadata.insert(name.to_owned(), value.clone());
            }
        }
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "columnDefinitions": self.definitions.iter().map(Column::wire).collect::<Vec<_>>(),
            "rows": objects.iter().map(|o| self.row(o, include, now)).collect::<Vec<_>>(),
        })
    }

    fn row(&self, object: &Value, include: IncludeObject, now: OffsetDateTime) -> Value {
        let cells = match &self.cells {
            Cells::BuiltIn(cells) => cells(object, now),
            Cells::Paths(paths) => {
                let cell = |(path, column): (&Option<JsonPath>, &Column)| {
                    let found = path.as_ref().map(|p| p.find(object)).unwrap_or_default();
                    found
                        .first()
                        .map_or(Value::Null, |value| column.cell(value, now))
                };
                let name = object["metadata"]["name"].clone();
                std::iter::once(name)
                    .chain(paths.iter().zip(&self.definitions[1..]).map(cell))
                    .collect()
            }
        };
        match include {
            IncludeObject::None => json!({ "cells": cells }),
            IncludeObject::Object => json!({ "cells": cells, "object": object }),
            IncludeObject::Metadata => json!({ "cells": cells, "object": {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
            } }),
        }
    }
}

// === impl Column ===

impl Column {
    fn name() -> Self {
        Self::built_in(&("Name", "string", 0))
    }

    fn built_in((name, value_type, priority): &(&str, &str, i64)) -> Self {
        Self {
            name: (*name).to_owned(),
            value_type: (*value_type).to_owned(),
            format: if *name == "Name" {
                "name".to_owned()
            } else {
                String::new()
            },
            description: String::new(),
            priority: *priority,
        }
    }

    fn custom(column: &Value) -> Self {
        let text = |name: &str| column[name].as_str().unwrap_or_default().to_owned();
        Self {
            name: text("name"),
            value_type: text("type"),
            format: text("format"),
            description: text("description"),
            priority: column["priority"].as_i64().unwrap_or_default(),
        }
    }

    fn wire(&self) -> Value {
        json!({
            "name": self.name,
            "type": self.value_type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        })
    }

    /// A value as a cell of this column; null where it has not the column's type.
    fn cell(&self, value: &Value, now: OffsetDateTime) -> Value {
        match (self.value_type.as_str(), value) {
            (_, Value::Null) => Value::Null,
            ("date", value) => json!(age::since(value.as_str(), now)),
            ("integer", Value::Number(n)) => n.as_i64().map_or(Value::Null, Value::from),
            ("number", Value::Number(_))
            | ("boolean", Value::Bool(_))
            | ("string", Value::String(_)) => value.clone(),
            ("string", value) => json!(value.to_string()),
            _ => Value::Null,
        }
    }
}
