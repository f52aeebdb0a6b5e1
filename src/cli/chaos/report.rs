//! What chaos ends with.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use serde::Serialize;

use super::judge::{Window, judge, meanwhile};
use super::requests::{End, Ended};
use super::script::Fault;
use super::watch::{Checked, Invariants};
use crate::cli::output::table;
use crate::cli::scene::load::{Cut, Tally};

/// The result.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// What had to be given to have the same schedule again.
    pub(super) seed: u64,
    /// How long requests and faults came.
    pub(super) seconds: u64,
    /// One entry per request.
    pub(super) requests: Vec<Request>,
    /// The same of those that the daemon made by itself.
    pub(super) own_requests: Vec<Request>,
    /// How many ended how, without those.
    pub(super) ends: BTreeMap<&'static str, u64>,
    /// How many faults of which kind.
    pub(super) faults: BTreeMap<&'static str, u64>,
    /// How many calls to the API met which trouble.
    pub(super) api_calls_struck: BTreeMap<&'static str, u64>,
    /// Transactions whose commit was acknowledged.
    pub(super) transactions_committed: u64,
    /// Transactions that began and were not acknowledged, by nature of a fault.
    pub(super) transactions_failed_by_faults: u64,
    /// The same, by our own hand.
    pub(super) transactions_failed_by_us: u64,
    /// Acknowledged commits that are not in PostgreSQL.
    pub(super) transactions_lost: u64,
    /// Connections that were found closed between transactions.
    pub(super) connections_closed_between_transactions: u64,
    /// Connections that were closed in a transaction.
    pub(super) connections_closed_in_transactions: u64,
    /// The longest time from a client's wish for a transaction to its commit.
    pub(super) max_wait_ms: u64,
    /// The faults that were at work during that.
    pub(super) max_wait_during: BTreeSet<&'static str>,
    /// What was checked how often.
    pub(super) invariants: BTreeMap<&'static str, Checked>,
    /// Everything that is not as it should be.
    pub(super) complaints: Vec<String>,
}

/// How one request went.
#[derive(Debug, Serialize)]
pub(super) struct Request {
    /// Its name, which says what it asked for.
    name: String,
    /// What it asked for.
    asked: String,
    /// How it ended.
    end: &'static str,
    /// From its creation to its end.
    seconds: f64,
    /// What it says about its end.
    verdict: String,
}

/// What is known at the end.
pub(super) struct Evidence<'a> {
    pub(super) seed: u64,
    pub(super) lasted: Duration,
    pub(super) ended: Vec<Ended>,
    pub(super) windows: Vec<Window>,
    pub(super) struck: BTreeMap<&'static str, u64>,
    pub(super) tally: &'a Tally,
    pub(super) rows: &'a HashSet<i64>,
    pub(super) invariants: &'a Invariants,
}

impl Report {
    pub(super) fn new(evidence: Evidence<'_>) -> Self {
        let Evidence {
            seed,
            lasted,
            ended,
            windows,
            struck,
            tally,
            rows,
            invariants,
        } = evidence;
        let lost = tally.lost(rows);
        let (nature, ours) = judge(&tally.cuts, &windows);
        let own = invariants.own();
        let all: Vec<&Ended> = ended.iter().chain(&own).collect();
        let complaints = complaints(&all, &ours, lost, tally, invariants);
        let longest = tally.longest_wait;
        let during = tally
            .longest_until
            .map(|until| meanwhile(&windows, until, longest));
        let during = during.into_iter().flatten().map(Fault::name).collect();
        let mut ends = BTreeMap::new();
        for request in &ended {
            *ends.entry(request.end.name()).or_default() += 1;
        }
        let mut faults = BTreeMap::new();
        for window in &windows {
            *faults.entry(window.fault.name()).or_default() += 1;
        }
        Self {
            seed,
            seconds: lasted.as_secs(),
            requests: ended.into_iter().map(Request::new).collect(),
            own_requests: own.into_iter().map(Request::new).collect(),
            ends,
            faults,
            api_calls_struck: struck,
            transactions_committed: tally.committed.len() as u64,
            transactions_failed_by_faults: nature.len() as u64,
            transactions_failed_by_us: ours.len() as u64,
            transactions_lost: lost,
            connections_closed_between_transactions: tally.closed,
            connections_closed_in_transactions: tally.cuts.len() as u64,
            max_wait_during: during,
            max_wait_ms: u64::try_from(tally.longest_wait.as_millis()).unwrap_or(u64::MAX),
            invariants: invariants.checked(),
            complaints,
        }
    }

    /// As people read it.
    pub(super) fn text(&self) -> String {
        let count = |map: &BTreeMap<&'static str, u64>| {
            let items = map.iter().map(|(name, n)| format!("{n} {name}"));
            items.collect::<Vec<_>>().join(", ")
        };
        let invariants = self.invariants.iter().map(|(name, checked)| {
            let Checked { times, violated } = checked;
            format!("{name} {times} times ({violated} violated)")
        });
        let during: Vec<_> = self.max_wait_during.iter().copied().collect();
        let rows = [
            ("seed", self.seed.to_string()),
            ("seconds", self.seconds.to_string()),
            ("requests", count(&self.ends)),
            ("by the daemon itself", self.own_requests.len().to_string()),
            ("faults", count(&self.faults)),
            ("API calls struck", count(&self.api_calls_struck)),
            ("committed", self.transactions_committed.to_string()),
            (
                "failed by nature of a fault",
                self.transactions_failed_by_faults.to_string(),
            ),
            (
                "failed by our own hand",
                self.transactions_failed_by_us.to_string(),
            ),
            ("lost", self.transactions_lost.to_string()),
            (
                "connections closed",
                format!(
                    "{} between transactions, {} in them",
                    self.connections_closed_between_transactions,
                    self.connections_closed_in_transactions
                ),
            ),
            (
                "longest wait",
                format!("{} ms ({})", self.max_wait_ms, during.join(", ")),
            ),
            ("checked", invariants.collect::<Vec<_>>().join(", ")),
        ];
        let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
        table(&["WHAT", "SEEN"], rows)
    }
}

impl Request {
    fn new(ended: Ended) -> Self {
        Self {
            name: ended.name,
            asked: ended.asked,
            end: ended.end.name(),
            seconds: (ended.took.as_secs_f64() * 10.0).round() / 10.0,
            verdict: ended.verdict,
        }
    }
}

fn complaints(
    ended: &[&Ended],
    ours: &[&Cut],
    lost: u64,
    tally: &Tally,
    invariants: &Invariants,
) -> Vec<String> {
    let mut complaints = invariants.violations();
    for request in ended.iter().filter(|request| request.end == End::Never) {
        complaints.push(format!("{} never ended: {}", request.name, request.verdict));
    }
    let halfway =
        |request: &&&Ended| request.end == End::Failed && request.verdict.contains("undoing step");
    for request in ended.iter().filter(halfway) {
        complaints.push(format!(
            "{} is not undone: {}",
            request.name, request.verdict
        ));
    }
    for cut in ours {
        complaints.push(format!(
            "a transaction was cut by our own hand: {}",
            cut.why
        ));
    }
    if lost > 0 {
        complaints.push(format!("{lost} acknowledged commits are not in PostgreSQL"));
    }
    if tally.committed.is_empty() {
        complaints.push("no client committed anything".to_owned());
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_must_not_be_is_a_complaint() {
        let tally = Tally {
            committed: vec![31, 32],
            cuts: vec![Cut {
                at: tokio::time::Instant::now(),
                row: None,
                why: "closed".to_owned(),
            }],
            ..Tally::default()
        };
        let invariants = Invariants::default();
        invariants.check("I3", false, || "none serves".to_owned());
        let report = Report::new(Evidence {
            seed: 5,
            lasted: Duration::from_secs(9),
            ended: vec![Ended {
                name: "004-rotate".to_owned(),
                asked: "rotate".to_owned(),
                end: End::Never,
                took: Duration::from_secs(240),
                verdict: "Progressing".to_owned(),
            }],
            windows: vec![],
            struck: BTreeMap::new(),
            tally: &tally,
            rows: &HashSet::from([31]),
            invariants: &invariants,
        });
        let words = [
            "I3: none serves",
            "004-rotate never ended",
            "cut by our own hand: closed",
            "1 acknowledged",
        ];
        assert_eq!(report.complaints.len(), words.len());
        for (complaint, word) in report.complaints.iter().zip(words) {
            assert!(complaint.contains(word), "{complaint}");
        }
    }
}
