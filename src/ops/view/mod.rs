//! What people read about a request: conditions and events, derived from plan and journal and never
//! stored as a second truth (docs/kubedb-compatibility.md, "Conditions of a request").

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use time::OffsetDateTime;

use super::decide::Outcome;
use super::journal::{Closed, Entry, Event, Failure, FailureKind, Journal, Note, Record, State};
use super::plan::{Plan, Step};
use super::request::Change;
use crate::api::common::{Condition, ConditionStatus};

/// Component that the events name.
pub const COMPONENT: &str = "KubeDB Ops-manager Operator";

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whether it is trouble.
    pub trouble: bool,
    /// One word.
    pub reason: &'static str,
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
pub fn begun(request_type: &str, now: OffsetDateTime) -> Condition {
    let what = match request_type {
        "ReconfigureTLS" => "reconfigure tls for pgbouncer",
        _ => "restart pgbouncer",
    };
    let message = format!("PgBouncer ops request has started to {what}");
    condition(request_type, request_type, message, now)
}

/// The conditions that the journal justifies, in the order that
/// docs/kubedb-compatibility.md, "Conditions of a request" gives. `waiting` is what a running step
/// waits for.
pub fn conditions(plan: &Plan, journal: &Journal, waiting: Option<&str>) -> Vec<Condition> {
    let mut found = Vec::new();
    let done = |wanted: fn(&Step) -> bool| last_success(plan, journal, wanted);
    let mut add = |type_: &str, reason: &str, message: String, at: Option<OffsetDateTime>| {
        found.extend(at.map(|at| condition(type_, reason, message, at)));
    };
    let paused = "DatabasePauseSucceeded";
    add(
        paused,
        paused,
        "Successfully paused database".to_owned(),
        done(|step| *step == Step::Pause),
    );
    let issued = done(|step| matches!(step, Step::Issue(_)));
    if matches!(plan.change, Change::Rotate { .. }) {
        let issuing = "IssueCertificatesSucceeded";
        add(
            issuing,
            issuing,
            "successfully add issuing condition to all the certificates".to_owned(),
            issued,
        );
    }
    let synced = "CertificateSynced";
    add(
        synced,
        synced,
        "Successfully synced all certificates".to_owned(),
        issued,
    );
    let switched = done(|step| *step == Step::Switch);
    add(
        "UpdatePetSets",
        "UpdatePetSets",
        "successfully reconciled the PgBouncer with TLS".to_owned(),
        switched,
    );
    add(
        "RestartPods",
        "RestartPodsSucceeded",
        restarted(plan, journal),
        done(|step| !step.rolls().is_empty()),
    );
    add(
        "ReloadPods",
        "ReloadPodsSucceeded",
        reloaded(plan, journal),
        done(|step| matches!(step, Step::Reload(_))),
    );
    let updated = "Successfully updated PgBouncer".to_owned();
    let committed = done(|step| *step == Step::Commit);
    add("UpdateDatabase", "UpdateDatabase", updated, committed);
    found.extend(undo_failed(plan, journal));
    let running = (0..plan.steps.len()).find(|step| journal.of(*step).state == State::Running);
    if let (Some(step), Some(waiting)) = (running, waiting) {
        let at = journal.of(step).changed_at;
        let issuing = matches!(plan.steps[step], Step::Issue(_));
        let type_ = if issuing { synced } else { "Running" };
        let message = format!("step `{}` waits: {waiting}", plan.steps[step]);
        found.extend(
            at.map(|at| Condition::new(type_, ConditionStatus::False, "Waiting", message, at)),
        );
    }
    found
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
    Some(condition("UndoFailed", "UndoFailed", message, changed_at?))
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
            condition("Successful", "Successful", message, now)
        }
        End::Outcome(Outcome::Failed) | End::Stuck(_) => {
            condition("Failed", "Failed", post_mortem(plan, journal, end), now)
        }
    }
}

/// The condition of a request that was refused before anything was touched.
pub fn refused(why: &str, now: OffsetDateTime) -> Condition {
    let message = format!("{why} (nothing has been changed)");
    condition("Failed", "Failed", message, now)
}

/// The condition of a request whose plan and journal are not proved to be its own.
pub fn given_up(why: &str, now: OffsetDateTime) -> Condition {
    let message = format!(
        "{why}. Nothing was carried on, and the PgBouncer is put back into service: look at what its \
         pods serve, and create a new request"
    );
    condition("Failed", "Failed", message, now)
}

/// The events that a line of the journal is worth.
pub fn news(plan: &Plan, journal: &Journal, entry: &Entry) -> Vec<News> {
    let Some(step) = plan.steps.get(entry.step) else {
        return Vec::new();
    };
    let (database, request) = (plan.database_at(), &plan.request.name);
    let normal = |reason, message: String| News {
        trouble: false,
        reason,
        message,
    };
    let condition_of = |type_: &'static str| {
        conditions(plan, journal, None)
            .into_iter()
            .find(|condition| condition.type_ == type_)
            .map(|condition| normal(type_, condition.message))
    };
    match (&entry.event, step) {
        (Event::Started, Step::Pause) => vec![normal(
            "Starting",
            format!("Pausing PgBouncer databse: {database}"),
        )],
        (Event::Succeeded(_), Step::Pause) => vec![normal(
            "Successful",
            format!(
                "Successfully paused PgBouncer database: {database} for PgBouncerOpsRequest: \
                 {request}"
            ),
        )],
        (Event::Started, Step::Resume) => vec![normal(
            "Starting",
            format!("Resuming PgBouncer database: {database}"),
        )],
        (Event::Succeeded(_), Step::Resume) | (Event::Undone, Step::Pause) => vec![normal(
            "Successful",
            format!(
                "Successfully resumed PgBouncer database: {database} for PgBouncerOpsRequest: \
                 {request}"
            ),
        )],
        (Event::Succeeded(_), Step::Issue(_)) => {
            condition_of("CertificateSynced").into_iter().collect()
        }
        (Event::Succeeded(_), Step::Switch) => condition_of("UpdatePetSets").into_iter().collect(),
        (Event::Succeeded(_), Step::Roll(_) | Step::RollTogether(_)) => {
            condition_of("RestartPods").into_iter().collect()
        }
        (Event::Succeeded(_), Step::Reload(_)) => condition_of("ReloadPods").into_iter().collect(),
        (Event::Failed(failure), step) => vec![News {
            trouble: true,
            reason: "Failed",
            message: format!("step `{step}` failed: {}", failure.cause),
        }],
        (Event::UndoFailed(failure), step) => vec![News {
            trouble: true,
            reason: "UndoFailed",
            message: format!("step `{step}` cannot be undone: {}", failure.cause),
        }],
        _ => Vec::new(),
    }
}

/// The event that begins a request.
pub fn starting(plan_or_request: &crate::names::ObjectRef) -> News {
    News {
        trouble: false,
        reason: "Starting",
        message: format!("Start processing for PgBouncerOpsRequest: {plan_or_request}"),
    }
}

/// The event that ends a request.
pub fn end(plan: &Plan, journal: &Journal, end: End) -> News {
    match end {
        End::Outcome(Outcome::Successful) => News {
            trouble: false,
            reason: "Successful",
            message: format!(
                "Controller has Successfully {} the PgBouncer database: {}",
                verb(&plan.change),
                plan.database_at()
            ),
        },
        End::Outcome(Outcome::Failed) | End::Stuck(_) => News {
            trouble: true,
            reason: "Failed",
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
    all_pods(plan, journal, ("Restarting", "restarted"))
}

fn reloaded(plan: &Plan, journal: &Journal) -> String {
    let mut text = all_pods(plan, journal, ("Reloading", "reloaded"));
    for (step, planned) in plan.steps.iter().enumerate() {
        if let (Step::Reload(pod), Some(why)) = (planned, journal.of(step).note.restarted) {
            let _ = write!(text, "; {pod} was restarted instead, because {why}");
        }
    }
    text
}

/// That all pods have gone through it, what that closed, and why it was chosen.
fn all_pods(plan: &Plan, journal: &Journal, (doing, done): (&str, &str)) -> String {
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

/// When the last of the steps was done; `None` unless all have been. Undoing does not change what
/// has happened.
fn last_success(
    plan: &Plan,
    journal: &Journal,
    wanted: fn(&Step) -> bool,
) -> Option<OffsetDateTime> {
    let mut latest = None;
    for (index, _) in plan
        .steps
        .iter()
        .enumerate()
        .filter(|(_, step)| wanted(step))
    {
        let done = journal.entries().iter().rev().find_map(|entry| {
            let succeeded = matches!(entry.event, Event::Succeeded(_));
            (entry.step == index && succeeded).then_some(entry.at)
        })?;
        latest = latest.max(Some(done));
    }
    latest
}

fn condition(type_: &str, reason: &str, message: String, at: OffsetDateTime) -> Condition {
    Condition::new(type_, ConditionStatus::True, reason, message, at)
}
