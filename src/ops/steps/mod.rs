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
mod roll;
mod subject;
mod switch;

pub use self::error::{Leaf, StepError, chain};
pub use self::look::Waiting;
pub(super) use self::pause::{Held, held};
pub(super) use self::pods::{is_ready, workload};
use super::journal::Note;
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
            Step::Roll(pod) => return self.roll(pod).await,
            Step::Unsurge => return self.unsurge(Side::Target).await,
            Step::Prove => self.prove(Side::Target).await?,
            Step::Commit => self.commit(Side::Target).await?,
            Step::Retire => self.retire().await?,
            Step::Resume => self.resume().await?,
        }
        Ok(Note::default())
    }

    /// Leaves no pod paused or out of service, as far as that can be done in a moment: the daemon
    /// stops, and the next one may be long in coming.
    pub async fn calm(&self) {
        let pods = self.plan.pods.iter().map(|pod| pod.name.clone());
        for pod in pods.chain([self.plan.surge_pod()]) {
            if let Err(error) = self.put_back(&pod).await {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(pod, error, "left out of service");
            }
        }
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
            // Without a switch to undo, nothing else takes the surge pod away.
            Step::Surge if self.plan.change == Change::Restart => {
                self.unsurge(Side::Former).await.map(drop)
            }
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
