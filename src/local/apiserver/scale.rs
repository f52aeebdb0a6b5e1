//! The scale subresource, and the binding of a pod to its node: small faces of an object.

use serde_json::{Value, json};

use super::ApiServer;
use super::admit_workload::REPLICAS_MAX;
use super::call::{Call, Written};
use super::create::Ownership;
use super::error::ApiError;
use super::kinds::{Resource, ScalePaths};
use super::patch::apply_json_patch;
use super::{admit, body, meta};
use crate::opaque;

impl ApiServer {
    /// `GET …/scale`.
    pub(super) fn scale(&self, call: &Call) -> Result<Value, ApiError> {
        let paths = call.resource.scale.as_ref().ok_or(ApiError::NoSuchPath)?;
        Ok(scale_of(&call.resource, paths, &*self.object(call)?))
    }

    /// `PUT …/scale` and `PATCH …/scale`.
    pub(super) fn rescale(
        &self,
        call: &Call,
        step: impl Fn(&mut Value) -> Result<(), ApiError>,
    ) -> Result<Value, ApiError> {
        let paths = call.resource.scale.as_ref().ok_or(ApiError::NoSuchPath)?;
        let written = self.change(call, Ownership::Record, |stored| {
            let mut scale = scale_of(&call.resource, paths, stored);
            step(&mut scale)?;
            let replicas = scale["spec"]["replicas"].as_i64();
            let Some(replicas) = replicas.filter(|n| (0..=REPLICAS_MAX).contains(n)) else {
                let message = format!(
                    "Invalid value: {}: must be between 0 and {REPLICAS_MAX}, inclusive",
                    scale["spec"]["replicas"]
                );
                let error = admit::invalid("spec.replicas", message);
                return Err(ApiError::invalid(&call.resource, call.name()?, error));
            };
            let mut next = stored.clone();
            set_pointer(&mut next, &paths.spec, json!(replicas));
            meta::copy(&scale, &mut next, "resourceVersion");
            Ok(next)
        })?;
        Ok(scale_of(&call.resource, paths, &written.object))
    }

    /// `PATCH …/scale` with a merge patch or a JSON patch.
    pub(super) fn patch_scale(&self, call: &Call, bytes: &[u8]) -> Result<Value, ApiError> {
        match call.media_type.as_str() {
            "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
                let patch = body::json_value(bytes)?;
                self.rescale(call, |scale| {
                    json_patch::merge(scale, &patch);
                    Ok(())
                })
            }
            "application/json-patch+json" => {
                let patch: json_patch::Patch = serde_json::from_slice(bytes).map_err(|error| {
                    ApiError::BadRequest(format!("error decoding patch: {}", opaque::shape(&error)))
                })?;
                self.rescale(call, |scale| apply_json_patch(call, scale, &patch))
            }
            _ => Err(ApiError::UnsupportedMediaType(
                "application/json-patch+json, application/merge-patch+json",
            )),
        }
    }

    /// `POST pods/{name}/binding`.
    pub(super) fn bind(&self, call: &Call, binding: &Value) -> Result<Written, ApiError> {
        let Some(node) = binding["target"]["name"]
            .as_str()
            .filter(|node| !node.is_empty())
        else {
            return Err(ApiError::BadRequest(
                "target.name: Required value".to_owned(),
            ));
        };
        self.change(call, Ownership::Record, |stored| {
            let mut next = stored.clone();
            set_pointer(&mut next, "/spec/nodeName", json!(node));
            Ok(next)
        })
    }
}

fn scale_of(resource: &Resource, paths: &ScalePaths, object: &Value) -> Value {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let selector = match &paths.selector {
        Some(pointer) => object
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(ToOwned::to_owned),
        None if resource.group == "apps" => {
            let labels = object["spec"]["selector"]["matchLabels"].as_object();
            let labels = labels.into_iter().flatten();
            let parts: Vec<String> = labels
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect();
            Some(parts.join(","))
        }
        None => None,
    };
    let mut metadata = json!({});
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        metadata[field] = object["metadata"][field].clone();
    }
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": { "replicas": number(&paths.spec) },
        "status": { "replicas": number(&paths.status) },
    });
    if let Some(selector) = selector {
        scale["status"]["selector"] = json!(selector);
    }
    scale
}

/// Sets the field at a JSON pointer, making the maps on the way.
fn set_pointer(object: &mut Value, pointer: &str, value: Value) {
    let mut nested = value;
    for part in pointer.rsplit('/').filter(|part| !part.is_empty()) {
        nested = json!({ part: nested });
    }
    json_patch::merge(object, &nested);
}
