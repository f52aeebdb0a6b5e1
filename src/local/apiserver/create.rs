//! Creating an object.

use serde_json::{Value, json};

use super::apply;
use super::builtin::EVENTS_GROUP;
use super::call::{Call, Written};
use super::error::{About, ApiError};
use super::{ApiServer, admit, body, bounds, events, meta};
use crate::local::store::{Expect, StoreError};

/// Tries to find a free generated name.
const GENERATE_ATTEMPTS: u32 = 5;

/// Whether `managedFields` are still to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// An ordinary write: whatever changed becomes the writer's.
    Record,
    /// A server-side apply has written them already.
    Applied,
}

impl ApiServer {
    /// `POST` on a collection.
    pub(super) fn create(&self, call: &Call, object: Value) -> Result<Written, ApiError> {
        let object = body::typed(&call.resource, object)?;
        let generated = meta::text(&object, "name").is_empty();
        for attempt in 1.. {
            match self.create_object(call, object.clone(), Ownership::Record) {
                Err(ApiError::AlreadyExists(_)) if generated && attempt < GENERATE_ATTEMPTS => {}
                other => return other,
            }
        }
        Err(ApiError::AlreadyExists(call.about()))
    }

    /// Stores a typed object that is not there yet.
    pub(super) fn create_object(
        &self,
        call: &Call,
        mut object: Value,
        ownership: Ownership,
    ) -> Result<Written, ApiError> {
        let resource = &call.resource;
        if resource.is(EVENTS_GROUP, "events") {
            object = events::to_stored(&object);
        }
        self.name(&mut object)?;
        place(call, &mut object)?;
        bounds::check_depth(&object)?;
        let now = self.now();
        self.fresh(&mut object, &now);
        if let (true, Some(fields)) = (resource.has("status"), object.as_object_mut()) {
            fields.remove("status");
        }
        let unknown = call.unknown_fields()?;
        let warnings = admit::admit(resource, &mut object, None, unknown, &now)?;
        if resource.counts_generations() {
            meta::set(&mut object, "generation", Some(json!(1)));
        }
        if ownership == Ownership::Record {
            meta::set(&mut object, "managedFields", None);
            apply::record_update(None, &mut object, &call.write(&now));
        }
        bounds::check_size(None, &object)?;
        self.check_escalation(call, None, &object)?;
        let name = meta::text(&object, "name").to_owned();
        let about = About::object(resource, &name);
        self.check_namespace(call, &about)?;
        let key = resource.key(&call.namespace, &name);
        if call.query.dry_run()? {
            if self.inner.store.get(&key).is_some() {
                return Err(ApiError::AlreadyExists(about));
            }
            return Ok(Written {
                created: true,
                object: object.into(),
                warnings,
            });
        }
        match self.inner.store.put(&key, object, Expect::Absent) {
            Ok(object) => {
                self.after_write(resource);
                Ok(Written {
                    created: true,
                    object,
                    warnings,
                })
            }
            Err(StoreError::Conflict { .. }) => Err(ApiError::AlreadyExists(about)),
            Err(error) => Err(error.into()),
        }
    }

    fn name(&self, object: &mut Value) -> Result<(), ApiError> {
        if !meta::text(object, "name").is_empty() {
            return Ok(());
        }
        let prefix = meta::text(object, "generateName").to_owned();
        if prefix.is_empty() {
            return Err(ApiError::BadRequest(
                "resource name may not be empty: name or generateName is required".to_owned(),
            ));
        }
        let name = meta::generated_name(&prefix, &self.inner.random);
        meta::set(object, "name", Some(json!(name)));
        Ok(())
    }

    /// What only the server says of a new object.
    fn fresh(&self, object: &mut Value, now: &str) {
        meta::set(object, "uid", Some(json!(meta::uid(&self.inner.random))));
        meta::set(object, "creationTimestamp", Some(json!(now)));
        for field in [
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "resourceVersion",
            "selfLink",
        ] {
            meta::set(object, field, None);
        }
    }

    fn check_namespace(&self, call: &Call, about: &About) -> Result<(), ApiError> {
        if !call.resource.namespaced() {
            return Ok(());
        }
        let Some(namespace) = self.namespace(&call.namespace) else {
            return Err(ApiError::NotFound(About {
                group: String::new(),
                kind: "namespaces".to_owned(),
                name: call.namespace.clone(),
            }));
        };
        if !meta::is_deleting(&namespace) {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            call.namespace
        );
        let cause = json!({
            "reason": "NamespaceTerminating", "field": "metadata.namespace",
            "message": format!("namespace {} is being terminated", call.namespace),
        });
        Err(ApiError::Forbidden {
            about: about.clone(),
            why,
            cause: Some(Box::new(cause)),
        })
    }
}

/// Puts the object where the path says; a body that says otherwise is refused.
pub(super) fn place(call: &Call, object: &mut Value) -> Result<(), ApiError> {
    let said = meta::text(object, "namespace");
    if !call.resource.namespaced() {
        meta::set(object, "namespace", None);
    } else if !said.is_empty() && said != call.namespace {
        return Err(ApiError::BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
                .to_owned(),
        ));
    } else {
        meta::set(object, "namespace", Some(json!(call.namespace)));
    }
    let said = meta::text(object, "name");
    match &call.name {
        Some(name) if said.is_empty() => meta::set(object, "name", Some(json!(name))),
        Some(name) if said != name => {
            return Err(ApiError::BadRequest(format!(
                "the name of the object ({said}) does not match the name on the URL ({name})"
            )));
        }
        _ => {}
    }
    Ok(())
}
