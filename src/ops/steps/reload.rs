//! Reload: has a running pod read its files again, and proves it; undone by publishing what was there
//! before, and having the pod serve that again.
//!
//! The pod stays in the Service, its established sessions stay as they are, and what it has taken up
//! is seen from outside (`work::takeup`).
//!
//! What has been proved is marked on the pod ([`crate::blueprint::loaded`]), and before the first
//! reload that nothing is; an act that was cut anywhere goes on from there. A pause that was left by
//! one is lifted by the next, by undoing, and when the daemon stops. A reload that spoils a pod is
//! taken back at once, through the console that is still open.

use super::switch::switch;
use super::{Action, Debt, Doing};
use crate::blueprint::loaded;
use crate::names::Alias;
use crate::ops::journal::Event;
use crate::ops::plan::Plan;
use crate::ops::request::Strategy;
use crate::ops::view::{Milestone, Said};
use crate::ops::work::drain::unpause;
use crate::ops::work::goal::recipe;
use crate::ops::work::pods::{is_ready, pod};
use crate::ops::work::publish::publish_back;
use crate::ops::work::reload::{bring_back, reload_pod, restart_instead};
use crate::ops::work::replace::{replace, unsurge_if_any};
use crate::ops::work::{Bench, Side, StepError};

pub(super) struct Reload<'s>(pub(super) &'s str);

impl Action for Reload<'_> {
    fn label(&self) -> &'static str {
        "reload"
    }

    fn title(&self) -> String {
        format!("reload {}", self.0)
    }

    fn outline(&self, _plan: &Plan) -> String {
        format!("reload {} and prove it", self.0)
    }

    fn reloads(&self) -> Option<String> {
        Some(self.0.to_owned())
    }

    /// A reload that came before another undo's failure has left its pod in service and not paused.
    fn debt(&self) -> Debt {
        Debt::Pods
    }

    fn milestone(&self) -> Option<Milestone> {
        Some(Milestone::Reloaded)
    }

    fn said(&self, event: &Event, _plan: &Plan) -> Option<Said> {
        Said::milestone_of(event)
    }

    fn act<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(reload(bench, self.0))
    }

    fn undo<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(async {
            unpause(bench, self.0).await?;
            publish_back(bench).await?;
            let recipe = recipe(bench, Side::Former).await?;
            match bench.plan.pod(self.0) {
                Some(planned) => bring_back(bench, &recipe, planned).await,
                None => Ok(()),
            }
        })
    }
}

/// Has a pod take up the target side; notes why it was restarted instead, if it was.
async fn reload(bench: &Bench<'_>, name: &str) -> Result<(), StepError> {
    hold_switch(bench).await?;
    let recipe = recipe(bench, Side::Target).await?;
    let pod = pod(&bench.ground, name).await?;
    match pod.filter(|pod| is_ready(pod) && loaded::digest_of(pod) != Some(&recipe.goal.digest)) {
        Some(pod) => match reload_pod(bench, &recipe, &pod).await {
            Ok(()) => {}
            Err(StepError::NoReload { why, .. })
                if bench.plan.settings.strategy == Strategy::Auto =>
            {
                tracing::warn!(pod = name, %why, "restarted instead of reloaded");
                restart_instead(bench, &recipe, name).await?;
                bench.tally.restarted(why);
            }
            Err(error) => return Err(error),
        },
        // The pod is missing, not ready, or already at the target digest.
        None => replace(bench, &recipe.goal, name, None).await?,
    }
    unsurge_if_any(bench, Side::Target).await
}

/// Publishes the target again if that was taken back: by an undo that was cut, or by others.
async fn hold_switch(bench: &Bench<'_>) -> Result<(), StepError> {
    let Some(secret) = bench.secret_name(Side::Target, Alias::Server) else {
        return Ok(());
    };
    let live = bench.ground.live().await?;
    let published = bench.materials.published(&live, Alias::Server, &secret);
    let revision = published.await?.and_then(|published| published.revision);
    if revision == bench.plan.target_revision(Alias::Server) {
        return Ok(());
    }
    switch(bench).await
}

#[cfg(test)]
mod model {
    use super::Reload;
    use crate::ops::decide::testing::model::{Run, Stop};
    use crate::ops::steps::Modelled;

    impl Modelled for Reload<'_> {
        fn model(&self, run: &mut Run) -> Result<(), Stop> {
            run.reload(self.0)
        }

        fn model_undo(&self, run: &mut Run) -> Result<(), Stop> {
            run.unreload(self.0)
        }
    }
}
