//! Stage: publishes trust in old and new issuers; undone by publishing the former bundle.

use super::{Action, Doing};
use crate::ops::plan::Plan;
use crate::ops::work::publish::{Edition, edition, unstage};
use crate::ops::work::{Bench, Side, StepError};

pub(super) struct Stage;

impl Action for Stage {
    fn label(&self) -> &'static str {
        "stage"
    }

    fn title(&self) -> String {
        "stage trust".to_owned()
    }

    fn outline(&self, _plan: &Plan) -> String {
        "publish trust in the old and the new issuer".to_owned()
    }

    fn act<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(stage(bench))
    }

    fn undo<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(async {
            for alias in bench.plan.published.keys() {
                unstage(bench, *alias).await?;
            }
            Ok(())
        })
    }
}

/// Publishes trust in old and new issuers beside everything that is published.
async fn stage(bench: &Bench<'_>) -> Result<(), StepError> {
    let Edition { bouncer, trust } = edition(bench).await?;
    for alias in bench.plan.published.keys() {
        if let Some(secret) = bench.secret_name(Side::Former, *alias) {
            bench.materials.stage(&bouncer, &secret, &trust).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod model {
    use super::Stage;
    use crate::ops::decide::testing::model::{Run, Stop};
    use crate::ops::steps::Modelled;

    impl Modelled for Stage {
        fn model(&self, run: &mut Run) -> Result<(), Stop> {
            run.effect(|site| site.trusts_both = true)
        }

        fn model_undo(&self, run: &mut Run) -> Result<(), Stop> {
            run.effect(|site| site.trusts_both = false)
        }
    }
}
