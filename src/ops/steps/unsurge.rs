//! Unsurge: takes the surge pod away again. Undoing a roll needs no such pod, so it owes nothing.

use super::{Action, Debt, Doing};
use crate::ops::plan::Plan;
use crate::ops::work::replace::unsurge;
use crate::ops::work::{Bench, Side};

pub(super) struct Unsurge;

impl Action for Unsurge {
    fn label(&self) -> &'static str {
        "unsurge"
    }

    fn title(&self) -> String {
        "end surge".to_owned()
    }

    fn outline(&self, plan: &Plan) -> String {
        format!("drain {} and end it", plan.surge_pod())
    }

    fn debt(&self) -> Debt {
        Debt::Service
    }

    fn act<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(unsurge(bench, Side::Target))
    }
}

#[cfg(test)]
mod model {
    use super::Unsurge;
    use crate::ops::decide::testing::model::{Run, Stop};
    use crate::ops::steps::Modelled;

    impl Modelled for Unsurge {
        fn model(&self, run: &mut Run) -> Result<(), Stop> {
            run.unsurge()
        }
    }
}
