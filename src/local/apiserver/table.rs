//! Tables, so that `kubectl get` shows columns.

use serde_json::{Value, json};
use time::OffsetDateTime;

/// The columns of one kind.
#[derive(Clone, Debug, Default)]
pub struct Columns {}

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
    pub fn built_in(_group: &str, _kind: &str) -> Self {
        Self::default()
    }

    /// The columns of one version of a `CustomResourceDefinition`.
    pub fn custom(_crd: &Value, _version: &str) -> Self {
        Self::default()
    }

    /// A `Table` of `objects`. `list_metadata` is the `metadata` of the list (or of the single
    /// object, of which only `resourceVersion` is used). A watch event carries a table of one row.
    pub fn table(
        &self,
        objects: &[&Value],
        list_metadata: &Value,
        include: IncludeObject,
        now: OffsetDateTime,
    ) -> Value {
        let (_, _) = (include, now);
        let rows: Vec<Value> = objects
            .iter()
            .map(|o| json!({ "cells": [o["metadata"]["name"]], "object": o }))
            .collect();
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": { "resourceVersion": list_metadata["resourceVersion"] },
            "columnDefinitions": [{
                "name": "Name", "type": "string", "format": "name", "description": "", "priority": 0,
            }],
            "rows": rows,
        })
    }
}
