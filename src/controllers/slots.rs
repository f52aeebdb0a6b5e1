//! Who is looked at now: places for looks, shared among namespaces.
//!
//! A look begins if its namespace holds less than [`SHARE`] times as many places as are free, so one
//! namespace alone gets three quarters of them, a second one three quarters of the rest, and some are
//! left for a third, whatever the first two do. A look that may not begin ends at once and is parked;
//! when a place becomes free the namespaces that have something parked take turns. So looks that hang
//! (an issuer that never answers) and looks without end (hundreds of requests that wait) keep only
//! their own namespace waiting.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, stream};
use tokio::sync::Notify;

use crate::names::ObjectRef;

/// A namespace holds at most so many times as many places as are free.
pub(super) const SHARE: usize = 3;

/// The places of one controller.
pub(super) struct Slots {
    places: usize,
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    /// Places that are taken, all and by namespace; those that are promised count.
    taken: usize,
    taken_by: HashMap<String, usize>,
    /// What was parked and is to look now.
    promised: HashSet<ObjectRef>,
    parked: BTreeMap<String, VecDeque<ObjectRef>>,
    is_parked: HashSet<ObjectRef>,
    /// Objects that had a place before. One that is new goes before them, in its own namespace.
    known: HashSet<ObjectRef>,
    /// The namespace whose turn it was last.
    last: String,
}

/// A place that is taken; it is free again when this is dropped.
pub(super) struct Slot {
    slots: Arc<Slots>,
    namespace: String,
}

// === impl Slots ===

impl Slots {
    /// So many places.
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            places,
            state: Mutex::default(),
            news: Notify::new(),
        })
    }

    /// A place for a look at `at`; `None` if it is parked instead, and comes again by [`Slots::stream`].
    pub(super) fn take(self: &Arc<Self>, at: &ObjectRef) -> Option<Slot> {
        let mut state = self.lock();
        if !state.promised.remove(at) {
            if !state.has_room(self.places, &at.namespace) {
                state.park(at);
                return None;
            }
            state.count(&at.namespace);
        }
        if state.is_parked.remove(at)
            && let Some(queue) = state.parked.get_mut(&at.namespace)
        {
            queue.retain(|parked| parked != at);
        }
        if !state.known.contains(at) {
            state.known.insert(at.clone());
        }
        drop(state);
        Some(Slot {
            slots: Arc::clone(self),
            namespace: at.namespace.clone(),
        })
    }

    /// The object has gone: what was promised to it is free again.
    pub(super) fn forget(&self, at: &ObjectRef) {
        let mut state = self.lock();
        state.known.remove(at);
        if state.promised.remove(at) {
            state.uncount(&at.namespace);
        }
        if state.is_parked.remove(at)
            && let Some(queue) = state.parked.get_mut(&at.namespace)
        {
            queue.retain(|parked| parked != at);
        }
        drop(state);
        self.news.notify_one();
    }

    /// Gives out what was parked, for ever; for one reader.
    pub(super) fn stream(self: Arc<Self>) -> impl Stream<Item = ObjectRef> + Send + 'static {
        stream::unfold(self, |slots| async {
            let next = slots.next().await;
            Some((next, slots))
        })
    }

    async fn next(&self) -> ObjectRef {
        loop {
            if let Some(next) = self.lock().promise(self.places) {
                return next;
            }
            self.news.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn has_room(&self, places: usize, namespace: &str) -> bool {
        let own = self.taken_by.get(namespace).copied().unwrap_or_default();
        own < places.saturating_sub(self.taken).saturating_mul(SHARE)
    }

    fn count(&mut self, namespace: &str) {
        self.taken += 1;
        *self.taken_by.entry(namespace.to_owned()).or_default() += 1;
    }

    fn uncount(&mut self, namespace: &str) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(own) = self.taken_by.get_mut(namespace) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.taken_by.remove(namespace);
            }
        }
    }

    fn park(&mut self, at: &ObjectRef) {
        if self.is_parked.insert(at.clone()) {
            let queue = self.parked.entry(at.namespace.clone()).or_default();
            let mut place = queue.len();
            if !self.known.contains(at) {
                let first = queue.iter().position(|parked| self.known.contains(parked));
                place = first.unwrap_or(place);
            }
            queue.insert(place, at.clone());
        }
    }

    /// What looks next: of the namespaces that have room, the first after the last one.
    fn promise(&mut self, places: usize) -> Option<ObjectRef> {
        self.parked.retain(|_, queue| !queue.is_empty());
        let after = self.parked.keys().filter(|name| **name > self.last);
        let before = self.parked.keys().filter(|name| **name <= self.last);
        let mut turns = after.chain(before);
        let namespace = turns.find(|name| self.has_room(places, name))?.clone();
        let next = self.parked.get_mut(&namespace)?.pop_front()?;
        self.is_parked.remove(&next);
        self.promised.insert(next.clone());
        self.count(&namespace);
        self.last = namespace;
        Some(next)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().uncount(&self.namespace);
        self.slots.news.notify_one();
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slots")
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    fn at(namespace: &str, n: usize) -> ObjectRef {
        ObjectRef::new(namespace, format!("object-{n}"))
    }

    fn take(slots: &Arc<Slots>, namespace: &str, count: usize) -> Vec<Slot> {
        (0..count)
            .filter_map(|n| slots.take(&at(namespace, n)))
            .collect()
    }

    #[test]
    fn one_namespace_gets_most_places_and_never_all() {
        let slots = Slots::new(128);
        let greedy = take(&slots, "greedy", 1_000);
        assert_eq!(greedy.len(), 96);
        let second = take(&slots, "second", 1_000);
        assert_eq!(second.len(), 24);
        // However many namespaces take what they can get, there is one more.
        let mut all = Vec::new();
        for n in 0..2 {
            let more = take(&slots, &format!("more-{n}"), 1_000);
            assert!(!more.is_empty(), "{n}");
            all.extend(more);
        }
        drop(greedy);
        assert!(slots.take(&at("late", 0)).is_some());
    }

    #[test]
    fn what_was_parked_comes_again_in_order_when_there_is_room_and_namespaces_take_turns() {
        let slots = Slots::new(16);
        let mut stream = Box::pin(Arc::clone(&slots).stream());
        let mut next = || stream.next().now_or_never().flatten();
        let mut first = take(&slots, "a", 12);
        let second = take(&slots, "b", 4);
        assert_eq!((first.len(), second.len()), (12, 3));
        for namespace in ["a", "b", "a"] {
            for n in 20..23 {
                assert!(slots.take(&at(namespace, n)).is_none());
            }
        }
        // One place is left for others, so nothing of these is given out.
        assert_eq!(next(), None);
        assert!(slots.take(&at("c", 0)).is_some());
        first.truncate(3);
        assert_eq!(next(), Some(at("a", 20)));
        assert_eq!(next(), Some(at("b", 3)));
        // Promised places count, are used by whom they were promised to, and are taken back.
        let used = slots.take(&at("a", 20));
        assert!(used.is_some());
        slots.forget(&at("b", 3));
        assert_eq!(next(), Some(at("a", 21)));
        drop((used, first, second));
        assert_eq!(next(), Some(at("b", 20)));
    }

    #[test]
    fn an_object_that_is_new_goes_before_those_of_its_namespace_that_had_a_place() {
        let slots = Slots::new(4);
        let mut stream = Box::pin(Arc::clone(&slots).stream());
        drop(slots.take(&at("a", 7)));
        let held = take(&slots, "a", 3);
        for n in [7, 8, 9] {
            assert!(slots.take(&at("a", n)).is_none());
        }
        drop(held);
        let order: Vec<_> = (0..3)
            .filter_map(|_| stream.next().now_or_never()?)
            .collect();
        assert_eq!(order, [at("a", 8), at("a", 9), at("a", 7)]);
    }

    #[test]
    fn everything_that_was_parked_comes_once_and_all_places_are_free_in_the_end() {
        let slots = Slots::new(10);
        let mut stream = Box::pin(Arc::clone(&slots).stream());
        let mut running: VecDeque<Slot> = VecDeque::new();
        let mut done = HashSet::new();
        for n in 0..400 {
            let object = at(["a", "b", "c"][n % 3], n);
            match slots.take(&object) {
                Some(slot) => {
                    done.insert(object);
                    running.push_back(slot);
                }
                None => assert!(slots.take(&object).is_none()),
            }
        }
        while running.pop_front().is_some() {
            while let Some(object) = stream.next().now_or_never().flatten() {
                running.extend(slots.take(&object));
                assert!(done.insert(object));
            }
        }
        assert_eq!(done.len(), 400);
        let state = slots.lock();
        assert_eq!(
            (state.taken, state.taken_by.len(), state.promised.len()),
            (0, 0, 0)
        );
    }
}
