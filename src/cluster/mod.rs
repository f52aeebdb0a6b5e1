//! The only user of `kube::Client`: timeouts, field manager, compare-and-swap, events.
//!
//! Every call is bounded by [`CALL_TIMEOUT`] and its error names the verb and the object. Writes
//! come in three strengths: [`Cluster::apply_owned`] states the fields we own in an object that is
//! our owner's, [`Cluster::replace`] succeeds only on the very version that was read,
//! [`Cluster::create`] only if nothing was there. No object is deleted by its name alone.
//!
//! Every write passes a [`Fence`]: once this daemon does not lead any more, it is refused before it
//! leaves, or given up in flight ([`ClusterError::Fenced`]). Reads are not.

mod access;
mod answers;
mod correlate;
mod error;
mod events;
mod listed;
mod mirror;
mod owned;
mod owner;
mod patience;
mod tokens;
mod traffic;
mod watches;

use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use self::answers::watch_without_bodies;
use self::correlate::Correlator;
pub use self::error::ClusterError;
pub use self::events::{EventKind, Reporter};
pub use self::listed::Listed;
pub use self::mirror::{Change, Mirror};
pub use self::owner::{Foreign, Owner, Standing};
pub use self::patience::patient;
pub use self::traffic::{ApiMetrics, counted};
pub use self::watches::{NO_OBJECT, change, within};
use crate::fence::{Fence, Fenced};
use crate::names::{ObjectRef, is_path_segment};
use crate::redacted::Wiped;

/// Bound of one call. An API server that is slower than this is down for our purposes.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Field manager of everything we apply.
pub const FIELD_MANAGER: &str = "bouncert";
/// Objects asked for in one page of a list.
const PAGE: u32 = 500;

/// A namespaced kind that can be read and written.
pub trait Namespaced:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
}

impl<K> Namespaced for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static
{
}

/// What came of an eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// The pod is on its way out.
    Evicted,
    /// It was gone already.
    Gone,
    /// A PodDisruptionBudget does not allow it now.
    Refused {
        /// What the API server says.
        message: String,
    },
}

/// A Kubernetes API, bounded and with named errors.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    /// What events were written of late; all clones share it.
    told: Arc<Mutex<Correlator>>,
    fence: Fence,
    /// Whether the API server sends lists as streams, once that is known; all clones share it.
    streams_lists: Arc<OnceLock<bool>>,
}

impl Cluster {
    /// Speaks through `client`, and may write at any time.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            told: Arc::default(),
            fence: Fence::default(),
            streams_lists: Arc::default(),
        }
    }

    /// The same, but what it writes has to pass `fence`.
    #[must_use]
    pub fn behind(&self, fence: Fence) -> Self {
        Self {
            fence,
            ..self.clone()
        }
    }

    /// What acts of whoever holds this have to pass, also those that go elsewhere.
    pub const fn fence(&self) -> &Fence {
        &self.fence
    }

    /// The client itself, for watches.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Reads an object; `None` if it is not there. No object has a name that is not a path segment.
    pub async fn get<K: Namespaced>(&self, at: &ObjectRef) -> Result<Option<K>, ClusterError> {
        if !is_path_segment(&at.namespace) || !is_path_segment(&at.name) {
            return Ok(None);
        }
        let api = self.api::<K>(&at.namespace);
        bounded::<K, _>("get", at, api.get_opt(&at.name)).await
    }

    /// Reads a cluster-scoped object; `None` if it is not there.
    pub async fn get_global<K>(&self, name: &str) -> Result<Option<K>, ClusterError>
    where
        K: Resource<Scope = ClusterResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        if !is_path_segment(name) {
            return Ok(None);
        }
        let at = ObjectRef::new("", name);
        let api: Api<K> = Api::all(self.client.clone());
        bounded::<K, _>("get", &at, api.get_opt(name)).await
    }

    /// Reads a Secret, whose values are overwritten when it is dropped.
    pub async fn get_secret(&self, at: &ObjectRef) -> Result<Option<Wiped>, ClusterError> {
        Ok(self.get::<Secret>(at).await?.map(Wiped::from))
    }

    /// Lists the Secrets of a namespace that carry `labels`, whose values are overwritten when they are
    /// dropped.
    pub async fn list_secrets(
        &self,
        namespace: &str,
        labels: &str,
    ) -> Result<Vec<Wiped>, ClusterError> {
        let listed = self.list::<Secret>(namespace, labels).await?;
        Ok(listed.into_iter().map(Wiped::from).collect())
    }

    /// Reads one page of such a list, and the token of the next one.
    pub async fn secrets_page(
        &self,
        namespace: &str,
        labels: &str,
        (limit, token): (u32, Option<String>),
    ) -> Result<(Vec<Wiped>, Option<String>), ClusterError> {
        let mut params = ListParams::default().limit(limit).labels(labels);
        params.continue_token = token;
        let api = self.api::<Secret>(namespace);
        let at = ObjectRef::new(namespace, "*");
        let page = bounded::<Secret, _>("list", &at, api.list(&params)).await?;
        let token = page.metadata.continue_.filter(|token| !token.is_empty());
        Ok((page.items.into_iter().map(Wiped::from).collect(), token))
    }

    /// Lists the objects of a namespace that carry `labels` (a selector; empty for all).
    pub async fn list<K: Namespaced>(
        &self,
        namespace: &str,
        labels: &str,
    ) -> Result<Vec<K>, ClusterError> {
        self.list_pages(
            &self.api::<K>(namespace),
            &ObjectRef::new(namespace, "*"),
            labels,
        )
        .await
    }

    /// Lists the objects of all namespaces that carry `labels`.
    pub async fn list_all<K: Namespaced>(&self, labels: &str) -> Result<Vec<K>, ClusterError> {
        self.list_pages(
            &Api::all(self.client.clone()),
            &ObjectRef::new("", "*"),
            labels,
        )
        .await
    }

    /// Creates an object; [`ClusterError::is_already_exists`] tells when one was there.
    pub async fn create<K: Namespaced>(&self, object: &K) -> Result<K, ClusterError> {
        let at = reference(object);
        let api = self.api::<K>(&at.namespace);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..Default::default()
        };
        self.write::<K, _>("create", &at, api.create(&params, object))
            .await
    }

    /// Creates an object, or reads the one that is there: what a repeated act does.
    pub async fn create_or_get<K: Namespaced>(&self, object: &K) -> Result<K, ClusterError> {
        match self.create(object).await {
            Err(error) if error.is_already_exists() => {
                let at = reference(object);
                self.get(&at).await?.ok_or(error)
            }
            done => done,
        }
    }

    /// Writes an object back, if nobody else has since it was read.
    pub async fn replace<K: Namespaced>(&self, object: &K) -> Result<K, ClusterError> {
        let at = reference(object);
        let api = self.api::<K>(&at.namespace);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..Default::default()
        };
        self.write::<K, _>("replace", &at, api.replace(&at.name, &params, object))
            .await
    }

    /// Changes an object by a JSON merge patch. A `metadata.resourceVersion` in it makes it a
    /// compare-and-swap.
    pub async fn patch<K: Namespaced>(
        &self,
        at: &ObjectRef,
        patch: &Value,
    ) -> Result<K, ClusterError> {
        let api = self.api::<K>(&at.namespace);
        let params = merge_params();
        self.write::<K, _>(
            "patch",
            at,
            api.patch(&at.name, &params, &Patch::Merge(patch)),
        )
        .await
    }

    /// Changes an object's status by a JSON merge patch.
    pub async fn patch_status<K: Namespaced>(
        &self,
        at: &ObjectRef,
        patch: &Value,
    ) -> Result<K, ClusterError> {
        let api = self.api::<K>(&at.namespace);
        let params = merge_params();
        let patch = Patch::Merge(patch);
        let call = api.patch_status(&at.name, &params, &patch);
        self.write::<K, _>("patch the status of", at, call).await
    }

    /// Asks for the eviction of the pod that was read, which honours PodDisruptionBudgets.
    pub async fn evict(&self, pod: &Pod) -> Result<Eviction, ClusterError> {
        self.eviction(pod, &PostParams::default()).await
    }

    /// What an eviction would come to now; nothing is evicted.
    pub async fn try_eviction(&self, pod: &Pod) -> Result<Eviction, ClusterError> {
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        self.eviction(pod, &params).await
    }

    async fn eviction(&self, pod: &Pod, params: &PostParams) -> Result<Eviction, ClusterError> {
        let at = reference(pod);
        let api = self.api::<Pod>(&at.namespace);
        // kube writes the delete options of an eviction under a name that servers ignore.
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": { "name": at.name, "namespace": at.namespace },
            "deleteOptions": { "preconditions": { "uid": pod.uid() } },
        });
        let call = api.create_subresource::<_, Value>("eviction", &at.name, params, &eviction);
        match self.write::<Pod, _>("evict", &at, call).await {
            Ok(_) => Ok(Eviction::Evicted),
            // Another pod has its name.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(Eviction::Gone),
            Err(error) if error.code() == Some(429) => Ok(Eviction::Refused {
                message: error.server_message().unwrap_or_default(),
            }),
            Err(error) => Err(error),
        }
    }

    /// Runs one call that changes something: bounded, and only while the fence is open.
    async fn write<K, T>(
        &self,
        verb: &'static str,
        at: &ObjectRef,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError>
    where
        K: Resource<DynamicType = ()>,
    {
        match self.fence.pass(bounded::<K, T>(verb, at, call)).await {
            Ok(done) => done,
            Err(Fenced) => Err(ClusterError::Fenced {
                verb,
                kind: K::kind(&()).into_owned(),
                at: at.clone(),
            }),
        }
    }

    fn api<K: Namespaced>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    async fn list_pages<K: Namespaced>(
        &self,
        api: &Api<K>,
        at: &ObjectRef,
        labels: &str,
    ) -> Result<Vec<K>, ClusterError> {
        let mut params = ListParams::default().limit(PAGE).labels(labels);
        let mut found = Vec::new();
        loop {
            let page = bounded::<K, _>("list", at, api.list(&params)).await?;
            found.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }
}

/// Namespace and name of an object.
pub fn reference<K: Resource>(object: &K) -> ObjectRef {
    ObjectRef::new(object.namespace().unwrap_or_default(), object.name_any())
}

fn merge_params() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..Default::default()
    }
}

/// Runs one call within [`CALL_TIMEOUT`] and names it in its error.
async fn bounded<K, T>(
    verb: &'static str,
    at: &ObjectRef,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, ClusterError>
where
    K: Resource<DynamicType = ()>,
{
    let kind = K::kind(&()).into_owned();
    let is_in_place = |name: &str| name.is_empty() || is_path_segment(name);
    if !is_in_place(&at.namespace) || !is_in_place(&at.name) {
        let at = at.clone();
        return Err(ClusterError::NotAName { verb, kind, at });
    }
    // Boxed, because the client's futures are large and every caller's would contain them.
    match tokio::time::timeout(CALL_TIMEOUT, Box::pin(call)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(ClusterError::Call {
            verb,
            kind,
            at: at.clone(),
            source: Box::new(answers::without_bodies::<K>(source)),
        }),
        Err(_) => Err(ClusterError::TimedOut {
            verb,
            kind,
            at: at.clone(),
        }),
    }
}
