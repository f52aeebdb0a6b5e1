//! The executor's world over a cluster: requests, journals, steps and clocks that are real.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::ResourceExt;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::context::Context;
use super::decide::{Abort, Observed, Outcome};
use super::error::OpsError;
use super::executor::{Ending, World};
use super::hands::Identity;
use super::journal::{Entry, Failure, FailureKind, Journal, Note};
use super::ledger::Kept;
use super::metrics::RequestOutcome;
use super::plan::Plan;
use super::view::{End, News};
use super::work::{Bench, Ground, Maker, StepError, Tally, Waiting, drain};
use super::{status, steps};
use crate::api::common::Condition;
use crate::api::{PgBouncerOpsRequest, RequestPhase};
use crate::causes::chain;
use crate::retry::Retry;

/// Annotation on a request that asks to stop and undo it.
pub const ABORT: &str = "bouncert.dev/abort";

/// The world of one request that is carried out.
pub(super) struct Live<'a> {
    context: &'a Context,
    /// The request, as it was read or written last.
    request: Mutex<PgBouncerOpsRequest>,
    kept: Kept,
    began: Instant,
    waiting: Waiting,
    tally: Tally,
    maker: Maker,
}

impl<'a> Live<'a> {
    /// The world of a request that was just read, and whose journal is `kept`.
    pub(super) fn new(context: &'a Context, request: PgBouncerOpsRequest, kept: Kept) -> Self {
        Self {
            context,
            request: Mutex::new(request),
            kept,
            began: Instant::now(),
            waiting: Waiting::default(),
            tally: Tally::default(),
            maker: Maker::default(),
        }
    }

    fn bench<'b>(&'b self, plan: &'b Plan) -> Bench<'b> {
        Bench {
            ground: Ground {
                cluster: &self.context.cluster,
                kind: self.context.kind,
                namespace: &plan.namespace,
                database: &plan.database,
                secrets: Bench::secrets(plan),
                waiting: &self.waiting,
                maker: &self.maker,
            },
            materials: &self.context.materials,
            clock: &self.context.clock,
            plan,
            tally: &self.tally,
        }
    }

    fn request(&self) -> MutexGuard<'_, PgBouncerOpsRequest> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes conditions and the phase; returns the request as it is then, or nothing if it is gone.
    async fn write(
        &self,
        conditions: &[Condition],
        phase: Option<RequestPhase>,
    ) -> Result<Option<PgBouncerOpsRequest>, OpsError> {
        let request = self.request().clone();
        let written = status::write(self.context, &request, conditions, phase).await?;
        if let Some(written) = &written {
            self.request().clone_from(written);
        }
        Ok(written)
    }
}

impl World for Live<'_> {
    fn now(&self) -> OffsetDateTime {
        self.context.now()
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    async fn sleep(&self, pause: Duration) {
        tokio::time::sleep(pause).await;
    }

    async fn stopping(&self) {
        self.context.cancel.cancelled().await;
    }

    async fn observe(&self) -> Result<Observed, OpsError> {
        let own = Identity::of(&self.request());
        // Another request of its name is not this one: this one is gone.
        let request = self.context.read_again(&own).await?;
        let Some(request) = request else {
            return Ok(Observed {
                abort: Some(Abort::Deleted),
            });
        };
        self.request().clone_from(&request);
        Ok(Observed {
            abort: abort_of(&request),
        })
    }

    async fn keep(
        &mut self,
        plan: &Plan,
        journal: &mut Journal,
        last: &Entry,
    ) -> Result<(), OpsError> {
        self.kept.replace(&self.context.cluster, journal).await?;
        self.context.metrics.line(plan, journal, last);
        Ok(())
    }

    async fn act(&self, plan: &Plan, step: usize) -> Result<Note, Failure> {
        let bench = self.bench(plan);
        let acted = steps::act(&bench, &plan.steps[step]).await;
        acted.map_err(|error| failure(&error))
    }

    async fn undo(&self, plan: &Plan, step: usize) -> Result<(), Failure> {
        let bench = self.bench(plan);
        let undone = steps::undo(&bench, &plan.steps[step]).await;
        undone.map_err(|error| failure(&error))
    }

    async fn calm(&self, plan: &Plan) -> bool {
        Box::pin(drain::calm(&self.bench(plan))).await
    }

    fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    async fn tell(&self, conditions: &[Condition]) -> Result<(), OpsError> {
        self.write(conditions, None).await.map(drop)
    }

    async fn report(&self, news: &News) {
        let request = self.request().clone();
        self.context.report(&request, news).await;
    }

    async fn end(&self, plan: &Plan, ending: Ending) -> Result<(), OpsError> {
        let Ending {
            end,
            conditions,
            news,
        } = ending;
        let (outcome, phase) = match end {
            End::Outcome(Outcome::Successful) => {
                (RequestOutcome::Successful, RequestPhase::Successful)
            }
            End::Outcome(Outcome::Failed) => (RequestOutcome::Failed, RequestPhase::Failed),
            End::Stuck(_) => (RequestOutcome::Stuck, RequestPhase::Failed),
        };
        let said = conditions.last().map(|last| last.message.as_str());
        tracing::info!(ops.request = %plan.request_at(), ops.outcome = phase.as_str(), said,
            "request ended");
        self.context.metrics.request(&plan.request_type, outcome);
        let Some(ended) = self.write(&conditions, Some(phase)).await? else {
            return Ok(());
        };
        self.context.report(&ended, &news).await;
        status::put_away(self.context, &ended).await
    }
}

fn failure(error: &StepError) -> Failure {
    Failure {
        kind: match error.retry() {
            Retry::Never => FailureKind::Permanent,
            Retry::Backoff | Retry::WhenChanged => FailureKind::Transient,
        },
        cause: chain(error),
    }
}

/// The reason why a request is to stop, if there is one.
fn abort_of(request: &PgBouncerOpsRequest) -> Option<Abort> {
    if request.metadata.deletion_timestamp.is_some() {
        return Some(Abort::Deleted);
    }
    request
        .annotations()
        .get(ABORT)
        .filter(|value| *value != "false")
        .map(|_| Abort::Asked)
}
