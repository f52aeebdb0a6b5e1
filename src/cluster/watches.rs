//! What watches ask the API server for: not more than matters to anybody here.

use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt;
use kube::api::WatchParams;
use kube::core::{PartialObjectMeta, WatchEvent};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};

use super::mirror::Change;
use super::{Cluster, Namespaced, reference};
use crate::api::PgBouncer;
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
/// How long it is waited for the first answer in a stream.
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);
/// What a bookmark says that ends a list.
const LIST_ENDS: &str = "k8s.io/initial-events-end";
/// A selector that no object meets: the list is empty where the kind is known, and an error where it is
/// not.
pub const NO_OBJECT: &str = "bouncert.dev/none=none";

impl Cluster {
    /// All objects of a kind, for watches: first those that are there, as a stream if the API server is
    /// known to have such, else in pages.
    pub fn every(&self) -> watcher::Config {
        let every = watcher::Config::default().page_size(PAGE);
        if self.streams_lists.get() == Some(&true) {
            every.streaming_lists()
        } else {
            every
        }
    }

    /// Secrets that may matter to a PgBouncer: all but our own revisions, which are half of ours, and
    /// Helm's releases, which are the bulk of everybody else's. Anybody may give a certificate or a
    /// password, under any type and with any labels, so nothing else is left out.
    pub fn secrets(&self) -> watcher::Config {
        self.every()
            .labels(&format!("!{REVISION_LABEL}"))
            .fields("type!=helm.sh/release.v1")
    }

    /// Asks once for a list of nothing as a stream (`sendInitialEvents`). Servers refuse that before
    /// Kubernetes 1.32, and later where the feature `WatchList` is off; a client that does not know
    /// would wait for ever, so whatever is not a clear answer counts as a refusal.
    pub async fn find_out_whether_lists_stream(&self, area: &Area) {
        let api = within::<PartialObjectMeta<PgBouncer>>(&self.client, area);
        let params = WatchParams::default().initial_events().labels(NO_OBJECT);
        let ask = async {
            let events = api.watch(&params, "").await.ok()?;
            pin!(events).try_next().await.ok()?
        };
        let first = tokio::time::timeout(STREAM_TIMEOUT, ask).await;
        let does = matches!(first, Ok(Some(WatchEvent::Bookmark(end)))
            if end.metadata.annotations.contains_key(LIST_ENDS));
        tracing::debug!(does, "whether the API server streams lists");
        // Nobody asks twice.
        let _known = self.streams_lists.set(does);
    }
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
