//! Switch: the moment from which a new pod is a changed pod. The server's material is published, and
//! configuration and pod template are written; the configuration has been parsed and checked by
//! then ([`crate::blueprint::Inputs`] is the only way to it), because a bad one turns TLS off.
//!
//! Undoing it publishes what was there before and brings every pod back to it.

use kube::ResourceExt;

use super::{Action, Debt, Doing};
use crate::names::Alias;
use crate::ops::journal::Event;
use crate::ops::plan::{Plan, PlannedPod, Way};
use crate::ops::view::{Milestone, Said};
use crate::ops::work::goal::{self, Goal, goal, recipe};
use crate::ops::work::pods::{is_ready, pod};
use crate::ops::work::proof::serves_other;
use crate::ops::work::publish::{issues, publish, publish_back, withdraw_if_new};
use crate::ops::work::reload::{bring_back, is_unmoved};
use crate::ops::work::replace::{bring_in, is_stale, replace, surge, unsurge_if_any};
use crate::ops::work::service::{Serving, label};
use crate::ops::work::{Bench, Side, StepError};

pub(super) struct Switch;

impl Action for Switch {
    fn label(&self) -> &'static str {
        "switch"
    }

    fn title(&self) -> String {
        "switch".to_owned()
    }

    fn outline(&self, _plan: &Plan) -> String {
        "publish the server's material, the configuration and the pod template".to_owned()
    }

    fn debt(&self) -> Debt {
        Debt::Pods
    }

    fn milestone(&self) -> Option<Milestone> {
        Some(Milestone::Switched)
    }

    fn said(&self, event: &Event, _plan: &Plan) -> Option<Said> {
        Said::milestone_of(event)
    }

    fn act<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(switch(bench))
    }

    fn undo<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(async {
            publish_back(bench).await?;
            converge(bench).await?;
            // The pods that used it are gone.
            withdraw_if_new(bench, Alias::Server).await
        })
    }
}

/// Publishes the server's material, configuration and pod template.
pub(super) async fn switch(bench: &Bench<'_>) -> Result<(), StepError> {
    if issues(bench, Alias::Server) {
        publish(bench, &[Alias::Server]).await?;
    }
    goal::publish(bench, Side::Target).await
}

/// Brings every pod back to the former side, those that do not serve first, and takes a surge pod
/// away. In the end every pod that served before has been seen to serve what that side serves.
async fn converge(bench: &Bench<'_>) -> Result<(), StepError> {
    if bench.plan.replicas == 0 {
        return Ok(());
    }
    if bench.plan.choice.way == Way::Reload {
        let recipe = recipe(bench, Side::Former).await?;
        for planned in &bench.plan.pods {
            bring_back(bench, &recipe, planned).await?;
        }
        return unsurge_if_any(bench, Side::Former).await;
    }
    let former = goal(bench, Side::Former).await?;
    let stale = stale(bench, &former).await?;
    let served = |stale: &Stale<'_>| stale.is_ready && stale.planned.ready;
    if bench.plan.replicas == 1 && stale.iter().any(served) {
        surge(bench, &former).await?;
    }
    for Stale { planned, not, .. } in stale {
        // Read again: the workload may have been written over while the last one was replaced.
        let former = goal(bench, Side::Former).await?;
        replace(bench, &former, &planned.name, not.as_deref()).await?;
    }
    unsurge_if_any(bench, Side::Former).await?;
    for planned in &bench.plan.pods {
        bring_in(bench, &former, &planned.name).await?;
    }
    Ok(())
}

/// A pod that has to be replaced on the way back.
struct Stale<'a> {
    planned: &'a PlannedPod,
    is_ready: bool,
    /// The UID that its successor must not have.
    not: Option<String>,
}

/// The pods that have to be replaced, those that do not serve first.
async fn stale<'a>(bench: &Bench<'a>, former: &Goal) -> Result<Vec<Stale<'a>>, StepError> {
    let mut all = Vec::new();
    for planned in &bench.plan.pods {
        let found = pod(&bench.ground, &planned.name).await?;
        // It is not known which side one has loaded that has restarted by itself meanwhile.
        let moved = found
            .as_deref()
            .filter(|pod| is_ready(pod) && !is_unmoved(planned, pod))
            .and_then(ResourceExt::uid);
        if is_stale(found.as_deref(), &former.digest, moved.as_deref()) {
            all.push(Stale {
                planned,
                is_ready: found.as_deref().is_some_and(is_ready),
                not: moved,
            });
        } else if let Some(pod) = found.filter(|pod| is_ready(pod)) {
            if serves_other(bench, former, &pod).await? {
                all.push(Stale {
                    planned,
                    is_ready: true,
                    not: pod.uid(),
                });
            } else {
                label(&bench.ground, &pod, Serving::Yes).await?;
            }
        }
    }
    all.sort_by_key(|stale| stale.is_ready);
    Ok(all)
}

#[cfg(test)]
mod model {
    use super::Switch;
    use crate::ops::decide::testing::model::{Mistake, Run, Side, Stop};
    use crate::ops::steps::Modelled;

    impl Modelled for Switch {
        fn model(&self, run: &mut Run) -> Result<(), Stop> {
            let retires = run.errs(Mistake::RetiresEarly);
            let drops = run.errs(Mistake::DropsAnchor);
            run.effect(|site| {
                site.server = Side::Target;
                site.retired |= retires;
                site.trusts_both &= !drops;
            })?;
            run.effect(|site| site.template = Side::Target)
        }

        fn model_undo(&self, run: &mut Run) -> Result<(), Stop> {
            run.converge_back()
        }
    }
}
