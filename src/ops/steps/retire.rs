//! Retire: deletes what is not needed any more. The request has succeeded by then, with it or without.

use super::{Action, Doing, Loss};
use crate::ops::plan::Plan;
use crate::ops::request::Change;
use crate::ops::work::publish::secret_names;
use crate::ops::work::{Bench, Side, StepError};

pub(super) struct Retire;

impl Action for Retire {
    fn label(&self) -> &'static str {
        "retire"
    }

    fn title(&self) -> String {
        "retire".to_owned()
    }

    fn outline(&self, _plan: &Plan) -> String {
        "delete what is no longer needed".to_owned()
    }

    fn loss(&self) -> Loss {
        Loss::Ignored
    }

    fn act<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(retire(bench))
    }
}

/// Takes away contract Secrets that the spec no longer names, old revisions, and everything once TLS is
/// gone.
async fn retire(bench: &Bench<'_>) -> Result<(), StepError> {
    let (plan, materials) = (bench.plan, bench.materials);
    let live = bench.ground.live().await?;
    let kept = secret_names(bench, Side::Target);
    for secret in secret_names(bench, Side::Former) {
        if !kept.contains(&secret) {
            materials.withdraw(&live, &secret).await?;
        }
    }
    if matches!(plan.change, Change::Remove { .. }) {
        return Ok(materials.discard_all(&live).await?);
    }
    for alias in plan.target.aliases() {
        let published = plan.target_revision(alias);
        materials.prune(&live, alias, published).await?;
    }
    Ok(())
}

#[cfg(test)]
mod model {
    use super::Retire;
    use crate::ops::decide::testing::model::{Run, Stop};
    use crate::ops::request::Change;
    use crate::ops::steps::Modelled;

    impl Modelled for Retire {
        fn model(&self, run: &mut Run) -> Result<(), Stop> {
            let removes = matches!(run.plan.change, Change::Remove { .. });
            run.effect(|site| site.retired |= removes)
        }
    }
}
