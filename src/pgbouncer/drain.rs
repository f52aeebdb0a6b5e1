//! The end of a drain: stop a pooler without cutting a transaction, after it has left its Service.
//!
//! ```text
//!  clients leave by themselves; from 1.24 on, idle ones are asked to at the end of that time
//!        │ (nobody is left, or limits.leave passes)
//!        ├── 1.23 and later: SHUTDOWN WAIT_FOR_SERVERS, the first stop signal ─► ShutDown
//!        │       open transactions finish, a new one is refused                  │ bound
//!        ├── before 1.23, transaction or statement mode: PAUSE ────────────────► Paused
//!        │       open transactions finish, a new one waits                       │ bound
//!        └── before 1.23, session mode: PAUSE cannot finish ────────────────► StillOpen
//! ```
//!
//! The version is asked for, because the means of one are the trouble of the other: `PAUSE` and then
//! SIGTERM hangs from 1.23 on, and SIGTERM on 1.18 cuts at once. After [`EndedBy::Paused`] the pod
//! has to be deleted right away, or the pooler released: its clients wait. The last means is used
//! even where nobody is left: a client may still arrive over a route that is not yet forgotten, and
//! what it begins would be cut, or from 1.23 on keep the process up until it is killed.
//!
//! Idle clients are asked to leave with `client_idle_timeout`, by `SET` and not by `RELOAD`: it
//! touches nothing else. In session mode it has no effect on a client that holds a connection. Why it
//! is worth it, measured on 1.24.1 and 1.26.1 with 27 clients that keep their connection and pause
//! 0.1 to 3 s between transactions, a second before the shutdown: of those closed, 4 and 5 learnt it
//! from a first statement that was refused, instead of 16 and 17; the others found an idle connection
//! closed, which pools notice. None was cut in a transaction either way.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Version;
use super::console::{CLIENT_IDLE_TIMEOUT, Client, Console, ConsoleError, PoolMode};
use super::session::Target;

use crate::instants::Shift;

/// How often clients are counted.
pub const POLL: Duration = Duration::from_millis(100);

/// A pooler counts as empty when this many countings in a row found nobody: a client that was being
/// let in during one is seen by the next.
const EMPTY_COUNTINGS: u32 = 2;

/// How long idle clients are asked for, at the end of [`Limits::leave`].
const ASKING: Duration = Duration::from_secs(1);

/// The `client_idle_timeout` meanwhile, in seconds: much longer than an application takes between the
/// statements of its work, and short enough for [`ASKING`]. Odd, so that it is known for ours by
/// whoever has to take it back.
const ASKED_IDLE: &str = "0.301";

/// How long each part may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For clients to leave by themselves. Longer than their pools' maximum lifetime is best: then
    /// nobody is closed.
    pub leave: Duration,
    /// For open transactions to finish after that.
    pub quiesce: Duration,
}

/// How a drain ended.
#[derive(Debug)]
#[must_use = "a paused pooler has to be deleted or released"]
pub enum EndedBy {
    /// The process has ended by itself, with no transaction open.
    ShutDown,
    /// No transaction is open and none can start. Delete the pod now, or release it.
    Paused(Quiesced),
    /// Transactions are open that a stop will cut; they are counted in the report. From 1.23 on the
    /// process has been told to stop, and ends by itself when they finish.
    StillOpen,
}

/// What a drain did.
#[derive(Debug)]
pub struct DrainReport {
    /// The running version.
    pub version: Version,
    /// How long it took.
    pub waited: Duration,
    /// Clients that left by themselves.
    pub clients_left_by_themselves: usize,
    /// Clients that left while idle ones were asked to, on their own account or for that reason.
    pub clients_asked_to_leave: usize,
    /// Clients that a stop closes, or has closed, between transactions.
    pub closed_between_transactions: usize,
    /// Clients that a stop cuts in a transaction. In session mode a client that holds a connection
    /// may be in one, and is counted here.
    pub cut_in_transaction: usize,
    /// How it ended.
    pub ended_by: EndedBy,
}

/// A pooler in which no transaction can start.
#[derive(Debug)]
#[must_use = "a paused pooler has to be deleted or released"]
pub struct Quiesced {
    target: Target,
}

impl Quiesced {
    /// Lets transactions start again, because the pod is not deleted after all.
    pub async fn release(self) -> Result<(), ConsoleError> {
        release(&self.target).await
    }

    /// The pod is being deleted, and the pause goes with it.
    pub fn deleted(self) {}
}

/// Lets transactions start again and clients be idle; does nothing to a pooler that nobody drains. For
/// whoever no longer has the [`Quiesced`], such as a daemon that was restarted.
pub async fn release(target: &Target) -> Result<(), ConsoleError> {
    let console = Console::connect(target).await?;
    let resumed = console.resume().await;
    let calmed = stop_asking(&console).await;
    console.close().await;
    resumed.and(calmed)
}

/// Drains a pooler that has left its Service.
pub async fn drain(target: &Target, limits: &Limits) -> Result<DrainReport, ConsoleError> {
    let started = Instant::now();
    let mut console = Console::connect(target).await?;
    let version = console.version().await?;
    let mut crowd = Crowd::default();
    let asking = ASKING.min(limits.leave);
    let left = crowd
        .leaves(&console, limits.leave.saturating_sub(asking))
        .await?;
    let mut by_themselves = crowd.gone();
    if !left && can_ask(&console, version).await? {
        console.set_client_idle_timeout(ASKED_IDLE).await?;
        crowd.leaves(&console, asking).await?;
        // It may be put back into service, and must not keep this.
        stop_asking(&console).await?;
    } else if !left {
        crowd.leaves(&console, asking).await?;
        by_themselves = crowd.gone();
    }
    let asked = crowd.gone() - by_themselves;
    let ending = if version.can_wait_for_servers() {
        shut_down(console, &mut crowd, limits.quiesce).await?
    } else if holds_sessions(&console).await? {
        let ending = Ending::cutting(&crowd.present);
        console.close().await;
        ending
    } else {
        let ending = pause(&mut console, &mut crowd, limits.quiesce).await?;
        console.close().await;
        ending
    };
    Ok(DrainReport {
        version,
        waited: started.elapsed(),
        clients_left_by_themselves: by_themselves,
        clients_asked_to_leave: asked,
        closed_between_transactions: ending.between,
        cut_in_transaction: ending.cut,
        ended_by: ending.ended_by,
    })
}

/// Whether idle clients can be asked to leave: the version knows how, transactions or statements are
/// pooled, and nobody else has said when they should.
async fn can_ask(console: &Console, version: Version) -> Result<bool, ConsoleError> {
    if !version.can_time_out_idle_clients() || holds_sessions(console).await? {
        return Ok(false);
    }
    let now = console.config().await?.remove(CLIENT_IDLE_TIMEOUT);
    Ok(now.is_some_and(|now| now == "0" || now == ASKED_IDLE))
}

/// Lets clients be idle again, if it was a drain that did not.
async fn stop_asking(console: &Console) -> Result<(), ConsoleError> {
    let now = console.config().await?.remove(CLIENT_IDLE_TIMEOUT);
    if now.as_deref() == Some(ASKED_IDLE) {
        console.set_client_idle_timeout("0").await?;
    }
    Ok(())
}

/// How a drain ended, and what that closes.
struct Ending {
    ended_by: EndedBy,
    between: usize,
    cut: usize,
}

impl Ending {
    /// What a stop would do to these clients now.
    fn cutting(present: &[Client]) -> Self {
        let cut = present.iter().filter(|client| client.linked).count();
        Self {
            ended_by: EndedBy::StillOpen,
            between: present.len() - cut,
            cut,
        }
    }
}

/// Everybody who was seen, and who is there now.
#[derive(Default)]
struct Crowd {
    seen: HashSet<String>,
    present: Vec<Client>,
}

impl Crowd {
    /// How many of those who were seen are no longer there.
    fn gone(&self) -> usize {
        self.seen.len() - self.present.len()
    }

    async fn count(&mut self, console: &Console) -> Result<(), ConsoleError> {
        self.present = console.clients().await?;
        let ids = self.present.iter().map(|client| client.id.clone());
        self.seen.extend(ids);
        Ok(())
    }

    /// Waits for everybody to leave; `false` when the bound passes first.
    async fn leaves(&mut self, console: &Console, bound: Duration) -> Result<bool, ConsoleError> {
        let deadline = Instant::now().plus(bound);
        let mut empty = 0;
        loop {
            self.count(console).await?;
            empty = if self.present.is_empty() {
                empty + 1
            } else {
                0
            };
            if empty >= EMPTY_COUNTINGS {
                return Ok(true);
            }
            if empty == 0 && Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(POLL).await;
        }
    }
}

/// 1.23 and later.
async fn shut_down(
    mut console: Console,
    crowd: &mut Crowd,
    bound: Duration,
) -> Result<Ending, ConsoleError> {
    console.shutdown_wait_for_servers().await?;
    if console.gone(bound).await {
        return Ok(Ending {
            ended_by: EndedBy::ShutDown,
            between: crowd.present.len(),
            cut: 0,
        });
    }
    // The console that gave the order may still answer; if not, the last count stands.
    let _last_count_stands = crowd.count(&console).await;
    console.close().await;
    Ok(Ending::cutting(&crowd.present))
}

/// Does any pool with clients keep its connections for whole sessions?
async fn holds_sessions(console: &Console) -> Result<bool, ConsoleError> {
    let pools = console.pools().await?;
    Ok(pools.iter().any(|pool| {
        pool.mode == PoolMode::Session && pool.clients_active + pool.clients_waiting > 0
    }))
}

/// Before 1.23, transaction and statement mode.
async fn pause(
    console: &mut Console,
    crowd: &mut Crowd,
    bound: Duration,
) -> Result<Ending, ConsoleError> {
    let bound = bound.min(patience(console).await?);
    let mut paused = console.pause(bound).await;
    if matches!(paused, Err(ConsoleError::AlreadyPaused)) {
        // An earlier attempt of ours, of which nobody knows how far it came.
        console.resume().await?;
        paused = console.pause(bound).await;
    }
    match paused {
        Ok(()) => {}
        Err(ConsoleError::PauseTimedOut { .. }) => {
            crowd.count(console).await?;
            return Ok(Ending::cutting(&crowd.present));
        }
        Err(other) => return Err(other),
    }
    let quiesced = Quiesced {
        target: console.target().clone(),
    };
    if let Err(error) = crowd.count(console).await {
        quiesced.release().await?;
        return Err(error);
    }
    Ok(Ending {
        ended_by: EndedBy::Paused(quiesced),
        between: crowd.present.len(),
        cut: 0,
    })
}

/// Half of what clients wait for a connection before they are thrown out: a pause that lasted longer
/// would itself fail transactions.
pub(super) async fn patience(console: &Console) -> Result<Duration, ConsoleError> {
    let config = console.config().await?;
    let seconds = config
        .get("query_wait_timeout")
        .and_then(|value| value.parse::<f64>().ok())
        .filter(|seconds| *seconds > 0.0);
    Ok(seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds / 2.0).ok())
        .unwrap_or(Duration::MAX))
}
