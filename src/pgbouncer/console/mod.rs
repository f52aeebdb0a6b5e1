//! The admin console: the database `pgbouncer` of every pooler.
//!
//! Facts that shape this module:
//!
//! * The connection that issues `PAUSE` blocks until no transaction is open, and other connections
//!   go on working. Dropping it leaves the pause in force. [`Console::pause`] therefore has a bound
//!   of its own, resumes from a fresh connection when the bound passes, and goes on with that one.
//! * `RELOAD` answers OK even when the new material could not be loaded; see [`super::probe`].
//! * `SHOW CONFIG` shows what was asked for, not what is in force.
//! * On versions from 1.23 no `PAUSE` may precede a stop: the process would hang.

mod rows;

pub use rows::{Client, Pool, PoolMode};

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

use super::Version;
use super::session::{Row, Session, SessionError, Target};
use crate::retry::Retry;

/// The setting that closes idle clients; from 1.24 on.
pub const CLIENT_IDLE_TIMEOUT: &str = "client_idle_timeout";

/// The console's database.
const DATABASE: &str = "pgbouncer";

/// How often [`Console::pause`] tries to take back a pause that did not come about.
const RESUME_ATTEMPTS: u32 = 5;

/// Why the console did not do what was asked.
#[derive(Debug, Error)]
pub enum ConsoleError {
    /// The connection, the login or a command failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The running version has no such command.
    #[error("PgBouncer {version} has no `{command}`")]
    Unsupported {
        /// The running version.
        version: Version,
        /// What was asked.
        command: &'static str,
    },
    /// Transactions stayed open for longer than the bound; the pooler runs on, not paused.
    #[error("transactions were still open after {bound:?}; the pooler was resumed")]
    PauseTimedOut {
        /// The bound.
        bound: Duration,
    },
    /// The pause did not come about in time, and could not be taken back either.
    #[error("the pooler did not pause within {bound:?} and could not be resumed")]
    PauseLeftBehind {
        /// The bound.
        bound: Duration,
        /// Why it could not be resumed.
        #[source]
        source: SessionError,
    },
    /// Somebody has paused this pooler already.
    #[error("the pooler is paused already")]
    AlreadyPaused,
    /// An answer without a column that we need.
    #[error("the answer to `{command}` has no usable {column}")]
    BadAnswer {
        /// What was asked.
        command: &'static str,
        /// What is missing.
        column: &'static str,
    },
}

impl ConsoleError {
    /// Whether trying again can help.
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Session(session)
            | Self::PauseLeftBehind {
                source: session, ..
            } => session.retry(),
            Self::PauseTimedOut { .. } | Self::AlreadyPaused => Retry::Backoff,
            Self::Unsupported { .. } | Self::BadAnswer { .. } => Retry::Never,
        }
    }
}

/// A logged-in console.
pub struct Console {
    target: Target,
    session: Session,
}

impl Console {
    /// Logs in as an admin user.
    pub async fn connect(target: &Target) -> Result<Self, ConsoleError> {
        Ok(Self {
            target: target.clone(),
            session: Session::open(target, DATABASE).await?,
        })
    }

    /// Where this console is logged in.
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// Which version this is.
    pub async fn version(&self) -> Result<Version, ConsoleError> {
        let rows = self.show("SHOW VERSION").await?;
        rows.first()
            .and_then(|row| row.values().next())
            .and_then(|text| Version::parse(text))
            .ok_or(ConsoleError::BadAnswer {
                command: "SHOW VERSION",
                column: "version",
            })
    }

    /// The application's clients: all but those of the console itself.
    pub async fn clients(&self) -> Result<Vec<Client>, ConsoleError> {
        let rows = self.show("SHOW CLIENTS").await?;
        let clients = rows.iter().map(Client::from_row);
        Ok(clients
            .filter(|client| client.database != DATABASE)
            .collect())
    }

    /// The application's pools.
    pub async fn pools(&self) -> Result<Vec<Pool>, ConsoleError> {
        let rows = self.show("SHOW POOLS").await?;
        let pools: Option<Vec<Pool>> = rows.iter().map(Pool::from_row).collect();
        let pools = pools.ok_or(ConsoleError::BadAnswer {
            command: "SHOW POOLS",
            column: "pool_mode",
        })?;
        Ok(pools
            .into_iter()
            .filter(|pool| pool.database != DATABASE)
            .collect())
    }

    /// The settings as they were asked for; no proof that they are in force.
    pub async fn config(&self) -> Result<BTreeMap<String, String>, ConsoleError> {
        let rows = self.show("SHOW CONFIG").await?;
        Ok(rows
            .into_iter()
            .filter_map(|mut row| Some((row.remove("key")?, row.remove("value")?)))
            .collect())
    }

    /// Lets open transactions finish and starts no new one; returns when none is open.
    ///
    /// When the bound passes first, the pooler is resumed and [`ConsoleError::PauseTimedOut`] says
    /// so: no pause is left behind. A caller that drops this future before it is done has to call
    /// [`Self::resume`] on a new console.
    pub async fn pause(&mut self, bound: Duration) -> Result<(), ConsoleError> {
        match self.session.query("PAUSE", bound).await {
            Ok(_) => Ok(()),
            Err(SessionError::TimedOut { .. }) => self.take_back_pause(bound).await,
            Err(SessionError::Command { why, .. }) if why.contains("already") => {
                Err(ConsoleError::AlreadyPaused)
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Lets transactions start again; a pooler that is not paused stays as it is.
    pub async fn resume(&self) -> Result<(), ConsoleError> {
        Ok(resume(&self.session, self.target.timeout).await?)
    }

    /// Sets, until the next reload or restart, after how many seconds a client that is in no
    /// transaction is closed; `0` is never. From 1.24 on.
    pub async fn set_client_idle_timeout(&self, seconds: &str) -> Result<(), ConsoleError> {
        let command = format!("SET {CLIENT_IDLE_TIMEOUT} = '{seconds}'");
        let answered = self.session.query(&command, self.target.timeout).await;
        Ok(answered.map(drop)?)
    }

    /// Tells the pooler to read its files again. The answer proves nothing; a handshake does.
    pub async fn reload(&self) -> Result<(), ConsoleError> {
        self.show("RELOAD").await.map(drop)
    }

    /// The same of a paused pooler, and lets transactions start again. Both orders are on their way
    /// before the first is answered, so that a console that dies here leaves no pause behind. (The
    /// answer to `PAUSE` has to be awaited: the next order does not wait for it.)
    pub async fn reload_and_resume(&self) -> (Result<(), ConsoleError>, Result<(), ConsoleError>) {
        futures::join!(self.reload(), self.resume())
    }

    /// Tells the process to end when no transaction is open, and to start none; from 1.23 on. Must
    /// be its first stop signal: a second one ends it at once. See [`Self::gone`].
    pub async fn shutdown_wait_for_servers(&mut self) -> Result<(), ConsoleError> {
        let version = self.version().await?;
        if !version.can_wait_for_servers() {
            return Err(ConsoleError::Unsupported {
                version,
                command: "SHUTDOWN WAIT_FOR_SERVERS",
            });
        }
        match self.stop("SHUTDOWN WAIT_FOR_SERVERS").await {
            // The order is given; whether it is obeyed is for `gone` to see.
            Err(ConsoleError::Session(SessionError::TimedOut { .. })) => Ok(()),
            other => other,
        }
    }

    /// Waits until the process has closed this console; `false` when the bound passes first.
    pub async fn gone(&mut self, bound: Duration) -> bool {
        self.session.ended(bound).await
    }

    /// Logs out.
    pub async fn close(self) {
        self.session.close().await;
    }

    async fn show(&self, command: &'static str) -> Result<Vec<Row>, ConsoleError> {
        Ok(self.session.query(command, self.target.timeout).await?)
    }

    /// Sends a command whose success may show itself as the end of the connection.
    async fn stop(&mut self, command: &'static str) -> Result<(), ConsoleError> {
        match self.session.query(command, self.target.timeout).await {
            Ok(_) | Err(SessionError::Closed { .. }) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }

    /// Resumes through a new connection, because the one that paused no longer gets answers.
    async fn take_back_pause(&mut self, bound: Duration) -> Result<(), ConsoleError> {
        let mut attempt = 0;
        loop {
            match self.resume_afresh().await {
                Ok(()) => return Err(ConsoleError::PauseTimedOut { bound }),
                Err(source) if attempt >= RESUME_ATTEMPTS => {
                    return Err(ConsoleError::PauseLeftBehind { bound, source });
                }
                Err(_) => tokio::time::sleep(crate::retry::backoff(attempt)).await,
            }
            attempt += 1;
        }
    }

    async fn resume_afresh(&mut self) -> Result<(), SessionError> {
        let fresh = Session::open(&self.target, DATABASE).await?;
        resume(&fresh, self.target.timeout).await?;
        self.session = fresh;
        Ok(())
    }
}

async fn resume(session: &Session, bound: Duration) -> Result<(), SessionError> {
    match session.query("RESUME", bound).await {
        Err(SessionError::Command { why, .. }) if why.contains("not paused") => Ok(()),
        other => other.map(drop),
    }
}
