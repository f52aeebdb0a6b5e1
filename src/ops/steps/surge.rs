//! Surge: starts one pod more, proves it and lets it serve, so that a single pod can be replaced.

use super::{Action, Debt, Doing};
use crate::ops::plan::Plan;
use crate::ops::request::Change;
use crate::ops::work::goal::goal;
use crate::ops::work::replace::{surge, unsurge};
use crate::ops::work::{Bench, Side};

pub(super) struct Surge;

impl Action for Surge {
    fn label(&self) -> &'static str {
        "surge"
    }

    fn title(&self) -> String {
        "surge".to_owned()
    }

    fn outline(&self, plan: &Plan) -> String {
        format!(
            "start {} to take over meanwhile, and prove it",
            plan.surge_pod()
        )
    }

    fn debt(&self) -> Debt {
        Debt::Service
    }

    fn act<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(async { surge(bench, &goal(bench, Side::Target).await?).await })
    }

    /// Undoing the switch takes the pod away; without a switch nothing else does.
    fn undo<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(async {
            if bench.plan.change == Change::Restart {
                unsurge(bench, Side::Former).await?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod model {
    use super::Surge;
    use crate::ops::decide::testing::model::{Run, Stop};
    use crate::ops::request::Change;
    use crate::ops::steps::Modelled;

    impl Modelled for Surge {
        fn model(&self, run: &mut Run) -> Result<(), Stop> {
            run.surge()
        }

        fn model_undo(&self, run: &mut Run) -> Result<(), Stop> {
            if run.plan.change == Change::Restart {
                run.unsurge()?;
            }
            Ok(())
        }
    }
}
