//! One bounded connection to a pooler (or to PostgreSQL), and what went wrong with it in words.
//!
//! The messages are made for conditions that people read: they say who refused whom. The protocol
//! work is `tokio-postgres`'s; its connection is driven by a task that this session owns, so that
//! nothing outlives it.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::AlertDescription;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, SimpleQueryMessage};

use super::tls::{ClientTls, Connector};
use crate::fence::{Fence, Fenced};
use crate::instants::Shift;
use crate::redacted::Redacted;
use crate::retry::Retry;

/// How long a session may take to say goodbye; the other side does not have to answer.
const GOODBYE: Duration = Duration::from_millis(500);

/// Where to log in, as whom, and for how long to wait for each answer.
#[derive(Clone, Debug)]
pub struct Target {
    /// The pod's or Service's address.
    pub address: SocketAddr,
    /// The user.
    pub user: String,
    /// The password; clients that log in by certificate have none.
    pub password: Option<Redacted<String>>,
    /// TLS; `None` is plaintext.
    pub tls: Option<ClientTls>,
    /// Bound for the connection with its login, and for each command.
    pub timeout: Duration,
    /// What every command has to pass: `PAUSE` and its like are acts as any write is.
    pub fence: Fence,
}

/// Why a session could not be opened, or failed.
#[derive(Debug, Error)]
pub enum SessionError {
    /// No TCP connection.
    #[error("nothing accepts connections at {address}")]
    Unreachable {
        /// Who was asked.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("{address} did not answer within {after:?} while {doing}")]
    TimedOut {
        /// Who was asked.
        address: SocketAddr,
        /// What was being done.
        doing: String,
        /// The bound.
        after: Duration,
    },
    /// TLS was asked for and is off there.
    #[error("{address} does not offer TLS")]
    NoTls {
        /// Who was asked.
        address: SocketAddr,
    },
    /// Plaintext was tried and is not allowed there.
    #[error("{address} accepts no connection without TLS")]
    TlsRequired {
        /// Who was asked.
        address: SocketAddr,
    },
    /// We refused the server.
    #[error("the certificate of {address} is not acceptable: {why}")]
    ServerCertificate {
        /// Who was asked.
        address: SocketAddr,
        /// What is wrong with it.
        why: String,
    },
    /// The server refused our certificate.
    #[error("{address} refused the client certificate: {why}")]
    ClientCertificate {
        /// Who was asked.
        address: SocketAddr,
        /// The alert it sent.
        why: String,
    },
    /// The server wants a certificate, and we showed none.
    #[error("{address} refuses clients without a certificate")]
    ClientCertificateMissing {
        /// Who was asked.
        address: SocketAddr,
    },
    /// The login was refused.
    #[error("{address} refused the login of user {user}: {why}")]
    Login {
        /// Who was asked.
        address: SocketAddr,
        /// As whom.
        user: String,
        /// What it said.
        why: String,
    },
    /// The pooler is there; what it pools is not.
    #[error("{address} cannot serve the database: {why}")]
    Backend {
        /// Who was asked.
        address: SocketAddr,
        /// What it said.
        why: String,
    },
    /// The server answered an error to a command.
    #[error("{address} refused `{command}`: {why}")]
    Command {
        /// Who was asked.
        address: SocketAddr,
        /// What was asked.
        command: String,
        /// What it said.
        why: String,
    },
    /// We do not lead any more; whether the command was obeyed before is not known.
    #[error("{address} is not asked `{command}`: this daemon does not lead any more")]
    Fenced {
        /// Who was to be asked.
        address: SocketAddr,
        /// What.
        command: String,
    },
    /// The connection ended.
    #[error("{address} closed the connection while {doing}")]
    Closed {
        /// Who closed it.
        address: SocketAddr,
        /// What was being done.
        doing: String,
    },
    /// Something else on the wire.
    #[error("the conversation with {address} failed while {doing}: {why}")]
    Protocol {
        /// Who was asked.
        address: SocketAddr,
        /// What was being done.
        doing: String,
        /// What happened.
        why: String,
    },
}

impl SessionError {
    /// Whether trying again can help.
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Backend { .. }
            | Self::Closed { .. }
            | Self::Protocol { .. } => Retry::Backoff,
            Self::NoTls { .. }
            | Self::TlsRequired { .. }
            | Self::ServerCertificate { .. }
            | Self::ClientCertificate { .. }
            | Self::ClientCertificateMissing { .. }
            | Self::Login { .. } => Retry::WhenChanged,
            Self::Command { .. } | Self::Fenced { .. } => Retry::Never,
        }
    }
}

/// One row of an answer: column name to text, without the columns that are null.
pub type Row = BTreeMap<String, String>;

/// A logged-in connection.
pub(super) struct Session {
    client: Client,
    driver: JoinSet<()>,
    address: SocketAddr,
    fence: Fence,
}

impl Session {
    /// Connects and logs in.
    pub(super) async fn open(target: &Target, database: &str) -> Result<Self, SessionError> {
        let address = target.address;
        let deadline = Instant::now().plus(target.timeout);
        let late = |doing: &str| SessionError::TimedOut {
            address,
            doing: doing.to_owned(),
            after: target.timeout,
        };
        let stream = timeout_at(deadline, TcpStream::connect(address))
            .await
            .map_err(|_| late("connecting"))?
            .map_err(|source| SessionError::Unreachable { address, source })?;
        // Small messages, each waited for: Nagle's algorithm would only add delay.
        stream
            .set_nodelay(true)
            .map_err(|source| SessionError::Unreachable { address, source })?;

        let login = config(target, database);
        let (client, connection) = timeout_at(
            deadline,
            login.connect_raw(stream, Connector(target.tls.clone())),
        )
        .await
        .map_err(|_| late("logging in"))?
        .map_err(|error| explain_login(target, &error))?;

        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // How it ended is told to whoever waits for an answer.
            let _ended = connection.await;
        });
        Ok(Self {
            client,
            driver,
            address,
            fence: target.fence.clone(),
        })
    }

    /// Sends one command by the simple protocol and returns its rows.
    pub(super) async fn query(
        &self,
        command: &str,
        bound: Duration,
    ) -> Result<Vec<Row>, SessionError> {
        let doing = || format!("answering `{command}`");
        let asking = timeout(bound, self.client.simple_query(command));
        let messages = self
            .fence
            .pass(asking)
            .await
            .map_err(|Fenced| SessionError::Fenced {
                address: self.address,
                command: command.to_owned(),
            })?
            .map_err(|_| SessionError::TimedOut {
                address: self.address,
                doing: doing(),
                after: bound,
            })?
            .map_err(|error| match error.as_db_error() {
                Some(db) => SessionError::Command {
                    address: self.address,
                    command: command.to_owned(),
                    why: db.message().to_owned(),
                },
                None => explain_transport(self.address, None, &doing(), &error),
            })?;
        Ok(messages.iter().filter_map(row).collect())
    }

    /// Waits until the other side has closed the connection; `false` when the bound passes first.
    pub(super) async fn ended(&mut self, bound: Duration) -> bool {
        timeout(bound, self.driver.join_next()).await.is_ok()
    }

    /// Says goodbye, so that the server does not log a broken connection.
    pub(super) async fn close(self) {
        let Self {
            client, mut driver, ..
        } = self;
        drop(client);
        let _in_time = timeout(GOODBYE, driver.join_next()).await;
    }
}

fn config(target: &Target, database: &str) -> Config {
    let mut config = Config::new();
    config
        .user(&target.user)
        .dbname(database)
        .application_name("bouncert")
        .ssl_mode(if target.tls.is_some() {
            SslMode::Require
        } else {
            SslMode::Disable
        });
    if let Some(password) = &target.password {
        config.password(password.expose());
    }
    config
}

fn row(message: &SimpleQueryMessage) -> Option<Row> {
    let SimpleQueryMessage::Row(row) = message else {
        return None;
    };
    let cells = row.columns().iter().enumerate().filter_map(|(n, column)| {
        let value = row.get(n)?;
        Some((column.name().to_owned(), value.to_owned()))
    });
    Some(cells.collect())
}

/// Says why a login failed.
fn explain_login(target: &Target, error: &tokio_postgres::Error) -> SessionError {
    let address = target.address;
    let Some(db) = error.as_db_error() else {
        return explain_transport(address, Some(target), "logging in", error);
    };
    let why = db.message().to_owned();
    // PgBouncer before 1.20 gives one SQLSTATE to everything, so the text decides.
    if why == "SSL required" {
        SessionError::TlsRequired { address }
    } else if is_backend_trouble(&why) {
        SessionError::Backend { address, why }
    } else {
        SessionError::Login {
            address,
            user: target.user.clone(),
            why,
        }
    }
}

/// Whether the pooler speaks of its database rather than of its client.
pub(super) fn is_backend_trouble(why: &str) -> bool {
    BACKEND_TROUBLE.iter().any(|part| why.contains(part))
}

/// Parts of messages in which the pooler speaks of its database rather than of its client.
const BACKEND_TROUBLE: &[&str] = &[
    "no such database",
    "no more connections allowed",
    "server login",
    "server_login_retry",
    "query_wait_timeout",
    "is disabled",
    "cannot connect",
    "connect failed",
    "does not exist",
    "shutting down",
    "starting up",
];

/// Says why a connection failed that was not ended by an error message.
fn explain_transport(
    address: SocketAddr,
    login: Option<&Target>,
    doing: &str,
    error: &tokio_postgres::Error,
) -> SessionError {
    let doing = doing.to_owned();
    if let Some(tls) = rustls_error(error) {
        return explain_tls(address, login, doing, tls);
    }
    let cause = error.source().map(ToString::to_string);
    if cause.as_deref() == Some("server does not support TLS") {
        return SessionError::NoTls { address };
    }
    let hung_up = |kind| {
        matches!(
            kind,
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
        )
    };
    if error.is_closed() || io_error(error).is_some_and(|io| hung_up(io.kind())) {
        return SessionError::Closed { address, doing };
    }
    let why = cause.unwrap_or_else(|| error.to_string());
    match login {
        Some(target) if error.to_string() == "authentication error" => SessionError::Login {
            address,
            user: target.user.clone(),
            why,
        },
        _ => SessionError::Protocol {
            address,
            doing,
            why,
        },
    }
}

fn explain_tls(
    address: SocketAddr,
    login: Option<&Target>,
    doing: String,
    error: &rustls::Error,
) -> SessionError {
    let presents = login
        .and_then(|target| target.tls.as_ref())
        .is_some_and(ClientTls::presents_certificate);
    match error {
        rustls::Error::InvalidCertificate(why) => SessionError::ServerCertificate {
            address,
            why: why.to_string(),
        },
        rustls::Error::AlertReceived(alert) if presents => SessionError::ClientCertificate {
            address,
            why: words(*alert),
        },
        // TLS 1.3 has its own alert for a missing certificate; TLS 1.2 says that the handshake
        // failed.
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure,
        ) => SessionError::ClientCertificateMissing { address },
        other => SessionError::Protocol {
            address,
            doing,
            why: other.to_string(),
        },
    }
}

/// The alerts that a server sends about a certificate, as people say them.
pub(super) fn words(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => "it is not from a CA that is trusted there".to_owned(),
        AlertDescription::CertificateExpired => "it has expired".to_owned(),
        AlertDescription::UnsupportedCertificate => "it is not for use by clients".to_owned(),
        AlertDescription::CertificateRevoked => "it is revoked".to_owned(),
        other => format!("alert {other:?}"),
    }
}

/// The I/O error in a chain. `io::Error` hides what it wraps from `source`, hence the two steps.
fn io_error(error: &tokio_postgres::Error) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}

fn rustls_error(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    io_error(error)?.get_ref()?.downcast_ref()
}
