//! Carries out one request: decide, journal, act, journal, tell; until it has ended.
//!
//! The executor has no opinion and knows no cluster. [`decide`] says what comes next. Everything outside
//! is its [`World`]: a cluster's ([`super::live`]), or that of the model, so that what the model proves is
//! this code. Its own are three bounds: an act ends at its deadline, when the request is to stop, or when
//! the daemon does. In the last case nothing is written: for the journal that is a crash, and the next
//! daemon goes on from there.

use std::ops::ControlFlow;
use std::time::Duration;

use futures::FutureExt;
use time::OffsetDateTime;

use super::decide::{Directive, Observed, after_undo_failure, decide};
use super::error::OpsError;
use super::journal::{Entry, Event, Failure, FailureKind, Journal, Note};
use super::plan::{Plan, Step};
use super::view::{self, End, News};
use super::work::Waiting;
use crate::api::common::Condition;
use crate::instants::{Shift, Since, signed};
use crate::retry::backoff;

/// How often a running act is interrupted to see whether the request is to stop.
const ATTEND: Duration = Duration::from_millis(500);

/// How long a daemon that stops, or gives up an undo, takes to put pods back into service.
const CALM: Duration = Duration::from_secs(5);

/// What lies outside the executor. Steps are indices into the plan's.
pub(super) trait World: Send + Sync {
    /// The present instant, by a clock that may be set.
    fn now(&self) -> OffsetDateTime;

    /// The time since this world began, by a clock that cannot be set.
    fn elapsed(&self) -> Duration;

    /// Returns after that time.
    fn sleep(&self, pause: Duration) -> impl Future<Output = ()> + Send;

    /// Returns when the daemon stops.
    fn stopping(&self) -> impl Future<Output = ()> + Send;

    /// Reads whether the request is to stop.
    fn observe(&self) -> impl Future<Output = Result<Observed, OpsError>> + Send;

    /// Keeps the journal, whose last line is new. A journal that is too long to be kept forgets causes.
    /// Fails if another daemon has written to it.
    fn keep(
        &mut self,
        plan: &Plan,
        journal: &mut Journal,
        last: &Entry,
    ) -> impl Future<Output = Result<(), OpsError>> + Send;

    /// Does a step.
    fn act(&self, plan: &Plan, step: usize) -> impl Future<Output = Result<Note, Failure>> + Send;

    /// Undoes a step, whether it was done, half done, or not begun.
    fn undo(&self, plan: &Plan, step: usize) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Puts every pod back into service, if that can be done in a moment; returns whether it could.
    fn calm(&self, plan: &Plan) -> impl Future<Output = bool> + Send;

    /// The level that the running step waits for.
    fn waiting(&self) -> &Waiting;

    /// Writes conditions into the request.
    fn tell(&self, conditions: &[Condition]) -> impl Future<Output = Result<(), OpsError>> + Send;

    /// Reports an event of the request.
    fn report(&self, news: &News) -> impl Future<Output = ()> + Send;

    /// Writes the end into the request, and lets go of it.
    fn end(&self, plan: &Plan, ending: Ending)
    -> impl Future<Output = Result<(), OpsError>> + Send;
}

/// The end of a request, and what is told of it.
pub(super) struct Ending {
    /// How it ended.
    pub(super) end: End,
    /// Its conditions; the last is new.
    pub(super) conditions: Vec<Condition>,
    /// The event.
    pub(super) news: News,
}

/// How the executor left a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The request has ended.
    Ended(End),
    /// The daemon stops; the next one goes on.
    Interrupted,
}

/// The daemon stops in the middle of a step.
struct Interrupted;

/// A step is over and the next look follows, or the daemon stops.
type Flow = ControlFlow<Interrupted>;

/// The time that an undo has.
#[derive(Clone, Copy)]
struct Span {
    began: OffsetDateTime,
    until: OffsetDateTime,
}

/// One request in progress.
pub(super) struct Execution<W> {
    world: W,
    plan: Plan,
    journal: Journal,
    /// The conditions that were written last.
    told: Vec<Condition>,
}

impl<W: World> Execution<W> {
    /// Takes up a request that has begun.
    pub(super) const fn new(world: W, plan: Plan, journal: Journal) -> Self {
        Self {
            world,
            plan,
            journal,
            told: Vec::new(),
        }
    }

    /// Carries the request on until it has ended, or the daemon stops.
    pub(super) async fn run(mut self) -> Result<Left, OpsError> {
        while self.world.stopping().now_or_never().is_none() {
            let observed = self.world.observe().await?;
            let now = self.world.now();
            let flow = match decide(&self.plan, &self.journal, &observed, now) {
                Directive::Run { step, until } => self.act(step, until.since(now)).await?,
                Directive::Undo { step, until } => {
                    self.undo(step, Span { began: now, until }).await?
                }
                Directive::Wait { until, .. } => {
                    self.pause(until.since(now).unsigned_abs()).await;
                    Flow::Continue(())
                }
                Directive::Finish(outcome) => return self.end(End::Outcome(outcome)).await,
                Directive::Stuck(step) => return self.end(End::Stuck(step)).await,
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(Left::Interrupted)
    }

    async fn act(&mut self, step: usize, bound: time::Duration) -> Result<Flow, OpsError> {
        self.record(step, Event::Started).await?;
        let longest = self.longest(1);
        let bound = bound.max(time::Duration::ZERO).unsigned_abs().min(longest);
        // The order decides where two are ready at once.
        let event = tokio::select! {
            biased;
            acted = self.world.act(&self.plan, step) => match acted {
                Ok(note) => Event::Succeeded(note),
                Err(failure) => Event::Failed(failure),
            },
            () = self.world.sleep(bound) => Event::Failed(self.timed_out(longest)),
            () = self.attend(&self.plan.steps[step]) => Event::Failed(Failure {
                kind: FailureKind::Aborted,
                cause: "somebody asked to stop".to_owned(),
            }),
            () = self.world.stopping() => return Ok(self.interrupt().await),
        };
        self.world.waiting().clear();
        self.record(step, event).await?;
        Ok(Flow::Continue(()))
    }

    /// Undoes a step from the instant of the decision until its bound, counted by a clock that
    /// cannot be set.
    async fn undo(&mut self, index: usize, span: Span) -> Result<Flow, OpsError> {
        let started = self.world.elapsed();
        let step = self.plan.steps[index].clone();
        self.record(index, Event::UndoStarted).await?;
        let longest = self.longest(2);
        let bound = span.until.since(span.began).max(time::Duration::ZERO);
        let bound = bound.unsigned_abs().min(longest);
        for attempt in 0.. {
            let left = bound.saturating_sub(self.spent(started));
            let failure = tokio::select! {
                biased;
                undone = self.world.undo(&self.plan, index) => match undone {
                    Ok(()) => break,
                    Err(failure) => failure,
                },
                () = self.world.sleep(left) => self.timed_out(longest),
                () = self.world.stopping() => return Ok(self.interrupt().await),
            };
            tracing::warn!(ops.request = %self.plan.request_at(), ops.step = %step,
                cause = failure.cause, attempt, "undo failed");
            let now = span.began.plus(signed(self.spent(started)));
            if after_undo_failure(&step, failure.kind, span.until, now).is_some() {
                // What the undo had in hand when it was given up is in service all the same.
                self.calm().await;
                self.record(index, Event::UndoFailed(failure)).await?;
                return Ok(Flow::Continue(()));
            }
            self.pause(backoff(attempt)).await;
        }
        self.world.waiting().clear();
        self.record(index, Event::Undone).await?;
        Ok(Flow::Continue(()))
    }

    /// The daemon stops in the middle of an act. Nothing is journalled; the next one goes on.
    async fn interrupt(&self) -> Flow {
        tracing::info!(ops.request = %self.plan.request_at(),
            "interrupted; to be carried on by the next daemon");
        self.calm().await;
        Flow::Break(Interrupted)
    }

    /// Puts every pod back into service, if that can be done in a moment.
    async fn calm(&self) {
        let calming = async {
            for attempt in 0.. {
                if self.world.calm(&self.plan).await {
                    break;
                }
                self.world.sleep(backoff(attempt)).await;
            }
        };
        tokio::select! {
            biased;
            () = calming => {}
            () = self.world.sleep(CALM) => {}
        }
    }

    /// Writes a line, then tells people what it means.
    async fn record(&mut self, step: usize, event: Event) -> Result<(), OpsError> {
        let at = self.world.now();
        let event = event.shortened();
        let entry = Entry { at, step, event };
        let mut journal = self.journal.clone();
        journal
            .record(entry.clone())
            .map_err(|source| OpsError::Journal {
                at: self.plan.request_at(),
                source,
            })?;
        self.world.keep(&self.plan, &mut journal, &entry).await?;
        self.journal = journal;
        self.log(&entry);
        let conditions = view::conditions(&self.plan, &self.journal, None);
        if self.told != conditions {
            self.world.tell(&conditions).await?;
            self.told = conditions;
        }
        if let Some(news) = view::news(&self.plan, &self.journal, &entry) {
            self.world.report(&news).await;
        }
        Ok(())
    }

    fn log(&self, entry: &Entry) {
        let (at, event) = (self.plan.request_at(), entry.event.name());
        let step = self.plan.steps.get(entry.step);
        let step = step.map_or_else(String::new, Step::to_string);
        match &entry.event {
            Event::Failed(failure) | Event::UndoFailed(failure) => tracing::warn!(
                ops.request = %at, ops.step = step, ops.event = event,
                cause = failure.cause, "step"
            ),
            Event::Started | Event::Succeeded(_) | Event::UndoStarted | Event::Undone => {
                tracing::info!(ops.request = %at, ops.step = step, ops.event = event, "step");
            }
        }
    }

    /// Returns when the request is to stop; tells meanwhile what the step waits for.
    async fn attend(&self, step: &Step) {
        let mut told = None;
        loop {
            self.world.sleep(ATTEND).await;
            let word = self.world.waiting().word();
            if word.is_some() && word != told {
                let conditions = view::conditions(&self.plan, &self.journal, word.as_deref());
                if self.world.tell(&conditions).await.is_ok() {
                    told = word;
                }
            }
            if step.is_final() {
                continue;
            }
            // An API server that does not answer is not a wish to stop.
            if let Ok(Observed { abort: Some(_) }) = self.world.observe().await {
                return;
            }
        }
    }

    async fn end(self, end: End) -> Result<Left, OpsError> {
        let Self {
            world,
            plan,
            journal,
            ..
        } = self;
        let mut conditions = view::conditions(&plan, &journal, None);
        conditions.push(view::ended(&plan, &journal, end, world.now()));
        let news = view::end(&plan, &journal, end);
        let ending = Ending {
            end,
            conditions,
            news,
        };
        world.end(&plan, ending).await?;
        Ok(Left::Ended(end))
    }

    /// Sleeps, but not beyond the daemon's end.
    async fn pause(&self, pause: Duration) {
        tokio::select! {
            biased;
            () = self.world.sleep(pause) => {}
            () = self.world.stopping() => {}
        }
    }

    fn spent(&self, started: Duration) -> Duration {
        self.world.elapsed().saturating_sub(started)
    }

    /// The longest time of any act, whatever the clock says meanwhile.
    fn longest(&self, times: u32) -> Duration {
        let timeout = self.plan.settings.step_timeout.to_std();
        timeout.unwrap_or_default().saturating_mul(times)
    }

    fn timed_out(&self, longest: Duration) -> Failure {
        let last = self.world.waiting().word();
        let last = last.unwrap_or_else(|| "an answer".to_owned());
        Failure {
            kind: FailureKind::TimedOut,
            cause: format!(
                "not done within {} s, still waiting for: {last}",
                longest.as_secs()
            ),
        }
    }
}
