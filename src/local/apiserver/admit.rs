//! What is filled in and what is checked before an object is stored, by kind. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::builtin::DEFINITIONS_GROUP;
use super::definitions;
use super::error::ApiError;
use super::kinds::{Origin, Resource};
use super::meta;
use super::schema;
use super::schema::errors::{FieldError, Reason, strict_message, unknown_field};
use crate::local::rules;

/// `fieldValidation`: what happens to fields nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownFields {
    /// Drop them.
    Ignore,
    /// Drop them and say so in a `Warning` header.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl UnknownFields {
    /// Reads the query parameter.
    pub fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        match text {
            None | Some("" | "Warn") => Ok(Self::Warn),
            Some("Ignore") => Ok(Self::Ignore),
            Some("Strict") => Ok(Self::Strict),
            Some(other) => Err(ApiError::BadRequest(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \
                 \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// Fills in and checks `object`; `old` is the stored object on an update. Returns warnings.
pub fn admit(
    resource: &Resource,
    object: &mut Value,
    old: Option<&Value>,
    unknown: UnknownFields,
    now: &str,
) -> Result<Vec<String>, ApiError> {
    let mut errors = name_errors(object);
    let mut warnings = Vec::new();
    let dropped = known_only(resource, object)?;
    if !dropped.is_empty() && unknown == UnknownFields::Strict {
        return Err(ApiError::BadRequest(strict_message(
            &resource.kind,
            &resource.version,
            &dropped,
        )));
    }
    if unknown == UnknownFields::Warn {
        warnings = dropped.iter().map(|path| unknown_field(path)).collect();
    }
    match &resource.origin {
        Origin::Custom(version) => {
            version.default(object);
            errors.extend(version.validate(object, old));
        }
        Origin::BuiltIn(_) => built_in(resource, object, old, &mut errors, now),
    }
    if errors.is_empty() {
        return Ok(warnings);
    }
    let name = meta::text(object, "name").to_owned();
    Err(ApiError::invalid_fields(resource, &name, errors))
}

/// Drops the fields that the kind does not have; returns their paths. A kind of Kubernetes' own is
/// refused here where a value has another type than its field.
fn known_only(resource: &Resource, object: &mut Value) -> Result<Vec<String>, ApiError> {
    match &resource.origin {
        Origin::Custom(version) => Ok(version.prune(object)),
        Origin::BuiltIn(_) => {
            let (kind, version) = (&resource.kind, &resource.version);
            let Some(schema) = schema::built_in(&resource.group, kind) else {
                return Ok(Vec::new());
            };
            match schema.misfit(object) {
                Some(why) => Err(ApiError::BadRequest(format!(
                    "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
                ))),
                None => Ok(schema.prune(object)),
            }
        }
    }
}

fn built_in(
    resource: &Resource,
    object: &mut Value,
    old: Option<&Value>,
    errors: &mut Vec<FieldError>,
    now: &str,
) {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "secrets") => secret(object, old, errors),
        ("", "configmaps") => config_map(object, old, errors),
        ("", "namespaces") => namespace(object),
        ("", "pods") => super::admit_workload::pod(object, old, errors),
        ("", "services") => super::admit_workload::service(object, old, errors),
        ("apps", "statefulsets") => super::admit_workload::stateful_set(object, old, errors),
        (DEFINITIONS_GROUP, "customresourcedefinitions") => {
            errors.extend(definitions::check(object));
            if errors.is_empty() {
                definitions::complete(object, now);
            }
        }
        _ => {}
    }
}

/// `target.entry(name)` is set to `value` where it is missing or null.
pub fn default(target: &mut Map<String, Value>, name: &str, value: Value) {
    if target.get(name).is_none_or(Value::is_null) {
        target.insert(name.to_owned(), value);
    }
}

/// A field whose value may not stand there.
pub fn invalid(field: &str, message: impl Into<String>) -> FieldError {
    FieldError {
        field: field.to_owned(),
        reason: Reason::Invalid,
        message: message.into(),
    }
}

/// A field that may not be changed.
pub fn forbidden(field: &str, message: impl Into<String>) -> FieldError {
    FieldError {
        field: field.to_owned(),
        reason: Reason::Forbidden,
        message: format!("Forbidden: {}", message.into()),
    }
}

fn name_errors(object: &Value) -> Vec<FieldError> {
    const RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
         characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
         'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    let name = meta::text(object, "name");
    // Roles of rbac may hold colons, as `system:` names do.
    let rbac = object["apiVersion"]
        .as_str()
        .is_some_and(|v| v.starts_with("rbac."));
    let inner =
        |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || (rbac && c == b':');
    let label = |part: &str| {
        let bytes = part.as_bytes();
        !bytes.is_empty()
            && bytes.iter().all(|c| inner(*c))
            && bytes.first() != Some(&b'-')
            && bytes.last() != Some(&b'-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        Vec::new()
    } else {
        vec![invalid(
            "metadata.name",
            format!("Invalid value: {name:?}: {RULE}"),
        )]
    }
}

/// The rules of a `ConfigMap`.
fn config_map(object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    data_keys(object, old, errors);
    if let (Some(text), Some(binary)) =
        (object["data"].as_object(), object["binaryData"].as_object())
    {
        let twice = text.keys().filter(|key| binary.contains_key(*key));
        errors.extend(twice.map(|key| {
            let message = format!("Invalid value: {key:?}: duplicate of key present in data");
            invalid(&format!("binaryData[{key}]"), message)
        }));
    }
    immutable_data(object, old, errors);
}

/// Keys become file names in pods.
fn data_keys(object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    for field in ["data", "binaryData"] {
        if old.is_some_and(|old| old[field] == object[field]) {
            continue;
        }
        for key in object[field]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key)
        {
            if let Err(why) = rules::data_key(key) {
                let message = format!("Invalid value: {key:?}: {why}");
                errors.push(invalid(&format!("{field}[{key}]"), message));
            }
        }
    }
}

/// `stringData` becomes `data`; the type and, where asked for, the data never change.
fn secret(object: &mut Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    if let Some(Value::Object(plain)) = fields.remove("stringData") {
        default(fields, "data", json!({}));
        if let Some(data) = fields.get_mut("data").and_then(Value::as_object_mut) {
            let encode = |value: &Value| json!(STANDARD.encode(value.as_str().unwrap_or_default()));
            data.extend(
                plain
                    .iter()
                    .map(|(key, value)| (key.clone(), encode(value))),
            );
        }
    }
    default(fields, "type", json!("Opaque"));
    for (key, value) in fields
        .get("data")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if value
            .as_str()
            .is_none_or(|text| STANDARD.decode(text).is_err())
        {
            errors.push(invalid(
                &format!("data[{key}]"),
                "Invalid value: must be base64",
            ));
        }
    }
    if fields["type"] == "kubernetes.io/tls" {
        for key in ["tls.crt", "tls.key"] {
            if fields
                .get("data")
                .is_none_or(|data| data.get(key).is_none())
            {
                errors.push(FieldError {
                    field: format!("data[{key}]"),
                    reason: Reason::Required,
                    message: "Required value".to_owned(),
                });
            }
        }
    }
    if let Some(old) = old
        && old["type"] != fields["type"]
    {
        errors.push(invalid(
            "type",
            format!("Invalid value: {}: field is immutable", fields["type"]),
        ));
    }
    data_keys(object, old, errors);
    immutable_data(object, old, errors);
}

fn immutable_data(object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else {
        return;
    };
    if object["immutable"] != true {
        errors.push(forbidden(
            "immutable",
            "field is immutable when `immutable` is set",
        ));
    }
    for field in ["data", "binaryData"] {
        let empty = |value: &Value| value.as_object().is_none_or(Map::is_empty);
        if object[field] != old[field] && !(empty(&object[field]) && empty(&old[field])) {
            errors.push(forbidden(
                field,
                "field is immutable when `immutable` is set",
            ));
        }
    }
}

fn namespace(object: &mut Value) {
    let name = meta::text(object, "name").to_owned();
    if let Some(fields) = object.as_object_mut() {
        default(fields, "spec", json!({ "finalizers": ["kubernetes"] }));
        default(fields, "status", json!({ "phase": "Active" }));
    }
    let Some(metadata) = meta::metadata(object) else {
        return;
    };
    default(metadata, "labels", json!({}));
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        default(labels, "kubernetes.io/metadata.name", json!(name));
    }
}
