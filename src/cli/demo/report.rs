//! What the demo ends with: one row per request.

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;

use crate::cli::output::table;
use crate::cli::scene::load::Tally;

/// The result.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// One entry per request, in order.
    pub(super) steps: Vec<Step>,
}

/// How one request went.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Step {
    /// Name of the request.
    pub(super) name: String,
    /// Its phase at the end.
    pub(super) phase: String,
    /// From its creation to its end.
    pub(super) seconds: f64,
    /// Pods that were seen serving what the request asked for, by a look of our own.
    pub(super) pods_proved: usize,
    /// Transactions whose commit was acknowledged.
    pub(super) transactions_committed: u64,
    /// Transactions whose `BEGIN` was acknowledged and that did not commit.
    pub(super) transactions_failed: u64,
    /// Acknowledged commits that are not in PostgreSQL.
    pub(super) transactions_lost: u64,
    /// Connections that were found closed between transactions.
    pub(super) connections_closed: u64,
    /// The longest time from a client's wish for a transaction to its commit.
    pub(super) max_wait_ms: u64,
    /// Why the step is not as it should be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) complaints: Vec<String>,
}

/// What is known of a step before the clients' ledger is read.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Name of the request.
    pub(super) name: String,
    /// Its phase at the end.
    pub(super) phase: String,
    /// From its creation to its end.
    pub(super) took: Duration,
    /// Pods that were seen serving what the request asked for.
    pub(super) pods_proved: usize,
    /// Why the step is not as it should be.
    pub(super) complaints: Vec<String>,
    /// What clients may notice.
    pub(super) expected: Expected,
}

/// What clients may notice of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// No transaction fails.
    Unnoticed,
    /// Whatever comes of it is what is to be shown.
    Anything,
}

impl Report {
    /// The pages of several reports, one after the other.
    pub(super) fn joined(reports: impl IntoIterator<Item = Self>) -> Self {
        Self {
            steps: reports.into_iter().flat_map(|one| one.steps).collect(),
        }
    }

    /// Reads the ledger against the rows that PostgreSQL really holds.
    pub(super) fn new(outcomes: Vec<Outcome>, tallies: &[Tally], rows: &HashSet<i64>) -> Self {
        let steps = outcomes
            .into_iter()
            .zip(tallies)
            .map(|(outcome, tally)| Step::new(outcome, tally, rows));
        Self {
            steps: steps.collect(),
        }
    }

    /// Everything that is not as it should be.
    pub(super) fn complaints(&self) -> impl Iterator<Item = String> {
        self.steps.iter().flat_map(|step| {
            let complaints = step.complaints.iter();
            complaints.map(|complaint| format!("{}: {complaint}", step.name))
        })
    }

    /// As people read it.
    pub(super) fn text(&self) -> String {
        let header = [
            "REQUEST",
            "PHASE",
            "SECONDS",
            "PODS PROVED",
            "COMMITTED",
            "FAILED",
            "LOST",
            "CLOSED",
            "LONGEST WAIT",
        ];
        table(&header, self.steps.iter().map(Step::row))
    }
}

impl Step {
    fn new(outcome: Outcome, tally: &Tally, rows: &HashSet<i64>) -> Self {
        let lost = tally.lost(rows);
        let mut complaints = outcome.complaints;
        if let (Some(last), Expected::Unnoticed) = (tally.cuts.last(), outcome.expected) {
            let unseen = tally.cuts.iter().filter_map(|cut| cut.row);
            let there = unseen.filter(|row| rows.contains(row)).count();
            let why = &last.why;
            complaints.push(format!(
                "{} transactions began and were not acknowledged ({there} of them are in \
                 PostgreSQL all the same); the last one: {why}",
                tally.cuts.len()
            ));
        }
        if lost > 0 {
            complaints.push(format!("{lost} acknowledged commits are not in PostgreSQL"));
        }
        if tally.committed.is_empty() {
            let why = tally.trouble.as_deref().unwrap_or("unknown");
            complaints.push(format!(
                "no client committed anything; the last trouble: {why}"
            ));
        }
        Self {
            name: outcome.name,
            phase: outcome.phase,
            seconds: (outcome.took.as_secs_f64() * 10.0).round() / 10.0,
            pods_proved: outcome.pods_proved,
            transactions_committed: tally.committed.len() as u64,
            transactions_failed: tally.cuts.len() as u64,
            transactions_lost: lost,
            connections_closed: tally.closed,
            max_wait_ms: u64::try_from(tally.longest_wait.as_millis()).unwrap_or(u64::MAX),
            complaints,
        }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.phase.clone(),
            format!("{:.1}", self.seconds),
            self.pods_proved.to_string(),
            self.transactions_committed.to_string(),
            self.transactions_failed.to_string(),
            self.transactions_lost.to_string(),
            self.connections_closed.to_string(),
            format!("{} ms", self.max_wait_ms),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::scene::load::Cut;

    fn outcome() -> Outcome {
        Outcome {
            name: "swap-issuer".to_owned(),
            phase: "Successful".to_owned(),
            took: Duration::from_millis(7_349),
            pods_proved: 5,
            complaints: vec![],
            expected: Expected::Unnoticed,
        }
    }

    #[test]
    fn the_json_has_the_promised_fields() {
        let tally = Tally {
            committed: vec![11, 12],
            closed: 4,
            longest_wait: Duration::from_millis(321),
            ..Tally::default()
        };
        let report = Report::new(vec![outcome()], &[tally], &HashSet::from([11, 12]));
        let wanted = serde_json::json!({ "steps": [{
            "name": "swap-issuer", "phase": "Successful", "seconds": 7.3, "pods_proved": 5,
            "transactions_committed": 2, "transactions_failed": 0, "transactions_lost": 0,
            "connections_closed": 4, "max_wait_ms": 321,
        }]});
        assert_eq!(serde_json::to_value(&report).unwrap(), wanted);
        assert_eq!(report.complaints().count(), 0);
    }

    #[test]
    fn failures_and_losses_are_complaints_and_an_unseen_commit_is_looked_up() {
        let tally = Tally {
            committed: vec![21, 22],
            cuts: [None, Some(23)]
                .map(|row| Cut {
                    at: tokio::time::Instant::now(),
                    row,
                    why: "closed".to_owned(),
                })
                .to_vec(),
            ..Tally::default()
        };
        let report = Report::new(vec![outcome()], &[tally], &HashSet::from([21, 23]));
        let complaints: Vec<String> = report.complaints().collect();
        assert_eq!(report.steps[0].transactions_lost, 1);
        assert!(
            complaints[0].contains("2 transactions began"),
            "{complaints:?}"
        );
        assert!(complaints[0].contains("(1 of them"), "{complaints:?}");
        assert!(complaints[1].contains("1 acknowledged"), "{complaints:?}");
    }

    #[test]
    fn a_step_in_which_nobody_committed_proves_nothing() {
        let tally = Tally::default();
        let report = Report::new(vec![outcome()], &[tally], &HashSet::new());
        assert_eq!(report.complaints().count(), 1);
    }
}
