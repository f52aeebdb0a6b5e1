//! What watches ask the API server for: not more than matters to anybody here.

use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};

use super::mirror::Change;
use super::{Namespaced, reference};
use crate::api::annotations::REVISION_LABEL;
use crate::names::Area;

/// The objects of a kind in an area, for watches.
pub fn within<K: Namespaced>(client: &Client, area: &Area) -> Api<K> {
    match area {
        Area::Everywhere => Api::all(client.clone()),
        Area::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
    }
}

/// Objects in one page of a watch's list. A page is in memory as a whole, with who wrote which field of
/// every object, and a dozen lists are read when the daemon begins.
const PAGE: u32 = 100;

/// All objects of a kind.
pub fn every() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// Secrets that may matter to a PgBouncer: all but our own revisions, which are half of ours, and
/// Helm's releases, which are the bulk of everybody else's. Anybody may give a certificate or a
/// password, under any type and with any labels, so nothing else is left out.
pub fn secrets() -> watcher::Config {
    every()
        .labels(&format!("!{REVISION_LABEL}"))
        .fields("type!=helm.sh/release.v1")
}

/// What an event of a watch over `area` tells; of an object, what `read` takes of it.
pub fn change<K: Resource, T>(
    event: &Event<K>,
    area: &Area,
    read: impl FnOnce(&K) -> Option<T>,
) -> Change<T> {
    match event {
        Event::Init => Change::ListBegins(area.clone()),
        Event::InitDone => Change::ListEnds(area.clone()),
        Event::InitApply(object) | Event::Apply(object) => {
            Change::Is(reference(object), read(object))
        }
        Event::Delete(object) => Change::Gone(reference(object)),
    }
}
