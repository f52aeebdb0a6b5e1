//! The proof that clients can work: a login through an address, and a statement that PostgreSQL
//! itself answers.

use super::session::{Row, Session, SessionError, Target};

/// Logs in to `database` and runs `SELECT 1`. The error says in words what happened: a certificate
/// refused by either side, a login refused, no answer, no backend.
pub async fn prove(target: &Target, database: &str) -> Result<(), SessionError> {
    let answer = query(target, database, "SELECT 1").await;
    answer.map(drop).map_err(|error| match error {
        SessionError::TimedOut {
            address,
            doing,
            after,
        } => SessionError::TimedOut {
            address,
            doing: doing + " (a pooler lets logins wait while its database is out of reach)",
            after,
        },
        other => other,
    })
}

/// Logs in to `database`, runs `sql` (several statements are allowed) and returns its rows.
pub async fn query(target: &Target, database: &str, sql: &str) -> Result<Vec<Row>, SessionError> {
    let session = Session::open(target, database).await?;
    let answer = session.query(sql, target.timeout).await;
    session.close().await;
    // The pooler lets a client in before it has a backend, so this is where it says so.
    answer.map_err(|error| match error {
        SessionError::Command { address, why, .. } if super::session::is_backend_trouble(&why) => {
            SessionError::Backend { address, why }
        }
        other => other,
    })
}
