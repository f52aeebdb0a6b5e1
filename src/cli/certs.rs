//! `certs`: every certificate that is managed, and how many pods serve it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Serialize;
use time::OffsetDateTime;

use super::args::ListArgs;
use super::connect::connect;
use super::exit::Failure;
use super::output::{Output, table};
use super::status::list;
use crate::api::PgBouncer;
use crate::blueprint::certificates::{LoadBalancer, Wanted, wanted};
use crate::blueprint::{labels, port};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::material::Materials;
use crate::names::{Alias, Fingerprint};
use crate::pgbouncer::probe;
use crate::pki::renewal::{certificate_seed, renew_at};

/// Bound of one handshake.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// One certificate.
#[derive(Serialize)]
struct Row {
    namespace: String,
    pooler: String,
    alias: &'static str,
    issuer: String,
    secret: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    not_after: Option<OffsetDateTime>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        with = "time::serde::rfc3339::option"
    )]
    renews_at: Option<OffsetDateTime>,
    /// Absent for what pods do not serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    served_by: Option<Served>,
}

/// How many pods serve a certificate.
#[derive(Clone, Copy, Serialize)]
struct Served {
    pods: usize,
    of: usize,
}

/// Prints the list.
pub(super) async fn print(output: Output, args: &ListArgs) -> Result<(), Failure> {
    let connection = connect(&args.scope.cluster).await?;
    let cluster = Cluster::new(connection.client);
    let named = args.scope.namespace.as_ref();
    let namespace = named.unwrap_or(&connection.namespace);
    let namespace = (!args.all_namespaces).then_some(namespace.as_str());
    let poolers: Vec<PgBouncer> = list(&cluster, namespace).await?;
    let materials = Materials::new(cluster.clone(), Clock::System, "");
    let mut rows = Vec::new();
    for pooler in &poolers {
        if pooler.spec.tls.is_none() {
            continue;
        }
        for wanted in wanted(pooler, &LoadBalancer::default())? {
            rows.push(row(&cluster, &materials, pooler, wanted).await?);
        }
    }
    output.result(&rows, |rows| text(rows))?;
    Ok(())
}

async fn row(
    cluster: &Cluster,
    materials: &Materials,
    pooler: &PgBouncer,
    wanted: Wanted,
) -> anyhow::Result<Row> {
    let (namespace, name) = (pooler.namespace().unwrap_or_default(), pooler.name_any());
    let published = materials
        .published(pooler, wanted.alias, &wanted.secret_name)
        .await?;
    let facts = published.map(|published| published.facts);
    let policy = wanted.renew_policy();
    let seed = certificate_seed(&format!("{namespace}/{name}"), wanted.alias.as_str());
    let served_by = match (&facts, wanted.alias) {
        (Some(facts), Alias::Server) => Some(served(cluster, pooler, facts.fingerprint).await?),
        _ => None,
    };
    Ok(Row {
        namespace,
        pooler: name,
        alias: wanted.alias.as_str(),
        issuer: format!("{}/{}", wanted.issuer.kind, wanted.issuer.name),
        secret: wanted.secret_name,
        serial: facts.as_ref().map(|facts| facts.serial.clone()),
        not_after: facts.as_ref().map(|facts| facts.not_after),
        renews_at: facts.map(|facts| renew_at(facts.not_before, facts.not_after, policy, seed)),
        served_by,
    })
}

/// Shakes hands with every pod.
async fn served(
    cluster: &Cluster,
    pooler: &PgBouncer,
    leaf: Fingerprint,
) -> anyhow::Result<Served> {
    let selector = labels::to_selector_text(&labels::selector(&pooler.name_any()));
    let namespace = pooler.namespace().unwrap_or_default();
    let pods: Vec<Pod> = cluster.list(&namespace, &selector).await?;
    let port = u16::try_from(port(pooler))?;
    let mut served = Served {
        pods: 0,
        of: pods.len(),
    };
    for pod in pods {
        let ip = pod.status.and_then(|status| status.pod_ip);
        let Some(ip) = ip.and_then(|ip| ip.parse::<IpAddr>().ok()) else {
            continue;
        };
        let seen = probe::probe(SocketAddr::new(ip, port), None, PROBE_TIMEOUT).await;
        if seen.is_ok_and(|seen| seen.fingerprint() == Some(leaf)) {
            served.pods += 1;
        }
    }
    Ok(served)
}

fn text(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no managed certificate here".to_owned();
    }
    let unknown = || "-".to_owned();
    let instant = |at: Option<OffsetDateTime>| at.map_or_else(unknown, super::instant);
    let rows = rows.iter().map(|row| {
        vec![
            row.namespace.clone(),
            row.pooler.clone(),
            row.alias.to_owned(),
            row.issuer.clone(),
            row.serial.clone().unwrap_or_else(unknown),
            instant(row.not_after),
            instant(row.renews_at),
            row.served_by.map_or_else(unknown, |served| {
                format!("{}/{} pods", served.pods, served.of)
            }),
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
    ];
    table(&header, rows)
}
