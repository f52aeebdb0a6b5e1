//! Objects that are to be looked at because a list has shown them, which is all of them when a daemon
//! begins, and again when a watch has missed something. They are worked off some at a time, in order,
//! so that what happens meanwhile does not wait for them.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, stream};
use kube::runtime::reflector::Store;
use tokio::sync::Notify;

use super::slots::SHARE;
use crate::cluster::{Namespaced, reference};
use crate::names::ObjectRef;

/// How many objects are looked at at the same time.
#[derive(Clone, Copy)]
pub(super) struct Looks {
    /// Because a list has shown them.
    pub(super) listed: u16,
    /// For any other reason, beside these.
    pub(super) others: u16,
}

/// What has been listed and not been looked at.
pub(super) struct Backlog {
    looks: Looks,
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    /// By namespace, in order; what is not among those that wait has been looked at for another reason.
    order: BTreeMap<String, VecDeque<ObjectRef>>,
    /// The namespace whose turn it was last.
    last: String,
    waiting: HashSet<ObjectRef>,
    /// Given out, and not looked at to the end.
    out: HashSet<ObjectRef>,
    /// How many of these each namespace has.
    out_by: HashMap<String, usize>,
}

// === impl Looks ===

impl Looks {
    /// All of them.
    pub(super) const fn at_once(self) -> u16 {
        self.listed + self.others
    }
}

// === impl Backlog ===

impl Backlog {
    /// An empty one, that gives out so many of the listed at the same time.
    pub(super) fn new(looks: Looks) -> Arc<Self> {
        Arc::new(Self {
            looks,
            state: Mutex::default(),
            news: Notify::new(),
        })
    }

    /// What it was made with.
    pub(super) const fn looks(&self) -> Looks {
        self.looks
    }

    /// These have been listed.
    fn extend(&self, listed: impl IntoIterator<Item = ObjectRef>) {
        let mut state = self.lock();
        for at in listed {
            if state.waiting.insert(at.clone()) {
                let queue = state.order.entry(at.namespace.clone()).or_default();
                queue.push_back(at);
            }
        }
        drop(state);
        self.news.notify_one();
    }

    /// All of that copy have been listed.
    pub(super) fn fill<K: Namespaced>(&self, copy: &Store<K>) {
        self.extend(copy.state().iter().map(|object| reference(&**object)));
    }

    /// A look begins, for whatever reason: it sees all that was listed before.
    pub(super) fn begin(&self, at: &ObjectRef) {
        self.lock().waiting.remove(at);
    }

    /// A look has ended, or the object has gone.
    pub(super) fn end(&self, at: &ObjectRef) {
        let mut state = self.lock();
        if !state.out.remove(at) {
            return;
        }
        if let Some(count) = state.out_by.get_mut(&at.namespace) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                state.out_by.remove(&at.namespace);
            }
        }
        drop(state);
        self.news.notify_one();
    }

    /// Gives out what waits, for ever; for one reader.
    pub(super) fn stream(self: Arc<Self>) -> impl Stream<Item = ObjectRef> + Send + 'static {
        stream::unfold(self, |backlog| async {
            let next = backlog.next().await;
            Some((next, backlog))
        })
    }

    async fn next(&self) -> ObjectRef {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.news.notified().await;
        }
    }

    fn take(&self) -> Option<ObjectRef> {
        let mut state = self.lock();
        loop {
            let free = usize::from(self.looks.listed).saturating_sub(state.out.len());
            let next = state.pop(free)?;
            if state.waiting.remove(&next) {
                *state.out_by.entry(next.namespace.clone()).or_default() += 1;
                state.out.insert(next.clone());
                return Some(next);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next one in order, with `free` places left. Namespaces take turns, and none holds more than
    /// its share of the places: looks of one that hang keep no other waiting.
    fn pop(&mut self, free: usize) -> Option<ObjectRef> {
        let after = (Bound::Excluded(self.last.clone()), Bound::Unbounded);
        let mut turns = self.order.range(after).chain(&self.order);
        let has_room = |namespace: &String| {
            let own = self.out_by.get(namespace).copied().unwrap_or_default();
            own < free.saturating_mul(SHARE)
        };
        let next = turns.find(|(namespace, _)| has_room(namespace));
        let namespace = next?.0.clone();
        let queue = self.order.get_mut(&namespace)?;
        let at = queue.pop_front();
        if queue.is_empty() {
            self.order.remove(&namespace);
        }
        self.last = namespace;
        at
    }
}

impl fmt::Debug for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backlog")
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    fn backlog(listed: u16) -> Arc<Backlog> {
        Backlog::new(Looks { listed, others: 0 })
    }

    fn at(name: &str) -> ObjectRef {
        ObjectRef::new("shop", name)
    }

    fn next(stream: &mut (impl Stream<Item = ObjectRef> + Unpin)) -> Option<String> {
        stream.next().now_or_never().flatten().map(|at| at.name)
    }

    #[test]
    fn so_many_are_out_at_a_time_in_order_and_each_once() {
        let backlog = backlog(2);
        let mut stream = Box::pin(Arc::clone(&backlog).stream());
        assert_eq!(next(&mut stream), None);
        backlog.extend(["a", "b", "c", "a"].map(at));
        assert_eq!(next(&mut stream).as_deref(), Some("a"));
        assert_eq!(next(&mut stream).as_deref(), Some("b"));
        assert_eq!(next(&mut stream), None);
        // One that was not out makes no room.
        backlog.end(&at("z"));
        assert_eq!(next(&mut stream), None);
        backlog.begin(&at("a"));
        backlog.end(&at("a"));
        assert_eq!(next(&mut stream).as_deref(), Some("c"));
        backlog.end(&at("b"));
        backlog.end(&at("c"));
        assert_eq!(next(&mut stream), None);
    }

    #[test]
    fn looks_of_one_namespace_that_hang_leave_places_for_another() {
        let backlog = backlog(8);
        let mut stream = Box::pin(Arc::clone(&backlog).stream());
        let hanging = (0..20).map(|n| at(&format!("hangs-{n:02}")));
        backlog.extend(hanging);
        let mut out = Vec::new();
        while let Some(name) = next(&mut stream) {
            out.push(name);
        }
        assert_eq!(out.len(), 6, "three quarters: {out:?}");
        let others = ["a", "b", "c"].map(|name| ObjectRef::new("till", name));
        backlog.extend(others.clone());
        assert_eq!(next(&mut stream).as_deref(), Some("a"));
        assert_eq!(next(&mut stream).as_deref(), Some("b"));
        assert_eq!(next(&mut stream), None, "all places are taken");
        backlog.end(&others[0]);
        assert_eq!(next(&mut stream).as_deref(), Some("c"));
        backlog.end(&others[1]);
        backlog.end(&others[2]);
        backlog.end(&at(&out[0]));
        assert_eq!(next(&mut stream).as_deref(), Some("hangs-06"));
    }

    #[test]
    fn namespaces_take_turns_however_much_one_of_them_has() {
        let backlog = backlog(9);
        let mut stream = Box::pin(Arc::clone(&backlog).stream());
        let many = (0..5).map(|n| ObjectRef::new("greedy", n.to_string()));
        backlog.extend(many.chain([ObjectRef::new("quiet", "a"), ObjectRef::new("shop", "b")]));
        let order: Vec<_> = (0..7).filter_map(|_| next(&mut stream)).collect();
        assert_eq!(order, ["0", "a", "b", "1", "2", "3", "4"]);
    }

    #[test]
    fn what_is_looked_at_anyway_is_not_given_out_and_what_is_listed_meanwhile_is() {
        let backlog = backlog(1);
        let mut stream = Box::pin(Arc::clone(&backlog).stream());
        backlog.extend(["a", "b"].map(at));
        backlog.begin(&at("a"));
        assert_eq!(next(&mut stream).as_deref(), Some("b"));
        // Listed again while it is being looked at: that look may have read what was before.
        backlog.extend([at("a")]);
        backlog.end(&at("a"));
        backlog.end(&at("b"));
        assert_eq!(next(&mut stream).as_deref(), Some("a"));
    }
}
