//! A fence around everything that changes the world: it lets acts pass for as long as this daemon
//! leads, and never again afterwards.
//!
//! A fence belongs to one term of leadership. It is open until an instant of [`uptime`], which each
//! renewal of the lease moves on; once that instant has passed, or somebody else has been seen to
//! lead, it is closed for good: a later term has a fence of its own, so that nothing of an earlier
//! one (an act that hung, a process that was frozen) comes through with it.
//!
//! The fence is looked at before every step of an act, the first and those after every wait. What is
//! left is the time between a look and the system call that follows it; there the compare-and-swap
//! of journals and Secrets holds.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use crate::clock::uptime;

/// Shuts acts out once leadership is over. The default lets everything pass: for programs that
/// compete with nobody.
#[derive(Clone, Debug, Default)]
pub struct Fence(Option<Arc<Gate>>);

/// The fence is closed: this daemon does not lead any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this daemon does not lead any more")]
pub struct Fenced;

#[derive(Debug)]
struct Gate {
    /// Nanoseconds of [`uptime`] until which it is open.
    until: AtomicU64,
    /// Held while `until` is moved.
    moving: Mutex<()>,
}

impl Fence {
    /// A fence that is open until an instant of [`uptime`].
    pub fn until(at: Duration) -> Self {
        Self(Some(Arc::new(Gate {
            until: AtomicU64::new(nanos(at)),
            moving: Mutex::new(()),
        })))
    }

    /// Moves the end on; `false` if the fence has closed, which is for good.
    #[must_use]
    pub fn extend(&self, until: Duration) -> bool {
        let Some(gate) = &self.0 else { return true };
        let _alone = gate.moving.lock().unwrap_or_else(PoisonError::into_inner);
        if self.left().is_none() {
            return false;
        }
        gate.until.fetch_max(nanos(until), Ordering::SeqCst);
        true
    }

    /// Closes it.
    pub fn close(&self) {
        if let Some(gate) = &self.0 {
            let _alone = gate.moving.lock().unwrap_or_else(PoisonError::into_inner);
            gate.until.store(0, Ordering::SeqCst);
        }
    }

    /// Whether acts may pass.
    pub fn is_open(&self) -> bool {
        self.left().is_some()
    }

    /// Returns when it has closed.
    pub async fn closed(&self) {
        while let Some(left) = self.left() {
            tokio::time::sleep(left).await;
        }
    }

    /// Runs an act for as long as the fence is open. The act is given up when it closes, and what
    /// came of it is not known then.
    pub async fn pass<T>(&self, act: impl Future<Output = T>) -> Result<T, Fenced> {
        if self.0.is_none() {
            return Ok(act.await);
        }
        let mut act = pin!(act);
        let checked = poll_fn(|context| {
            if self.is_open() {
                act.as_mut().poll(context).map(Ok)
            } else {
                Poll::Ready(Err(Fenced))
            }
        });
        tokio::select! {
            biased;
            done = checked => done,
            () = self.closed() => Err(Fenced),
        }
    }

    /// How long it stays open if nobody moves its end; `None` once it is closed.
    fn left(&self) -> Option<Duration> {
        let Some(gate) = &self.0 else {
            return Some(Duration::MAX);
        };
        let until = Duration::from_nanos(gate.until.load(Ordering::SeqCst));
        until.checked_sub(uptime()).filter(|left| !left.is_zero())
    }
}

fn nanos(at: Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const SOON: Duration = Duration::from_millis(30);
    const LATER: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn an_act_passes_while_the_fence_is_open() {
        assert_eq!(Fence::default().pass(async { 7 }).await, Ok(7));
        let fence = Fence::until(uptime() + LATER);
        assert_eq!(fence.pass(async { 8 }).await, Ok(8));
    }

    #[tokio::test]
    async fn an_act_is_not_even_begun_once_it_is_closed() {
        let fence = Fence::until(uptime() + LATER);
        fence.close();
        let mut begun = false;
        let act = async { begun = true };
        assert_eq!(fence.pass(act).await, Err(Fenced));
        assert!(!begun);
        assert!(!fence.extend(uptime() + LATER), "closed for good");
        assert!(!fence.is_open());
    }

    #[tokio::test]
    async fn an_act_in_flight_ends_with_the_term() {
        let fence = Fence::until(uptime() + SOON);
        assert_eq!(fence.pass(pending::<()>()).await, Err(Fenced));
        assert!(!fence.extend(uptime() + LATER), "it has run out");
    }

    #[tokio::test]
    async fn a_renewal_prolongs_what_is_in_flight() {
        let fence = Fence::until(uptime() + SOON);
        assert!(fence.extend(uptime() + SOON * 4));
        let act = tokio::time::sleep(SOON * 2);
        assert_eq!(fence.pass(act).await, Ok(()));
    }

    /// What a process does that was stopped by SIGSTOP: it goes on after a wait, much later.
    #[tokio::test]
    async fn after_a_wait_that_outlasted_the_term_nothing_more_is_done() {
        let fence = Fence::until(uptime() + SOON);
        let mut went_on = false;
        let act = async {
            tokio::task::yield_now().await;
            std::thread::sleep(SOON * 2);
            tokio::task::yield_now().await;
            went_on = true;
        };
        assert_eq!(fence.pass(act).await, Err(Fenced));
        assert!(!went_on);
    }
}
