//! Issue: makes the planned revision of an alias; undone by deleting it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Action, Doing};
use crate::causes::chain;
use crate::instants::Scale;
use crate::material::IssueOutcome;
use crate::names::Alias;
use crate::ops::journal::Event;
use crate::ops::plan::Plan;
use crate::ops::view::{Milestone, Said};
use crate::ops::work::publish::planned;
use crate::ops::work::{Bench, Look, SELDOM, Side, StepError};
use crate::retry::Retry;

/// An issuer that fails or does not answer is waited for no longer than this part of the life of what
/// it is to sign: where lives are short, the step's bound would be longer than what is left of the
/// former one.
const PATIENCE_DIVISOR: i32 = 20;

pub(super) struct Issue(pub(super) Alias);

impl Action for Issue {
    fn label(&self) -> &'static str {
        "issue"
    }

    fn title(&self) -> String {
        format!("issue {}", self.0)
    }

    fn outline(&self, plan: &Plan) -> String {
        let mut planned = plan.issue.iter();
        let issuance = planned.find(|issuance| issuance.alias == self.0);
        let what = issuance.map_or_else(String::new, |issuance| {
            let issuer = &issuance.issuer;
            format!(" {} by {} {}", issuance.revision, issuer.kind, issuer.name)
        });
        format!("issue {}{what}", self.0)
    }

    fn milestone(&self) -> Option<Milestone> {
        Some(Milestone::Issued)
    }

    fn said(&self, event: &Event, _plan: &Plan) -> Option<Said> {
        Said::milestone_of(event)
    }

    fn act<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(issue(bench, self.0))
    }

    fn undo<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(discard(bench, self.0))
    }
}

/// Issues the planned revision. An issuer that is not there, or not ready, may come: that is
/// waited for until the step's bound, or for a twentieth of the life.
async fn issue(bench: &Bench<'_>, alias: Alias) -> Result<(), StepError> {
    let bouncer = bench.bouncer(Side::Target).await?;
    let wanted = bench.wanted(&bouncer).await?;
    let wanted = wanted.get(&alias).ok_or(StepError::NotWanted(alias))?;
    let planned = planned(bench, alias).ok_or(StepError::NotWanted(alias))?;
    let patience = Duration::try_from(wanted.profile.duration.part(PATIENCE_DIVISOR));
    let (began, patience) = (Instant::now(), patience.unwrap_or_default());
    let look = || async {
        let outcome = bench.materials.issue(&bouncer, wanted, planned.revision);
        let last = match outcome.await {
            IssueOutcome::Issued(_) => return Ok(Look::Found(())),
            IssueOutcome::Denied { reason } => return Err(StepError::Denied { alias, reason }),
            IssueOutcome::Failed(error) if error.retry() == Retry::Never => {
                return Err(error.into());
            }
            IssueOutcome::Failed(error) => chain(&error),
            IssueOutcome::Pending { on } => on,
        };
        if began.elapsed() < patience {
            return Ok(Look::Missing(last));
        }
        let seconds = began.elapsed().as_secs();
        Err(StepError::NotIssued {
            alias,
            seconds,
            last,
        })
    };
    bench.ground.waiting.until(SELDOM, look).await
}

/// Takes the planned revision away.
async fn discard(bench: &Bench<'_>, alias: Alias) -> Result<(), StepError> {
    let live = bench.ground.live().await?;
    if let Some(planned) = planned(bench, alias) {
        let materials = bench.materials;
        materials.discard(&live, alias, planned.revision).await?;
    }
    Ok(())
}

#[cfg(test)]
mod model {
    use super::Issue;
    use crate::ops::decide::testing::model::{Mistake, Run, Stop};
    use crate::ops::steps::Modelled;

    impl Modelled for Issue {
        fn model(&self, run: &mut Run) -> Result<(), Stop> {
            let is_issued = run.world.issued.contains(&self.0);
            if is_issued && !run.errs(Mistake::IssuesTwice) {
                return Ok(());
            }
            let read = !run.errs(Mistake::IssuesUnread);
            run.effect(|site| {
                site.issued.push(self.0);
                if read {
                    site.verified.insert(self.0);
                }
            })
        }

        fn model_undo(&self, run: &mut Run) -> Result<(), Stop> {
            run.effect(|site| {
                site.issued.retain(|issued| *issued != self.0);
                site.verified.remove(&self.0);
            })
        }
    }
}
