//! Proof on the wire: what is served is what is published, and clients can work with it.
//!
//! A proof has two parts. The handshake shows the leaf, for every pod and through the Service, and
//! needs no login. The login shows that the published client material is accepted: to the console,
//! which takes no server connection, and once to the database through the Service. Where the
//! database does not answer that last question (no PostgreSQL, no free slot in a small pool) it is
//! noted and does not fail the request, because the change has no part in it; a refused certificate
//! or login does.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use tokio::time::timeout;

use super::goal::Goal;
use super::ground::{ContractSecret, Ground};
use super::look::{Look, OFTEN};
use super::pods::address;
use super::{Bench, Leaf, Side, StepError};
use crate::api::PgBouncer;
use crate::blueprint::{Credentials, InputsError, names};
use crate::fence::Fence;
use crate::names::Alias;
use crate::pgbouncer::console::Console;
use crate::pgbouncer::login;
use crate::pgbouncer::probe::{Served, probe};
use crate::pgbouncer::session::{SessionError, Target};
use crate::pgbouncer::tls::{ClientTls, Identity};
use crate::surroundings;

/// Bound of one look at an address.
pub(super) const LOOK: Duration = Duration::from_secs(5);
/// How long a pod that is ready may go on showing something else: a mounted Secret may be a little
/// behind.
const PATIENCE: Duration = Duration::from_secs(15);

/// An address to look at.
pub(in crate::ops) struct Spot {
    /// Pod or Service, for people.
    pub(in crate::ops) name: String,
    /// The address.
    pub(in crate::ops) address: SocketAddr,
}

/// The address of a pod.
pub(in crate::ops) fn spot(
    ground: &Ground<'_>,
    bouncer: &PgBouncer,
    pod: &Pod,
) -> Result<Spot, StepError> {
    let name = pod.name_any();
    let address = address(bouncer, pod);
    let address = address.ok_or_else(|| StepError::NoAddress(ground.beside(&name)))?;
    Ok(Spot {
        name: format!("pod {name}"),
        address,
    })
}

/// Proves that a pod serves what is published.
pub(super) async fn prove_leaf(bench: &Bench<'_>, goal: &Goal, pod: &Pod) -> Result<(), StepError> {
    let spot = spot(&bench.ground, &goal.bouncer, pod)?;
    let wanted = wanted_leaf(bench, goal.side, &goal.bouncer).await?;
    await_leaf(&bench.ground, &spot, wanted).await
}

/// Whether a pod with the right digest serves something else all the same: its process has
/// started anew while other files were published.
pub(in crate::ops) async fn serves_other(
    bench: &Bench<'_>,
    goal: &Goal,
    pod: &Pod,
) -> Result<bool, StepError> {
    match prove_leaf(bench, goal, pod).await {
        Ok(()) => Ok(false),
        Err(StepError::Serves { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Proves that the published client material opens the console of a pod.
pub(super) async fn prove_login(
    ground: &Ground<'_>,
    bouncer: &PgBouncer,
    pod: &Pod,
) -> Result<(), StepError> {
    let name = format!("pod {}", pod.name_any());
    let target = console(ground, bouncer, pod).await?;
    let look = || async {
        let asked = match Console::connect(&target).await {
            Ok(console) => {
                let version = console.version().await;
                console.close().await;
                version
            }
            Err(error) => Err(error),
        };
        asked.map_err(|source| StepError::console(name.clone(), source))?;
        Ok(Look::Found(()))
    };
    ground.waiting.until(OFTEN, look).await
}

/// How to log in to the console of a pod: with TLS if it answers TLS, because during a change
/// both kinds of pod are there.
pub(super) async fn console(
    ground: &Ground<'_>,
    bouncer: &PgBouncer,
    pod: &Pod,
) -> Result<Target, StepError> {
    let spot = spot(ground, bouncer, pod)?;
    let admin = surroundings::admin(ground.cluster, bouncer).await?;
    let admin = admin
        .ok_or_else(|| InputsError::NoAuthSecret(ground.beside(names::auth_secret(bouncer))))?;
    login_at(ground, &spot, admin).await
}

/// Proves that a client can work with the database behind an address.
pub(in crate::ops) async fn prove_database(
    ground: &Ground<'_>,
    bouncer: &PgBouncer,
    spot: &Spot,
) -> Result<(), StepError> {
    let around = Box::pin(surroundings::read(ground.cluster, bouncer, ground.kind)).await?;
    let target = login_at(ground, spot, around.backend.superuser).await?;
    // A pooler for all databases leads to this one too; every PostgreSQL is made with it.
    let database = match bouncer.spec.database.database_name.as_str() {
        "*" => "postgres",
        name => name,
    };
    match login::prove(&target, database).await {
        Ok(()) => Ok(()),
        Err(source) if is_about_the_change(&source) => {
            let (name, source) = (spot.name.clone(), Box::new(source));
            Err(StepError::Login { name, source })
        }
        Err(error) => {
            tracing::warn!(
                pgbouncer = %ground.at(),
                error = &error as &dyn std::error::Error,
                "the database did not answer through the Service; the change itself is proved"
            );
            Ok(())
        }
    }
}

/// Looks until an address serves that leaf.
pub(in crate::ops) async fn await_leaf(
    ground: &Ground<'_>,
    spot: &Spot,
    wanted: Leaf,
) -> Result<(), StepError> {
    let name = &spot.name;
    let seen = Mutex::new(Leaf::Unknown);
    let look = || async {
        let served = look(ground, spot).await?;
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = served;
        if served == wanted {
            return Ok(Look::Found(()));
        }
        let missing = format!("{name} to serve {wanted} instead of {served}");
        Ok(Look::Missing(missing))
    };
    match timeout(PATIENCE, ground.waiting.until(OFTEN, look)).await {
        Ok(looked) => looked,
        Err(_) => Err(StepError::Serves {
            name: name.clone(),
            served: seen.into_inner().unwrap_or_else(PoisonError::into_inner),
            wanted,
        }),
    }
}

/// What should be served on one side: the published leaf.
pub(in crate::ops) async fn wanted_leaf(
    bench: &Bench<'_>,
    side: Side,
    bouncer: &PgBouncer,
) -> Result<Leaf, StepError> {
    if !bench.state(side).serves_tls() {
        return Ok(Leaf::Plaintext);
    }
    let Some(secret) = bench.secret_name(side, Alias::Server) else {
        return Ok(Leaf::Unknown);
    };
    let published = bench.materials.published(bouncer, Alias::Server, &secret);
    Ok(published.await?.map_or(Leaf::Unknown, |published| {
        Leaf::Of(published.facts.fingerprint)
    }))
}

/// Looks once at what an address serves.
pub(super) async fn look(ground: &Ground<'_>, spot: &Spot) -> Result<Leaf, StepError> {
    let host = ground.service_host();
    let served = probe(spot.address, Some(&host), LOOK).await;
    let served = served.map_err(|source| StepError::Probe {
        name: spot.name.clone(),
        source,
    })?;
    Ok(match &served {
        Served::Plaintext => Leaf::Plaintext,
        Served::Tls(handshake) => handshake.fingerprint().map_or(Leaf::Unknown, Leaf::Of),
    })
}

/// How a user logs in at an address.
async fn login_at(
    ground: &Ground<'_>,
    spot: &Spot,
    user: Credentials,
) -> Result<Target, StepError> {
    let tls = match look(ground, spot).await? {
        Leaf::Plaintext => None,
        Leaf::Of(_) | Leaf::Unknown => client_tls(ground, spot.address).await?,
    };
    Ok(target(ground.cluster.fence(), spot.address, user, tls))
}

/// The published client material, with the bundle beside it.
async fn client_tls(
    ground: &Ground<'_>,
    address: SocketAddr,
) -> Result<Option<ClientTls>, StepError> {
    let mut found = None;
    for ContractSecret { alias, name } in &ground.secrets {
        let secret: Option<Secret> = ground.cluster.get(&ground.beside(name)).await?;
        if let Some(secret) = secret {
            found = Some((*alias, secret));
            break;
        }
    }
    let Some((alias, secret)) = found else {
        return Ok(None);
    };
    let data = secret.data.unwrap_or_default();
    let bytes = |key: &str| data.get(key).map_or(&[][..], |bytes| &bytes.0);
    let unusable = |source| StepError::Tls { address, source };
    let identity = match alias {
        Alias::Client | Alias::MetricsExporter => {
            Some(Identity::from_pem(bytes("tls.crt"), bytes("tls.key")).map_err(unusable)?)
        }
        Alias::Server => None,
    };
    ClientTls::verify_full(&ground.service_host(), bytes("ca.crt"), identity)
        .map(Some)
        .map_err(unusable)
}
fn target(fence: &Fence, address: SocketAddr, who: Credentials, tls: Option<ClientTls>) -> Target {
    Target {
        address,
        user: who.username,
        password: Some(who.password),
        tls,
        timeout: LOOK,
        fence: fence.clone(),
    }
}

/// Whether a login failed for a reason that a change of TLS can be the cause of.
fn is_about_the_change(error: &SessionError) -> bool {
    match error {
        SessionError::NoTls { .. }
        | SessionError::TlsRequired { .. }
        | SessionError::ServerCertificate { .. }
        | SessionError::ClientCertificate { .. }
        | SessionError::ClientCertificateMissing { .. } => true,
        // A pooler that is full says so at the login, and so does one whose database is missing. One
        // whose users log in by certificate does not take ours for the superuser's.
        SessionError::Login { why, .. } => {
            let no_database = why.contains("database") && why.contains("does not exist");
            let is_other_user = why.contains("certificate authentication failed");
            !why.contains("no more connections") && !no_database && !is_other_user
        }
        SessionError::Unreachable { .. }
        | SessionError::TimedOut { .. }
        | SessionError::Backend { .. }
        | SessionError::Command { .. }
        | SessionError::Fenced { .. }
        | SessionError::Closed { .. }
        | SessionError::Protocol { .. } => false,
    }
}
