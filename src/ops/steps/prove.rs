//! Prove: sees every pod and the Service serve what was planned, logs in and asks.

use super::{Action, Doing};
use crate::ops::plan::Plan;
use crate::ops::work::pods::pod;
use crate::ops::work::proof::{Spot, await_leaf, prove_database, spot, wanted_leaf};
use crate::ops::work::{Bench, Side, StepError};

pub(super) struct Prove;

impl Action for Prove {
    fn label(&self) -> &'static str {
        "prove"
    }

    fn title(&self) -> String {
        "prove".to_owned()
    }

    fn outline(&self, _plan: &Plan) -> String {
        "prove every pod and the Service".to_owned()
    }

    fn act<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(prove(bench))
    }
}

/// Proves all pods and the Service.
async fn prove(bench: &Bench<'_>) -> Result<(), StepError> {
    let (plan, ground) = (bench.plan, &bench.ground);
    if plan.replicas == 0 {
        return Ok(());
    }
    let bouncer = bench.bouncer(Side::Target).await?;
    let leaf = wanted_leaf(bench, Side::Target, &bouncer).await?;
    for planned in &plan.pods {
        let pod = pod(ground, &planned.name).await?;
        let pod = pod.ok_or_else(|| StepError::NoAddress(plan.beside(&planned.name)))?;
        await_leaf(ground, &spot(ground, &bouncer, &pod)?, leaf).await?;
    }
    let Some(address) = ground.service_address().await? else {
        return Ok(());
    };
    let name = format!("Service {}", plan.database_at());
    let service = Spot { name, address };
    await_leaf(ground, &service, leaf).await?;
    prove_database(ground, &bouncer, &service).await
}

#[cfg(test)]
mod model {
    use super::Prove;
    use crate::ops::decide::testing::model::{Mistake, Pod, Run, Stop};
    use crate::ops::journal::FailureKind;
    use crate::ops::steps::Modelled;

    impl Modelled for Prove {
        fn model(&self, run: &mut Run) -> Result<(), Stop> {
            let side = run.wanted();
            let serves = |pod: &Pod| pod.side == side && pod.serving;
            if run.errs(Mistake::ProvesBlindly) {
                return run.effect(|_| ());
            }
            if !run.world.pods.values().all(serves) {
                return Err(Stop::Trouble(FailureKind::Permanent));
            }
            run.effect(|site| {
                for pod in site.pods.values_mut() {
                    pod.seen = Some((pod.side, pod.generation));
                }
            })
        }
    }
}
