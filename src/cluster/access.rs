//! Questions about what we may do, and lists of cluster-scoped kinds.

use std::fmt::Debug;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{ListParams, PostParams};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::{Cluster, ClusterError, PAGE, bounded};
use crate::names::ObjectRef;

impl Cluster {
    /// Lists the objects of a cluster-scoped kind; none where the API does not know the kind.
    pub async fn list_global<K>(&self) -> Result<Vec<K>, ClusterError>
    where
        K: Resource<Scope = ClusterResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let at = ObjectRef::new("", "*");
        let api: Api<K> = Api::all(self.client.clone());
        let mut params = ListParams::default().limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = match bounded::<K, _>("list", &at, api.list(&params)).await {
                Err(error) if error.is_not_found() => return Ok(Vec::new()),
                page => page?,
            };
            found.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }

    /// Whether we may `verb` the object `name` of a kind, on behalf of `namespace`.
    pub async fn may<K>(
        &self,
        verb: &str,
        namespace: &str,
        name: &str,
    ) -> Result<bool, ClusterError>
    where
        K: Resource<DynamicType = ()>,
    {
        let question = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(K::group(&()).into_owned()),
                    resource: Some(K::plural(&()).into_owned()),
                    name: Some(name.to_owned()),
                    namespace: Some(namespace.to_owned()),
                    verb: Some(verb.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let at = ObjectRef::new(namespace, name);
        let params = PostParams::default();
        let call = api.create(&params, &question);
        let answer =
            bounded::<SelfSubjectAccessReview, _>("ask whether we may use", &at, call).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}
