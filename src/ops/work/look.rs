//! Waiting for a level: looking again and again until it is there, and saying what was seen last.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::error::StepError;
use crate::causes::chain;
use crate::retry::Retry;

/// How often pods and endpoints are looked at: much shorter than a pooler's start.
pub(in crate::ops) const OFTEN: Duration = Duration::from_millis(50);
/// How often an issuer is asked: it may make a key and a request each time.
pub(in crate::ops) const SELDOM: Duration = Duration::from_millis(500);

/// What a look found.
pub(in crate::ops) enum Look<T> {
    /// The level is there.
    Found(T),
    /// Not yet; what is missing.
    Missing(String),
}

/// What the running step waits for; shared with whoever tells people.
#[derive(Clone, Debug, Default)]
pub(in crate::ops) struct Waiting(Arc<Mutex<Option<String>>>);

impl Waiting {
    /// What is waited for, if anything is.
    pub(in crate::ops) fn word(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Nothing is waited for any more.
    pub(in crate::ops) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Says what is waited for.
    pub(in crate::ops) fn wait_for(&self, word: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(word);
    }

    /// Looks until the level is there. Passing trouble is outlived; the bound is the caller's, who
    /// drops the future when it passes.
    pub(in crate::ops) async fn until<T, F>(
        &self,
        pause: Duration,
        mut look: impl FnMut() -> F,
    ) -> Result<T, StepError>
    where
        F: Future<Output = Result<Look<T>, StepError>>,
    {
        loop {
            match look().await {
                Ok(Look::Found(value)) => {
                    self.clear();
                    return Ok(value);
                }
                Ok(Look::Missing(word)) => self.wait_for(word),
                Err(error) if error.retry() == Retry::Backoff => self.wait_for(chain(&error)),
                Err(error) => return Err(error),
            }
            sleep(pause).await;
        }
    }
}
