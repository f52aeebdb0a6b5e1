//! How an object leaves: as itself, as its metadata only, or as a table.

use http::HeaderMap;
use http::header::ACCEPT;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::builtin::EVENTS_GROUP;
use super::error::ApiError;
use super::events;
use super::kinds::Resource;
use super::table::IncludeObject;

/// What the client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The object.
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
    /// `Table`, with this much of the object in each row.
    Table(IncludeObject),
}

impl Form {
    /// Reads `Accept`: the first media type that is offered wins; no header means JSON.
    pub fn negotiate(headers: &HeaderMap, include: Option<&str>) -> Result<Self, ApiError> {
        let accept = headers
            .get(ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("");
        if accept.trim().is_empty() {
            return Ok(Self::Whole);
        }
        for offer in accept.split(',') {
            let mut parts = offer.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            if !matches!(media, "application/json" | "application/*" | "*/*") {
                continue;
            }
            let parameters: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
            let parameter = |name: &str| {
                parameters
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, v)| *v)
            };
            match (parameter("as"), parameter("g"), parameter("v")) {
                (None, _, _) => return Ok(Self::Whole),
                (Some("Table"), Some("meta.k8s.io"), Some("v1")) => {
                    return Ok(Self::Table(IncludeObject::parse(include)));
                }
                (
                    Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                    Some("meta.k8s.io"),
                    Some("v1"),
                ) => return Ok(Self::Metadata),
                _ => {}
            }
        }
        Err(ApiError::NotAcceptable)
    }

    /// One object.
    pub fn object(self, resource: &Resource, stored: &Value, now: OffsetDateTime) -> Value {
        let object = served(resource, stored);
        match self {
            Self::Whole => object,
            Self::Metadata => partial(&object),
            Self::Table(include) => {
                resource
                    .columns
                    .table(&[&object], &object["metadata"], include, now)
            }
        }
    }

    /// A list.
    pub fn list(
        self,
        resource: &Resource,
        stored: &[std::sync::Arc<Value>],
        metadata: &Value,
        now: OffsetDateTime,
    ) -> Value {
        let items: Vec<Value> = stored
            .iter()
            .map(|object| served(resource, object))
            .collect();
        match self {
            Self::Whole => json!({
                "kind": resource.list_kind, "apiVersion": resource.api_version(),
                "metadata": metadata, "items": items,
            }),
            Self::Metadata => json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata, "items": items.iter().map(partial).collect::<Vec<_>>(),
            }),
            Self::Table(include) => {
                let items: Vec<&Value> = items.iter().collect();
                resource.columns.table(&items, metadata, include, now)
            }
        }
    }
}

/// The stored object in the version that was asked for.
pub fn served(resource: &Resource, stored: &Value) -> Value {
    let mut object = if resource.is(EVENTS_GROUP, "events") {
        events::to_new(stored)
    } else {
        stored.clone()
    };
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".to_owned(), json!(resource.api_version()));
        fields.insert("kind".to_owned(), json!(resource.kind));
    }
    object
}

fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(accept: &str) -> Result<Form, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        Form::negotiate(&headers, None)
    }

    #[test]
    fn protobuf_first_falls_back_to_json() {
        let accept = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(form(accept).unwrap(), Form::Whole);
        assert!(matches!(
            form("application/vnd.kubernetes.protobuf"),
            Err(ApiError::NotAcceptable)
        ));
        assert_eq!(form("*/*").unwrap(), Form::Whole);
    }

    #[test]
    fn the_forms_of_kubectl_and_of_metadata_watchers_are_understood() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert!(matches!(form(table).unwrap(), Form::Table(_)));
        let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(form(metadata).unwrap(), Form::Metadata);
        let old = "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form(old).unwrap(), Form::Whole);
    }
}
