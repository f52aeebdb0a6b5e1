//! Deleting: at once where nothing holds the object, else a mark that its keepers see.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use time::Duration;

use super::admit::invalid;
use super::admit_workload::{GRACE_MAX_S, pod_grace};
use super::builtin::DEFINITIONS_GROUP;
use super::call::Call;
use super::definitions::CLEANUP_FINALIZER;
use super::error::ApiError;
use super::kinds::Resource;
use super::selector::Selector;
use super::{ApiServer, FIRST_NAMESPACES, body, meta};
use crate::instants::Shift;
use crate::local::store::{Expect, Scope, StoreError, revision_of};

/// The owner waits until its dependents that block are gone.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The owner waits until its dependents no longer name it.
pub(super) const ORPHAN: &str = "orphan";

/// How often a deletion is worked out again on a newer object.
const DELETE_ATTEMPTS: u32 = 8;

/// `DeleteOptions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DeleteOptions {
    pub(super) grace_period_seconds: Option<i64>,
    pub(super) preconditions: Option<Preconditions>,
    pub(super) propagation_policy: Option<String>,
    pub(super) orphan_dependents: Option<bool>,
    pub(super) dry_run: Option<Vec<String>>,
}

/// What must still be so.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Preconditions {
    pub(super) uid: Option<String>,
    pub(super) resource_version: Option<String>,
}

impl DeleteOptions {
    /// Reads the body, which may be empty; the query fills in what it does not say.
    pub(super) fn parse(call: &Call, bytes: &[u8]) -> Result<Self, ApiError> {
        let mut options: Self = if bytes.iter().all(u8::is_ascii_whitespace) {
            Self::default()
        } else {
            serde_json::from_value(body::object(&call.media_type, bytes)?)
                .map_err(|error| ApiError::BadRequest(format!("DeleteOptions: {error}")))?
        };
        options.grace_period_seconds = options
            .grace_period_seconds
            .or(call.query.grace_period_seconds);
        options.propagation_policy = options
            .propagation_policy
            .or_else(|| call.query.propagation_policy.clone());
        if options.orphan_dependents == Some(true) && options.propagation_policy.is_none() {
            options.propagation_policy = Some("Orphan".to_owned());
        }
        options.check_grace()?;
        match options.propagation_policy.as_deref() {
            None | Some("Background" | "Foreground" | "Orphan") => Ok(options),
            Some(other) => Err(ApiError::BadRequest(format!(
                "propagationPolicy: Unsupported value: {other:?}: supported values: \
                 \"Foreground\", \"Background\", \"Orphan\""
            ))),
        }
    }

    /// Refuses a grace period that no clock can add.
    pub(super) fn check_grace(&self) -> Result<(), ApiError> {
        match self.grace_period_seconds {
            Some(seconds) if seconds > GRACE_MAX_S => Err(ApiError::Invalid {
                group: String::new(),
                kind: "DeleteOptions".to_owned(),
                name: String::new(),
                errors: vec![invalid(
                    "gracePeriodSeconds",
                    format!("Invalid value: {seconds}: must be at most {GRACE_MAX_S}"),
                )],
            }),
            _ => Ok(()),
        }
    }

    fn dry_run(&self) -> bool {
        self.dry_run.as_ref().is_some_and(|list| !list.is_empty())
    }
}

/// What a deletion came to.
#[derive(Debug)]
pub(super) enum Deleted {
    /// The object is gone.
    Gone(Arc<Value>),
    /// The object is marked and stays until its keepers let go.
    Marked(Arc<Value>),
}

impl ApiServer {
    /// `DELETE` on an object.
    pub(super) fn delete(&self, call: &Call, options: &DeleteOptions) -> Result<Deleted, ApiError> {
        let key = call.key()?;
        if call.resource.is("", "namespaces") && FIRST_NAMESPACES.contains(&key.name.as_str()) {
            let why = "this namespace may not be deleted".to_owned();
            return Err(ApiError::Forbidden {
                about: call.about(),
                why,
                cause: None,
            });
        }
        let dry_run = call.query.dry_run()? || options.dry_run();
        for _ in 0..DELETE_ATTEMPTS {
            let stored = self
                .inner
                .store
                .get(&key)
                .ok_or_else(|| ApiError::NotFound(call.about()))?;
            check(call, &stored, options)?;
            let next = self.marked(&call.resource, &stored, options);
            if dry_run {
                return Ok(Deleted::Marked(stored));
            }
            let outcome = match next {
                None => self
                    .inner
                    .store
                    .delete(&key, revision_of(&stored))
                    .map(Deleted::Gone),
                Some(next) if next == *stored => return Ok(Deleted::Marked(stored)),
                Some(next) => {
                    let expect = Expect::Revision(revision_of(&stored));
                    self.inner
                        .store
                        .put(&key, next, expect)
                        .map(Deleted::Marked)
                }
            };
            match outcome {
                Ok(outcome) => {
                    self.after_write(&call.resource);
                    return Ok(outcome);
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::modified(call.about()))
    }

    /// `DELETE` on a collection: every object that the selectors let through.
    pub(super) fn delete_collection(
        &self,
        call: &Call,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Value>>, ApiError> {
        let selector = Selector::parse(
            &call.resource.kind,
            call.query.label_selector.as_deref(),
            call.query.field_selector.as_deref(),
        )?;
        let namespace = call
            .resource
            .namespaced()
            .then_some(call.namespace.as_str());
        let listing = self.inner.store.list(&call.resource.collection(namespace));
        let mut deleted = Vec::new();
        for (key, object) in listing.objects {
            if call.is_cancelled() {
                return Err(ApiError::Cancelled);
            }
            if !selector.matches(&object) {
                continue;
            }
            let one = Call {
                name: Some(key.name),
                ..call.clone()
            };
            match self.delete(&one, options) {
                Ok(Deleted::Gone(object) | Deleted::Marked(object)) => deleted.push(object),
                Err(ApiError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }

    /// The object with the mark of its deletion, or `None` where it can go at once.
    fn marked(
        &self,
        resource: &Resource,
        stored: &Value,
        options: &DeleteOptions,
    ) -> Option<Value> {
        let mut next = stored.clone();
        match options.propagation_policy.as_deref() {
            Some("Foreground") => {
                meta::remove_finalizer(&mut next, ORPHAN);
                meta::add_finalizer(&mut next, FOREGROUND);
            }
            Some("Orphan") => {
                meta::remove_finalizer(&mut next, FOREGROUND);
                meta::add_finalizer(&mut next, ORPHAN);
            }
            Some(_) => {
                meta::remove_finalizer(&mut next, FOREGROUND);
                meta::remove_finalizer(&mut next, ORPHAN);
            }
            None => {}
        }
        let grace = if resource.is("", "pods") {
            pod_grace(stored, options.grace_period_seconds)
        } else {
            0
        };
        let namespace = resource.is("", "namespaces");
        if self.has_instances(resource, stored) {
            meta::add_finalizer(&mut next, CLEANUP_FINALIZER);
        }
        if meta::finalizers(&next).is_empty() && grace == 0 && !namespace {
            return None;
        }
        if namespace {
            next["status"] = json!({ "phase": "Terminating" });
        }
        let given = stored["metadata"]["deletionGracePeriodSeconds"].as_i64();
        if !meta::is_deleting(stored) || given.is_some_and(|given| grace < given) {
            let at = self
                .inner
                .options
                .clock
                .now()
                .plus(Duration::seconds(grace));
            meta::set(
                &mut next,
                "deletionTimestamp",
                Some(json!(meta::timestamp(at))),
            );
            meta::set(&mut next, "deletionGracePeriodSeconds", Some(json!(grace)));
            if resource.counts_generations() && !meta::is_deleting(stored) {
                let generation = stored["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
                meta::set(&mut next, "generation", Some(json!(generation)));
            }
        }
        Some(next)
    }

    /// Whether a definition still has objects, which must go first.
    fn has_instances(&self, resource: &Resource, stored: &Value) -> bool {
        if !resource.is(DEFINITIONS_GROUP, "customresourcedefinitions") {
            return false;
        }
        !self.inner.store.list(&instances(stored)).objects.is_empty()
    }
}

/// The collection that a definition defines.
pub(super) fn instances(definition: &Value) -> Scope {
    let text = |pointer: &str| {
        definition
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Scope {
        group: text("/spec/group"),
        resource: text("/spec/names/plural"),
        namespace: None,
    }
}

/// The `Status` that says an object is gone.
pub(super) fn success(call: &Call, object: &Value) -> Value {
    let mut details = json!({
        "name": meta::text(object, "name"), "kind": call.resource.plural,
        "uid": meta::text(object, "uid"),
    });
    if !call.resource.group.is_empty() {
        details["group"] = json!(call.resource.group);
    }
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details,
    })
}

fn check(call: &Call, stored: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
    let Some(wanted) = &options.preconditions else {
        return Ok(());
    };
    let pairs = [
        ("UID", &wanted.uid, meta::text(stored, "uid")),
        (
            "ResourceVersion",
            &wanted.resource_version,
            meta::text(stored, "resourceVersion"),
        ),
    ];
    for (what, wanted, found) in pairs {
        if let Some(wanted) = wanted
            && wanted != found
        {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: \
                 {found}"
            );
            return Err(ApiError::Conflict {
                about: call.about(),
                why,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::*;
    use crate::local::store::Store;

    #[test]
    fn a_deletion_of_many_stops_when_its_client_has_gone() {
        let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
        let resource = server.registry().find("", "v1", "configmaps").unwrap();
        let key = resource.key("default", "ledger");
        let object = json!({"metadata": {"name": "ledger", "namespace": "default"}});
        let store = &server.inner.store;
        store.put(&key, object, Expect::Absent).unwrap();
        let mut call = Call::internal(resource, &key, "test");
        call.name = None;
        drop(call.cancel_on_drop());
        let stopped = server.delete_collection(&call, &DeleteOptions::default());
        assert!(matches!(stopped, Err(ApiError::Cancelled)));
        assert!(store.get(&key).is_some());
    }
}
