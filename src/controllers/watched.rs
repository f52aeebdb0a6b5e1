//! How controllers watch: what is copied is copied without what nobody reads, and of what only wakes
//! somebody nothing but the metadata is asked for.

use std::fmt::Debug;

use futures::{Stream, TryStreamExt};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::cluster::Namespaced;

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

/// A watch, and the copy of its objects that it keeps, without what `slim` takes off them; `hear` is
/// told of its events once they are in the copy.
pub(super) fn copied<K: Namespaced>(
    api: Api<K>,
    config: watcher::Config,
    slim: fn(&mut K),
    hear: impl FnMut(&Event<K>) + Send + 'static,
) -> (
    impl Stream<Item = Result<K, watcher::Error>> + Send,
    Store<K>,
) {
    let (store, writer) = reflector::store();
    let events = watcher(api, config).default_backoff();
    let events = events.modify(slim).reflect(writer).inspect_ok(hear);
    (events.touched_objects(), store)
}

/// A watch that nothing is kept of but what `hear` takes of its events, before anybody is woken by them.
pub(super) fn heard<K: Watched>(
    api: Api<K>,
    config: watcher::Config,
    hear: impl FnMut(&Event<K>) + Send + 'static,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send + 'static {
    let events = watcher(api, config).default_backoff();
    events.inspect_ok(hear).touched_objects()
}

/// Who wrote which field is of no interest, and is half of an object.
pub(super) fn slim<K: ResourceExt>(object: &mut K) {
    object.managed_fields_mut().clear();
}
