//! One request for objects, understood: which resource, which object, by whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use http::header::USER_AGENT;
use serde_json::Value;

use super::access::Identity;
use super::admit::UnknownFields;
use super::apply::Write;
use super::error::{About, ApiError};
use super::kinds::Resource;
use super::path::Target;
use super::query::Query;
use crate::local::store::Key;

/// Longest name of a field manager.
const MANAGER_MAX: usize = 128;

/// A request for objects.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) resource: Arc<Resource>,
    /// Empty for cluster-scoped resources and for requests over all namespaces.
    pub(super) namespace: String,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
    pub(super) query: Query,
    /// Media type of the body.
    pub(super) media_type: String,
    pub(super) manager: String,
    /// Who asks.
    pub(super) identity: Identity,
    /// Set once the client has gone.
    pub(super) cancelled: Arc<AtomicBool>,
}

/// Cancels a request when it is dropped, which happens when its client has gone.
#[derive(Debug)]
pub(super) struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a write answers.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) created: bool,
    pub(super) object: Arc<Value>,
    pub(super) warnings: Vec<String>,
}

impl Call {
    pub(super) fn new(
        resource: Arc<Resource>,
        target: Target,
        query: Query,
        headers: &HeaderMap,
    ) -> Result<Self, ApiError> {
        if target.namespace.is_some() && !resource.namespaced() {
            return Err(ApiError::NoSuchPath);
        }
        if target.name.is_some() && target.namespace.is_none() && resource.namespaced() {
            return Err(ApiError::NoSuchPath);
        }
        if target
            .subresource
            .as_ref()
            .is_some_and(|subresource| !resource.has(subresource))
        {
            return Err(ApiError::NoSuchPath);
        }
        let agent = headers
            .get(USER_AGENT)
            .and_then(|value| value.to_str().ok());
        let agent = agent
            .and_then(|text| text.split('/').next())
            .filter(|text| !text.is_empty());
        let manager = query
            .field_manager
            .as_deref()
            .filter(|text| !text.is_empty())
            .or(agent);
        let manager = manager
            .unwrap_or("unknown")
            .chars()
            .take(MANAGER_MAX)
            .collect();
        Ok(Self {
            resource,
            namespace: target.namespace.unwrap_or_default(),
            name: target.name,
            subresource: target.subresource,
            query,
            media_type: super::body::media_type(headers),
            manager,
            identity: Identity::Admin,
            cancelled: Arc::default(),
        })
    }

    /// Whether the client has gone. Long work looks now and then.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Cancels the request when dropped.
    pub(super) fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(Arc::clone(&self.cancelled))
    }

    /// The same by somebody.
    pub(super) fn by(self, identity: Identity) -> Self {
        Self { identity, ..self }
    }

    /// A request by a part of the server itself.
    pub(super) fn internal(resource: Arc<Resource>, key: &Key, manager: &str) -> Self {
        Self {
            resource,
            namespace: key.namespace.clone(),
            name: Some(key.name.clone()),
            subresource: None,
            query: Query::default(),
            media_type: String::new(),
            manager: manager.to_owned(),
            identity: Identity::Admin,
            cancelled: Arc::default(),
        }
    }

    /// The object's name, where the path must have one.
    pub(super) fn name(&self) -> Result<&str, ApiError> {
        self.name.as_deref().ok_or(ApiError::MethodNotAllowed)
    }

    /// Where the object is stored.
    pub(super) fn key(&self) -> Result<Key, ApiError> {
        Ok(self.resource.key(&self.namespace, self.name()?))
    }

    /// The object, for errors.
    pub(super) fn about(&self) -> About {
        About::object(&self.resource, self.name.as_deref().unwrap_or_default())
    }

    /// Whether this writes the status only.
    pub(super) fn is_status(&self) -> bool {
        self.subresource.as_deref() == Some("status")
    }

    /// What happens to fields nobody knows.
    pub(super) fn unknown_fields(&self) -> Result<UnknownFields, ApiError> {
        UnknownFields::parse(self.query.field_validation.as_deref())
    }

    /// Who writes, for `managedFields`.
    pub(super) fn write<'a>(&'a self, now: &'a str) -> Write<'a> {
        Write {
            manager: &self.manager,
            subresource: self.subresource.as_deref(),
            shape: self.resource.shape(),
            now,
        }
    }
}
