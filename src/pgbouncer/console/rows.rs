//! What the console's tables say, across versions.

use std::fmt;

use crate::pgbouncer::session::Row;

/// When a connection to PostgreSQL goes back to its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PoolMode {
    /// When the client leaves.
    Session,
    /// At the end of each transaction.
    Transaction,
    /// At the end of each statement.
    Statement,
}

impl PoolMode {
    /// Reads the word that PgBouncer uses, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Session, Self::Transaction, Self::Statement]
            .into_iter()
            .find(|mode| mode.as_str().eq_ignore_ascii_case(word))
    }

    /// The word that PgBouncer uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
            Self::Statement => "statement",
        }
    }
}

impl fmt::Display for PoolMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A row of `SHOW CLIENTS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Names this connection among all of this process: the identity or pointer with the time of
    /// connection, because pointers are used again.
    pub id: String,
    /// User.
    pub user: String,
    /// Database as the client named it.
    pub database: String,
    /// `active`, `waiting`, `idle` (from 1.25) and others.
    pub state: String,
    /// Address.
    pub address: String,
    /// Port.
    pub port: u16,
    /// Protocol and cipher; `None` is plaintext.
    pub tls: Option<String>,
    /// Whether a connection to PostgreSQL is held: in transaction and statement mode, this client
    /// is in a transaction.
    pub linked: bool,
    /// What the client calls itself.
    pub application_name: String,
}

impl Client {
    pub(super) fn from_row(row: &Row) -> Self {
        let identity = row.get("id").or_else(|| row.get("ptr"));
        Self {
            id: format!(
                "{}/{}/{}",
                identity.map_or("", String::as_str),
                text(row, "port"),
                text(row, "connect_time"),
            ),
            user: text(row, "user"),
            database: text(row, "database"),
            state: text(row, "state"),
            address: text(row, "addr"),
            port: number(row, "port"),
            tls: present(row, "tls"),
            linked: is_linked(row),
            application_name: text(row, "application_name"),
        }
    }
}

/// A row of `SHOW POOLS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Database.
    pub database: String,
    /// User.
    pub user: String,
    /// Clients that hold a connection to PostgreSQL, or could have one at once.
    pub clients_active: u32,
    /// Clients that wait for one.
    pub clients_waiting: u32,
    /// Connections to PostgreSQL that clients hold.
    pub servers_active: u32,
    /// Connections to PostgreSQL that are free.
    pub servers_idle: u32,
    /// Connections to PostgreSQL that are logging in.
    pub servers_login: u32,
    /// Mode.
    pub mode: PoolMode,
}

impl Pool {
    pub(super) fn from_row(row: &Row) -> Option<Self> {
        Some(Self {
            database: text(row, "database"),
            user: text(row, "user"),
            clients_active: number(row, "cl_active"),
            clients_waiting: number(row, "cl_waiting"),
            servers_active: number(row, "sv_active"),
            servers_idle: number(row, "sv_idle"),
            servers_login: number(row, "sv_login"),
            mode: PoolMode::parse(row.get("pool_mode")?)?,
        })
    }
}

fn text(row: &Row, column: &str) -> String {
    row.get(column).cloned().unwrap_or_default()
}

fn present(row: &Row, column: &str) -> Option<String> {
    row.get(column).filter(|value| !value.is_empty()).cloned()
}

fn number<N: std::str::FromStr + Default>(row: &Row, column: &str) -> N {
    row.get(column)
        .and_then(|value| value.parse().ok())
        .unwrap_or_default()
}

/// `link` is a pointer, from 1.24 on an identity; nothing linked is empty or zero.
fn is_linked(row: &Row) -> bool {
    present(row, "link").is_some_and(|link| !matches!(link.as_str(), "0" | "0x0"))
}
