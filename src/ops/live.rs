//! The executor's world over a cluster: requests, journals, steps and clocks that are real.

use std::time::Duration;

use kube::ResourceExt;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::decide::{Abort, Observed, Outcome};
use super::error::OpsError;
use super::executor::{Ending, World};
use super::hands::Identity;
use super::journal::{Entry, Failure, FailureKind, Journal, Note};
use super::ledger::Kept;
use super::metrics::RequestOutcome;
use super::operator::Operator;
use super::plan::Plan;
use super::status;
use super::steps::{Bench, Maker, StepError, Tally, Waiting};
use super::view::{End, News};
use crate::api::common::Condition;
use crate::api::{PgBouncerOpsRequest, RequestPhase};
use crate::causes::chain;
use crate::retry::Retry;

/// Annotation on a request that asks to stop and undo it.
pub const ABORT: &str = "bouncert.dev/abort";

/// The world of one request that is carried out.
pub(super) struct Live<'a> {
    operator: &'a Operator,
    /// The request.
    own: Identity,
    kept: Kept,
    began: Instant,
    waiting: Waiting,
    tally: Tally,
    maker: Maker,
}

impl<'a> Live<'a> {
    /// The world of a request whose journal is `kept`.
    pub(super) fn new(operator: &'a Operator, own: Identity, kept: Kept) -> Self {
        Self {
            operator,
            own,
            kept,
            began: Instant::now(),
            waiting: Waiting::default(),
            tally: Tally::default(),
            maker: Maker::default(),
        }
    }

    fn bench<'b>(&'b self, plan: &'b Plan) -> Bench<'b> {
        Bench {
            cluster: &self.operator.cluster,
            materials: &self.operator.materials,
            kind: self.operator.kind,
            clock: &self.operator.clock,
            plan,
            waiting: &self.waiting,
            tally: &self.tally,
            maker: &self.maker,
        }
    }
}

impl World for Live<'_> {
    fn now(&self) -> OffsetDateTime {
        self.operator.now()
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    async fn sleep(&self, pause: Duration) {
        tokio::time::sleep(pause).await;
    }

    async fn stopping(&self) {
        self.operator.stopping().await;
    }

    async fn observe(&self) -> Result<Observed, OpsError> {
        // Another request of its name is not this one: this one is gone.
        let request = self.operator.read_again(&self.own).await?;
        Ok(Observed {
            abort: request.as_ref().map_or(Some(Abort::Deleted), abort_of),
        })
    }

    async fn keep(&mut self, plan: &Plan, journal: &Journal, last: &Entry) -> Result<(), OpsError> {
        self.kept.replace(&self.operator.cluster, journal).await?;
        self.operator.metrics.line(plan, journal, last);
        Ok(())
    }

    async fn act(&self, plan: &Plan, step: usize) -> Result<Note, Failure> {
        let bench = self.bench(plan);
        // Boxed, as every act is: the largest is many kilobytes.
        let acted = Box::pin(bench.act(&plan.steps[step])).await;
        acted.map_err(|error| failure(&error))
    }

    async fn undo(&self, plan: &Plan, step: usize) -> Result<(), Failure> {
        let bench = self.bench(plan);
        let undone = Box::pin(bench.undo(&plan.steps[step])).await;
        undone.map_err(|error| failure(&error))
    }

    async fn calm(&self, plan: &Plan) -> bool {
        Box::pin(self.bench(plan).calm()).await
    }

    fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    async fn tell(&self, conditions: &[Condition]) -> Result<(), OpsError> {
        status::tell(self.operator, &self.own, conditions).await
    }

    async fn report(&self, news: &News) {
        self.operator.report(&self.own, news).await;
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
        tracing::info!(ops.request = %self.own.at, ops.outcome = phase.as_str(), said, "request ended");
        self.operator.metrics.request(&plan.request_type, outcome);
        status::end(self.operator, &self.own, phase, &conditions).await?;
        self.operator.report(&self.own, &news).await;
        self.operator.unhold(&self.own).await
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
