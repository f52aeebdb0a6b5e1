//! The clients under load, and the ledger of what happened to them.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{Application, Client, Habit};

/// Clients in all; the fifth and the tenth connect anew for every transaction.
pub(in crate::cli) const CLIENTS: u32 = 10;

/// How long a pooled connection is used before its client replaces it. Pools of applications use
/// minutes; a scene has seconds.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(2);

/// What happened to one client.
#[derive(Debug)]
pub(in crate::cli) enum Event {
    /// A commit was acknowledged.
    Committed {
        /// Its row.
        row: i64,
        /// From the wish to the acknowledgement, with all reconnections.
        waited: Duration,
    },
    /// `BEGIN` was acknowledged and `COMMIT` was not.
    Failed {
        /// Its row, if `COMMIT` had been sent: it may be there or not.
        row: Option<i64>,
        /// What the client saw.
        why: String,
    },
    /// A connection was found closed before `BEGIN` was acknowledged.
    Closed,
    /// An attempt to connect did not succeed.
    Retried {
        /// What the client saw.
        why: String,
    },
}

/// What happened to all clients during one step.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Tally {
    /// Rows of acknowledged commits.
    pub(in crate::cli) committed: Vec<i64>,
    /// Transactions that began and were not acknowledged.
    pub(in crate::cli) cuts: Vec<Cut>,
    /// Connections found closed between transactions.
    pub(in crate::cli) closed: u64,
    /// Attempts to connect that did not succeed.
    pub(in crate::cli) retried: u64,
    /// The longest time from wish to acknowledgement.
    pub(in crate::cli) longest_wait: Duration,
    /// When that ended.
    pub(in crate::cli) longest_until: Option<Instant>,
    /// What clients saw when they could not connect, and how often.
    pub(in crate::cli) troubles: BTreeMap<String, u64>,
    /// The latest of that.
    pub(in crate::cli) trouble: Option<String>,
}

/// A transaction that began and was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Cut {
    /// When.
    pub(in crate::cli) at: Instant,
    /// Its row, if `COMMIT` had been sent: it may be there or not.
    pub(in crate::cli) row: Option<i64>,
    /// What the client saw.
    pub(in crate::cli) why: String,
}

impl Tally {
    /// How many of the acknowledged commits are not among `rows`.
    pub(in crate::cli) fn lost(&self, rows: &HashSet<i64>) -> u64 {
        let missing = self.committed.iter().filter(|row| !rows.contains(row));
        missing.count() as u64
    }

    fn record(&mut self, event: Event) {
        match event {
            Event::Committed { row, waited } => {
                self.committed.push(row);
                if waited > self.longest_wait {
                    self.longest_wait = waited;
                    self.longest_until = Some(Instant::now());
                }
            }
            Event::Failed { row, why } => {
                let at = Instant::now();
                self.cuts.push(Cut { at, row, why });
            }
            Event::Closed => self.closed += 1,
            Event::Retried { why } => {
                self.retried += 1;
                *self.troubles.entry(why.clone()).or_default() += 1;
                self.trouble = Some(why);
            }
        }
    }
}

/// One tally per step; an event belongs to the step during which it came to an end.
#[derive(Debug, Default)]
pub(in crate::cli) struct Ledger {
    tallies: Mutex<Vec<Tally>>,
}

impl Ledger {
    /// Opens the page of the next step.
    pub(in crate::cli) fn next_step(&self) {
        self.lock().push(Tally::default());
    }

    /// Writes an event down. What happens before the first step is warming up.
    pub(in crate::cli) fn record(&self, event: Event) {
        if let Some(tally) = self.lock().last_mut() {
            tally.record(event);
        }
    }

    /// Commits acknowledged in the present step.
    pub(in crate::cli) fn committed_now(&self) -> usize {
        self.lock().last().map_or(0, |tally| tally.committed.len())
    }

    /// All pages.
    pub(in crate::cli) fn tallies(&self) -> Vec<Tally> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running clients.
#[derive(Debug)]
pub(in crate::cli) struct Load {
    clients: JoinSet<()>,
    stop: CancellationToken,
}

impl Load {
    /// Starts all clients.
    pub(in crate::cli) fn start(application: &Arc<Application>, ledger: &Arc<Ledger>) -> Self {
        let stop = CancellationToken::new();
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let habit = if number % 5 == 4 {
                Habit::ConnectionPerTransaction
            } else {
                Habit::Pooled {
                    lifetime: CONNECTION_LIFETIME,
                }
            };
            let client = Client {
                application: Arc::clone(application),
                ledger: Arc::clone(ledger),
                habit,
                number,
            };
            clients.spawn(client.run(stop.clone()));
        }
        Self { clients, stop }
    }

    /// Lets every client finish its transaction, and returns when all have left. An error is a
    /// panic of one of them.
    pub(in crate::cli) async fn stop(mut self) -> Result<(), tokio::task::JoinError> {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_commit_without_its_row_is_lost() {
        let ledger = Ledger::default();
        ledger.record(Event::Closed);
        ledger.next_step();
        for (row, waited_ms) in [(41, 30), (42, 90), (43, 10)] {
            let waited = Duration::from_millis(waited_ms);
            ledger.record(Event::Committed { row, waited });
        }
        ledger.next_step();
        ledger.record(Event::Failed {
            row: Some(77),
            why: "cut".to_owned(),
        });
        let tallies = ledger.tallies();
        assert_eq!(tallies[0].closed, 0, "before the first step nothing counts");
        assert_eq!(tallies[0].lost(&HashSet::from([41, 43, 99])), 1);
        assert_eq!(tallies[0].longest_wait, Duration::from_millis(90));
        assert_eq!(
            tallies[1]
                .cuts
                .iter()
                .map(|cut| cut.row)
                .collect::<Vec<_>>(),
            [Some(77)]
        );
        assert_eq!(
            tallies[1].lost(&HashSet::new()),
            0,
            "nobody was told it is there"
        );
    }
}
