//! One client: an application that has never heard of Bouncert.
//!
//! It does what applications do. It keeps a connection for a while or opens one per transaction; on
//! every connection it reads its certificate from the client Secret, if there is one; with the
//! Secret it uses TLS, verifies chain and name, and shows its certificate; where the server answers
//! that it has no TLS it goes on without (`sslmode=prefer`). A connection that turns out to be
//! closed is replaced, as every pool does. It knows nothing of requests or restarts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_postgres::config::SslMode;
use tokio_util::sync::CancellationToken;

use super::load::{Event, Ledger};
use crate::causes::chain;
use crate::cluster::Cluster;
use crate::names::ObjectRef;
use crate::pgbouncer::tls::{ClientTls, Connector, Identity};
use crate::redacted::Redacted;

/// Table that every transaction adds a row to.
pub(in crate::cli) const TABLE: &str = "shop_ledger";

/// Bound of a connection with its login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bound of a statement; a pooler that makes a client wait for longer counts as gone.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two attempts to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Between two transactions of a client.
const THINK: Duration = Duration::from_millis(15);
/// Every so many transactions a slow one, so that something is always in flight.
const SLOW_EVERY: u32 = 7;
/// What a slow transaction does, besides.
const SLOW: &str = "SELECT pg_sleep(0.15)";

/// What an application is configured with.
#[derive(Debug)]
pub(in crate::cli) struct Application {
    /// The Service's address.
    pub(in crate::cli) service: SocketAddr,
    /// The Service's name, which the server's certificate has to carry.
    pub(in crate::cli) server_name: String,
    /// Database user.
    pub(in crate::cli) user: String,
    /// Its password.
    pub(in crate::cli) password: Redacted<String>,
    /// Database.
    pub(in crate::cli) database: String,
    /// Where the client Secret is kept.
    pub(in crate::cli) secrets: Secrets,
}

/// Where the client Secret is kept.
pub(in crate::cli) struct Secrets {
    /// The API.
    pub(in crate::cli) cluster: Cluster,
    /// The Secret.
    pub(in crate::cli) at: ObjectRef,
}

/// How a client uses connections.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) enum Habit {
    /// Keeps one for a while.
    Pooled {
        /// For how long.
        lifetime: Duration,
    },
    /// Opens one for each transaction.
    ConnectionPerTransaction,
}

/// One client.
#[derive(Debug)]
pub(in crate::cli) struct Client {
    /// What it is configured with.
    pub(in crate::cli) application: Arc<Application>,
    /// Where it writes down what happens to it.
    pub(in crate::cli) ledger: Arc<Ledger>,
    /// How it uses connections.
    pub(in crate::cli) habit: Habit,
    /// Which one it is.
    pub(in crate::cli) number: u32,
}

impl Client {
    /// Runs transactions until told to stop; the one in hand is finished.
    pub(in crate::cli) async fn run(self, stop: CancellationToken) {
        let mut kept: Option<Connection> = None;
        for sequence in 0_u32.. {
            if stop.is_cancelled() {
                break;
            }
            let row = (i64::from(self.number) << 32) | i64::from(sequence);
            let wanted = Instant::now();
            kept = self.transaction(kept, row, wanted, &stop).await;
            kept = self.retire(kept).await;
            let _stopped = timeout(THINK, stop.cancelled()).await;
        }
        if let Some(connection) = kept {
            connection.close().await;
        }
    }

    /// One transaction, on the connection at hand or a new one; gives the connection back if it is
    /// still good.
    async fn transaction(
        &self,
        mut kept: Option<Connection>,
        row: i64,
        wanted: Instant,
        stop: &CancellationToken,
    ) -> Option<Connection> {
        loop {
            let connection = match kept.take() {
                Some(connection) => connection,
                None => self.connect(stop).await?,
            };
            if connection.run("BEGIN").await.is_err() {
                self.ledger.record(Event::Closed);
                continue;
            }
            let event = self.work(&connection, row, wanted).await;
            let survived = matches!(event, Event::Committed { .. });
            self.ledger.record(event);
            return survived.then_some(connection);
        }
    }

    /// What follows an acknowledged `BEGIN`.
    async fn work(&self, connection: &Connection, row: i64, wanted: Instant) -> Event {
        let insert = format!("INSERT INTO {TABLE} (id) VALUES ({row})");
        let slow = row % i64::from(SLOW_EVERY) == 0;
        let statements = [insert.as_str(), SLOW];
        for statement in &statements[..if slow { 2 } else { 1 }] {
            if let Err(why) = connection.run(statement).await {
                return Event::Failed { row: None, why };
            }
        }
        match connection.run("COMMIT").await {
            Ok(()) => Event::Committed {
                row,
                waited: wanted.elapsed(),
            },
            Err(why) => Event::Failed {
                row: Some(row),
                why,
            },
        }
    }

    /// Connects, however often it takes; `None` when told to stop in between.
    async fn connect(&self, stop: &CancellationToken) -> Option<Connection> {
        while !stop.is_cancelled() {
            match self.application.connect().await {
                Ok(connection) => return Some(connection),
                Err(why) => self.ledger.record(Event::Retried { why }),
            }
            let _stopped = timeout(RETRY_PAUSE, stop.cancelled()).await;
        }
        None
    }

    /// Closes a connection that has lived long enough.
    async fn retire(&self, kept: Option<Connection>) -> Option<Connection> {
        let connection = kept?;
        let lifetime = match self.habit {
            Habit::Pooled { lifetime } => lifetime,
            Habit::ConnectionPerTransaction => Duration::ZERO,
        };
        if connection.opened.elapsed() < lifetime {
            return Some(connection);
        }
        connection.close().await;
        None
    }
}

// === impl Application ===

impl Application {
    /// Runs a statement on a new connection to `address`.
    pub(in crate::cli) async fn work_at(&self, address: SocketAddr) -> Result<(), String> {
        let connection = self.connect_to(address).await?;
        let worked = connection.run("SELECT 1").await;
        connection.close().await;
        worked
    }

    /// Connects once, as the Secret of this moment says.
    async fn connect(&self) -> Result<Connection, String> {
        self.connect_to(self.service).await
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<Connection, String> {
        let tls = self.tls().await?;
        timeout(CONNECT_TIMEOUT, self.login(address, tls))
            .await
            .map_err(|_| format!("no login within {CONNECT_TIMEOUT:?}"))?
    }

    /// What the Secret says; nothing where there is none.
    async fn tls(&self) -> Result<Option<ClientTls>, String> {
        let Secrets { cluster, at } = &self.secrets;
        let Some(secret) = cluster.get::<Secret>(at).await.map_err(|e| chain(&e))? else {
            return Ok(None);
        };
        let data = secret.data.unwrap_or_default();
        let part = |key: &str| {
            let bytes = data.get(key).map(|bytes| bytes.0.as_slice());
            bytes.ok_or_else(|| format!("Secret {at} has no {key}"))
        };
        let identity =
            Identity::from_pem(part("tls.crt")?, part("tls.key")?).map_err(|e| chain(&e))?;
        ClientTls::verify_full(&self.server_name, part("ca.crt")?, Some(identity))
            .map(Some)
            .map_err(|e| chain(&e))
    }

    async fn login(
        &self,
        address: SocketAddr,
        tls: Option<ClientTls>,
    ) -> Result<Connection, String> {
        let stream = TcpStream::connect(address).await.map_err(|e| chain(&e))?;
        stream.set_nodelay(true).map_err(|e| chain(&e))?;
        let mut config = tokio_postgres::Config::new();
        config
            .user(&self.user)
            .password(self.password.expose())
            .dbname(&self.database)
            .application_name("shop")
            .ssl_mode(match tls {
                Some(_) => SslMode::Prefer,
                None => SslMode::Disable,
            });
        let (client, connection) = config
            .connect_raw(stream, Connector(tls))
            .await
            .map_err(|e| chain(&e))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // How it ended is told to whoever waits for an answer.
            let _ended = connection.await;
        });
        Ok(Connection {
            client,
            driver,
            opened: Instant::now(),
        })
    }
}

// === impl Secrets ===

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.at)
    }
}

// === impl Connection ===

/// A logged-in connection.
struct Connection {
    client: tokio_postgres::Client,
    driver: JoinSet<()>,
    opened: Instant,
}

impl Connection {
    async fn run(&self, statement: &str) -> Result<(), String> {
        match timeout(STATEMENT_TIMEOUT, self.client.simple_query(statement)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("`{statement}`: {}", chain(&error))),
            Err(_) => Err(format!("`{statement}`: no answer in {STATEMENT_TIMEOUT:?}")),
        }
    }

    /// Says goodbye, as every driver does.
    async fn close(self) {
        let Self {
            client, mut driver, ..
        } = self;
        drop(client);
        let _in_time = timeout(RETRY_PAUSE, driver.join_next()).await;
    }
}
