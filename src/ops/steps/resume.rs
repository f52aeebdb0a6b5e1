//! Resume: releases the pause. The request has succeeded by then.

use super::{Action, Debt, Doing, Loss};
use crate::ops::journal::Event;
use crate::ops::plan::Plan;
use crate::ops::view::{Reason, Said};
use crate::ops::work::{Bench, lock};

pub(super) struct Resume;

impl Action for Resume {
    fn label(&self) -> &'static str {
        "resume"
    }

    fn title(&self) -> String {
        "resume".to_owned()
    }

    fn outline(&self, plan: &Plan) -> String {
        format!("resume PgBouncer {}", plan.database_at())
    }

    fn loss(&self) -> Loss {
        Loss::Stuck
    }

    fn debt(&self) -> Debt {
        Debt::Goods
    }

    fn said(&self, event: &Event, plan: &Plan) -> Option<Said> {
        match event {
            Event::Started => Some(Said::Words {
                reason: Reason::Starting,
                message: format!("Resuming PgBouncer database: {}", plan.database_at()),
            }),
            Event::Succeeded(_) => Some(Said::resumed(plan)),
            Event::Failed(_) | Event::UndoStarted | Event::Undone | Event::UndoFailed(_) => None,
        }
    }

    fn act<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(lock::release(&bench.ground, &bench.plan.request.uid))
    }
}

#[cfg(test)]
mod model {
    use super::Resume;
    use crate::ops::decide::testing::model::{Mistake, Run, Stop};
    use crate::ops::steps::Modelled;

    impl Modelled for Resume {
        fn model(&self, run: &mut Run) -> Result<(), Stop> {
            let stays = run.errs(Mistake::KeepsPause);
            run.effect(|site| site.paused = stays)
        }
    }
}
