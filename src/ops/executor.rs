//! Carries out one request: decide, journal, act, journal, tell; until it has ended.
//!
//! The executor has no opinion. What comes next is [`decide`]'s, how it is done is the steps'. Its
//! own are three bounds: an act ends at its deadline, when somebody asks to stop, or when the daemon
//! does. In the last case nothing is written: for the journal that is a crash, and the next daemon
//! goes on from there.

use std::time::Duration;

use kube::ResourceExt;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};

use super::decide::{Abort, Directive, Observed, Outcome, after_undo_failure, decide};
use super::error::OpsError;
use super::hands::Identity;
use super::journal::{Event, Failure, FailureKind};
use super::ledger::Ledger;
use super::metrics::RequestOutcome;
use super::operator::Operator;
use super::plan::Step;
use super::status::{self, Told};
use super::steps::{Bench, Maker, StepError, Tally, Waiting};
use super::view;
use crate::api::PgBouncerOpsRequest;
use crate::causes::chain;
use crate::instants::{Shift, Since, signed};
use crate::retry::{Retry, backoff};

/// Annotation on a request that asks to stop and undo it.
pub const ABORT: &str = "bouncert.dev/abort";
/// How often a running act is interrupted to see whether somebody asks to stop.
const ATTEND: Duration = Duration::from_millis(500);

/// How long a daemon that stops, or gives up an undo, takes to put pods back into service.
const CALM: Duration = Duration::from_secs(5);

/// How the executor left a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It has ended.
    Ended,
    /// The daemon stops; the next one goes on.
    Interrupted,
}

/// One request in progress.
pub(super) struct Execution<'a> {
    operator: &'a Operator,
    own: Identity,
    ledger: Ledger,
    waiting: Waiting,
    tally: Tally,
    maker: Maker,
    told: Told,
}

impl<'a> Execution<'a> {
    /// Takes up a request that has begun.
    pub(super) fn new(operator: &'a Operator, own: Identity, ledger: Ledger) -> Self {
        Self {
            operator,
            own,
            ledger,
            waiting: Waiting::default(),
            tally: Tally::default(),
            maker: Maker::default(),
            told: Told::default(),
        }
    }

    /// Carries it on until it has ended.
    pub(super) async fn run(mut self) -> Result<Left, OpsError> {
        loop {
            if self.operator.is_stopping() {
                return Ok(Left::Interrupted);
            }
            let observed = self.observe().await?;
            let now = self.operator.now();
            match decide(self.ledger.plan(), self.ledger.journal(), &observed, now) {
                Directive::Run { step, until } => {
                    if self.step(step, until.since(now)).await? == Left::Interrupted {
                        return Ok(Left::Interrupted);
                    }
                }
                Directive::Undo { step, until } => {
                    if self.undo(step, (now, until)).await? == Left::Interrupted {
                        return Ok(Left::Interrupted);
                    }
                }
                Directive::Wait { until, .. } => {
                    let pause = until.since(now).unsigned_abs();
                    self.operator.sleep(pause).await;
                }
                Directive::Finish(outcome) => return self.end(view::End::Outcome(outcome)).await,
                Directive::Stuck(step) => return self.end(view::End::Stuck(step)).await,
            }
        }
    }

    async fn observe(&self) -> Result<Observed, OpsError> {
        // Another request of its name is not this one: this one is gone.
        let request = self.operator.read_again(&self.own).await?;
        Ok(Observed {
            abort: request.as_ref().map_or(Some(Abort::Deleted), asks_to_stop),
        })
    }

    async fn step(&mut self, index: usize, bound: time::Duration) -> Result<Left, OpsError> {
        let step = self.ledger.plan().steps[index].clone();
        self.record(index, Event::Started).await?;
        let longest = self.longest(1);
        let bound = bound.max(time::Duration::ZERO).unsigned_abs();
        let bench = self.bench();
        // Boxed, as every act is: the largest is many kilobytes.
        let acting = timeout(bound.min(longest), Box::pin(bench.act(&step)));
        let event = tokio::select! {
            acted = acting => match acted {
                Ok(Ok(note)) => Event::Succeeded(note),
                Ok(Err(error)) => Event::Failed(failure(&error)),
                Err(_) => Event::Failed(self.timed_out(longest)),
            },
            () = self.attend(&step) => Event::Failed(Failure {
                kind: FailureKind::Aborted,
                cause: "somebody asked to stop".to_owned(),
            }),
            () = self.operator.stopping() => return Ok(self.interrupted(&bench).await),
        };
        self.waiting.clear();
        self.record(index, event).await?;
        Ok(Left::Ended)
    }

    /// Undoes a step from the instant of the decision until its bound, counted by a clock that
    /// nobody sets.
    async fn undo(
        &mut self,
        index: usize,
        (began, until): (OffsetDateTime, OffsetDateTime),
    ) -> Result<Left, OpsError> {
        let started = Instant::now();
        let step = self.ledger.plan().steps[index].clone();
        self.record(index, Event::UndoStarted).await?;
        let longest = self.longest(2);
        let bound = until.since(began).max(time::Duration::ZERO).unsigned_abs();
        let bound = bound.min(longest);
        for attempt in 0.. {
            let bench = self.bench();
            let left = bound.saturating_sub(started.elapsed());
            let undone = tokio::select! {
                undone = timeout(left, Box::pin(bench.undo(&step))) => undone,
                () = self.operator.stopping() => return Ok(self.interrupted(&bench).await),
            };
            let failure = match undone {
                Ok(Ok(())) => break,
                Ok(Err(error)) => failure(&error),
                Err(_) => self.timed_out(longest),
            };
            tracing::warn!(ops.request = %self.own.at, ops.step = %step, cause = failure.cause, attempt,
                "undo failed");
            let now = began.plus(signed(started.elapsed()));
            if after_undo_failure(&step, failure.kind, until, now).is_some() {
                // What the undo had in hand when it was given up is in service all the same.
                self.calm(&bench).await;
                self.record(index, Event::UndoFailed(failure)).await?;
                return Ok(Left::Ended);
            }
            self.operator.sleep(backoff(attempt)).await;
        }
        self.waiting.clear();
        self.record(index, Event::Undone).await?;
        Ok(Left::Ended)
    }

    /// The daemon stops in the middle of an act. Nothing is journalled; the next one goes on.
    async fn interrupted(&self, bench: &Bench<'_>) -> Left {
        tracing::info!(ops.request = %self.own.at, "interrupted; to be carried on by the next daemon");
        self.calm(bench).await;
        Left::Interrupted
    }

    /// Puts every pod back into service, if that can be done in a moment.
    async fn calm(&self, bench: &Bench<'_>) {
        let calming = async {
            for attempt in 0.. {
                if Box::pin(bench.calm()).await {
                    break;
                }
                sleep(backoff(attempt)).await;
            }
        };
        let _in_time = timeout(CALM, calming).await;
    }

    /// Writes a line, then tells people what it means.
    async fn record(&mut self, step: usize, event: Event) -> Result<(), OpsError> {
        let (cluster, now) = (&self.operator.cluster, self.operator.now());
        let entry = self.ledger.record(cluster, step, event, now).await?;
        let (plan, journal) = (self.ledger.plan(), self.ledger.journal());
        self.operator.metrics.line(plan, journal, &entry);
        let name = plan
            .steps
            .get(step)
            .map_or_else(String::new, Step::to_string);
        match &entry.event {
            Event::Failed(failure) | Event::UndoFailed(failure) => tracing::warn!(
                ops.request = %self.own.at, ops.step = name, ops.event = entry.event.name(),
                cause = failure.cause, "step"
            ),
            Event::Started | Event::Succeeded(_) | Event::UndoStarted | Event::Undone => {
                tracing::info!(ops.request = %self.own.at, ops.step = name,
                    ops.event = entry.event.name(), "step");
            }
        }
        let conditions = view::conditions(plan, journal, None);
        self.told.tell(self.operator, &self.own, conditions).await?;
        for news in view::news(plan, journal, &entry) {
            self.operator.report(&self.own, &news).await;
        }
        Ok(())
    }

    /// Returns when somebody asks to stop; tells meanwhile what the step waits for.
    async fn attend(&self, step: &Step) {
        let mut told = None;
        loop {
            sleep(ATTEND).await;
            let word = self.waiting.word();
            if word.is_some() && word != told {
                let (plan, journal) = (self.ledger.plan(), self.ledger.journal());
                let conditions = view::conditions(plan, journal, word.as_deref());
                let fresh = Told::default();
                if fresh
                    .tell_once(self.operator, &self.own, conditions)
                    .await
                    .is_ok()
                {
                    told = word;
                }
            }
            if step.is_final() {
                continue;
            }
            // An API server that does not answer is not a wish to stop.
            if let Ok(Observed { abort: Some(_) }) = self.observe().await {
                return;
            }
        }
    }

    async fn end(&mut self, end: view::End) -> Result<Left, OpsError> {
        let (plan, journal) = (self.ledger.plan(), self.ledger.journal());
        let mut conditions = view::conditions(plan, journal, None);
        let now = self.operator.now();
        let last = view::ended(plan, journal, end, now);
        let news = view::end(plan, journal, end);
        tracing::info!(ops.request = %self.own.at, ops.outcome = last.type_, said = last.message,
            "request ended");
        conditions.push(last);
        let outcome = match end {
            view::End::Outcome(Outcome::Successful) => RequestOutcome::Successful,
            view::End::Outcome(Outcome::Failed) => RequestOutcome::Failed,
            view::End::Stuck(_) => RequestOutcome::Stuck,
        };
        self.operator.metrics.request(&plan.request_type, outcome);
        status::end(self.operator, &self.own, conditions).await?;
        self.operator.report(&self.own, &news).await;
        self.operator.put_away(&self.own).await?;
        Ok(Left::Ended)
    }

    fn bench(&self) -> Bench<'_> {
        Bench {
            cluster: &self.operator.cluster,
            materials: &self.operator.materials,
            kind: self.operator.kind,
            clock: &self.operator.clock,
            plan: self.ledger.plan(),
            waiting: &self.waiting,
            tally: &self.tally,
            maker: &self.maker,
        }
    }

    /// No act runs for longer than this, whatever the wall clock does meanwhile.
    fn longest(&self, times: u32) -> Duration {
        let timeout = self.ledger.plan().settings.step_timeout.to_std();
        timeout.unwrap_or_default().saturating_mul(times)
    }

    fn timed_out(&self, longest: Duration) -> Failure {
        let last = self
            .waiting
            .word()
            .unwrap_or_else(|| "an answer".to_owned());
        Failure {
            kind: FailureKind::TimedOut,
            cause: format!(
                "not done within {} s, still waiting for: {last}",
                longest.as_secs()
            ),
        }
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

/// Why a request should stop, if it should.
fn asks_to_stop(request: &PgBouncerOpsRequest) -> Option<Abort> {
    if request.metadata.deletion_timestamp.is_some() {
        return Some(Abort::Deleted);
    }
    request
        .annotations()
        .get(ABORT)
        .filter(|value| *value != "false")
        .map(|_| Abort::Asked)
}
