//! Reading one object, and lists in pages.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ApiServer;
use super::call::Call;
use super::error::ApiError;
use super::present::Form;
use super::selector::Selector;

/// Where the next page starts. The revision is that of the first page: a client that watches from
/// it sees again what happened while it was paging, which it must bear anyway.
#[derive(Debug, Serialize, Deserialize)]
struct Continue {
    /// Revision of the first page.
    rv: u64,
    /// Namespace and name of the last object handed out.
    after: (String, String),
}

impl ApiServer {
    /// The stored object.
    pub(super) fn object(&self, call: &Call) -> Result<Arc<Value>, ApiError> {
        self.inner
            .store
            .get(&call.key()?)
            .ok_or_else(|| ApiError::NotFound(call.about()))
    }

    /// `GET` on a collection.
    pub(super) fn list(&self, call: &Call, form: Form) -> Result<Value, ApiError> {
        let query = &call.query;
        let selector = call.selector()?;
        let start = query
            .continue_token
            .as_deref()
            .filter(|token| !token.is_empty());
        let start = start.map(continued).transpose()?;
        let after = start.as_ref().map(|start| &start.after);
        let after = after.map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        let limit = query.limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let (collection, store) = (call.collection(), &self.inner.store);
        let (page, is_more) = store.page(&collection, after, limit, |object| {
            !call.is_cancelled() && selector.matches(object)
        });
        if call.is_cancelled() {
            return Err(ApiError::Cancelled);
        }
        let asked = query.revision()?.unwrap_or(0);
        if asked > page.revision {
            return Err(ApiError::FutureRevision {
                asked,
                current: page.revision,
            });
        }
        let revision = start.as_ref().map_or(page.revision, |start| start.rv);
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if let (true, Some((last, _))) = (is_more, page.objects.last()) {
            let next = Continue {
                rv: revision,
                after: (last.namespace.clone(), last.name.clone()),
            };
            metadata["continue"] = json!(token(&next));
            if selector.is_empty() {
                metadata["remainingItemCount"] = json!(store.count_after(&collection, last));
            }
        }
        let objects: Vec<Arc<Value>> = page.objects.into_iter().map(|(_, object)| object).collect();
        Ok(form.list(
            &call.resource,
            &objects,
            &metadata,
            self.inner.options.clock.now(),
        ))
    }
}

fn token(next: &Continue) -> String {
    URL_SAFE_NO_PAD.encode(json!(next).to_string())
}

fn continued(token: &str) -> Result<Continue, ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| ApiError::BadRequest("continue key is not valid".to_owned()))
}

impl Call {
    /// What a list or a watch lets through; a request for one object lets that one through.
    pub(super) fn selector(&self) -> Result<Selector, ApiError> {
        let mut fields = self.query.field_selector.clone().unwrap_or_default();
        if let Some(name) = &self.name {
            let separator = if fields.is_empty() { "" } else { "," };
            fields.extend([separator, "metadata.name=", name]);
        }
        let labels = self.query.label_selector.as_deref();
        Selector::parse(&self.resource.kind, labels, Some(&fields))
    }

    /// The stored collection this request is about.
    pub(super) fn collection(&self) -> crate::local::store::Scope {
        let namespace = (!self.namespace.is_empty()).then_some(self.namespace.as_str());
        self.resource.collection(namespace)
    }
}
