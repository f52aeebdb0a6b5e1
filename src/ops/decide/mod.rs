//! What comes next: a pure function of plan, journal, what is seen, and the time.
//!
//! Forward, the steps run in the plan's order; a step that failed in passing is tried again, as
//! often as the request allows. When a step has failed for good, or somebody asks to stop, the steps
//! that were begun are undone in reverse order. Once everything is proved and written there is no
//! way back: the last steps only clean up, and are tried until they succeed or it is clear that
//! they never will.
//!
//! A step that cannot be undone does not leave clients without service: what restores service is
//! undone all the same, the pause is released, and then the request is stuck until a person has
//! looked.

use time::OffsetDateTime;

use super::journal::{FailureKind, Journal, Record, State};
use super::plan::{Plan, Step};
use super::steps::{Debt, Loss, of};
use crate::instants::{Scale, Shift, signed};
use crate::retry::backoff;

/// How many step timeouts an undo, or a step after the point of no return, may keep trying.
const PERSISTENCE: i32 = 2;
/// Least number of tries of a step after the point of no return while its trouble is passing: a clock
/// that is set forward uses up any time at once.
pub(super) const FINAL_TRIES: u32 = 5;

/// What is seen in the cluster besides the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Why the request should stop, if it should.
    pub abort: Option<Abort>,
}

/// Why a request should stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// The request is being deleted.
    Deleted,
    /// Its abort annotation is set.
    Asked,
}

/// What to do next. Steps are indices into the plan's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Run a step; it fails by timeout at `until`.
    Run {
        /// Which.
        step: usize,
        /// Its bound.
        until: OffsetDateTime,
    },
    /// Undo a step; give up at `until`.
    Undo {
        /// Which.
        step: usize,
        /// Its bound.
        until: OffsetDateTime,
    },
    /// Do nothing until then.
    Wait {
        /// When to look again.
        until: OffsetDateTime,
        /// Which step waits.
        on: usize,
    },
    /// The request has ended.
    Finish(Outcome),
    /// The request has ended and a person has to look at the step.
    Stuck(usize),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done and proved.
    Successful,
    /// Not done; what had been changed was put back.
    Failed,
}

/// Decides.
pub fn decide(
    plan: &Plan,
    journal: &Journal,
    observed: &Observed,
    now: OffsetDateTime,
) -> Directive {
    let records: Vec<Record> = (0..plan.steps.len()).map(|step| journal.of(step)).collect();
    let unwinding = records.iter().any(|record| record.state.is_unwinding());
    let returnable = !past_return(plan, &records);
    if unwinding || (returnable && observed.abort.is_some()) {
        return unwind(plan, &records, now);
    }
    for (step, record) in records.iter().enumerate() {
        let until = if plan.steps[step].is_final() {
            persistent_deadline(plan, record.started_at, now)
        } else {
            deadline(plan, record.started_at, 1, now)
        };
        match record.state {
            State::Succeeded => {}
            State::Pending | State::Running => return Directive::Run { step, until },
            State::Failed => match after_failure(plan, step, record, now) {
                AfterFailure::Retry => return Directive::Run { step, until },
                AfterFailure::Pause(until) => return Directive::Wait { until, on: step },
                AfterFailure::Skip => {}
                AfterFailure::Stuck => return Directive::Stuck(step),
                AfterFailure::Unwind => return unwind(plan, &records, now),
            },
            State::Undoing | State::Undone | State::UndoFailed => {
                return unwind(plan, &records, now);
            }
        }
    }
    Directive::Finish(Outcome::Successful)
}

/// What an undo that failed comes to: `None` is to try again. Lasting trouble ends an undo before
/// `until`, unless it would leave a pause or a drained pod behind.
pub fn after_undo_failure(
    step: &Step,
    kind: FailureKind,
    until: OffsetDateTime,
    now: OffsetDateTime,
) -> Option<FailureKind> {
    let lasting = of(step).debt() == Debt::Goods && kind == FailureKind::Permanent;
    (lasting || now >= until).then_some(kind)
}

/// Whether everything before the final steps is done: then the request can only succeed.
fn past_return(plan: &Plan, records: &[Record]) -> bool {
    plan.steps
        .iter()
        .zip(records)
        .filter(|(step, _)| !step.is_final())
        .all(|(_, record)| record.state == State::Succeeded)
}

enum AfterFailure {
    Retry,
    Pause(OffsetDateTime),
    Skip,
    Stuck,
    Unwind,
}

fn after_failure(plan: &Plan, step: usize, record: &Record, now: OffsetDateTime) -> AfterFailure {
    let passing = record
        .failure
        .as_ref()
        .is_some_and(|failure| failure.kind == FailureKind::Transient);
    let again = if plan.steps[step].is_final() {
        // Nobody gains anything from giving up early here, and time in which nobody tried (the
        // daemon was away, the clock was set) says nothing.
        let tried_last = record.changed_at.unwrap_or(now);
        deadline(plan, record.started_at, PERSISTENCE, tried_last) > tried_last
            || (passing && record.failures < FINAL_TRIES)
    } else {
        passing && record.failures <= plan.settings.max_retries
    };
    if again {
        let pause = backoff(record.failures.saturating_sub(1));
        // A failure in the future (the clock was set back) must not turn the pause into an hour.
        let failed_at = record.changed_at.filter(|at| *at <= now);
        let again_at = failed_at.map_or(now, |at| at.plus(signed(pause)));
        return if again_at <= now {
            AfterFailure::Retry
        } else {
            AfterFailure::Pause(again_at)
        };
    }
    match of(&plan.steps[step]).loss() {
        Loss::Ignored => AfterFailure::Skip,
        Loss::Stuck => AfterFailure::Stuck,
        Loss::Unwinds => AfterFailure::Unwind,
    }
}

/// Whether undoing `step` is still owed after undoing `stuck` has failed for good.
fn is_owed_after(step: &Step, stuck: &Step) -> bool {
    match of(step).debt() {
        Debt::Service => true,
        Debt::Pods => {
            let stuck = of(stuck);
            !stuck.rolls().is_empty() || stuck.reloads().is_some()
        }
        Debt::Goods => false,
    }
}

/// Undoes what was begun, last first.
fn unwind(plan: &Plan, records: &[Record], now: OffsetDateTime) -> Directive {
    let mut stuck = None;
    for (step, record) in records.iter().enumerate().rev() {
        match record.state {
            State::Pending | State::Undone => {}
            State::UndoFailed => {
                stuck.get_or_insert(step);
            }
            State::Running | State::Succeeded | State::Failed | State::Undoing => {
                let owed = |at: usize| is_owed_after(&plan.steps[step], &plan.steps[at]);
                if stuck.is_none_or(owed) {
                    let until = persistent_deadline(plan, record.undo_started_at, now);
                    return Directive::Undo { step, until };
                }
            }
        }
    }
    stuck.map_or(Directive::Finish(Outcome::Failed), Directive::Stuck)
}

/// The deadline of what must not be given up without having been tried: after a daemon that was away
/// for long, or a clock that was set forward, there is still the time for one more try.
fn persistent_deadline(
    plan: &Plan,
    since: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> OffsetDateTime {
    let one_more = deadline(plan, None, 1, now);
    deadline(plan, since, PERSISTENCE, now).max(one_more)
}

/// When a step that began at `since` (`None`: now) has used up `times` step timeouts. A clock that
/// was set back in between does not prolong it.
fn deadline(
    plan: &Plan,
    since: Option<OffsetDateTime>,
    times: i32,
    now: OffsetDateTime,
) -> OffsetDateTime {
    let began = since.unwrap_or(now).min(now);
    began.saturating_add(plan.settings.step_timeout.to_time().times(times))
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
