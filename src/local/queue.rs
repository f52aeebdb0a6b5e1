//! Keys of work: each is handled by one task at a time, a key added meanwhile is handled again, and
//! a failure or a panic is repeated after a growing pause.
//!
//! When a key is due is the business of kube's [`Scheduler`]. kube's `Controller` and `applier` stand on
//! it too, but hand out objects of one store only: the controllers here also act on keys whose object
//! has gone.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{FutureExt as _, StreamExt as _};
use kube::runtime::scheduler::{ScheduleRequest, Scheduler, scheduler};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::instants::Shift;
use crate::retry::backoff;

/// Keys handled at the same time: enough to hide the store's flushes, few enough for two cores.
const CONCURRENCY: usize = 8;

/// A set of keys that wait to be handled.
pub struct Queue<T> {
    /// Unbounded, because the scheduler takes everything in at each poll and keeps each key once.
    requests: UnboundedSender<ScheduleRequest<T>>,
    scheduler: Mutex<Scheduler<T, UnboundedReceiver<ScheduleRequest<T>>>>,
}

/// What came of a key: when it is wanted again, or why it failed.
type Handled = Result<Option<Duration>, String>;

impl<T: Clone + Eq + Hash> Default for Queue<T> {
    fn default() -> Self {
        let (requests, inbox) = unbounded();
        Self {
            requests,
            scheduler: Mutex::new(scheduler(inbox)),
        }
    }
}

impl<T: Clone + Eq + Hash + Debug + Send + Sync + Unpin + 'static> Queue<T> {
    /// Adds a key; no effect if it waits already.
    pub fn add(&self, key: T) {
        self.add_after(key, Duration::ZERO);
    }

    /// Adds a key once `pause` has passed, or at the earlier moment already noted.
    fn add_after(&self, message: T, pause: Duration) {
        let run_at = Instant::now().plus(pause);
        // The receiver lives in `self`, so sending cannot fail.
        let _sent = self
            .requests
            .unbounded_send(ScheduleRequest { message, run_at });
    }

    /// Handles keys with `work` until dropped. `work` answers when it wants the key again.
    pub async fn run<F, R, E>(self: Arc<Self>, name: &'static str, work: F)
    where
        F: Fn(T) -> R,
        R: Future<Output = Result<Option<Duration>, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let mut scheduler = self.scheduler.lock().await;
        let mut busy: HashSet<T> = HashSet::new();
        let mut failures: HashMap<T, u32> = HashMap::new();
        let mut tasks: JoinSet<(T, Handled)> = JoinSet::new();
        loop {
            let has_place = busy.len() < CONCURRENCY;
            let mut due =
                Pin::new(&mut *scheduler).hold_unless(|key| has_place && !busy.contains(key));
            tokio::select! {
                Some(Ok((key, handled))) = tasks.join_next() => {
                    busy.remove(&key);
                    self.settle(name, key, handled, &mut failures);
                }
                Some(key) = due.next() => {
                    busy.insert(key.clone());
                    let task = AssertUnwindSafe(work(key.clone())).catch_unwind();
                    tasks.spawn(async move { (key, handled(task.await)) });
                }
            }
        }
    }

    fn settle(&self, name: &'static str, key: T, handled: Handled, failures: &mut HashMap<T, u32>) {
        match handled {
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
}

/// A panic is a failure like any other; its text is not told, because it may quote what it was about.
fn handled<E: Display>(ended: Result<Result<Option<Duration>, E>, Box<dyn Any + Send>>) -> Handled {
    match ended {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("the handler panicked".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Handles the key `till` with an end that depends on how often it was handled, until it has been
    /// handled `runs` times; no two handlers are ever at work together.
    async fn handle(runs: u32, end: fn(u32) -> Result<Option<Duration>, &'static str>) {
        let queue: Arc<Queue<&'static str>> = Arc::default();
        let (handled, inside) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        queue.add("till");
        let work = {
            let (handled, inside, queue) = (handled.clone(), inside.clone(), queue.clone());
            move |key| {
                let (handled, inside, queue) = (handled.clone(), inside.clone(), queue.clone());
                async move {
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "{key} ran twice");
                    let run = handled.fetch_add(1, Ordering::SeqCst);
                    if run == 0 {
                        queue.add(key);
                    }
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    end(run)
                }
            }
        };
        let reached = async {
            while handled.load(Ordering::SeqCst) < runs {
                tokio::task::yield_now().await;
            }
        };
        let bound = tokio::time::timeout(Duration::from_secs(60), reached);
        tokio::select! {
            () = queue.run("test", work) => {}
            reached = bound => reached.unwrap(),
        }
    }

    #[tokio::test]
    async fn a_failing_key_is_tried_again_and_a_key_never_runs_twice_at_once() {
        let fails_twice = |run| if run < 2 { Err("not yet") } else { Ok(None) };
        handle(3, fails_twice).await;
    }

    #[tokio::test]
    async fn a_key_that_panics_is_tried_again() {
        let panics_twice = |run| {
            assert!(run >= 2, "a fault");
            Ok(None)
        };
        handle(3, panics_twice).await;
    }

    #[tokio::test]
    async fn a_key_that_wants_to_be_handled_again_is() {
        handle(3, |_| Ok(Some(Duration::from_millis(1)))).await;
    }

    #[tokio::test]
    async fn a_panic_lets_no_other_key_run_twice() {
        let queue: Arc<Queue<&'static str>> = Arc::default();
        let slow = Arc::new(AtomicU32::new(0));
        let (gate, waiting) = (Arc::new(tokio::sync::Notify::new()), slow.clone());
        queue.add("slow");
        queue.add("odd");
        let (again, open) = (queue.clone(), gate.clone());
        let panics = Arc::new(AtomicU32::new(0));
        let panicked = panics.clone();
        let work = move |key| {
            let (slow, open) = (waiting.clone(), open.clone());
            let (again, panicked) = (again.clone(), panicked.clone());
            async move {
                if key == "slow" {
                    slow.fetch_add(1, Ordering::SeqCst);
                    open.notified().await;
                    return Ok::<_, &str>(None);
                }
                let before = panicked.fetch_add(1, Ordering::SeqCst);
                again.add("slow");
                assert!(before > 0, "a fault");
                Ok(None)
            }
        };
        let check = async {
            while panics.load(Ordering::SeqCst) < 2 || slow.load(Ordering::SeqCst) < 1 {
                tokio::task::yield_now().await;
            }
            assert_eq!(slow.load(Ordering::SeqCst), 1, "it is handled still");
            gate.notify_one();
            while slow.load(Ordering::SeqCst) < 2 {
                tokio::task::yield_now().await;
            }
        };
        let bound = tokio::time::timeout(Duration::from_secs(60), check);
        tokio::select! {
            () = queue.run("test", work) => {}
            checked = bound => checked.unwrap(),
        }
    }
}
