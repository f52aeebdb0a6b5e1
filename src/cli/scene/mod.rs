//! A scene with clients: what `demo` and `chaos` have in common.
//!
//! A throw-away PostgreSQL, the local platform, a PgBouncer, and clients that know nothing of
//! Bouncert and keep a ledger of what happens to them.

pub(in crate::cli) mod cast;
pub(in crate::cli) mod client;
pub(in crate::cli) mod load;
pub(in crate::cli) mod proof;
pub(in crate::cli) mod stage;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;

use self::cast::{DATABASE, NAMESPACE, POOLER, named};
use self::client::{Application, Secrets, TABLE};
use self::stage::Stage;
use super::follow;
use super::output::Progress;
use crate::api::PgBouncer;
use crate::api::common::Phase;
use crate::cluster::Cluster;
use crate::local::postgres::ThrowAwayPostgres;

/// For the PgBouncer to become Ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Sets everything up to the point where clients can begin.
pub(in crate::cli) async fn set(
    stage: &Stage,
    replicas: usize,
    progress: &Progress,
) -> anyhow::Result<Arc<Application>> {
    let cluster = Cluster::new(stage.client().clone());
    let postgres = stage.postgres();
    let table = format!("CREATE TABLE {TABLE} (id bigint PRIMARY KEY)");
    postgres.execute(DATABASE, &table).await?;

    progress.now(&format!(
        "applying CA Secrets, Issuers, AppBinding and a PgBouncer; replicas: {replicas}"
    ));
    let backend = cast::Backend {
        address: postgres.address(),
        user: postgres.superuser(),
        password: postgres.password(),
    };
    cast::apply(&cluster, &backend, stage.version(), replicas).await?;
    until_ready(stage, progress).await?;
    Ok(Arc::new(Application {
        service: service_address(&cluster).await?,
        server_name: format!("{POOLER}.{NAMESPACE}.svc"),
        user: postgres.superuser().to_owned(),
        password: postgres.password().clone(),
        database: DATABASE.to_owned(),
        secrets: Secrets {
            cluster,
            at: named(format!("{POOLER}-client-cert")),
        },
    }))
}

async fn until_ready(stage: &Stage, progress: &Progress) -> anyhow::Result<()> {
    let mut phase = None;
    let at = named(POOLER);
    let ready = follow::until(
        stage.client(),
        &at,
        READY_TIMEOUT,
        |pooler: Option<&PgBouncer>| {
            phase = pooler.and_then(|pooler| pooler.status.as_ref()?.phase);
            progress.now(
                &format!("PgBouncer {at}: {phase:?}")
                    .replace("Some(", "")
                    .replace(')', ""),
            );
            phase == Some(Phase::Ready)
        },
    );
    ready.await.map(drop)
}

/// Where clients connect to.
async fn service_address(cluster: &Cluster) -> anyhow::Result<SocketAddr> {
    let at = named(POOLER);
    let service: Option<Service> = cluster.get(&at).await?;
    let spec = service.and_then(|service| service.spec).unwrap_or_default();
    let ip = spec.cluster_ip.as_deref().map(str::parse::<IpAddr>);
    let port = spec.ports.iter().flatten().map(|port| port.port).next();
    match (ip, port.and_then(|port| u16::try_from(port).ok())) {
        (Some(Ok(ip)), Some(port)) => Ok(SocketAddr::new(ip, port)),
        _ => Err(anyhow::anyhow!("Service {at} has no address")),
    }
}

/// The rows that are really there, asked of PostgreSQL itself.
pub(in crate::cli) async fn rows(postgres: &ThrowAwayPostgres) -> anyhow::Result<HashSet<i64>> {
    let query = format!("SELECT id FROM {TABLE}");
    let rows = postgres.execute(DATABASE, &query).await?;
    rows.iter()
        .map(|row| {
            let id = row.get("id").map(|id| id.parse());
            id.ok_or_else(|| anyhow::anyhow!("a row of {TABLE} has no id"))?
                .map_err(anyhow::Error::from)
        })
        .collect()
}
