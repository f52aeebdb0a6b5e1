//! The four kinds of patch.

use serde_json::Value;

use super::access::Attributes;
use super::apply::{ApplyError, OnConflict, apply};
use super::bounds::{self, PatchRefused};
use super::builtin::EVENTS_GROUP;
use super::call::{Call, Written};
use super::create::{Ownership, place};
use super::error::ApiError;
use super::kinds::Origin;
use super::{ApiServer, body, events, meta, strategic};
use crate::opaque;

const OF_CUSTOM: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

impl ApiServer {
    /// `PATCH` on an object or on its status.
    pub(super) fn patch(&self, call: &Call, bytes: &[u8]) -> Result<Written, ApiError> {
        match call.media_type.as_str() {
            "application/merge-patch+json" => {
                let patch = body::json_value(bytes)?;
                self.change(call, Ownership::Record, |stored| {
                    patched(call, stored, |object| {
                        json_patch::merge(object, &patch);
                        Ok(())
                    })
                })
            }
            "application/json-patch+json" => self.json_patch(call, bytes),
            "application/strategic-merge-patch+json" => {
                if matches!(call.resource.origin, Origin::Custom(_)) {
                    return Err(ApiError::UnsupportedMediaType(OF_CUSTOM));
                }
                let patch = body::json_value(bytes)?;
                self.change(call, Ownership::Record, |stored| {
                    patched(call, stored, |object| {
                        strategic::patch(object, &patch, call.resource.shape())
                            .map_err(|error| ApiError::BadRequest(error.to_string()))
                    })
                })
            }
            "application/apply-patch+yaml" | "application/apply-patch+json" => {
                self.apply(call, body::yaml_value(bytes)?)
            }
            _ => Err(ApiError::UnsupportedMediaType(OF_CUSTOM)),
        }
    }

    fn json_patch(&self, call: &Call, bytes: &[u8]) -> Result<Written, ApiError> {
        let patch: json_patch::Patch = serde_json::from_slice(bytes).map_err(|error| {
            ApiError::BadRequest(format!("error decoding patch: {}", opaque::shape(&error)))
        })?;
        self.change(call, Ownership::Record, |stored| {
            patched(call, stored, |object| {
                apply_json_patch(call, object, &patch)
            })
        })
    }

    /// Server-side apply: creates the object where it is not there.
    fn apply(&self, call: &Call, config: Value) -> Result<Written, ApiError> {
        if call
            .query
            .field_manager
            .as_deref()
            .unwrap_or_default()
            .is_empty()
        {
            return Err(ApiError::BadRequest(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is \
                 required for apply patch"
                    .to_owned(),
            ));
        }
        let mut config = body::typed(&call.resource, config)?;
        place(call, &mut config)?;
        if config["metadata"]["managedFields"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
        {
            return Err(ApiError::BadRequest(
                "metadata.managedFields must be nil".to_owned(),
            ));
        }
        meta::set(&mut config, "managedFields", None);
        meta::set(&mut config, "creationTimestamp", None);
        own_part(call, &mut config);
        let on_conflict = if call.query.force() {
            OnConflict::Force
        } else {
            OnConflict::Refuse
        };
        let now = self.now();
        let stored = self.inner.store.get(&call.key()?);
        if stored.is_none() {
            if call.subresource.is_some() || !meta::text(&config, "uid").is_empty() {
                return Err(ApiError::NotFound(call.about()));
            }
            // An apply that creates needs both verbs.
            let creation = Attributes {
                verb: "create".to_owned(),
                group: call.resource.group.clone(),
                resource: call.resource.plural.clone(),
                subresource: String::new(),
                namespace: call.namespace.clone(),
                name: String::new(),
            };
            self.authorize(&call.identity, &creation)?;
            let object = apply(None, &config, &call.write(&now), on_conflict)
                .map_err(|error| refused(&error))?;
            match self.create_object(call, object, Ownership::Applied) {
                // Somebody created it a moment ago: apply to theirs.
                Err(ApiError::AlreadyExists(_)) => {}
                other => return other,
            }
        }
        self.change(call, Ownership::Applied, |stored| {
            let mut live = super::present::served(&call.resource, stored);
            let revision = config["metadata"].get("resourceVersion").cloned();
            meta::set(&mut live, "resourceVersion", None);
            let mut next = apply(Some(&live), &config, &call.write(&now), on_conflict)
                .map_err(|error| refused(&error))?;
            meta::set(&mut next, "resourceVersion", revision);
            Ok(if call.resource.is(EVENTS_GROUP, "events") {
                events::to_stored(&next)
            } else {
                next
            })
        })
    }
}

/// Applies a JSON patch within the bounds of patches.
pub(super) fn apply_json_patch(
    call: &Call,
    object: &mut Value,
    patch: &json_patch::Patch,
) -> Result<(), ApiError> {
    bounds::json_patch(object, patch).map_err(|error| match error {
        PatchRefused::TooLarge(why) => ApiError::PatchTooLarge(why),
        PatchRefused::Broken(error) => {
            let error = super::admit::invalid("patch", format!("Invalid value: {error}"));
            let name = call.name.as_deref().unwrap_or_default();
            ApiError::invalid(&call.resource, name, error)
        }
    })
}

/// The stored object, in the version asked for, with a patch applied.
fn patched(
    call: &Call,
    stored: &Value,
    patch: impl Fn(&mut Value) -> Result<(), ApiError>,
) -> Result<Value, ApiError> {
    let mut object = super::present::served(&call.resource, stored);
    patch(&mut object)?;
    let mut object = body::typed(&call.resource, object)?;
    place(call, &mut object)?;
    Ok(if call.resource.is(EVENTS_GROUP, "events") {
        events::to_stored(&object)
    } else {
        object
    })
}

/// An applier of the status owns nothing else, and an applier of the rest owns no status.
fn own_part(call: &Call, config: &mut Value) {
    let Some(fields) = config.as_object_mut() else {
        return;
    };
    if call.is_status() {
        fields.retain(|name, _| {
            matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status")
        });
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|name, _| {
                matches!(
                    name.as_str(),
                    "name" | "namespace" | "uid" | "resourceVersion"
                )
            });
        }
    } else if call.resource.has("status") {
        fields.remove("status");
    }
}

fn refused(error: &ApplyError) -> ApiError {
    let message = error.to_string();
    match error {
        ApplyError::Conflicts(_) => ApiError::ApplyConflict {
            message,
            causes: error.causes(),
        },
        ApplyError::Malformed(_) => ApiError::BadRequest(message),
    }
}
