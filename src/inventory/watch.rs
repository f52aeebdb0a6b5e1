//! The watches that keep the inventory, as one stream.

use std::collections::BTreeSet;
use std::error::Error;

use futures::stream::{BoxStream, select_all};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};

use super::PART;
use super::facts::{Names, Pooler, Replica, Request, Stored};
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::blueprint::labels::OURS;
use crate::cluster::{Change, Cluster, Namespaced, change, watch_without_bodies, within};
use crate::names::Area;
use crate::panics::InternalErrors;

/// What one of the watches tells.
pub(super) enum Told {
    Pooler(Change<Pooler>),
    Secret(Change<Stored>),
    Replica(Change<Replica>),
    Request(Change<Request>),
}

/// All watches, one of each kind in each area; it does not end. A watch that breaks is begun anew,
/// after a pause.
pub(super) fn all(
    cluster: &Cluster,
    areas: &BTreeSet<Area>,
    errors: &InternalErrors,
) -> impl Stream<Item = Told> + Send + use<> {
    let mut names = Names::default();
    let here = |config| Sight {
        cluster,
        areas,
        config,
        errors: errors.clone(),
    };
    let every = || cluster.every();
    let poolers = changes(here(every()), |bouncer: &PgBouncer| {
        Some(Pooler::of(bouncer))
    });
    let secrets = changes(here(cluster.secrets()), move |secret: &Secret| {
        Stored::of(secret, &mut names)
    });
    let replicas = changes(here(every().labels(OURS)), |pod: &Pod| Replica::of(pod));
    let requests = changes(here(every()), |request: &PgBouncerOpsRequest| {
        Some(Request::of(request))
    });
    let told: [BoxStream<'static, Told>; 4] = [
        poolers.map(Told::Pooler).boxed(),
        secrets.map(Told::Secret).boxed(),
        replicas.map(Told::Replica).boxed(),
        requests.map(Told::Request).boxed(),
    ];
    select_all(told)
}

/// Where objects of one kind are watched.
struct Sight<'a> {
    cluster: &'a Cluster,
    areas: &'a BTreeSet<Area>,
    config: watcher::Config,
    errors: InternalErrors,
}

/// The changes of one kind; objects are dropped as soon as what matters of them is known.
fn changes<K: Namespaced, T: Send + 'static, F>(
    sight: Sight<'_>,
    mut read: F,
) -> impl Stream<Item = Change<T>> + Send + use<K, T, F>
where
    F: FnMut(&K) -> Option<T> + Send + 'static,
{
    let Sight {
        cluster,
        areas,
        config,
        errors,
    } = sight;
    let watches = areas.iter().cloned().map(|area| {
        let events =
            watcher(within::<K>(cluster.client(), &area), config.clone()).default_backoff();
        events.map(move |event| (area.clone(), event)).boxed()
    });
    select_all(watches).filter_map(move |(area, event)| {
        let change = match event {
            // What cannot be read is as if nothing stood in it.
            Ok(event) => Some(change(&event, &area, |object| {
                errors.guard(PART, || read(object)).ok().flatten()
            })),
            Err(error) => {
                let error = watch_without_bodies::<K>(error);
                let error = &error as &dyn Error;
                tracing::debug!(kind = %K::kind(&()), error, "watch broke; beginning anew");
                None
            }
        };
        std::future::ready(change)
    })
}
