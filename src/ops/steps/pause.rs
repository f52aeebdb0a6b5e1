//! Pause: the provisioner leaves the PgBouncer alone from here on; undone by releasing it.

use super::{Action, Debt, Doing};
use crate::ops::journal::Event;
use crate::ops::plan::Plan;
use crate::ops::view::{Milestone, Reason, Said};
use crate::ops::work::Bench;
use crate::ops::work::lock::{self, Holder};

pub(super) struct Pause;

impl Action for Pause {
    fn label(&self) -> &'static str {
        "pause"
    }

    fn title(&self) -> String {
        "pause".to_owned()
    }

    fn outline(&self, plan: &Plan) -> String {
        format!("pause PgBouncer {}", plan.database_at())
    }

    fn debt(&self) -> Debt {
        Debt::Service
    }

    fn milestone(&self) -> Option<Milestone> {
        Some(Milestone::Paused)
    }

    fn said(&self, event: &Event, plan: &Plan) -> Option<Said> {
        let (database, request) = (plan.database_at(), &plan.request.name);
        match event {
            Event::Started => Some(Said::Words {
                reason: Reason::Starting,
                message: format!("Pausing PgBouncer databse: {database}"),
            }),
            Event::Succeeded(_) => Some(Said::Words {
                reason: Reason::Successful,
                message: format!(
                    "Successfully paused PgBouncer database: {database} for PgBouncerOpsRequest: \
                     {request}"
                ),
            }),
            Event::Undone => Some(Said::resumed(plan)),
            Event::Failed(_) | Event::UndoStarted | Event::UndoFailed(_) => None,
        }
    }

    fn act<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        let holder = Holder {
            at: bench.plan.request_at(),
            uid: &bench.plan.request.uid,
            now: bench.clock.now(),
        };
        Box::pin(async move { lock::take(&bench.ground, &holder).await })
    }

    fn undo<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(lock::release(&bench.ground, &bench.plan.request.uid))
    }
}

#[cfg(test)]
mod model {
    use super::Pause;
    use crate::ops::decide::testing::model::{Run, Stop};
    use crate::ops::steps::Modelled;

    impl Modelled for Pause {
        fn model(&self, run: &mut Run) -> Result<(), Stop> {
            run.effect(|site| site.paused = true)
        }

        fn model_undo(&self, run: &mut Run) -> Result<(), Stop> {
            run.effect(|site| site.paused = false)
        }
    }
}
