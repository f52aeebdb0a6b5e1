//! Clients of a pooler that is about to be drained, and the ledger that each of them keeps: what it
//! was doing when its connection was closed.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use bouncert::local::postgres::ThrowAwayPostgres;
use bouncert::pgbouncer::console::PoolMode;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Clerk;

/// What a client does with its connection, until it is closed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Habit {
    /// Nothing, after a first statement.
    Idle,
    /// Transactions, one after the other.
    Busy,
    /// One transaction that takes so long, then nothing. In statement mode it is one statement.
    Holds(Duration),
    /// One transaction that takes so long, then it leaves.
    Leaves(Duration),
}

/// How a client lost its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It left.
    Left,
    /// Found closed with nothing in hand.
    Idle,
    /// Its first statement was answered with the end of the connection, and nothing has happened.
    Refused,
    /// In a transaction.
    Inside,
}

/// What all clients saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) fates: Vec<Fate>,
    pub(super) committed: usize,
    pub(super) lost: usize,
}

impl Ledger {
    pub(super) fn count(&self, fate: Fate) -> usize {
        self.fates.iter().filter(|seen| **seen == fate).count()
    }

    /// Closed with no transaction open.
    pub(super) fn between(&self) -> usize {
        self.count(Fate::Idle) + self.count(Fate::Refused)
    }

    /// Closed in a transaction.
    pub(super) fn inside(&self) -> usize {
        self.count(Fate::Inside)
    }
}

/// What one client saw.
struct Story {
    fate: Fate,
    committed: Vec<i32>,
    /// A row that was asked for and not acknowledged.
    unsure: Option<i32>,
}

/// All clients.
pub(super) struct Crew {
    members: JoinSet<Story>,
}

impl Crew {
    /// Empties the table, logs everybody in and lets them begin.
    pub(super) async fn start(
        server: &ThrowAwayPostgres,
        pooler: SocketAddr,
        mode: PoolMode,
        habits: &[Habit],
    ) -> Self {
        let emptied = server.execute("postgres", "TRUNCATE sales").await;
        emptied.expect("an empty table");
        let mut members = JoinSet::new();
        for (number, habit) in (1..).zip(habits) {
            let clerk = Clerk::at(pooler).await;
            clerk.run("SELECT 1").await.expect("answers");
            members.spawn(live(clerk, mode, *habit, number * 100_000));
        }
        Self { members }
    }

    /// Waits until every connection has come to its end, and compares with the rows.
    pub(super) async fn ledger(mut self, server: &ThrowAwayPostgres) -> Ledger {
        let mut ledger = Ledger::default();
        let mut stories = Vec::new();
        while let Some(story) = self.members.join_next().await {
            stories.push(story.expect("a client does not panic"));
        }
        let rows = server.execute("postgres", "SELECT id FROM sales").await;
        let rows: HashSet<i32> = rows
            .expect("rows")
            .iter()
            .map(|row| row["id"].parse().expect("a number"))
            .collect();
        for mut story in stories {
            if story.unsure.is_some_and(|row| !rows.contains(&row)) {
                // A statement of its own that never reached PostgreSQL was no transaction.
                story.fate = Fate::Refused;
            }
            ledger.lost += story
                .committed
                .iter()
                .filter(|row| !rows.contains(row))
                .count();
            ledger.committed += story.committed.len();
            ledger.fates.push(story.fate);
        }
        ledger
    }
}

async fn live(clerk: Clerk, mode: PoolMode, habit: Habit, first: i32) -> Story {
    let mut story = Story {
        fate: Fate::Idle,
        committed: Vec::new(),
        unsure: None,
    };
    for row in first.. {
        let work = match habit {
            Habit::Idle => break,
            Habit::Busy => Duration::from_millis(20),
            Habit::Holds(long) | Habit::Leaves(long) => long,
        };
        if let Some(fate) = transaction(&clerk, mode, row, work, &mut story).await {
            story.fate = fate;
            return story;
        }
        match habit {
            Habit::Busy => sleep(Duration::from_millis(10)).await,
            Habit::Leaves(_) => {
                story.fate = Fate::Left;
                return story;
            }
            Habit::Idle | Habit::Holds(_) => break,
        }
    }
    while !clerk.client.is_closed() {
        sleep(Duration::from_millis(10)).await;
    }
    story
}

/// One transaction; how the connection ended, if it did.
async fn transaction(
    clerk: &Clerk,
    mode: PoolMode,
    row: i32,
    work: Duration,
    story: &mut Story,
) -> Option<Fate> {
    if clerk.client.is_closed() {
        return Some(Fate::Idle);
    }
    if mode == PoolMode::Statement {
        let seconds = work.as_secs_f64();
        let sql = format!("INSERT INTO sales SELECT {row} FROM pg_sleep({seconds})");
        if clerk.run(&sql).await.is_err() {
            story.unsure = Some(row);
            return Some(Fate::Inside);
        }
        story.committed.push(row);
        return None;
    }
    if clerk.run("BEGIN").await.is_err() {
        return Some(Fate::Refused);
    }
    let began = Instant::now();
    let insert = format!("INSERT INTO sales VALUES ({row})");
    if clerk.run(&insert).await.is_err() {
        return Some(Fate::Inside);
    }
    while began.elapsed() < work && !clerk.client.is_closed() {
        sleep(Duration::from_millis(5)).await;
    }
    if clerk.run("COMMIT").await.is_err() {
        return Some(Fate::Inside);
    }
    story.committed.push(row);
    None
}
