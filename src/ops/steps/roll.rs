//! Roll: replaces a pod, or several at the same time: drain, restart, prove, back into service. Undoing
//! it puts them back into service; which side they are of is the switch's.

use super::{Action, Debt, Doing};
use crate::ops::journal::Event;
use crate::ops::plan::Plan;
use crate::ops::request::Change;
use crate::ops::view::{Milestone, Said};
use crate::ops::work::drain::put_back;
use crate::ops::work::goal::{Goal, goal};
use crate::ops::work::replace::replace;
use crate::ops::work::{Bench, Side, StepError};

pub(super) struct Roll<'s>(pub(super) &'s [String]);

impl Action for Roll<'_> {
    fn label(&self) -> &'static str {
        "roll"
    }

    fn title(&self) -> String {
        format!("roll {}", self.0.join(" and "))
    }

    fn outline(&self, _plan: &Plan) -> String {
        match self.0 {
            [pod] => format!("drain {pod}, restart it and prove it"),
            pods => format!("drain {}, restart and prove them", pods.join(" and ")),
        }
    }

    fn rolls(&self) -> Vec<String> {
        self.0.to_vec()
    }

    fn debt(&self) -> Debt {
        Debt::Service
    }

    fn milestone(&self) -> Option<Milestone> {
        Some(Milestone::Restarted)
    }

    fn said(&self, event: &Event, _plan: &Plan) -> Option<Said> {
        Said::milestone_of(event)
    }

    /// All pods come to their end before the first that failed is told, so that none is left in the
    /// middle.
    fn act<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(async {
            let goal = goal(bench, Side::Target).await?;
            let rolling = self.0.iter().map(|name| roll(bench, &goal, name));
            let ended = futures::future::join_all(rolling).await;
            ended.into_iter().collect()
        })
    }

    fn undo<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(async {
            let mut ended = Ok(());
            for name in self.0 {
                ended = ended.and(put_back(&bench.ground, name).await);
            }
            ended
        })
    }
}

/// Replaces a pod by one of the goal. A restart replaces the very pod that was there when the plan was
/// made.
async fn roll(bench: &Bench<'_>, goal: &Goal, name: &str) -> Result<(), StepError> {
    let planned = bench.plan.pod(name).and_then(|pod| pod.uid.as_deref());
    let restart = bench.plan.change == Change::Restart;
    replace(bench, goal, name, planned.filter(|_| restart)).await
}

#[cfg(test)]
mod model {
    use super::Roll;
    use crate::ops::decide::testing::model::{Run, Stop};
    use crate::ops::steps::Modelled;

    impl Modelled for Roll<'_> {
        fn model(&self, run: &mut Run) -> Result<(), Stop> {
            run.roll(self.0)
        }

        fn model_undo(&self, run: &mut Run) -> Result<(), Stop> {
            let mut pods = self.0.iter();
            pods.try_for_each(|pod| run.effect(|site| site.put_back(pod)))
        }
    }
}
