//! Changing an object that is there: one pure step from the stored object to the next, repeated
//! while somebody else was faster.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::admit::{self, forbidden};
use super::apply;
use super::builtin::{DEFINITIONS_GROUP, EVENTS_GROUP};
use super::call::{Call, Written};
use super::create::{Ownership, place};
use super::error::ApiError;
use super::kinds::{Origin, Resource};
use super::{ApiServer, body, bounds, events, meta};
use crate::local::store::{Expect, StoreError, revision_of};

/// How often a change is worked out again on a newer object before the client is told.
const CHANGE_ATTEMPTS: u32 = 8;

/// Fields of `metadata` that an update never changes.
const KEPT_METADATA: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
];

impl ApiServer {
    /// `PUT` on an object or on its status.
    pub(super) fn replace(&self, call: &Call, object: Value) -> Result<Written, ApiError> {
        let mut object = body::typed(&call.resource, object)?;
        place(call, &mut object)?;
        if call.resource.is(EVENTS_GROUP, "events") {
            object = events::to_stored(&object);
        }
        let custom = matches!(call.resource.origin, Origin::Custom(_));
        if custom && meta::text(&object, "resourceVersion").is_empty() {
            let message = "Invalid value: 0x0: must be specified for an update";
            let error = admit::invalid("metadata.resourceVersion", message);
            return Err(ApiError::invalid(&call.resource, call.name()?, error));
        }
        self.change(call, Ownership::Record, |_| Ok(object.clone()))
    }

    /// Changes the object by `step`, which is given the stored object in the version asked for.
    pub(super) fn change(
        &self,
        call: &Call,
        ownership: Ownership,
        step: impl Fn(&Value) -> Result<Value, ApiError>,
    ) -> Result<Written, ApiError> {
        let key = call.key()?;
        for _ in 0..CHANGE_ATTEMPTS {
            let stored = self
                .inner
                .store
                .get(&key)
                .ok_or_else(|| ApiError::NotFound(call.about()))?;
            let next = step(&stored)?;
            let (next, warnings) = self.next(call, &stored, next, ownership)?;
            if call.query.dry_run()? || same(&stored, &next) {
                let object = if same(&stored, &next) {
                    stored
                } else {
                    Arc::new(next)
                };
                return Ok(Written {
                    created: false,
                    object,
                    warnings,
                });
            }
            match self.store_change(&call.resource, &key, &stored, next) {
                Ok(object) => {
                    return Ok(Written {
                        created: false,
                        object,
                        warnings,
                    });
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::modified(call.about()))
    }

    /// The object that would be stored.
    fn next(
        &self,
        call: &Call,
        stored: &Value,
        mut next: Value,
        ownership: Ownership,
    ) -> Result<(Value, Vec<String>), ApiError> {
        preconditions(call, stored, &next)?;
        let resource = &call.resource;
        next = part(call, stored, next);
        for field in KEPT_METADATA {
            meta::copy(stored, &mut next, field);
        }
        meta::copy(stored, &mut next, "resourceVersion");
        bounds::check_depth(&next)?;
        let known: HashSet<&str> = meta::finalizers(stored).into_iter().collect();
        let added = meta::finalizers(&next).iter().any(|f| !known.contains(f));
        if meta::is_deleting(stored) && added {
            let message = "no new finalizers can be added if the object is being deleted";
            let error = forbidden("metadata.finalizers", message);
            return Err(ApiError::invalid(resource, call.name()?, error));
        }
        let now = self.now();
        let unknown = call.unknown_fields()?;
        let warnings = admit::admit(resource, &mut next, Some(stored), unknown, &now)?;
        if resource.counts_generations() && !same_spec(stored, &next) {
            let generation = stored["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            meta::set(&mut next, "generation", Some(json!(generation)));
        }
        if ownership == Ownership::Record {
            apply::record_update(Some(stored), &mut next, &call.write(&now));
        }
        bounds::check_size(Some(stored), &next)?;
        self.check_escalation(call, Some(stored), &next)?;
        Ok((next, warnings))
    }

    /// Stores the next object, or removes it where that was the last finalizer.
    pub(super) fn store_change(
        &self,
        resource: &Resource,
        key: &crate::local::store::Key,
        stored: &Value,
        next: Value,
    ) -> Result<Arc<Value>, StoreError> {
        let revision = revision_of(stored);
        let grace = next["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0);
        let namespace = resource.is("", "namespaces");
        let ended = meta::is_deleting(&next)
            && meta::finalizers(&next).is_empty()
            && grace == 0
            && !namespace;
        let object = if ended {
            self.inner.store.delete(key, revision)?
        } else {
            self.inner
                .store
                .put(key, next, Expect::Revision(revision))?
        };
        self.after_write(resource);
        Ok(object)
    }

    /// What a write of this resource changes in the server itself.
    pub(super) fn after_write(&self, resource: &Resource) {
        if resource.is(DEFINITIONS_GROUP, "customresourcedefinitions") {
            self.reload_definitions();
        }
    }
}

/// A revision or a uid that the client sends is a condition.
fn preconditions(call: &Call, stored: &Value, next: &Value) -> Result<(), ApiError> {
    let (asked, found) = (
        meta::text(next, "resourceVersion"),
        meta::text(stored, "resourceVersion"),
    );
    if !asked.is_empty() && asked != found {
        return Err(ApiError::modified(call.about()));
    }
    let (asked, found) = (meta::text(next, "uid"), meta::text(stored, "uid"));
    if !asked.is_empty() && asked != found {
        let why = format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"
        );
        return Err(ApiError::Conflict {
            about: call.about(),
            why,
        });
    }
    Ok(())
}

/// The part of `next` that this request may write, over what is stored.
fn part(call: &Call, stored: &Value, mut next: Value) -> Value {
    if call.is_status() {
        let mut object = stored.clone();
        copy_field(&next, &mut object, "status");
        meta::copy(&next, &mut object, "managedFields");
        return object;
    }
    // A binding names the node and the scale the replicas; both write the main part.
    if call.resource.has("status") {
        copy_field(stored, &mut next, "status");
    }
    next
}

fn copy_field(from: &Value, to: &mut Value, field: &str) {
    let Some(fields) = to.as_object_mut() else {
        return;
    };
    match from.get(field) {
        Some(value) => fields.insert(field.to_owned(), value.clone()),
        None => fields.remove(field),
    };
}

/// Whether nothing but `metadata` and `status` differs.
fn same_spec(one: &Value, other: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(fields) = object.as_object_mut() {
            fields.retain(|name, _| {
                !matches!(name.as_str(), "metadata" | "status" | "apiVersion" | "kind")
            });
        }
        object
    };
    rest(one) == rest(other)
}

/// Whether storing `next` would change nothing but times in `managedFields`. Such a write is
/// answered and not stored, so that controllers that write the same thing again come to rest.
fn same(stored: &Value, next: &Value) -> bool {
    let without_times = |object: &Value| {
        let mut object = object.clone();
        let entries = object
            .pointer_mut("/metadata/managedFields")
            .and_then(Value::as_array_mut);
        for entry in entries.into_iter().flatten() {
            if let Some(entry) = entry.as_object_mut() {
                entry.remove("time");
            }
        }
        object
    };
    without_times(stored) == without_times(next)
}
