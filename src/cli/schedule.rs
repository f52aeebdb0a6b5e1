//! `schedule`: what will be rotated when, why and in which window, and what keeps the rest.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use time::{Duration, OffsetDateTime};

use super::args::ScheduleArgs;
use super::connect::connect;
use super::exit::Failure;
use super::output::{Output, table};
use super::status::list;
use crate::api::{Issuer, PgBouncer, PgBouncerOpsRequest};
use crate::clock::Clock;
use crate::cluster::{Cluster, Namespaced, reference};
use crate::instants::Shift;
use crate::names::ObjectRef;
use crate::rotation::decide::Waiting;
use crate::rotation::drift;
use crate::rotation::facts::{Facts, Remedy};
use crate::rotation::forecast::{Blocked, Forecast, PLANNED_MAX, Planned, forecast};
use crate::rotation::index::{Index, Known};

/// The result.
#[derive(Serialize)]
struct Report {
    planned: Vec<PlannedRow>,
    blocked: Vec<BlockedRow>,
    /// What is not as it was left, and annotations that cannot be read.
    remarks: Vec<String>,
    #[serde(skip)]
    is_cut: bool,
}

/// One rotation.
#[derive(Serialize)]
struct PlannedRow {
    namespace: String,
    pooler: String,
    #[serde(with = "time::serde::rfc3339")]
    begins: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    due: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    not_after: Option<OffsetDateTime>,
    what: &'static str,
    why: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<String>,
    /// Whether it begins outside its window.
    urgent: bool,
}

/// One PgBouncer of which nothing is planned.
#[derive(Serialize)]
struct BlockedRow {
    namespace: String,
    pooler: String,
    by: String,
    #[serde(with = "time::serde::rfc3339::option")]
    due: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    not_after: Option<OffsetDateTime>,
}

/// Prints the plan.
pub(super) async fn print(output: Output, args: &ScheduleArgs) -> Result<(), Failure> {
    let connection = connect(&args.list.scope.cluster).await?;
    let cluster = Cluster::new(connection.client);
    let named = args.list.scope.namespace.as_ref();
    let namespace = named.unwrap_or(&connection.namespace);
    let namespace = (!args.list.all_namespaces).then_some(namespace.as_str());
    let now = Clock::System.now();
    let options = args.rotation.options();
    let mut index = Index::new(options.window);
    read(&cluster, namespace, &mut index, now).await?;
    let bouncers: Vec<ObjectRef> = index.bouncers().cloned().collect();
    let known: BTreeMap<ObjectRef, Known> = bouncers
        .into_iter()
        .filter_map(|at| Some((at.clone(), index.known(&at, now)?)))
        .collect();
    let remarks = known
        .iter()
        .flat_map(|(at, known)| remarks(at, known))
        .collect();
    let facts: BTreeMap<ObjectRef, Facts> = known
        .into_iter()
        .map(|(at, known)| (at, known.facts))
        .collect();
    let until = now.plus(Duration::days(i64::from(args.days)));
    let told = forecast(&facts, options.limits, now, until);
    let report = Report::new(told, remarks);
    output.result(&report, text)?;
    Ok(())
}

/// Reads what is stored, as the daemon's watches do.
async fn read(
    cluster: &Cluster,
    namespace: Option<&str>,
    index: &mut Index,
    now: OffsetDateTime,
) -> anyhow::Result<()> {
    for namespace in cluster.list_global::<Namespace>().await? {
        index.set_namespace(&namespace.name_any(), namespace.annotations());
    }
    for bouncer in all::<PgBouncer>(cluster, namespace).await? {
        index.set_bouncer(bouncer);
    }
    for request in all::<PgBouncerOpsRequest>(cluster, namespace).await? {
        index.set_request(&request);
    }
    for secret in all::<Secret>(cluster, namespace).await? {
        index.set_secret(&reference(&secret), drift::read(&secret, now));
    }
    for issuer in all::<Issuer>(cluster, namespace).await? {
        let at = reference(&issuer);
        let secret = issuer.spec.ca.as_ref();
        let secret = secret.map(|ca| ObjectRef::new(&at.namespace, &ca.secret_name));
        index.set_issuer("Issuer", &at, secret);
    }
    Ok(())
}

/// The objects of a kind; none where the kind is unknown.
async fn all<K: Namespaced + Resource>(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> anyhow::Result<Vec<K>> {
    match list(cluster, namespace).await {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        found => Ok(found?),
    }
}

fn remarks(at: &ObjectRef, known: &Known) -> Vec<String> {
    let drift = known.drift.iter().map(drift::Drift::message);
    let all = known.malformed.iter().cloned().chain(drift);
    all.map(|remark| format!("{at}: {remark}")).collect()
}

impl Report {
    fn new(told: Forecast, remarks: Vec<String>) -> Self {
        Self {
            planned: told.planned.into_iter().map(PlannedRow::from).collect(),
            blocked: told.blocked.into_iter().map(BlockedRow::from).collect(),
            remarks,
            is_cut: told.is_cut,
        }
    }
}

impl From<Planned> for PlannedRow {
    fn from(planned: Planned) -> Self {
        Self {
            namespace: planned.at.namespace,
            pooler: planned.at.name,
            begins: planned.begins,
            due: planned.due,
            not_after: planned.not_after,
            what: match planned.remedy {
                Remedy::Rotate => "rotate",
                Remedy::Restart => "restart",
            },
            why: planned.why,
            window: planned.window,
            urgent: planned.urgent,
        }
    }
}

impl From<Blocked> for BlockedRow {
    fn from(blocked: Blocked) -> Self {
        let by = match &blocked.by {
            Waiting::Request(name) => format!("request {name}"),
            other => other.as_str().to_owned(),
        };
        Self {
            namespace: blocked.at.namespace,
            pooler: blocked.at.name,
            by,
            due: blocked.due,
            not_after: blocked.not_after,
        }
    }
}

fn text(report: &Report) -> String {
    let unknown = || "-".to_owned();
    let instant = |at: Option<OffsetDateTime>| at.map_or_else(unknown, super::instant);
    let mut parts = Vec::new();
    if report.planned.is_empty() {
        parts.push("nothing will be rotated in that time".to_owned());
    } else {
        let rows = report.planned.iter().map(|row| {
            let window = match (&row.window, row.urgent) {
                (Some(window), true) => format!("{window} (not waited for)"),
                (Some(window), false) => window.clone(),
                (None, _) => unknown(),
            };
            vec![
                row.namespace.clone(),
                row.pooler.clone(),
                super::instant(row.begins),
                super::instant(row.due),
                instant(row.not_after),
                row.what.to_owned(),
                window,
                row.why.clone(),
            ]
        });
        let header = [
            "NAMESPACE",
            "PGBOUNCER",
            "BEGINS",
            "DUE",
            "EXPIRES",
            "WHAT",
            "WINDOW",
            "WHY",
        ];
        parts.push(table(&header, rows));
    }
    if report.is_cut {
        parts.push(format!("and more: only the first {PLANNED_MAX} are listed"));
    }
    if !report.blocked.is_empty() {
        let rows = report.blocked.iter().map(|row| {
            vec![
                row.namespace.clone(),
                row.pooler.clone(),
                row.by.clone(),
                instant(row.due),
                instant(row.not_after),
            ]
        });
        let header = ["NAMESPACE", "PGBOUNCER", "HELD BY", "DUE", "EXPIRES"];
        parts.push(table(&header, rows));
    }
    if !report.remarks.is_empty() {
        parts.push(report.remarks.join("\n"));
    }
    parts.join("\n\n")
}
