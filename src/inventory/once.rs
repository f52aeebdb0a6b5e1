//! The inventory, taken once: what a verb shows.

use std::collections::HashMap;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Secret};

use super::facts::{Names, Pooler, Replica, Request, Stored};
use super::look::look;
use super::state::{Certificate, Sighting, State};
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterError, Mirror, Namespaced, reference};
use crate::names::ObjectRef;

/// Handshakes at the same time.
const LOOKS_MAX: usize = 32;

/// What a look at everything brought.
#[derive(Debug)]
pub struct Look(State);

impl Look {
    /// Every certificate, in the order of namespaces, PgBouncers and aliases.
    pub fn certificates(&self) -> Vec<Certificate<'_>> {
        self.0.view().certificates().collect()
    }
}

/// Reads what is wanted and stored in a namespace (`None` for all), and asks every pod what it
/// serves.
pub async fn look_once(
    cluster: &Cluster,
    namespace: Option<&str>,
    clock: &Clock,
) -> Result<Look, ClusterError> {
    let mut names = Names::default();
    let mut state = State {
        class: None,
        poolers: mirror(cluster, namespace, |bouncer: &PgBouncer| {
            Some(Pooler::of(bouncer))
        })
        .await?,
        secrets: mirror(cluster, namespace, |secret: &Secret| {
            Stored::of(secret, &mut names)
        })
        .await?,
        replicas: mirror(cluster, namespace, |pod: &Pod| Replica::of(pod)).await?,
        requests: mirror(cluster, namespace, |request: &PgBouncerOpsRequest| {
            Some(Request::of(request))
        })
        .await?,
        sightings: HashMap::new(),
    };
    let addresses: Vec<_> = state
        .replicas
        .iter()
        .filter_map(|(at, replica)| {
            let pooler = state.poolers.get(&replica.pooler)?;
            let serves = pooler.serves_tls;
            serves.then(|| (at.clone(), replica.address(pooler.port)))
        })
        .collect();
    let looks = futures::stream::iter(addresses).map(|(pod, address)| async move {
        let seen = look(address).await;
        let at = clock.now();
        (pod, Sighting { at, seen })
    });
    state.sightings = looks.buffer_unordered(LOOKS_MAX).collect().await;
    Ok(Look(state))
}

/// Lists the objects of a kind and keeps what matters.
async fn mirror<K: Namespaced, T>(
    cluster: &Cluster,
    namespace: Option<&str>,
    mut read: impl FnMut(&K) -> Option<T>,
) -> Result<Mirror<T>, ClusterError> {
    let found: Vec<K> = match namespace {
        Some(namespace) => cluster.list(namespace, "").await?,
        None => cluster.list_all("").await?,
    };
    let facts = found
        .iter()
        .filter_map(|object| Some((reference(object), read(object)?)));
    Ok(Mirror::of(facts.collect::<Vec<(ObjectRef, T)>>()))
}
