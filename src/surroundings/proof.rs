//! The proof that PostgreSQL can be reached with TLS as it is wanted, before a pooler is told so: the
//! handshake that a pooler will make, with every address of the host.
//!
//! What a server shows is a verdict; a server that cannot be asked gives none.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::api::tls::SslMode;
use crate::blueprint::{Backend, BackendAddress};
use crate::cluster::Cluster;
use crate::issuer::VaultNetworks;
use crate::names::ObjectRef;
use crate::pgbouncer::probe::{self, Presented, Served};
use crate::pgbouncer::tls::{Identity, TlsSetupError};
use crate::pki::peer::{PeerRefusal, judge};
use crate::pki::pem::read_certificates;

/// Most addresses of one host that are asked.
const ADDRESSES_MAX: usize = 16;
/// Longest look at one address, and longest look-up of a name: an object waits for it.
const LOOK_MAX: Duration = Duration::from_secs(3);
/// Label of a slice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Why TLS towards PostgreSQL is not proven.
#[derive(Debug, thiserror::Error)]
pub enum BackendRefusal {
    /// The host has no address.
    #[error("the host {host} has no address that the daemon finds and may connect to")]
    NoAddress {
        /// The host.
        host: String,
    },
    /// A server does not answer as PostgreSQL does. A tenant names the address, so all that may be
    /// there instead is one error without a cause.
    #[error(
        "PostgreSQL at {address} cannot be asked: see whether it runs, and whether the daemon reaches it"
    )]
    NoAnswer {
        /// The server.
        address: SocketAddr,
    },
    /// A server has no TLS.
    #[error("PostgreSQL at {address} offers no TLS, and sslmode {} needs it", .mode.as_str())]
    NoTls {
        /// The server.
        address: SocketAddr,
        /// The mode.
        mode: SslMode,
    },
    /// A server's certificate does not verify.
    #[error("the certificate of PostgreSQL at {address} does not verify with sslmode {}", .mode.as_str())]
    Certificate {
        /// The server.
        address: SocketAddr,
        /// The mode.
        mode: SslMode,
        /// What is wrong with it.
        #[source]
        source: PeerRefusal,
    },
    /// A server refuses the client certificate.
    #[error("PostgreSQL at {address} refuses the client certificate of spec.tlsSecret: {why}")]
    ClientCertificate {
        /// The server.
        address: SocketAddr,
        /// What it said.
        why: String,
    },
    /// The client certificate cannot be shown.
    #[error("the client certificate of spec.tlsSecret cannot be used")]
    Identity(#[from] TlsSetupError),
}

impl BackendRefusal {
    /// Whether a server has shown that the pooler would fail, or would not be as safe as is wanted.
    pub const fn is_verdict(&self) -> bool {
        match self {
            Self::NoAddress { .. } | Self::NoAnswer { .. } => false,
            Self::NoTls { .. }
            | Self::Certificate { .. }
            | Self::ClientCertificate { .. }
            | Self::Identity(_) => true,
        }
    }
}

/// Proves that every address of `backend` can be connected to as it says.
pub async fn prove_backend(
    cluster: &Cluster,
    backend: &Backend,
    now: OffsetDateTime,
) -> Result<(), BackendRefusal> {
    let (host, port) = host_of(&backend.address);
    if host.starts_with('/') || !backend.tls.needs_proof() {
        // A Unix socket has no TLS, neither with libpq nor with PgBouncer.
        return Ok(());
    }
    let mut addresses = resolve(cluster, host, port).await;
    // A tenant names the host, so it must not lead to where only nodes and clouds go.
    addresses.retain(|address| VaultNetworks::RoutableAndLoopback.allows(address.ip()));
    if addresses.is_empty() {
        let host = host.to_owned();
        return Err(BackendRefusal::NoAddress { host });
    }
    prove_at(&addresses, backend, now).await
}

/// The same for addresses that are known. A verdict goes before a server that does not answer.
pub async fn prove_at(
    addresses: &[SocketAddr],
    backend: &Backend,
    now: OffsetDateTime,
) -> Result<(), BackendRefusal> {
    let identity = backend.tls.identity.as_ref().map(|pair| {
        let identity = Identity::from_pem(pair.chain.as_bytes(), pair.key.expose().as_bytes())?;
        identity.certified()
    });
    let identity = identity.transpose()?;
    let looks = addresses.iter().take(ADDRESSES_MAX);
    let looks = looks.map(|address| prove_one(*address, backend, identity.clone(), now));
    let mut unanswered = Ok(());
    for outcome in join_all(looks).await {
        match outcome {
            Err(refusal) if refusal.is_verdict() => return Err(refusal),
            Err(refusal) => unanswered = Err(refusal),
            Ok(()) => {}
        }
    }
    unanswered
}

async fn prove_one(
    address: SocketAddr,
    backend: &Backend,
    identity: Option<Arc<CertifiedKey>>,
    now: OffsetDateTime,
) -> Result<(), BackendRefusal> {
    let mode = backend.tls.mode.unwrap_or(SslMode::Prefer);
    let (host, _) = host_of(&backend.address);
    // A name that TLS cannot carry is not sent; the certificate is judged by it all the same.
    let sent = rustls::pki_types::ServerName::try_from(host).is_ok();
    let sent = Some(host).filter(|_| sent);
    let presented = match identity {
        Some(identity) => {
            let user = backend.superuser.username.as_str();
            probe::present(address, sent, (identity, user), LOOK_MAX).await
        }
        None => {
            let served = probe::probe(address, sent, LOOK_MAX).await;
            served.map(|served| Presented {
                served,
                refused: None,
            })
        }
    };
    let presented = presented.map_err(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(%address, error, "PostgreSQL gives no answer");
        BackendRefusal::NoAnswer { address }
    })?;
    let handshake = match presented.served {
        Served::Plaintext if mode >= SslMode::Require => {
            return Err(BackendRefusal::NoTls { address, mode });
        }
        Served::Plaintext => return Ok(()),
        Served::Tls(handshake) => handshake,
    };
    if mode >= SslMode::VerifyCa {
        let trust = backend.tls.trust.as_deref().unwrap_or_default();
        let trust = read_certificates(trust).unwrap_or_default();
        let name = Some(host).filter(|_| mode == SslMode::VerifyFull);
        judge(&handshake.chain, &trust, name, now).map_err(|source| {
            BackendRefusal::Certificate {
                address,
                mode,
                source,
            }
        })?;
    }
    match presented.refused {
        Some(why) => Err(BackendRefusal::ClientCertificate { address, why }),
        None => Ok(()),
    }
}

/// Host and port of an address.
fn host_of(address: &BackendAddress) -> (&str, u16) {
    const PORT_DEFAULT: u16 = 5432;
    match address {
        BackendAddress::Host { host, port } => (host, *port),
        BackendAddress::ConnectString(list) => {
            let port = list.get("port").and_then(|port| port.parse().ok());
            (
                list.get("host").unwrap_or_default(),
                port.unwrap_or(PORT_DEFAULT),
            )
        }
    }
}

/// The addresses of a host. What is named as a Service is asked for at the API server, which also
/// knows Services where no DNS server does; DNS answers for all else.
async fn resolve(cluster: &Cluster, host: &str, port: u16) -> Vec<SocketAddr> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return vec![SocketAddr::new(ip, port)];
    }
    let labels: Vec<&str> = host.split('.').collect();
    if let [service, namespace, "svc"] = labels.as_slice() {
        let at = ObjectRef::new(*namespace, *service);
        let found = of_service(cluster, &at).await;
        if !found.is_empty() {
            return found
                .into_iter()
                .map(|ip| SocketAddr::new(ip, port))
                .collect();
        }
    }
    match timeout(LOOK_MAX, lookup_host((host, port))).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// The addresses of a Service: its own, or those of its ready endpoints. A daemon that may not read
/// them asks DNS.
async fn of_service(cluster: &Cluster, at: &ObjectRef) -> Vec<IpAddr> {
    let Ok(Some(service)) = cluster.get::<Service>(at).await else {
        return Vec::new();
    };
    let spec = service.spec.unwrap_or_default();
    let own: Vec<IpAddr> = spec
        .cluster_ips
        .iter()
        .flatten()
        .chain(&spec.cluster_ip)
        .filter_map(|ip| ip.parse().ok())
        .take(1)
        .collect();
    if !own.is_empty() {
        return own;
    }
    let selector = format!("{SERVICE_NAME}={}", at.name);
    let slices = cluster
        .list::<EndpointSlice>(&at.namespace, &selector)
        .await
        .unwrap_or_default();
    let endpoints = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints
        .filter(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|all| all.ready).unwrap_or(true)
        })
        .flat_map(|endpoint| &endpoint.addresses)
        .filter_map(|address| address.parse().ok())
        .collect()
}
