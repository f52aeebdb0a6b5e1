//! Keys of work: each is handled by one task at a time, a key added meanwhile is handled again, and
//! a failure is repeated after a growing pause.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::instants::Shift;
use crate::retry::backoff;

/// Keys handled at the same time: enough to hide the store's flushes, few enough for two cores.
pub const CONCURRENCY: usize = 8;

/// A set of keys that wait to be handled.
pub struct Queue<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

struct State<T> {
    ready: VecDeque<T>,
    waiting: HashSet<T>,
    later: HashMap<T, Instant>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                ready: VecDeque::new(),
                waiting: HashSet::new(),
                later: HashMap::new(),
            }),
            wake: Notify::new(),
        }
    }
}

impl<T: Clone + Eq + Hash + Debug + Send + Sync + 'static> Queue<T> {
    /// Adds a key; no effect if it waits already.
    pub fn add(&self, key: T) {
        let mut state = self.lock();
        if state.waiting.insert(key.clone()) {
            state.ready.push_back(key);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Adds a key once `pause` has passed, or at the earlier moment already noted.
    pub fn add_after(&self, key: T, pause: Duration) {
        let at = Instant::now().plus(pause);
        let mut state = self.lock();
        let due = state.later.entry(key).or_insert(at);
        *due = at.min(*due);
        drop(state);
        self.wake.notify_one();
    }

    /// Handles keys with `work` until dropped. `work` answers when it wants the key again.
    pub async fn run<F, R, E>(self: Arc<Self>, name: &'static str, work: F)
    where
        F: Fn(T) -> R,
        R: Future<Output = Result<Option<Duration>, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let mut busy: HashSet<T> = HashSet::new();
        let mut again: HashSet<T> = HashSet::new();
        let mut failures: HashMap<T, u32> = HashMap::new();
        let mut tasks: JoinSet<(T, Result<Option<Duration>, String>)> = JoinSet::new();
        loop {
            while tasks.len() < CONCURRENCY {
                let Some(key) = self.take() else { break };
                if busy.contains(&key) {
                    again.insert(key);
                    continue;
                }
                busy.insert(key.clone());
                let task = work(key.clone());
                tasks.spawn(async move { (key, task.await.map_err(|e| e.to_string())) });
            }
            let due = self.next_due();
            tokio::select! {
                () = self.wake.notified(), if tasks.len() < CONCURRENCY => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                Some(done) = tasks.join_next() => {
                    let Ok((key, result)) = done else {
                        tracing::error!(controller = name, "a handler panicked");
                        // Which key it was is unknown: let every key that is held back go on.
                        busy.clear();
                        continue;
                    };
                    busy.remove(&key);
                    if again.remove(&key) {
                        self.add(key.clone());
                    }
                    self.settle(name, key, result, &mut failures);
                }
            }
        }
    }

    fn settle(
        &self,
        name: &'static str,
        key: T,
        result: Result<Option<Duration>, String>,
        failures: &mut HashMap<T, u32>,
    ) {
        match result {
            Ok(later) => {
                failures.remove(&key);
                if let Some(pause) = later {
                    self.add_after(key, pause);
                }
            }
            Err(error) => {
                let attempt = failures.entry(key.clone()).or_insert(0);
                tracing::debug!(controller = name, object = ?key, attempt, error, "will try again");
                let pause = backoff(*attempt);
                *attempt += 1;
                self.add_after(key, pause);
            }
        }
    }

    fn take(&self) -> Option<T> {
        let mut state = self.lock();
        let now = Instant::now();
        let due: Vec<T> = state
            .later
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            state.later.remove(&key);
            if state.waiting.insert(key.clone()) {
                state.ready.push_back(key);
            }
        }
        let key = state.ready.pop_front()?;
        state.waiting.remove(&key);
        Some(key)
    }

    fn next_due(&self) -> Option<Instant> {
        self.lock().later.values().min().copied()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_failing_key_is_tried_again_and_a_key_never_runs_twice_at_once() {
        let queue: Arc<Queue<&'static str>> = Arc::default();
        let (runs, inside) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        queue.add("till");
        let work = {
            let (runs, inside, queue) = (runs.clone(), inside.clone(), queue.clone());
            move |key| {
                let (runs, inside, queue) = (runs.clone(), inside.clone(), queue.clone());
                async move {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "{key} ran twice");
                    queue.add(key);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    match runs.fetch_add(1, Ordering::SeqCst) {
                        0 => Err("not yet"),
                        _ => Ok(None),
                    }
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), queue.run("test", work)).await;
        assert!(runs.load(Ordering::SeqCst) > 1);
    }
}
