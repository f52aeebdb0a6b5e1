//! Lists of what objects are called, without what they hold.

use std::collections::BTreeMap;

use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::{Cluster, ClusterError, Namespaced, PAGE, bounded, reference};
use crate::names::{Area, ObjectRef};

/// What a list of metadata tells of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Namespace and name.
    pub at: ObjectRef,
    /// UID.
    pub uid: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Cluster {
    /// Lists the metadata of the objects of an area that carry `labels`, page by page, so that no
    /// more than a page of it is in memory.
    pub async fn list_metadata<K: Namespaced>(
        &self,
        area: &Area,
        labels: &str,
    ) -> Result<Vec<Listed>, ClusterError> {
        let (api, namespace): (Api<K>, _) = match area {
            Area::Everywhere => (Api::all(self.client.clone()), ""),
            Area::Namespace(namespace) => (self.api(namespace), namespace.as_str()),
        };
        let at = ObjectRef::new(namespace, "*");
        let mut params = ListParams::default().limit(PAGE).labels(labels);
        let mut found = Vec::new();
        loop {
            let page = bounded::<K, _>("list", &at, api.list_metadata(&params)).await?;
            found.extend(page.items.into_iter().map(|object| Listed {
                at: reference(&object),
                uid: object.uid().unwrap_or_default(),
                labels: object.metadata.labels.unwrap_or_default(),
            }));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }
}
