//! Hand out: publishes the new material of clients and exporter; undone by publishing the former.

use super::{Action, Doing};
use crate::names::Alias;
use crate::ops::plan::Plan;
use crate::ops::work::publish::{edition, publish, publish_former, withdraw_if_new};
use crate::ops::work::{Bench, StepError};

pub(super) struct HandOut;

impl Action for HandOut {
    fn label(&self) -> &'static str {
        "hand_out"
    }

    fn title(&self) -> String {
        "hand out client material".to_owned()
    }

    fn outline(&self, _plan: &Plan) -> String {
        "publish the material of clients and exporter".to_owned()
    }

    fn act<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(async { publish(bench, &handed_out(bench.plan)).await })
    }

    fn undo<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(take_back(bench))
    }
}

/// Publishes the former material of clients and exporter again, or none where there was none.
async fn take_back(bench: &Bench<'_>) -> Result<(), StepError> {
    // Pods serve what the new issuer has signed until the switch is undone; until then clients
    // trust both.
    let both = edition(bench).await?.trust;
    for alias in handed_out(bench.plan) {
        publish_former(bench, alias, &both).await?;
        withdraw_if_new(bench, alias).await?;
    }
    Ok(())
}

/// The aliases that are issued for others than the pooler itself.
fn handed_out(plan: &Plan) -> Vec<Alias> {
    let issued = plan.issue.iter().map(|issuance| issuance.alias);
    issued.filter(|alias| *alias != Alias::Server).collect()
}

#[cfg(test)]
mod model {
    use super::HandOut;
    use crate::ops::decide::testing::model::{Run, Side, Stop};
    use crate::ops::steps::Modelled;

    impl Modelled for HandOut {
        fn model(&self, run: &mut Run) -> Result<(), Stop> {
            run.effect(|site| site.client = Side::Target)
        }

        fn model_undo(&self, run: &mut Run) -> Result<(), Stop> {
            run.effect(|site| site.client = Side::Former)
        }
    }
}
