//! What people read about a request: conditions and events, derived from plan and journal and never
//! stored as a second truth (docs/kubedb-compatibility.md, "Conditions of a request").

mod words;

use std::fmt::Write as _;

use time::OffsetDateTime;

use super::decide::Outcome;
use super::journal::{Closed, Entry, Event, Failure, FailureKind, Journal, Note, Record, State};
use super::plan::Plan;
use super::request::Change;
use super::steps::of;
use crate::api::RequestType;
use crate::api::common::{Condition, ConditionStatus};

pub use self::words::{Milestone, Reason, Said, Topic};

/// Component that the events name.
pub const COMPONENT: &str = "KubeDB Ops-manager Operator";

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whether it is trouble.
    pub trouble: bool,
    /// What it is about.
    pub reason: Reason,
    /// A sentence.
    pub message: String,
}

/// How a request ended, for [`end`] and [`ended`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With an outcome.
    Outcome(Outcome),
    /// With a step that cannot be undone, or a pause that cannot be released.
    Stuck(usize),
}

/// The first condition, written together with phase Progressing.
pub fn begun(request_type: RequestType, now: OffsetDateTime) -> Condition {
    let what = match request_type {
        RequestType::ReconfigureTLS => "reconfigure tls for pgbouncer",
        RequestType::Restart
        | RequestType::HorizontalScaling
        | RequestType::VerticalScaling
        | RequestType::UpdateVersion
        | RequestType::Reconfigure
        | RequestType::RotateAuth => "restart pgbouncer",
    };
    let message = format!("PgBouncer ops request has started to {what}");
    holds(Topic::Begun(request_type), message, now)
}

/// The conditions that the journal justifies, in the order that
/// docs/kubedb-compatibility.md, "Conditions of a request" gives. `waiting` is what a running step
/// waits for.
pub fn conditions(plan: &Plan, journal: &Journal, waiting: Option<&str>) -> Vec<Condition> {
    let mut found = Vec::new();
    for milestone in Milestone::ALL {
        let Some(at) = reached_at(plan, journal, milestone) else {
            continue;
        };
        if milestone == Milestone::Issued && matches!(plan.change, Change::Rotate { .. }) {
            let message = "successfully add issuing condition to all the certificates";
            found.push(holds(Topic::Issuing, message.to_owned(), at));
        }
        found.push(reached(plan, journal, milestone, at));
    }
    found.extend(undo_failed(plan, journal));
    let running = (0..plan.steps.len()).find(|step| journal.of(*step).state == State::Running);
    if let (Some(step), Some(waiting)) = (running, waiting) {
        let at = journal.of(step).changed_at;
        let topic = match of(&plan.steps[step]).milestone() {
            Some(Milestone::Issued) => Topic::Reached(Milestone::Issued),
            _ => Topic::Running,
        };
        let (type_, reason) = (topic.as_str(), Reason::Waiting.as_str());
        let message = format!("step `{}` waits: {waiting}", plan.steps[step]);
        let status = ConditionStatus::False;
        found.extend(at.map(|at| Condition::new(type_, status, reason, message, at)));
    }
    found
}

/// The condition of a milestone that was reached at `at`.
fn reached(plan: &Plan, journal: &Journal, milestone: Milestone, at: OffsetDateTime) -> Condition {
    let message = match milestone {
        Milestone::Paused => "Successfully paused database".to_owned(),
        Milestone::Issued => "Successfully synced all certificates".to_owned(),
        Milestone::Switched => "successfully reconciled the PgBouncer with TLS".to_owned(),
        Milestone::Restarted => restarted(plan, journal),
        Milestone::Reloaded => reloaded(plan, journal),
        Milestone::Committed => "Successfully updated PgBouncer".to_owned(),
    };
    holds(Topic::Reached(milestone), message, at)
}

/// What could not be undone, and waits for a person.
fn undo_failed(plan: &Plan, journal: &Journal) -> Option<Condition> {
    let record = |step| journal.of(step);
    let mut steps = 0..plan.steps.len();
    let stuck = steps.find(|step| record(*step).state == State::UndoFailed)?;
    let Record {
        changed_at,
        failure,
        ..
    } = record(stuck);
    let cause = failure.map_or_else(String::new, |failure| failure.cause);
    let message = format!("step `{}` cannot be undone: {cause}", plan.steps[stuck]);
    Some(holds(Topic::UndoFailed, message, changed_at?))
}

/// The last condition.
pub fn ended(plan: &Plan, journal: &Journal, end: End, now: OffsetDateTime) -> Condition {
    match end {
        End::Outcome(Outcome::Successful) => {
            let mut message = format!(
                "Controller has successfully completed  with {} of PgBouncerOpsRequest: {}",
                plan.request_type,
                plan.request_at()
            );
            if plan.replicas == 0 {
                message
                    .push_str(" (no pod runs, so none was proved; those that start will have it)");
            }
            holds(Topic::Successful, message, now)
        }
        End::Outcome(Outcome::Failed) | End::Stuck(_) => {
            holds(Topic::Failed, post_mortem(plan, journal, end), now)
        }
    }
}

/// The condition of a request that was refused before anything was touched.
pub fn refused(why: &str, now: OffsetDateTime) -> Condition {
    let message = format!("{why} (nothing has been changed)");
    holds(Topic::Failed, message, now)
}

/// The condition of a request whose plan and journal are not proved to be its own.
pub fn given_up(why: &str, now: OffsetDateTime) -> Condition {
    let message = format!(
        "{why}. Nothing was carried on, and the PgBouncer is put back into service: look at what its \
         pods serve, and create a new request"
    );
    holds(Topic::Failed, message, now)
}

/// The event that a line of the journal is worth, if it is worth one.
pub fn news(plan: &Plan, journal: &Journal, entry: &Entry) -> Option<News> {
    let step = plan.steps.get(entry.step)?;
    match &entry.event {
        Event::Failed(failure) => Some(News {
            trouble: true,
            reason: Reason::Failed,
            message: format!("step `{step}` failed: {}", failure.cause),
        }),
        Event::UndoFailed(failure) => Some(News {
            trouble: true,
            reason: Reason::UndoFailed,
            message: format!("step `{step}` cannot be undone: {}", failure.cause),
        }),
        Event::Started | Event::Succeeded(_) | Event::UndoStarted | Event::Undone => {
            let action = of(step);
            let (reason, message) = match action.said(&entry.event, plan)? {
                Said::Words { reason, message } => (reason, message),
                Said::Milestone => {
                    let milestone = action.milestone()?;
                    let at = reached_at(plan, journal, milestone)?;
                    let condition = reached(plan, journal, milestone, at);
                    (Reason::Reached(milestone), condition.message)
                }
            };
            Some(News {
                trouble: false,
                reason,
                message,
            })
        }
    }
}

/// The event that begins a request.
pub fn starting(request: &crate::names::ObjectRef) -> News {
    News {
        trouble: false,
        reason: Reason::Starting,
        message: format!("Start processing for PgBouncerOpsRequest: {request}"),
    }
}

/// The event that ends a request.
pub fn end(plan: &Plan, journal: &Journal, end: End) -> News {
    match end {
        End::Outcome(Outcome::Successful) => News {
            trouble: false,
            reason: Reason::Successful,
            message: format!(
                "Controller has Successfully {} the PgBouncer database: {}",
                verb(&plan.change),
                plan.database_at()
            ),
        },
        End::Outcome(Outcome::Failed) | End::Stuck(_) => News {
            trouble: true,
            reason: Reason::Failed,
            message: post_mortem(plan, journal, end),
        },
    }
}

/// Which step failed, why, what became of the rest, and the way out.
fn post_mortem(plan: &Plan, journal: &Journal, end: End) -> String {
    let cause = match journal.last_failure() {
        Some((step, failure)) => {
            let name = name_of(plan, step);
            format!("step `{name}` {}: {}", manner(failure), failure.cause)
        }
        None => "stopped on request".to_owned(),
    };
    let database = plan.database_at();
    match end {
        End::Stuck(step) => {
            let name = name_of(plan, step);
            let failure = journal.of(step).failure;
            let second = failure.map_or_else(String::new, |failure| failure.cause);
            format!(
                "{cause}; undoing step `{name}` failed as well: {second}. What it changed is still \
                 in place: look at PgBouncer {database} and its Secrets, remove the cause, and \
                 create a new request"
            )
        }
        End::Outcome(_) => format!(
            "{cause}; PgBouncer {database} is as it was before. Remove the cause and create a new \
             request"
        ),
    }
}

fn name_of(plan: &Plan, step: usize) -> String {
    plan.steps
        .get(step)
        .map_or_else(String::new, ToString::to_string)
}

const fn manner(failure: &Failure) -> &'static str {
    match failure.kind {
        FailureKind::Transient | FailureKind::Permanent => "failed",
        FailureKind::TimedOut => "did not end within its timeout",
        FailureKind::Aborted => "was stopped",
    }
}

const fn verb(change: &Change) -> &'static str {
    match change {
        Change::Add { .. } => "added TLS to",
        Change::ChangeIssuer { .. } => "changed the issuer of",
        Change::UpdateCertificates { .. } => "updated the certificates of",
        Change::Rotate { .. } => "rotated the certificates of",
        Change::Remove { .. } => "removed TLS from",
        Change::Mode(_) => "changed the mode of",
        Change::Restart => "restarted",
        Change::NoOp => "left as it is",
    }
}

fn restarted(plan: &Plan, journal: &Journal) -> String {
    let deed = Deed {
        doing: "Restarting",
        done: "restarted",
    };
    all_pods(plan, journal, &deed)
}

fn reloaded(plan: &Plan, journal: &Journal) -> String {
    let deed = Deed {
        doing: "Reloading",
        done: "reloaded",
    };
    let mut text = all_pods(plan, journal, &deed);
    for (step, planned) in plan.steps.iter().enumerate() {
        if let (Some(pod), Some(why)) = (planned.reloads(), journal.of(step).note.restarted) {
            let _ = write!(text, "; {pod} was restarted instead, because {why}");
        }
    }
    text
}

/// What was done to all pods, in two forms of the verb.
struct Deed {
    doing: &'static str,
    done: &'static str,
}

/// That all pods have gone through it, what that closed, and why it was chosen.
fn all_pods(plan: &Plan, journal: &Journal, deed: &Deed) -> String {
    let Deed { doing, done } = deed;
    let mut text = format!(
        "{doing} all pods performed successfully in PgBouncer: {} for PgBouncerOpsRequest: {} \
         (client connections {})",
        plan.database_at(),
        plan.request.name,
        closed(plan, journal)
    );
    if let Some(why) = &plan.choice.why {
        let _ = write!(text, "; {done}, because {why}");
    }
    text
}

/// What became of client connections, in all and by pod.
fn closed(plan: &Plan, journal: &Journal) -> String {
    let mut all = Note::default();
    for step in 0..plan.steps.len() {
        for (pod, closed) in journal.of(step).note.closed {
            all.add(&pod, closed);
        }
    }
    let total = all.total();
    let mut parts = vec![format!(
        "closed between transactions: {}, in a transaction: {}, asked to leave while idle: {}",
        total.between_transactions, total.in_transactions, total.asked_to_leave
    )];
    parts.extend(all.closed.into_iter().map(|(pod, closed)| {
        let Closed {
            between_transactions,
            in_transactions,
            asked_to_leave,
            drained_ms: _,
        } = closed;
        format!("{pod}: {between_transactions}, {in_transactions}, {asked_to_leave}")
    }));
    parts.join("; ")
}

/// When the last of a milestone's steps was done; `None` unless all have been. Undoing does not change
/// what has happened.
fn reached_at(plan: &Plan, journal: &Journal, milestone: Milestone) -> Option<OffsetDateTime> {
    let mut latest = None;
    let steps = plan.steps.iter().enumerate();
    for (index, _) in steps.filter(|(_, step)| of(step).milestone() == Some(milestone)) {
        let done = journal.entries().iter().rev().find_map(|entry| {
            let succeeded = matches!(entry.event, Event::Succeeded(_));
            (entry.step == index && succeeded).then_some(entry.at)
        })?;
        latest = latest.max(Some(done));
    }
    latest
}

fn holds(topic: Topic, message: String, at: OffsetDateTime) -> Condition {
    let (type_, reason) = (topic.as_str(), topic.reason());
    Condition::new(type_, ConditionStatus::True, reason, message, at)
}

#[cfg(test)]
mod tests;
