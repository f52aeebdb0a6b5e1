//! What steps do in the model of a cluster, and that each is listed.

use super::{of, one_of_each};
use crate::ops::decide::testing::model::{Run, Stop};

/// What a step does to the model, and what undoing it does. Each effect goes through [`Run::effect`].
pub(in crate::ops) trait Modelled {
    /// Does it.
    fn model(&self, run: &mut Run) -> Result<(), Stop>;

    /// Undoes it.
    fn model_undo(&self, _run: &mut Run) -> Result<(), Stop> {
        Ok(())
    }
}

#[test]
fn every_step_of_every_plan_has_a_label_that_is_counted() {
    let labels = one_of_each().map(|step| of(&step).label());
    let distinct: std::collections::BTreeSet<_> = labels.iter().collect();
    assert_eq!(distinct.len(), labels.len(), "{labels:?}");
    for plan in crate::ops::decide::testing::random::plans() {
        for step in &plan.steps {
            assert!(labels.contains(&of(step).label()), "{step}");
        }
    }
}
