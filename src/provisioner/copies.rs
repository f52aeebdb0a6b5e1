//! What watches have told of PgBouncers, their pods and the objects around them. A settled object is
//! looked at by these alone, so that one that nothing happens to asks the API server for nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::around::{Around, Kind, Known, Told, Uid};
use super::health::PodKnown;
use crate::api::PgBouncer;
use crate::cluster::{Mirror, change};
use crate::instants::Shift;
use crate::names::{Area, ObjectRef};
use crate::panics::readable;

/// How long looks wait for the first lists, from the daemon's start. What has not come by then is
/// refused, or the API server is in trouble: looks go on without.
const LISTED_TIMEOUT: Duration = Duration::from_secs(30);

/// Copies that watches keep. A clone is the same.
#[derive(Clone)]
pub struct Copies {
    bouncers: Store<PgBouncer>,
    heard: Arc<Heard>,
}

/// What watches have told of an object that one of ours has the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Not everything has been listed.
    Unknown,
    /// No object with our labels has that name.
    Absent,
    /// There is one, and its owner reference does not show that it is ours.
    Unproved,
    /// It is ours, with that UID.
    Ours(Uid),
}

struct Heard {
    /// Where PgBouncers and their pods are.
    area: Area,
    pods: Mutex<Mirror<PodKnown>>,
    around: Mutex<Around>,
    is_complete: watch::Sender<bool>,
    /// Until when that is waited for.
    patience: Instant,
}

impl Copies {
    /// Copies of the PgBouncers that are looked after, all in `area`, and of their pods.
    pub fn new(bouncers: Store<PgBouncer>, area: &Area) -> Self {
        let heard = Heard {
            area: area.clone(),
            pods: Mutex::new(Mirror::within(BTreeSet::from([area.clone()]))),
            around: Mutex::default(),
            is_complete: watch::Sender::new(false),
            patience: Instant::now().plus(LISTED_TIMEOUT),
        };
        Self {
            bouncers,
            heard: Arc::new(heard),
        }
    }

    /// What to tell of pods.
    pub fn pods(&self) -> impl FnMut(&Event<Pod>) + Send + use<> {
        let heard = Arc::clone(&self.heard);
        move |event| {
            let change = change(event, &heard.area, |pod| readable(|| PodKnown::of(pod)));
            lock(&heard.pods).follow(change);
            heard.see_whether_complete(event);
        }
    }

    /// What to tell of objects of another kind, which are waited for from now on.
    pub fn around<K: Resource>(
        &self,
        kind: Kind,
        area: &Area,
    ) -> impl FnMut(&Event<K>) + Send + use<K> {
        let (heard, area) = (Arc::clone(&self.heard), area.clone());
        lock(&heard.around).expect(kind, area.clone());
        move |event| {
            let change = change(event, &area, |object| readable(|| Some(Told::of(object))));
            lock(&heard.around).follow(kind, &area, change);
            heard.see_whether_complete(event);
        }
    }

    /// Waits until everything has been listed, for a while; whether the pods are known. Before that, one
    /// that is not known may be there.
    pub(super) async fn are_listed(&self) -> bool {
        let mut is_complete = self.heard.is_complete.subscribe();
        let complete = is_complete.wait_for(|complete| *complete);
        let complete = timeout_at(self.heard.patience, complete).await;
        complete.is_ok() || lock(&self.heard.pods).is_complete()
    }

    pub(super) fn bouncer(&self, at: &ObjectRef) -> Option<Arc<PgBouncer>> {
        let key = reflector::ObjectRef::new(&at.name).within(&at.namespace);
        self.bouncers.get(&key)
    }

    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<PodKnown> {
        let at = ObjectRef::new(namespace, name);
        lock(&self.heard.pods).get(&at).cloned()
    }

    /// What watches have told of an object, as one of `owner`'s.
    pub(super) fn claim(&self, kind: Kind, at: &ObjectRef, owner: &PgBouncer) -> Claim {
        let owner = owner.meta().uid.as_deref().and_then(Uid::parse);
        match lock(&self.heard.around).known(kind, at) {
            Known::Unlisted => Claim::Unknown,
            Known::There {
                uid: Some(uid),
                controller,
            } if owner.is_some() && controller == owner => Claim::Ours(uid),
            Known::There { .. } => Claim::Unproved,
            Known::Absent => Claim::Absent,
        }
    }

    /// One number for all that the object is made from and into, if everything is known.
    pub(super) fn mark(&self, bouncer: &PgBouncer) -> Option<u64> {
        lock(&self.heard.around).mark(bouncer)
    }
}

impl Heard {
    fn see_whether_complete<K>(&self, event: &Event<K>) {
        if matches!(event, Event::InitDone)
            && lock(&self.pods).is_complete()
            && lock(&self.around).is_complete()
        {
            self.is_complete.send_replace(true);
        }
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
