//! The clients under load, and the ledger of what happened to them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::client::{Application, Client, Habit};

/// Clients in all; the fifth and the tenth connect anew for every transaction.
pub(super) const CLIENTS: u32 = 10;

/// How long a pooled connection is used before its client replaces it. Pools of applications use
/// minutes; the demo has seconds.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(2);

/// What happened to one client.
#[derive(Debug)]
pub(super) enum Event {
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
pub(super) struct Tally {
    /// Rows of acknowledged commits.
    pub(super) committed: Vec<i64>,
    /// Transactions that began and were not acknowledged.
    pub(super) failed: u64,
    /// Rows of those that had sent `COMMIT`.
    pub(super) unseen: Vec<i64>,
    /// Connections found closed between transactions.
    pub(super) closed: u64,
    /// Attempts to connect that did not succeed.
    pub(super) retried: u64,
    /// The longest time from wish to acknowledgement.
    pub(super) longest_wait: Duration,
    /// What the client of the latest failed transaction saw.
    pub(super) failure: Option<String>,
    /// What the client of the latest failed attempt to connect saw.
    pub(super) trouble: Option<String>,
}

impl Tally {
    /// How many of the acknowledged commits are not among `rows`.
    pub(super) fn lost(&self, rows: &HashSet<i64>) -> u64 {
        let missing = self.committed.iter().filter(|row| !rows.contains(row));
        missing.count() as u64
    }

    fn record(&mut self, event: Event) {
        match event {
            Event::Committed { row, waited } => {
                self.committed.push(row);
                self.longest_wait = self.longest_wait.max(waited);
            }
            Event::Failed { row, why } => {
                self.failed += 1;
                self.unseen.extend(row);
                self.failure = Some(why);
            }
            Event::Closed => self.closed += 1,
            Event::Retried { why } => {
                self.retried += 1;
                self.trouble = Some(why);
            }
        }
    }
}

/// One tally per step; an event belongs to the step during which it came to an end.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    tallies: Mutex<Vec<Tally>>,
}

impl Ledger {
    /// Opens the page of the next step.
    pub(super) fn next_step(&self) {
        self.lock().push(Tally::default());
    }

    /// Writes an event down. What happens before the first step is warming up.
    pub(super) fn record(&self, event: Event) {
        if let Some(tally) = self.lock().last_mut() {
            tally.record(event);
        }
    }

    /// Commits acknowledged in the present step.
    pub(super) fn committed_now(&self) -> usize {
        self.lock().last().map_or(0, |tally| tally.committed.len())
    }

    /// All pages.
    pub(super) fn tallies(&self) -> Vec<Tally> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running clients.
#[derive(Debug)]
pub(super) struct Load {
    clients: JoinSet<()>,
    stop: CancellationToken,
}

impl Load {
    /// Starts all clients.
    pub(super) fn start(application: &Arc<Application>, ledger: &Arc<Ledger>) -> Self {
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
    pub(super) async fn stop(mut self) -> Result<(), tokio::task::JoinError> {
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
            (tallies[1].failed, tallies[1].unseen.as_slice()),
            (1, &[77][..])
        );
        assert_eq!(
            tallies[1].lost(&HashSet::new()),
            0,
            "nobody was told it is there"
        );
    }
}
