//! How controllers watch: what is copied is copied without what nobody reads, and of what only wakes
//! somebody nothing but the metadata is asked for. What happens wakes whom it concerns; a list, which
//! is what a watch begins with, and with which it begins again when it has missed something, wakes
//! nobody by itself: whoever watches is told of it as a whole.

use std::fmt::Debug;

use futures::future::ready;
use futures::{Stream, TryStreamExt};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::cluster::{Cluster, Namespaced, watch_without_bodies};
use crate::names::Area;

/// An object of which the API server sends the metadata only: no Secret's data, no workload's template.
pub(super) type Meta<K> = PartialObjectMeta<K>;

/// A kind that can be watched.
pub(super) trait Watched:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Watched for K where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

/// A watch, and the copy of its objects that it keeps, without what `slim` takes off them. `hear` is told
/// of what the copy has taken in, and `listed` is called when that has been listed.
pub(super) fn copied<K: Namespaced>(
    api: Api<K>,
    config: watcher::Config,
    slim: fn(&mut K),
    hear: impl FnMut(&Event<K>) + Send + 'static,
    mut listed: impl FnMut(&Store<K>) + Send + 'static,
) -> (
    impl Stream<Item = Result<K, watcher::Error>> + Send + 'static,
    Store<K>,
) {
    let (store, writer) = reflector::store();
    let events = watcher(api, config).default_backoff();
    let events = events.map_err(watch_without_bodies::<K>);
    let copy = store.clone();
    let events = events.modify(slim).reflect(writer).inspect_ok(hear);
    (happenings(events, move || listed(&copy)), store)
}

/// A watch that nothing is kept of but what `hear` takes of its events, before anybody is woken by
/// them, and before `listed` is called.
pub(super) fn heard<K: Watched>(
    api: Api<K>,
    config: watcher::Config,
    hear: impl FnMut(&Event<K>) + Send + 'static,
    listed: impl FnMut() + Send + 'static,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send + 'static {
    let events = watcher(api, config).default_backoff();
    let events = events.map_err(watch_without_bodies::<K>);
    happenings(events.inspect_ok(hear), listed)
}

/// The objects that something has happened to.
fn happenings<K: Send + 'static>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    mut listed: impl FnMut() + Send + 'static,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send + 'static {
    events.try_filter_map(move |event| {
        ready(Ok(match event {
            Event::Apply(object) | Event::Delete(object) => Some(object),
            Event::Init | Event::InitApply(_) => None,
            Event::InitDone => {
                listed();
                None
            }
        }))
    })
}

/// The Namespaces of an area: all, or the one by its name, which takes a right to that one only.
pub(super) fn namespaces_of(cluster: &Cluster, area: &Area) -> watcher::Config {
    match area {
        Area::Everywhere => cluster.every(),
        Area::Namespace(name) => cluster.every().fields(&format!("metadata.name={name}")),
    }
}

/// Who wrote which field is of no interest, and is half of an object.
pub(super) fn slim<K: ResourceExt>(object: &mut K) {
    object.managed_fields_mut().clear();
}
