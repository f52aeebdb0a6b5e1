//! The journal of a request: what was begun, what came of it, what was undone.
//!
//! ```text
//!              Started          Succeeded
//!   Pending ───────────► Running ────────► Succeeded ─┐
//!                        ▲  │ │                       │
//!                Started │  │ │ UndoStarted           │ UndoStarted
//!                        │  │ └──────────────┐        │
//!                  Failed┘◄─┘ Failed         ▼        ▼
//!                    └────────────────────► Undoing ◄─┘
//!                         UndoStarted        │   │
//!                                     Undone ▼   ▼ UndoFailed
//!                                       Undone   UndoFailed
//! ```
//!
//! `Started` and `UndoStarted` are written before the act, and may be written again after a crash.
//! Everything else (are we unwinding, what is next, what do people read) is derived. The journal
//! holds names, times and messages; never key material.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::plan::{Plan, Step};
use crate::printable::printable;

/// Most bytes that are kept of a cause.
pub(super) const CAUSE_MAX: usize = 2_048;

/// What happened to a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// It is about to touch something.
    Started,
    /// It is done.
    Succeeded(Note),
    /// It could not be done.
    Failed(Failure),
    /// It is about to be undone.
    UndoStarted,
    /// It is undone.
    Undone,
    /// It cannot be undone; a person has to look.
    UndoFailed(Failure),
}

/// What a drain took, and what became of client connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Closed {
    /// Closed between transactions.
    #[serde(skip_serializing_if = "is_zero")]
    pub between_transactions: u32,
    /// Closed in a transaction.
    #[serde(skip_serializing_if = "is_zero")]
    pub in_transactions: u32,
    /// Idle, and gone after they were asked to leave.
    #[serde(skip_serializing_if = "is_zero")]
    pub asked_to_leave: u32,
    /// How long the drain took, in milliseconds; 0 where there was none.
    #[serde(skip_serializing_if = "is_zero")]
    pub drained_ms: u32,
}

/// What a step that succeeded has to tell. Tries that failed before are in it, unless the daemon died
/// in between.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    /// Client connections, by the pod that closed them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub closed: BTreeMap<String, Closed>,
    /// Why a pod that was to be reloaded was restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarted: Option<NoReload>,
}

/// Why a pod cannot be reloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NoReload {
    /// No reload is safe there.
    #[error(
        "PgBouncer {0}.{1}.{2} runs there with TLS towards PostgreSQL in pool_mode session, and can \
         crash at a reload"
    )]
    Unsafe(u16, u16, u16),
    /// Its console lets nobody in.
    #[error("its console does not let us in")]
    ShutOut,
    /// What changes is read at the start only.
    #[error("a parameter changes that is read at the start only")]
    StartupOnly,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of trouble.
    pub kind: FailureKind,
    /// The chain of causes, outermost first.
    pub cause: String,
}

/// What kind of trouble a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// It may pass.
    Transient,
    /// It will not pass by itself.
    Permanent,
    /// The bound of the step passed.
    TimedOut,
    /// Somebody asked to stop.
    Aborted,
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing was done for it.
    #[default]
    Pending,
    /// It may have touched things.
    Running,
    /// It is done.
    Succeeded,
    /// It could not be done, and may have touched things.
    Failed,
    /// It may be partly undone.
    Undoing,
    /// It is undone.
    Undone,
    /// It cannot be undone.
    UndoFailed,
}

/// An event that cannot follow on the state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal cannot hold {event} of step {step} in state {state:?}")]
pub struct IllegalEvent {
    /// Which step.
    pub step: usize,
    /// Its state.
    pub state: State,
    /// The event.
    pub event: &'static str,
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Which step, as an index into the plan's.
    pub step: usize,
    /// What.
    pub event: Event,
}

/// All lines, in order. Every journal in existence is legal: there is no other way to fill one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Journal {
    entries: Vec<Entry>,
}

/// What the journal says about one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub state: State,
    /// When it was first begun.
    pub started_at: Option<OffsetDateTime>,
    /// When undoing it was first begun.
    pub undo_started_at: Option<OffsetDateTime>,
    /// When it was last heard of.
    pub changed_at: Option<OffsetDateTime>,
    /// How often it failed.
    pub failures: u32,
    /// The last failure, of the act or of the undo.
    pub failure: Option<Failure>,
    /// What it had to tell.
    pub note: Note,
}

// === impl Closed ===

impl Closed {
    /// Adds what was closed elsewhere; no number overflows.
    pub fn add(&mut self, other: Self) {
        let Self {
            between_transactions,
            in_transactions,
            asked_to_leave,
            drained_ms,
        } = other;
        self.between_transactions = self
            .between_transactions
            .saturating_add(between_transactions);
        self.in_transactions = self.in_transactions.saturating_add(in_transactions);
        self.asked_to_leave = self.asked_to_leave.saturating_add(asked_to_leave);
        self.drained_ms = self.drained_ms.saturating_add(drained_ms);
    }
}

// === impl Note ===

impl Note {
    /// Adds what a pod closed.
    pub fn add(&mut self, pod: &str, closed: Closed) {
        self.closed.entry(pod.to_owned()).or_default().add(closed);
    }

    /// Over all pods.
    pub fn total(&self) -> Closed {
        let mut total = Closed::default();
        for closed in self.closed.values() {
            total.add(*closed);
        }
        total
    }
}

// === impl Event ===

impl Event {
    /// The event without what it carries.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started => "Started",
            Self::Succeeded(_) => "Succeeded",
            Self::Failed(_) => "Failed",
            Self::UndoStarted => "UndoStarted",
            Self::Undone => "Undone",
            Self::UndoFailed(_) => "UndoFailed",
        }
    }

    /// Bounds what the event says of a failure.
    pub fn shortened(mut self) -> Self {
        if let Self::Failed(failure) | Self::UndoFailed(failure) = &mut self {
            failure.cause = printable(&failure.cause, CAUSE_MAX);
        }
        self
    }
}

// === impl State ===

impl State {
    /// The state after `event`; `None` where it cannot happen.
    pub const fn after(self, event: &Event) -> Option<Self> {
        match (self, event) {
            (Self::Pending | Self::Running | Self::Failed, Event::Started) => Some(Self::Running),
            (Self::Running, Event::Succeeded(_)) => Some(Self::Succeeded),
            (Self::Running, Event::Failed(_)) => Some(Self::Failed),
            (
                Self::Running | Self::Succeeded | Self::Failed | Self::Undoing,
                Event::UndoStarted,
            ) => Some(Self::Undoing),
            (Self::Undoing, Event::Undone) => Some(Self::Undone),
            (Self::Undoing, Event::UndoFailed(_)) => Some(Self::UndoFailed),
            (
                Self::Pending
                | Self::Running
                | Self::Succeeded
                | Self::Failed
                | Self::Undoing
                | Self::Undone
                | Self::UndoFailed,
                _,
            ) => None,
        }
    }

    /// Whether the step is being undone, or has been.
    pub const fn is_unwinding(self) -> bool {
        matches!(self, Self::Undoing | Self::Undone | Self::UndoFailed)
    }
}

// === impl Journal ===

impl Journal {
    /// Reads a journal back; refuses one with an event that cannot have happened.
    pub fn from_entries(entries: Vec<Entry>) -> Result<Self, IllegalEvent> {
        let mut journal = Self::default();
        for entry in entries {
            journal.record(entry)?;
        }
        Ok(journal)
    }

    /// All lines.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds a line.
    pub fn record(&mut self, entry: Entry) -> Result<(), IllegalEvent> {
        let state = self.of(entry.step).state;
        if state.after(&entry.event).is_none() {
            return Err(IllegalEvent {
                step: entry.step,
                state,
                event: entry.event.name(),
            });
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Drops the causes of all failures but the last: what happened, and when, stays.
    pub fn forget_causes(&mut self) {
        let failures = self
            .entries
            .iter_mut()
            .filter_map(|entry| match &mut entry.event {
                Event::Failed(failure) | Event::UndoFailed(failure) => Some(failure),
                Event::Started | Event::Succeeded(_) | Event::UndoStarted | Event::Undone => None,
            });
        for failure in failures.rev().skip(1) {
            failure.cause = String::new();
        }
    }

    /// What is known about the step with that index.
    pub fn of(&self, step: usize) -> Record {
        let mut record = Record::default();
        for entry in self.entries.iter().filter(|entry| entry.step == step) {
            record.follow(entry);
        }
        record
    }

    /// What is known about that step of `plan`; `None` where the plan has no such step.
    pub fn of_step(&self, plan: &Plan, step: &Step) -> Option<Record> {
        let index = plan.steps.iter().position(|planned| planned == step)?;
        Some(self.of(index))
    }

    /// Whether anything is being undone, or has been.
    pub fn is_unwinding(&self, plan: &Plan) -> bool {
        (0..plan.steps.len()).any(|step| self.of(step).state.is_unwinding())
    }

    /// The failure that made the request fail: the last one of an act.
    pub fn last_failure(&self) -> Option<(usize, &Failure)> {
        self.entries
            .iter()
            .rev()
            .find_map(|entry| match &entry.event {
                Event::Failed(failure) => Some((entry.step, failure)),
                Event::Started
                | Event::Succeeded(_)
                | Event::UndoStarted
                | Event::Undone
                | Event::UndoFailed(_) => None,
            })
    }
}

impl Record {
    fn follow(&mut self, entry: &Entry) {
        // A journal holds only legal events.
        self.state = self.state.after(&entry.event).unwrap_or(self.state);
        self.changed_at = Some(entry.at);
        match &entry.event {
            Event::Started => {
                self.started_at.get_or_insert(entry.at);
            }
            Event::Succeeded(note) => self.note = note.clone(),
            Event::Failed(failure) => {
                self.failures = self.failures.saturating_add(1);
                self.failure = Some(failure.clone());
            }
            Event::UndoStarted => {
                self.undo_started_at.get_or_insert(entry.at);
            }
            Event::Undone => {}
            Event::UndoFailed(failure) => self.failure = Some(failure.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn failure() -> Failure {
        Failure {
            kind: FailureKind::Transient,
            cause: "the pod slept".to_owned(),
        }
    }

    fn entry(event: Event) -> Entry {
        Entry {
            at: datetime!(2031-02-03 04:05 UTC),
            step: 4,
            event,
        }
    }

    fn events() -> [Event; 6] {
        [
            Event::Started,
            Event::Succeeded(Note::default()),
            Event::Failed(failure()),
            Event::UndoStarted,
            Event::Undone,
            Event::UndoFailed(failure()),
        ]
    }

    #[test]
    fn every_pair_of_state_and_event_has_an_answer() {
        let states = [
            State::Pending,
            State::Running,
            State::Succeeded,
            State::Failed,
            State::Undoing,
            State::Undone,
            State::UndoFailed,
        ];
        let legal = states
            .iter()
            .flat_map(|state| events().map(|event| state.after(&event)))
            .flatten()
            .count();
        assert_eq!(legal, 11);
        for event in events() {
            assert_eq!(State::Undone.after(&event), None);
            assert_eq!(State::UndoFailed.after(&event), None);
        }
    }

    #[test]
    fn an_illegal_event_is_refused_and_leaves_the_journal_alone() {
        let mut journal = Journal::default();
        let refused = journal.record(entry(Event::Undone)).unwrap_err();
        assert_eq!((refused.step, refused.event), (4, "Undone"));
        assert!(journal.entries().is_empty());
        let stored = vec![
            entry(Event::Started),
            entry(Event::Started),
            entry(Event::Undone),
        ];
        assert!(Journal::from_entries(stored).is_err());
    }

    #[test]
    fn a_journal_survives_its_file() {
        let closed = Closed {
            between_transactions: 3,
            ..Closed::default()
        };
        let lines = vec![
            entry(Event::Started),
            entry(Event::Failed(failure())),
            entry(Event::Started),
            entry(Event::Succeeded(Note {
                closed: BTreeMap::from([("till-1".to_owned(), closed)]),
                ..Note::default()
            })),
        ];
        let journal = Journal::from_entries(lines).unwrap();
        let text = serde_json::to_string(&journal).unwrap();
        let read = Journal::from_entries(serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(read, journal);
        let record = read.of(4);
        assert_eq!((record.state, record.failures), (State::Succeeded, 1));
        assert_eq!(record.note.total(), closed);
    }
}
