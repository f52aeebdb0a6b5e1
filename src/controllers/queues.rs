//! Which requests a PgBouncer has, as watches tell: a look at one goes through those of its PgBouncer
//! only, however many there are elsewhere.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;

use crate::api::PgBouncerOpsRequest;
use crate::cluster::reference;
use crate::names::ObjectRef;

/// The requests that are known. A clone is the same.
#[derive(Clone)]
pub(super) struct Queues {
    copy: Store<PgBouncerOpsRequest>,
    names: Arc<Mutex<Names>>,
}

/// Names of requests by their PgBouncers, and the other way round.
#[derive(Debug, Default)]
pub(super) struct Names {
    requests: HashMap<ObjectRef, BTreeSet<String>>,
    bouncers: HashMap<ObjectRef, ObjectRef>,
    /// What a list that has begun has shown so far.
    fresh: Option<BTreeSet<ObjectRef>>,
}

impl Queues {
    /// Of the requests in `copy`; `names` are told of them.
    pub(super) const fn new(copy: Store<PgBouncerOpsRequest>, names: Arc<Mutex<Names>>) -> Self {
        Self { copy, names }
    }

    /// The requests of a PgBouncer.
    pub(super) fn of(&self, bouncer: &ObjectRef) -> Vec<Arc<PgBouncerOpsRequest>> {
        let names = lock(&self.names);
        let requests = names.requests.get(bouncer).into_iter().flatten();
        let found = requests.filter_map(|name| self.copy.get(&key(&bouncer.namespace, name)));
        found.collect()
    }

    /// The requests of the PgBouncer that the request at `at` is for, itself among them.
    pub(super) fn beside(&self, at: &ObjectRef) -> Vec<Arc<PgBouncerOpsRequest>> {
        let bouncer = lock(&self.names).bouncers.get(at).cloned();
        bouncer.map_or_else(Vec::new, |bouncer| self.of(&bouncer))
    }

    /// Whether a request is there.
    pub(super) fn has(&self, request: &PgBouncerOpsRequest) -> bool {
        let at = reference(request);
        self.copy.get(&key(&at.namespace, &at.name)).is_some()
    }
}

impl Names {
    /// Follows the watch of requests.
    pub(super) fn follow(&mut self, event: &Event<PgBouncerOpsRequest>) {
        match event {
            Event::Init => self.fresh = Some(BTreeSet::new()),
            Event::InitApply(request) => {
                if let Some(fresh) = &mut self.fresh {
                    fresh.insert(reference(request));
                }
                self.put(request);
            }
            Event::InitDone => {
                let fresh = self.fresh.take().unwrap_or_default();
                let gone = self.bouncers.keys().filter(|at| !fresh.contains(*at));
                let gone: Vec<_> = gone.cloned().collect();
                for at in &gone {
                    self.remove(at);
                }
            }
            Event::Apply(request) => self.put(request),
            Event::Delete(request) => self.remove(&reference(request)),
        }
    }

    fn put(&mut self, request: &PgBouncerOpsRequest) {
        let at = reference(request);
        let bouncer = ObjectRef::new(&at.namespace, &request.spec.database_ref.name);
        if self.bouncers.get(&at) == Some(&bouncer) {
            return;
        }
        // The reference cannot be changed; a request of this name can be another one.
        self.remove(&at);
        let requests = self.requests.entry(bouncer.clone()).or_default();
        requests.insert(request.name_any());
        self.bouncers.insert(at, bouncer);
    }

    fn remove(&mut self, at: &ObjectRef) {
        let Some(bouncer) = self.bouncers.remove(at) else {
            return;
        };
        if let Some(requests) = self.requests.get_mut(&bouncer) {
            requests.remove(&at.name);
            if requests.is_empty() {
                self.requests.remove(&bouncer);
            }
        }
    }
}

/// What the watch of requests tells `names`.
pub(super) fn teller(
    names: &Arc<Mutex<Names>>,
) -> impl FnMut(&Event<PgBouncerOpsRequest>) + Send + 'static + use<> {
    let names = Arc::clone(names);
    move |event| lock(&names).follow(event)
}

fn key(namespace: &str, name: &str) -> reflector::ObjectRef<PgBouncerOpsRequest> {
    reflector::ObjectRef::new(name).within(namespace)
}

fn lock(names: &Mutex<Names>) -> MutexGuard<'_, Names> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    fn request(name: &str, bouncer: &str) -> PgBouncerOpsRequest {
        serde_json::from_value(json!({
            "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PgBouncerOpsRequest",
            "metadata": { "name": name, "namespace": "shop" },
            "spec": { "databaseRef": { "name": bouncer }, "type": "Restart" },
        }))
        .unwrap()
    }

    /// Queues that have been told of these.
    pub(in crate::controllers) fn told(
        events: impl IntoIterator<Item = Event<PgBouncerOpsRequest>>,
    ) -> Queues {
        let (copy, mut writer) = reflector::store();
        let mut names = Names::default();
        for event in events {
            writer.apply_watcher_event(&event);
            names.follow(&event);
        }
        Queues::new(copy, Arc::new(Mutex::new(names)))
    }

    fn names(queues: &Queues, bouncer: &str) -> Vec<String> {
        let all = queues.of(&ObjectRef::new("shop", bouncer));
        all.iter().map(|request| request.name_any()).collect()
    }

    #[test]
    fn a_pgbouncer_has_the_requests_that_name_it_as_long_as_they_are_there() {
        let (a, b, c) = (
            request("a", "till"),
            request("b", "till"),
            request("c", "desk"),
        );
        let listed = [&a, &b, &c].map(|request| Event::InitApply(request.clone()));
        let mut events = vec![Event::Init];
        events.extend(listed);
        events.push(Event::InitDone);
        let queues = told(events.clone());
        assert_eq!(names(&queues, "till"), ["a", "b"]);
        assert_eq!(queues.beside(&ObjectRef::new("shop", "b")).len(), 2);
        assert_eq!(queues.beside(&ObjectRef::new("bank", "b")).len(), 0);
        // One that is created again may be for another PgBouncer.
        events.extend([
            Event::Delete(a.clone()),
            Event::Apply(request("b", "desk")),
            Event::Apply(request("d", "till")),
        ]);
        let queues = told(events.clone());
        assert_eq!(names(&queues, "till"), ["d"]);
        assert_eq!(names(&queues, "desk"), ["b", "c"]);
        assert!(!queues.has(&a) && queues.has(&c));
        // A list that comes again shows what is there.
        events.extend([
            Event::Init,
            Event::InitApply(c),
            Event::InitApply(a),
            Event::InitDone,
        ]);
        let queues = told(events);
        assert_eq!(names(&queues, "till"), ["a"]);
        assert_eq!(names(&queues, "desk"), ["c"]);
        let kept = lock(&queues.names);
        assert_eq!((kept.requests.len(), kept.bouncers.len()), (2, 2));
    }
}
