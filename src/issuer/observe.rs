//! Looks issuers and their Secrets up, then has them sign, each in its way.

use k8s_openapi::api::core::v1::Secret;
use ring::rand::{SecureRandom, SystemRandom};

use super::delegate::Roots;
use super::signer::{IssuerKind, Observed, Signer};
use super::vault::{Vault, VaultNetworks};
use super::{IssuerError, IssuerName, Outcome, SigningRequest, delegate};
use crate::api::tls::CERT_MANAGER_GROUP;
use crate::api::{ClusterIssuer, Issuer, IssuerRef};
use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterError, Owner};
use crate::names::ObjectRef;
use crate::pki::authority::Serial;
use crate::redacted::Wiped;

/// The issuers of a cluster.
#[derive(Clone)]
pub struct Issuers {
    cluster: Cluster,
    clock: Clock,
    cluster_resource_namespace: String,
    vault_networks: VaultNetworks,
}

impl Issuers {
    /// The issuers of `cluster`; those of all namespaces keep their Secrets in
    /// `cluster_resource_namespace`.
    pub fn new(
        cluster: Cluster,
        clock: Clock,
        cluster_resource_namespace: impl Into<String>,
    ) -> Self {
        Self {
            cluster,
            clock,
            cluster_resource_namespace: cluster_resource_namespace.into(),
            vault_networks: VaultNetworks::default(),
        }
    }

    /// Asks Vault servers in `networks` only.
    #[must_use]
    pub fn with_vault_networks(mut self, networks: VaultNetworks) -> Self {
        self.vault_networks = networks;
        self
    }

    /// Has a certificate signed.
    pub async fn sign(&self, request: &SigningRequest<'_>) -> Outcome {
        if request.issuer.group() != CERT_MANAGER_GROUP {
            let name = issuer_name(request.issuer, request.namespace);
            let roots = Roots {
                known: "",
                remedy: "have the issuer write its root into status.ca of the CertificateRequest",
            };
            return delegate::sign(&self.cluster, &name, request, (roots, self.clock.now())).await;
        }
        let observed = match self.observe(request.issuer, request.namespace).await {
            Ok(observed) => observed,
            Err(error) => return Outcome::Failed(error),
        };
        match self.sign_by(&observed, request).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Failed(error),
        }
    }

    /// Takes away what an issuance of that name has left behind.
    pub async fn forget(&self, owner: &Owner, at: &ObjectRef) -> Result<(), ClusterError> {
        delegate::forget(&self.cluster, owner, at).await
    }

    /// Reads an issuer of cert-manager's own group.
    async fn observe(&self, issuer: &IssuerRef, namespace: &str) -> Result<Observed, IssuerError> {
        match issuer.kind.as_str() {
            "Issuer" => self.observe_namespaced(issuer, namespace).await,
            "ClusterIssuer" => self.observe_global(issuer).await,
            other => Err(IssuerError::UnknownKind {
                kind: other.to_owned(),
            }),
        }
    }

    async fn observe_namespaced(
        &self,
        issuer: &IssuerRef,
        namespace: &str,
    ) -> Result<Observed, IssuerError> {
        let name = issuer_name(issuer, namespace);
        let at = ObjectRef::new(namespace, &issuer.name);
        let found = self.cluster.get::<Issuer>(&at).await;
        let found = found_or(found, &name)?;
        Ok(Observed {
            generation: found.metadata.generation,
            spec: found.spec,
            status: found.status,
            secret_namespace: namespace.to_owned(),
            name,
        })
    }

    async fn observe_global(&self, issuer: &IssuerRef) -> Result<Observed, IssuerError> {
        let name = issuer_name(issuer, "");
        let found = self.cluster.get_global::<ClusterIssuer>(&issuer.name).await;
        let found = found_or(found, &name)?;
        Ok(Observed {
            generation: found.metadata.generation,
            spec: found.spec.issuer,
            status: found.status,
            secret_namespace: self.cluster_resource_namespace.clone(),
            name,
        })
    }

    async fn sign_by(
        &self,
        observed: &Observed,
        request: &SigningRequest<'_>,
    ) -> Result<Outcome, IssuerError> {
        let now = self.clock.now();
        let name = &observed.name;
        // What is wrong with the issuer is said before what cert-manager says about it: it is the
        // better message.
        let way = match observed.kind()? {
            IssuerKind::SelfSigned => Way::Native(Box::new(Signer::self_signed(name.clone()))),
            IssuerKind::Ca { secret, pointers } => {
                let content = self.cluster.get::<Secret>(&secret).await;
                let content = content.map_err(|source| IssuerError::Lookup {
                    issuer: name.clone(),
                    source: Box::new(source),
                })?;
                let content = content.map(Wiped::from);
                let signer = Signer::ca(name.clone(), secret, content.as_deref(), pointers)?;
                Way::Native(Box::new(signer))
            }
            IssuerKind::Vault(spec) => {
                let place = (observed.secret_namespace.as_str(), &self.vault_networks);
                Way::Vault(Box::new(Vault::new(&self.cluster, name, place, spec)?))
            }
            IssuerKind::Delegated { roots } => Way::Delegated { roots },
        };
        if let Some(message) = observed.is_held_back() {
            return Ok(Outcome::Pending {
                on: format!("{name} to become ready: {message}"),
            });
        }
        Ok(match way {
            Way::Native(signer) => {
                let issuance = signer.sign(request, fresh_serial()?, now)?;
                Outcome::Issued(Box::new(issuance))
            }
            Way::Vault(vault) => vault.sign(request, now).await,
            Way::Delegated { roots } => {
                let roots = Roots {
                    known: &roots,
                    remedy: observed.root_remedy(),
                };
                delegate::sign(&self.cluster, name, request, (roots, now)).await
            }
        })
    }
}

/// How an issuer that was read signs.
enum Way<'a> {
    Native(Box<Signer>),
    Vault(Box<Vault<'a>>),
    Delegated { roots: String },
}

/// A serial number that nobody has used.
fn fresh_serial() -> Result<Serial, IssuerError> {
    let mut octets = [0; 20];
    SystemRandom::new()
        .fill(&mut octets)
        .map_err(|_| IssuerError::NoRandomness)?;
    Ok(Serial::from_random(octets))
}

fn issuer_name(issuer: &IssuerRef, namespace: &str) -> IssuerName {
    IssuerName {
        kind: issuer.kind.clone(),
        namespace: namespace.to_owned(),
        name: issuer.name.clone(),
    }
}

fn found_or<K>(
    found: Result<Option<K>, ClusterError>,
    name: &IssuerName,
) -> Result<K, IssuerError> {
    match found {
        Ok(Some(object)) => Ok(object),
        Ok(None) => Err(IssuerError::NotFound {
            issuer: name.clone(),
        }),
        Err(source) => Err(IssuerError::Lookup {
            issuer: name.clone(),
            source: Box::new(source),
        }),
    }
}
