//! Request bodies: bounded, JSON or YAML, and of the kind the path names.

use axum::body::Body;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::error::ApiError;
use super::kinds::Resource;
use super::protobuf;
use crate::opaque::{JsonTrouble, YamlTrouble};

/// Largest body. Kubernetes' own limit: etcd takes 1.5 MiB and a patch may be twice its object.
pub const BODY_MAX_BYTES: usize = 3 * 1024 * 1024;

/// Reads a body of at most [`BODY_MAX_BYTES`].
pub async fn read(body: Body) -> Result<Vec<u8>, ApiError> {
    match axum::body::to_bytes(body, BODY_MAX_BYTES).await {
        Ok(bytes) => Ok(bytes.to_vec()),
        Err(error) => {
            let limit = std::error::Error::source(&error)
                .is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>);
            if limit {
                Err(ApiError::TooLarge(BODY_MAX_BYTES))
            } else {
                Err(ApiError::BadRequest(format!(
                    "the body could not be read: {error}"
                )))
            }
        }
    }
}

/// The media type of the body, without parameters.
pub fn media_type(headers: &HeaderMap) -> String {
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    text.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// An object in JSON, YAML, or, for a few kinds, protobuf; anything else is refused.
pub fn object(media_type: &str, bytes: &[u8]) -> Result<Value, ApiError> {
    match media_type {
        "" | "application/json" => json_value(bytes),
        "application/yaml" | "text/yaml" => yaml_value(bytes),
        protobuf::MEDIA_TYPE => {
            protobuf::decode(bytes).map_err(|error| ApiError::BadRequest(error.to_string()))
        }
        _ => Err(ApiError::UnsupportedMediaType(
            "application/json, application/yaml",
        )),
    }
}

/// Any JSON value.
pub fn json_value(bytes: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(bytes).map_err(|error| {
        let trouble = JsonTrouble::from(error);
        ApiError::BadRequest(format!(
            "the object provided is not readable as JSON: {trouble}"
        ))
    })
}

/// Any YAML value. JSON is YAML too, and is tried first because most clients send it.
pub fn yaml_value(bytes: &[u8]) -> Result<Value, ApiError> {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| ApiError::BadRequest("the object provided is not UTF-8 text".to_owned()))?;
    serde_saphyr::from_str(text).map_err(|error| {
        let trouble = YamlTrouble::from(error);
        ApiError::BadRequest(format!(
            "the object provided is not readable as YAML: {trouble}"
        ))
    })
}

/// Makes sure that `object` is one of `resource`, and that it has `metadata`.
pub fn typed(resource: &Resource, mut object: Value) -> Result<Value, ApiError> {
    let bad = |text: String| Err(ApiError::BadRequest(text));
    if !object.is_object() {
        return bad("the object provided is not an object".to_owned());
    }
    let wanted = resource.api_version();
    match object["apiVersion"].as_str().unwrap_or_default() {
        "" => object["apiVersion"] = json!(wanted),
        found if found == wanted => {}
        found => {
            return bad(format!(
                "the API version in the data ({found}) does not match the expected API version \
                 ({wanted})"
            ));
        }
    }
    match object["kind"].as_str().unwrap_or_default() {
        "" => object["kind"] = json!(resource.kind),
        found if found == resource.kind => {}
        found => {
            return bad(format!(
                "{found} in version {wanted:?} cannot be handled as a {}",
                resource.kind
            ));
        }
    }
    match &object["metadata"] {
        Value::Object(_) => {}
        Value::Null => object["metadata"] = json!({}),
        _ => return bad("metadata is not an object".to_owned()),
    }
    Ok(object)
}
