//! The model's daemons: each takes the request up with the executor's own code, and may die at every line
//! and every effect.
//!
//! Time is the model's. Where everything waits, both clocks go on to the next timer, so that timeouts,
//! pauses and bounds are the executor's and take no time. A daemon dies by never being polled again.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use time::OffsetDateTime;

use super::model::{End, KEY, Mistake, Run, Site, Stop};
use crate::api::common::Condition;
use crate::cluster::ClusterError;
use crate::ops::decide::{Abort, Observed, Outcome};
use crate::ops::error::OpsError;
use crate::ops::executor::{Ending, Execution, Left, World};
use crate::ops::journal::{Entry, Failure, FailureKind, Journal, Note};
use crate::ops::plan::Plan;
use crate::ops::view::{self, News};
use crate::ops::work::Waiting;

/// Looks of a run that has no end.
const LOOKS_MAX: usize = 10_000;
/// From one look to the next.
const TICK: Duration = Duration::from_millis(10);

/// A daemon, as the executor's world.
struct Daemon<'r, 'm> {
    run: &'r Mutex<&'m mut Run>,
    waiting: Waiting,
}

/// What became of a line.
enum Written {
    Kept,
    /// Another daemon has written since.
    Overtaken,
    /// The daemon has died at it.
    Dead,
}

impl Run {
    /// Runs to the end, with another daemon after every death.
    pub(in crate::ops) fn finish(&mut self) -> End {
        self.looks = 0;
        let run = Mutex::new(self);
        loop {
            let (plan, journal) = {
                let run = lock(&run);
                (run.plan.clone(), run.journal.clone())
            };
            let daemon = Daemon {
                run: &run,
                waiting: Waiting::default(),
            };
            match live(&run, Execution::new(daemon, plan, journal).run()) {
                Some(Ok(Left::Ended(end))) => return End::of(end),
                Some(Ok(Left::Interrupted)) => lock(&run).stop_after_events = None,
                // It was overtaken, or is dead.
                Some(Err(_)) | None => {}
            }
        }
    }

    /// The daemon is gone; another one takes over.
    fn die(&mut self, step: usize) {
        self.is_dead = true;
        self.is_silent = false;
        self.daemon += 1;
        self.remember_deposed(step);
    }

    /// Half of the cuts lose the line.
    fn write(&mut self, journal: &Journal, step: usize) -> Written {
        self.is_silent = false;
        self.hear_deposed();
        let n = self.journal.entries().len();
        if n + 1 != journal.entries().len() {
            return Written::Overtaken;
        }
        let cut = self.cut_at == Some(n) || self.is_cut();
        if cut {
            self.cut_at = None;
            if n.is_multiple_of(2) {
                self.die(step);
                return Written::Dead;
            }
        }
        self.journal = journal.clone();
        self.last_writer = self.daemon;
        self.check_line();
        if cut {
            self.die(step);
            return Written::Dead;
        }
        Written::Kept
    }

    fn failure(&self, kind: FailureKind) -> Failure {
        let cause = if self.errs(Mistake::TellsKey) {
            format!("cannot use {KEY}")
        } else {
            "planted".to_owned()
        };
        Failure { kind, cause }
    }
}

impl End {
    const fn of(end: view::End) -> Self {
        match end {
            view::End::Outcome(Outcome::Successful) => Self::Successful,
            view::End::Outcome(Outcome::Failed) => Self::Failed,
            view::End::Stuck(step) => Self::Stuck(step),
        }
    }
}

impl Daemon<'_, '_> {
    /// Sleeps for that time; for none it lets others go first.
    async fn wait(&self, pause: Duration) {
        let mut until = None;
        poll_fn(|_| {
            let mut run = lock(self.run);
            let elapsed = run.clocks.elapsed;
            let Some(until) = until else {
                until = Some(elapsed + pause);
                run.clocks.timers.push(elapsed + pause);
                return Poll::Pending;
            };
            if elapsed >= until {
                return Poll::Ready(());
            }
            run.clocks.timers.push(until);
            Poll::Pending
        })
        .await;
    }

    /// Does something to the cluster, once or twice. It takes a round trip.
    async fn perform(
        &self,
        step: usize,
        act: impl Fn(&mut Run) -> Result<(), Stop> + Send,
    ) -> Result<(), Failure> {
        self.wait(Duration::ZERO).await;
        let done = {
            let mut run = lock(self.run);
            let mut done = act(&mut run);
            if run.twice && done.is_ok() {
                done = act(&mut run);
            }
            match done {
                Ok(()) => Ok(()),
                Err(Stop::Trouble(kind)) => Err(Some(run.failure(kind))),
                Err(Stop::Silence) => {
                    run.is_silent = true;
                    Err(None)
                }
                Err(Stop::Crash) => {
                    run.die(step);
                    Err(None)
                }
            }
        };
        match done {
            Ok(()) => Ok(()),
            Err(Some(failure)) => Err(failure),
            Err(None) => pending().await,
        }
    }
}

impl World for Daemon<'_, '_> {
    fn now(&self) -> OffsetDateTime {
        lock(self.run).now()
    }

    fn elapsed(&self) -> Duration {
        lock(self.run).clocks.elapsed
    }

    async fn sleep(&self, pause: Duration) {
        if !pause.is_zero() {
            self.wait(pause).await;
        }
    }

    async fn stopping(&self) {
        poll_fn(|_| {
            let run = lock(self.run);
            let lines = run.journal.entries().len();
            match run.stop_after_events {
                Some(stop) if lines >= stop => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }

    async fn observe(&self) -> Result<Observed, OpsError> {
        let mut run = lock(self.run);
        // In the middle of an act it is only seen whether to stop.
        if !run.is_silent {
            run.disturb();
            run.clocks.elapsed += TICK;
            run.looks += 1;
            assert!(run.looks < LOOKS_MAX, "no end in sight: {:?}", run.journal);
        }
        let lines = run.journal.entries().len();
        let asked = run.abort_after_events.filter(|n| lines >= *n);
        Ok(Observed {
            abort: asked.map(|_| Abort::Asked),
        })
    }

    async fn keep(
        &mut self,
        _: &Plan,
        journal: &mut Journal,
        last: &Entry,
    ) -> Result<(), OpsError> {
        let written = lock(self.run).write(journal, last.step);
        match written {
            Written::Kept => Ok(()),
            Written::Overtaken => Err(OpsError::Cluster(ClusterError::Swapped {
                kind: "ConfigMap".to_owned(),
                at: lock(self.run).plan.request_at(),
            })),
            Written::Dead => pending().await,
        }
    }

    async fn act(&self, _: &Plan, step: usize) -> Result<Note, Failure> {
        let acted = self.perform(step, |run| run.act(step)).await;
        acted.map(|()| Note::default())
    }

    async fn undo(&self, _: &Plan, step: usize) -> Result<(), Failure> {
        self.perform(step, |run| run.undo_act(step)).await
    }

    async fn calm(&self, _: &Plan) -> bool {
        let calmed = {
            let mut run = lock(self.run);
            let calmed = run.effect(Site::calm);
            if let Err(Stop::Crash) = calmed {
                let last = run.journal.entries().last().map(|entry| entry.step);
                run.die(last.unwrap_or_default());
            }
            calmed
        };
        match calmed {
            Ok(()) => true,
            Err(Stop::Trouble(_) | Stop::Silence) => false,
            Err(Stop::Crash) => pending().await,
        }
    }

    fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    async fn tell(&self, _: &[Condition]) -> Result<(), OpsError> {
        Ok(())
    }

    async fn report(&self, _: &News) {}

    async fn end(&self, _: &Plan, _: Ending) -> Result<(), OpsError> {
        Ok(())
    }
}

/// Lets a daemon live until it is done, or dead.
fn live<T>(run: &Mutex<&mut Run>, life: impl Future<Output = T>) -> Option<T> {
    let mut life = pin!(life);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        lock(run).clocks.timers.clear();
        let polled = life.as_mut().poll(&mut context);
        let mut run = lock(run);
        if std::mem::take(&mut run.is_dead) {
            return None;
        }
        if let Poll::Ready(done) = polled {
            return Some(done);
        }
        let next = run.clocks.timers.iter().min().copied();
        let next = next.expect("a daemon that lives waits for something");
        run.clocks.elapsed = run.clocks.elapsed.max(next);
    }
}

fn lock<'l, 'm>(run: &'l Mutex<&'m mut Run>) -> MutexGuard<'l, &'m mut Run> {
    run.lock().unwrap_or_else(PoisonError::into_inner)
}
