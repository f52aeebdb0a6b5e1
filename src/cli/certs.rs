//! `certs`: every certificate that is managed, and how many pods serve it.

use std::time::Duration;

use time::OffsetDateTime;

use super::args::CertsArgs;
use super::connect::connect;
use super::exit::Failure;
use super::output::{Output, table};
use super::run::stopped;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::inventory::{Certificate, Look, look_once};

/// Between two looks of `--watch`.
const PAUSE: Duration = Duration::from_secs(2);

/// Prints the list; with `--watch` again whenever it has changed, until stopped.
pub(super) async fn print(output: Output, args: &CertsArgs) -> Result<(), Failure> {
    let connection = connect(&args.list.scope.cluster).await?;
    let cluster = Cluster::new(connection.client);
    let named = args.list.scope.namespace.as_ref();
    let namespace = named.unwrap_or(&connection.namespace);
    let namespace = (!args.list.all_namespaces).then_some(namespace.as_str());
    let clock = Clock::System;
    let look = look_once(&cluster, namespace, &clock).await?;
    show(output, &look)?;
    if !args.watch {
        return Ok(());
    }
    let mut shown = text(&look.certificates());
    let stopped = stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            stopped = &mut stopped => return Ok(stopped?),
            () = tokio::time::sleep(PAUSE) => {}
        }
        let look = look_once(&cluster, namespace, &clock).await?;
        let now = text(&look.certificates());
        if now != shown {
            show(output, &look)?;
            shown = now;
        }
    }
}

fn show(output: Output, look: &Look) -> std::io::Result<()> {
    output.result(&look.certificates(), |rows| text(rows))
}

fn text(rows: &[Certificate<'_>]) -> String {
    if rows.is_empty() {
        return "no managed certificate here".to_owned();
    }
    let unknown = || "-".to_owned();
    let instant = |at: Option<OffsetDateTime>| at.map_or_else(unknown, super::instant);
    let rows = rows.iter().map(|row| {
        let failed = row.last_failure.map(|failure| failure.at);
        vec![
            row.namespace.to_owned(),
            row.pooler.to_owned(),
            row.alias.to_owned(),
            row.issuer.clone(),
            row.serial.map_or_else(unknown, str::to_owned),
            instant(row.not_after),
            instant(row.renews_at),
            row.served_by.map_or_else(unknown, |served| {
                format!("{}/{} pods", served.pods, served.of)
            }),
            instant(row.last_rotation),
            instant(failed),
        ]
    });
    let header = [
        "NAMESPACE",
        "PGBOUNCER",
        "ALIAS",
        "ISSUER",
        "SERIAL",
        "NOT AFTER",
        "RENEWS AT",
        "SERVED BY",
        "LAST SUCCESS",
        "LAST FAILURE",
    ];
    table(&header, rows)
}
