//! The model's executor: carries out directives as the real one does, dies, and starts again.

use time::{Duration, OffsetDateTime};

use super::model::{End, Fault, KEY, Mistake, Run, Stop, World};
use super::{Abort, Directive, Observed, Outcome, after_undo_failure, decide};
use crate::ops::journal::{Entry, Event, Failure, FailureKind, Note};

impl Run {
    /// Runs to the end, starting again after every crash.
    pub(super) fn finish(&mut self) -> End {
        for _ in 0..10_000 {
            self.disturb();
            // Whoever takes up a request reads the journal first.
            self.held = self.journal.entries().len();
            let observed = Observed {
                abort: self
                    .abort_after_events
                    .filter(|n| self.journal.entries().len() >= *n)
                    .map(|_| Abort::Asked),
            };
            let directive = decide(&self.plan, &self.journal, &observed, self.now);
            self.now += Duration::milliseconds(10);
            let end = match directive {
                Directive::Run { step, until } => {
                    self.run(step, until);
                    continue;
                }
                Directive::Undo { step, until } => {
                    self.undo(step, until);
                    continue;
                }
                Directive::Wait { until, .. } => {
                    assert!(until > self.now - Duration::milliseconds(20));
                    self.now = self.now.max(until);
                    continue;
                }
                Directive::Finish(Outcome::Successful) => End::Successful,
                Directive::Finish(Outcome::Failed) => End::Failed,
                Directive::Stuck(step) => End::Stuck(step),
            };
            return end;
        }
        panic!("no end in sight: {:?}", self.journal);
    }

    fn run(&mut self, step: usize, until: OffsetDateTime) {
        if !self.write(step, Event::Started) {
            return;
        }
        let mut done = if until <= self.now {
            Err(Stop::Trouble(FailureKind::TimedOut))
        } else {
            self.act(step)
        };
        if self.twice && done.is_ok() {
            done = self.act(step);
        }
        let event = match done {
            Ok(()) => Event::Succeeded(Note::default()),
            Err(Stop::Trouble(kind)) => Event::Failed(self.failure(kind)),
            Err(Stop::Crash) => return self.die(step),
        };
        self.write(step, event);
    }

    /// Tries until it is done or hopeless, by a clock that nobody sets.
    fn undo(&mut self, index: usize, until: OffsetDateTime) {
        if !self.write(index, Event::UndoStarted) {
            return;
        }
        let (began, bound) = (self.now, until - self.now);
        let mut spent = Duration::ZERO;
        let event = loop {
            let mut done = if bound <= spent {
                Err(Stop::Trouble(FailureKind::TimedOut))
            } else {
                self.undo_act(index)
            };
            if self.twice && done.is_ok() {
                done = self.undo_act(index);
            }
            let kind = match done {
                Ok(()) => break Event::Undone,
                Err(Stop::Trouble(kind)) => kind,
                Err(Stop::Crash) => return self.die(index),
            };
            spent += if kind == FailureKind::TimedOut {
                bound.max(Duration::ZERO)
            } else {
                Duration::SECOND
            };
            let step = &self.plan.steps[index];
            if let Some(kind) = after_undo_failure(step, kind, until, began + spent) {
                if self.calm().is_err() {
                    return self.die(index);
                }
                break Event::UndoFailed(self.failure(kind));
            }
        };
        self.write(index, event);
    }

    /// What an undo that is given up had in hand goes back into service.
    fn calm(&mut self) -> Result<(), Stop> {
        for _ in 0..5 {
            match self.effect(World::calm) {
                Err(Stop::Trouble(_)) => {}
                done => return done,
            }
        }
        Ok(())
    }

    /// The daemon is gone; another one takes over.
    fn die(&mut self, step: usize) {
        self.daemon += 1;
        self.remember_deposed(step);
    }

    /// Writes a line; `false` if the daemon dies at it, or has been overtaken. Half of the cuts lose
    /// the line.
    pub(super) fn write(&mut self, step: usize, event: Event) -> bool {
        self.hear_deposed();
        let n = self.journal.entries().len();
        if n != self.held {
            return false;
        }
        let cut = self.cut_at == Some(n) || self.is_cut();
        if cut {
            self.cut_at = None;
            if n.is_multiple_of(2) {
                self.die(step);
                return false;
            }
        }
        let at = self.now;
        self.journal.record(Entry { at, step, event }).unwrap();
        self.held += 1;
        self.last_writer = self.daemon;
        self.check_line();
        if cut {
            self.die(step);
        }
        !cut
    }

    pub(super) fn effect(&mut self, change: impl FnOnce(&mut World)) -> Result<(), Stop> {
        let n = self.effects;
        self.effects += 1;
        let fault = self.faults.get(&n).copied().or_else(|| self.strike());
        match fault {
            Some(Fault::Transient) => return Err(Stop::Trouble(FailureKind::Transient)),
            Some(Fault::Permanent) => return Err(Stop::Trouble(FailureKind::Permanent)),
            Some(Fault::Silence) => {
                self.now += self.plan.settings.step_timeout.to_time();
                return Err(Stop::Trouble(FailureKind::TimedOut));
            }
            Some(Fault::CrashBefore) => return Err(Stop::Crash),
            Some(Fault::CrashAfter) | None => {}
        }
        change(&mut self.world);
        self.last_writer = self.daemon;
        self.check_effect();
        match fault {
            Some(Fault::CrashAfter) => Err(Stop::Crash),
            _ => Ok(()),
        }
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
