//! What the steps do: each act reads the cluster first and can be repeated, and so can each undo.
//!
//! A [`Bench`] holds what acts need. Its two entrances are [`Bench::act`] and [`Bench::undo`]; who
//! calls them, in which order and with which bound, is the executor's business. Both may be dropped
//! at any `await`, which is the same as a crash there: nothing depends on an act being finished.

mod commit;
mod error;
mod look;
mod material;
mod pause;
mod pods;
mod prove;
mod reach;
mod reload;
mod roll;
mod subject;
mod switch;
mod takeup;
mod verdict;

use std::sync::{Mutex, PoisonError};

pub use self::error::{Leaf, StepError};
pub use self::look::Waiting;
pub(super) use self::pause::{Held, held};
pub use self::pods::Maker;
pub(super) use self::pods::{Set, is_ready, workload};
use super::journal::{Closed, Note};
use super::plan::{Plan, Step};
use super::request::Change;
use crate::blueprint::WorkloadKind;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::material::Materials;

/// What acts need.
pub struct Bench<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Key material.
    pub materials: &'a Materials,
    /// What makes pods here.
    pub kind: WorkloadKind,
    /// Time.
    pub clock: &'a Clock,
    /// The plan.
    pub plan: &'a Plan,
    /// What the step waits for.
    pub waiting: &'a Waiting,
    /// What the step closes.
    pub tally: &'a Tally,
    /// What makes the pods.
    pub maker: &'a Maker,
}

/// What has been closed and not yet been journalled; kept over the tries of a step.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Note>);

impl Tally {
    fn add(&self, pod: &str, closed: Closed) {
        let mut note = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        note.add(pod, closed);
    }

    fn take(&self) -> Note {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Which of two states of the PgBouncer is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// As it was before the request.
    Former,
    /// As the request wants it.
    Target,
}

impl Bench<'_> {
    /// Does a step.
    pub async fn act(&self, step: &Step) -> Result<Note, StepError> {
        match step {
            Step::Pause => self.pause().await?,
            Step::Issue(alias) => self.issue(*alias).await?,
            Step::Stage => self.stage().await?,
            Step::HandOut => self.hand_out().await?,
            Step::Switch => self.switch().await?,
            Step::Surge => self.surge(Side::Target).await?,
            Step::Roll(pod) => self.roll(pod).await?,
            Step::Reload(pod) => {
                let restarted = self.reload(pod).await?;
                let note = self.tally.take();
                return Ok(Note { restarted, ..note });
            }
            Step::RollTogether(pods) => self.roll_together(pods).await?,
            Step::Unsurge => self.unsurge(Side::Target).await?,
            Step::Prove => self.prove(Side::Target).await?,
            Step::Commit => self.commit(Side::Target).await?,
            Step::Retire => self.retire().await?,
            Step::Resume => self.resume().await?,
        }
        Ok(self.tally.take())
    }

    /// Leaves no pod paused or out of service, as far as that can be done in a moment; says whether
    /// it could. The daemon stops, and the next one may be long in coming; or an undo is given up.
    pub async fn calm(&self) -> bool {
        let mut is_calm = true;
        let pods = self.plan.pods.iter().map(|pod| pod.name.clone());
        for pod in pods.chain([self.plan.surge_pod()]) {
            let calmed = async {
                self.unpause(&pod).await?;
                self.put_back(&pod).await
            };
            if let Err(error) = calmed.await {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(pod, error, "left out of service");
                is_calm = false;
            }
        }
        is_calm
    }

    /// Undoes a step, whether it was done, half done, or not begun.
    pub async fn undo(&self, step: &Step) -> Result<(), StepError> {
        let undone = match step {
            Step::Pause => self.resume().await,
            Step::Issue(alias) => self.discard(*alias).await,
            Step::Stage => self.unstage().await,
            Step::HandOut => self.take_back().await,
            Step::Switch => self.switch_back().await,
            Step::Roll(pod) => self.put_back(pod).await,
            Step::Reload(pod) => self.unreload(pod).await,
            Step::RollTogether(pods) => self.put_all_back(pods).await,
            // Without a switch to undo, nothing else takes the surge pod away.
            Step::Surge if self.plan.change == Change::Restart => self.unsurge(Side::Former).await,
            Step::Surge | Step::Unsurge | Step::Prove | Step::Retire | Step::Resume => Ok(()),
            Step::Commit => self.commit(Side::Former).await,
        };
        match undone {
            // Whatever there was went with the PgBouncer.
            Err(StepError::Gone(_)) => Ok(()),
            other => other,
        }
    }
}
