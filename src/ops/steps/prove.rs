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

use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::ResourceExt;
use tokio::time::timeout;

use super::look::{Look, OFTEN};
use super::pods::address;
use super::{Bench, Leaf, Side, StepError};
use crate::api::PgBouncer;
use crate::blueprint::{Credentials, names};
use crate::fence::Fence;
use crate::names::Alias;
use crate::pgbouncer::console::Console;
use crate::pgbouncer::login;
use crate::pgbouncer::probe::{Served, probe};
use crate::pgbouncer::session::{SessionError, Target};
use crate::pgbouncer::tls::{ClientTls, Identity};

/// Bound of one look at an address.
const LOOK: Duration = Duration::from_secs(5);
/// How long a pod that is ready may go on showing something else: a mounted Secret may be a little
/// behind.
const PATIENCE: Duration = Duration::from_secs(15);

impl Bench<'_> {
    /// Proves all pods and the Service.
    pub(super) async fn prove(&self, side: Side) -> Result<(), StepError> {
        if self.plan.replicas == 0 {
            return Ok(());
        }
        let bouncer = self.bouncer(side).await?;
        for planned in &self.plan.pods {
            let pod = self.pod(&planned.name).await?;
            let pod = pod.ok_or_else(|| StepError::NoAddress(self.beside(&planned.name)))?;
            self.prove_leaf(&bouncer, &pod, side).await?;
        }
        let Some(service) = self.service_address().await? else {
            return Ok(());
        };
        let name = format!("Service {}", self.plan.database_at());
        self.await_leaf(&name, service, side).await?;
        self.prove_database(&bouncer, &name, service).await
    }

    /// Proves that a pod serves what is published.
    pub(super) async fn prove_leaf(
        &self,
        bouncer: &PgBouncer,
        pod: &Pod,
        side: Side,
    ) -> Result<(), StepError> {
        let name = pod.name_any();
        let no_address = || StepError::NoAddress(self.beside(&name));
        let address = address(bouncer, pod).ok_or_else(no_address)?;
        self.await_leaf(&format!("pod {name}"), address, side).await
    }

    /// Proves that the published client material opens the console of a pod.
    pub(super) async fn prove_login(
        &self,
        bouncer: &PgBouncer,
        pod: &Pod,
    ) -> Result<(), StepError> {
        let name = format!("pod {}", pod.name_any());
        let target = self.console(bouncer, pod).await?;
        self.waiting
            .until(OFTEN, || async {
                let console = Console::connect(&target).await;
                let asked = match console {
                    Ok(console) => {
                        let version = console.version().await;
                        console.close().await;
                        version
                    }
                    Err(error) => Err(error),
                };
                let name = name.clone();
                asked.map_err(|source| StepError::console(name, source))?;
                Ok(Look::Found(()))
            })
            .await
    }

    /// How to log in to the console of a pod: with TLS if it answers TLS, because during a change
    /// both kinds of pod are there.
    pub(super) async fn console(
        &self,
        bouncer: &PgBouncer,
        pod: &Pod,
    ) -> Result<Target, StepError> {
        let no_address = || StepError::NoAddress(self.beside(pod.name_any()));
        let address = address(bouncer, pod).ok_or_else(no_address)?;
        let admin = self.around(bouncer).await?.admin;
        let admin = admin.ok_or_else(|| {
            let auth = self.beside(names::auth_secret(bouncer));
            crate::blueprint::InputsError::NoAuthSecret(auth)
        })?;
        let tls = match self
            .look(&format!("pod {}", pod.name_any()), address)
            .await?
        {
            Leaf::Plaintext => None,
            Leaf::Of(_) | Leaf::Unknown => self.client_tls(address).await?,
        };
        Ok(target(self.cluster.fence(), address, admin, tls))
    }

    async fn prove_database(
        &self,
        bouncer: &PgBouncer,
        name: &str,
        service: SocketAddr,
    ) -> Result<(), StepError> {
        let tls = match self.look(name, service).await? {
            Leaf::Plaintext => None,
            Leaf::Of(_) | Leaf::Unknown => self.client_tls(service).await?,
        };
        let superuser = self.around(bouncer).await?.backend.superuser;
        let target = target(self.cluster.fence(), service, superuser, tls);
        // A pooler for all databases leads to this one too; every PostgreSQL is made with it.
        let database = match bouncer.spec.database.database_name.as_str() {
            "*" => "postgres",
            name => name,
        };
        match login::prove(&target, database).await {
            Ok(()) => Ok(()),
            Err(source) if is_about_the_change(&source) => {
                let (name, source) = (name.to_owned(), Box::new(source));
                Err(StepError::Login { name, source })
            }
            Err(error) => {
                tracing::warn!(
                    pgbouncer = %self.plan.database_at(),
                    error = &error as &dyn std::error::Error,
                    "the database did not answer through the Service; the change itself is proved"
                );
                Ok(())
            }
        }
    }

    /// Looks until the address serves what is published.
    async fn await_leaf(
        &self,
        name: &str,
        address: SocketAddr,
        side: Side,
    ) -> Result<(), StepError> {
        let wanted = self.wanted_leaf(side).await?;
        let seen = Mutex::new(None);
        let looking = self.waiting.until(OFTEN, || async {
            let served = self.look(name, address).await?;
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(served);
            if served == wanted {
                return Ok(Look::Found(()));
            }
            Ok(Look::Missing(format!(
                "{name} to serve {wanted} instead of {served}"
            )))
        });
        match timeout(PATIENCE, looking).await {
            Ok(looked) => looked,
            Err(_) => Err(StepError::Serves {
                name: name.to_owned(),
                served: seen
                    .into_inner()
                    .unwrap_or_else(PoisonError::into_inner)
                    .unwrap_or(Leaf::Unknown),
                wanted,
            }),
        }
    }

    /// What should be served: the published leaf.
    pub(super) async fn wanted_leaf(&self, side: Side) -> Result<Leaf, StepError> {
        let state = self.state(side);
        if !state.serves_tls() {
            return Ok(Leaf::Plaintext);
        }
        let Some(secret) = state.secret_name(self.name(), Alias::Server) else {
            return Ok(Leaf::Unknown);
        };
        let live = self.live().await?;
        let published = self
            .materials
            .published(&live, Alias::Server, &secret)
            .await?;
        Ok(published.map_or(Leaf::Unknown, |published| {
            Leaf::Of(published.facts.fingerprint)
        }))
    }

    pub(super) async fn look(&self, name: &str, address: SocketAddr) -> Result<Leaf, StepError> {
        let host = self.service_host();
        let served = probe(address, Some(&host), LOOK).await;
        let served = served.map_err(|source| StepError::Probe {
            name: name.to_owned(),
            source,
        })?;
        Ok(match &served {
            Served::Plaintext => Leaf::Plaintext,
            Served::Tls(handshake) => handshake.fingerprint().map_or(Leaf::Unknown, Leaf::Of),
        })
    }

    /// The published client material, with the bundle beside it.
    async fn client_tls(&self, address: SocketAddr) -> Result<Option<ClientTls>, StepError> {
        let mut found = None;
        for alias in [Alias::Client, Alias::Server] {
            for state in [&self.plan.target, &self.plan.former] {
                if let (None, Some(name)) = (&found, state.secret_name(self.name(), alias)) {
                    let secret: Option<Secret> = self.cluster.get(&self.beside(name)).await?;
                    found = secret.map(|secret| (alias, secret));
                }
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
        ClientTls::verify_full(&self.service_host(), bytes("ca.crt"), identity)
            .map(Some)
            .map_err(unusable)
    }

    pub(super) fn service_host(&self) -> String {
        names::service_host(self.name(), &self.plan.namespace)
    }

    /// Where clients go; `None` for a Service without an address of its own. Credentials are not taken
    /// through a Service that is not the PgBouncer's.
    async fn service_address(&self) -> Result<Option<SocketAddr>, StepError> {
        let service: Option<Service> = self.cluster.get(&self.plan.database_at()).await?;
        if let Some(service) = &service {
            self.owner().check(service)?;
        }
        let spec = service.and_then(|service| service.spec);
        Ok(spec.and_then(|spec| {
            let ip = spec.cluster_ip?.parse().ok()?;
            let port = spec.ports?.first()?.port;
            Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
        }))
    }
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
