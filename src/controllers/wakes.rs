//! Objects that a change of another object concerns, each once, in order.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{Stream, stream};
use tokio::sync::Notify;

use crate::names::ObjectRef;

/// What is to be looked at. An object that waits already is not added again.
pub(super) struct Wakes {
    state: Mutex<(VecDeque<ObjectRef>, HashSet<ObjectRef>)>,
    news: Notify,
}

impl Wakes {
    /// Nothing yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            news: Notify::new(),
        })
    }

    /// These are concerned.
    pub(super) fn extend(&self, concerned: Vec<ObjectRef>) {
        if concerned.is_empty() {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (order, waiting) = &mut *state;
        for at in concerned {
            if waiting.insert(at.clone()) {
                order.push_back(at);
            }
        }
        drop(state);
        self.news.notify_one();
    }

    /// Gives out what is concerned, for ever; for one reader.
    pub(super) fn stream(self: Arc<Self>) -> impl Stream<Item = ObjectRef> + Send + 'static {
        stream::unfold(self, |wakes| async {
            loop {
                if let Some(next) = wakes.take() {
                    return Some((next, wakes));
                }
                wakes.news.notified().await;
            }
        })
    }

    fn take(&self) -> Option<ObjectRef> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.0.pop_front()?;
        state.1.remove(&next);
        Some(next)
    }
}

impl fmt::Debug for Wakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wakes")
    }
}
