//! `status`: the poolers, and what is being done to them.

use kube::{Resource, ResourceExt};
use serde::Serialize;

use super::args::ListArgs;
use super::connect::connect;
use super::exit::Failure;
use super::follow;
use super::output::{Output, table};
use crate::api::Located;
use crate::api::common::{Condition, find_condition};
use crate::api::{PgBouncer, PgBouncerOpsRequest, RequestPhase};
use crate::cluster::{Cluster, ClusterError, Namespaced};

/// What is known.
#[derive(Serialize)]
struct Report {
    poolers: Vec<Pooler>,
    requests: Vec<Request>,
}

/// One PgBouncer.
#[derive(Serialize)]
struct Pooler {
    namespace: String,
    name: String,
    phase: String,
    replicas: i32,
    ssl_mode: &'static str,
    issuer: Option<String>,
    paused: bool,
}

/// One request that has not ended.
#[derive(Serialize)]
struct Request {
    namespace: String,
    name: String,
    pooler: String,
    r#type: &'static str,
    phase: &'static str,
    latest: String,
}

/// Prints both lists.
pub(super) async fn print(output: Output, args: &ListArgs) -> Result<(), Failure> {
    let connection = connect(&args.scope.cluster).await?;
    let cluster = Cluster::new(connection.client);
    let named = args.scope.namespace.as_ref();
    let namespace = named.unwrap_or(&connection.namespace);
    let namespace = (!args.all_namespaces).then_some(namespace.as_str());
    let poolers: Vec<PgBouncer> = list(&cluster, namespace).await?;
    let requests: Vec<PgBouncerOpsRequest> = list(&cluster, namespace).await?;
    let report = Report {
        poolers: poolers.iter().map(pooler).collect(),
        requests: requests.iter().filter_map(request).collect(),
    };
    output.result(&report, text)?;
    Ok(())
}

/// The objects of a namespace, or of all.
pub(super) async fn list<K: Namespaced + Resource>(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<K>, ClusterError> {
    match namespace {
        Some(namespace) => cluster.list(namespace, "").await,
        None => cluster.list_all("").await,
    }
}

fn pooler(pooler: &PgBouncer) -> Pooler {
    let status = pooler.status.clone().unwrap_or_default();
    let tls = pooler.spec.tls.as_ref();
    let issuer = tls.and_then(|tls| tls.issuer_ref.as_ref());
    let paused = find_condition(&status.conditions, "Paused");
    Pooler {
        namespace: pooler.home(),
        name: pooler.name_any(),
        phase: status
            .phase
            .map_or_else(String::new, |phase| format!("{phase:?}")),
        replicas: pooler.spec.replicas.unwrap_or(1),
        ssl_mode: pooler.spec.ssl_mode.map_or("disable", |mode| mode.as_str()),
        issuer: issuer.map(|issuer| format!("{}/{}", issuer.kind, issuer.name)),
        paused: paused.is_some_and(Condition::is_true),
    }
}

/// A request that has not ended.
fn request(request: &PgBouncerOpsRequest) -> Option<Request> {
    let phase = request
        .status
        .as_ref()
        .and_then(|status| status.phase)
        .unwrap_or(RequestPhase::Pending);
    (!phase.is_terminal()).then(|| Request {
        namespace: request.home(),
        name: request.name_any(),
        pooler: request.spec.database_ref.name.clone(),
        r#type: request.spec.type_.as_str(),
        phase: phase.as_str(),
        latest: follow::verdict(request),
    })
}

fn text(report: &Report) -> String {
    if report.poolers.is_empty() && report.requests.is_empty() {
        return "no PgBouncer here".to_owned();
    }
    let poolers = report.poolers.iter().map(|pooler| {
        vec![
            pooler.namespace.clone(),
            pooler.name.clone(),
            pooler.phase.clone(),
            pooler.replicas.to_string(),
            pooler.ssl_mode.to_owned(),
            pooler.issuer.clone().unwrap_or_else(|| "-".to_owned()),
            if pooler.paused { "yes" } else { "no" }.to_owned(),
        ]
    });
    let header = [
        "NAMESPACE",
        "PGBOUNCER",
        "PHASE",
        "REPLICAS",
        "TLS",
        "ISSUER",
        "PAUSED",
    ];
    let mut text = table(&header, poolers);
    if report.requests.is_empty() {
        text.push_str("\n\nno request is waiting or running");
        return text;
    }
    let requests = report.requests.iter().map(|request| {
        vec![
            request.namespace.clone(),
            request.name.clone(),
            request.pooler.clone(),
            request.r#type.to_owned(),
            request.phase.to_owned(),
            request.latest.clone(),
        ]
    });
    let header = [
        "NAMESPACE",
        "REQUEST",
        "PGBOUNCER",
        "TYPE",
        "PHASE",
        "LATEST",
    ];
    text.push_str("\n\n");
    text.push_str(&table(&header, requests));
    text
}
