//! Text from objects is data wherever it lands: in files that PgBouncer reads, on a terminal.

mod fields;
mod programs;
mod wildcard;

use std::process::Command;

use crate::stage::PASSWORD;

/// What `psql` prints as the superuser, or its error.
fn psql(host: &str, port: &str, database: &str, sql: &str) -> Result<String, String> {
    let output = Command::new("psql")
        .args(["-h", host, "-p", port, "-U", "postgres", "-d", database])
        .args(["-w", "-A", "-t", "-c", sql])
        .env("PGPASSWORD", PASSWORD)
        .output()
        .expect("psql is installed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}
