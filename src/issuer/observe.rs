//! Looks issuers and their Secrets up, then has them sign.

use k8s_openapi::api::core::v1::Secret;
use ring::rand::{SecureRandom, SystemRandom};

use super::signer::{IssuerKind, Observed, Signer};
use super::{IssuerError, IssuerName, Outcome, SigningRequest};
use crate::api::tls::CERT_MANAGER_GROUP;
use crate::api::{ClusterIssuer, Issuer, IssuerRef};
use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterError};
use crate::names::ObjectRef;
use crate::pki::authority::Serial;

/// The issuers of a cluster.
#[derive(Clone)]
pub struct Issuers {
    cluster: Cluster,
    clock: Clock,
    cluster_resource_namespace: String,
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
        }
    }

    /// Has a certificate signed.
    pub async fn sign(&self, request: &SigningRequest<'_>) -> Outcome {
        let observed = match self.observe(request.issuer, request.namespace).await {
            Ok(observed) => observed,
            Err(error) => return Outcome::Failed(error),
        };
        // What is wrong with the issuer is said before what cert-manager says about it: it is the
        // better message.
        let signer = match self.signer_of(&observed).await {
            Ok(signer) => signer,
            Err(error) => return Outcome::Failed(error),
        };
        if let Some(message) = observed.is_held_back() {
            return Outcome::Pending {
                on: format!("{} to become ready: {message}", observed.name),
            };
        }
        match fresh_serial().and_then(|serial| signer.sign(request, serial, self.clock.now())) {
            Ok(issuance) => Outcome::Issued(Box::new(issuance)),
            Err(error) => Outcome::Failed(error),
        }
    }

    /// The issuer itself, ready to sign; for asking what clients will have to trust before anything
    /// is signed, and whether the issuer is usable at all.
    pub async fn signer(&self, issuer: &IssuerRef, namespace: &str) -> Result<Signer, IssuerError> {
        let observed = self.observe(issuer, namespace).await?;
        self.signer_of(&observed).await
    }

    /// Reads an issuer.
    pub async fn observe(
        &self,
        issuer: &IssuerRef,
        namespace: &str,
    ) -> Result<Observed, IssuerError> {
        if issuer.group() != CERT_MANAGER_GROUP {
            return Err(IssuerError::UnknownGroup {
                group: issuer.group().to_owned(),
            });
        }
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

    async fn signer_of(&self, observed: &Observed) -> Result<Signer, IssuerError> {
        match observed.kind()? {
            IssuerKind::SelfSigned => Ok(Signer::self_signed(observed.name.clone())),
            IssuerKind::Ca { secret, pointers } => {
                let content = self.cluster.get::<Secret>(&secret).await;
                let content = content.map_err(|source| IssuerError::Lookup {
                    issuer: observed.name.clone(),
                    source: Box::new(source),
                })?;
                Signer::ca(observed.name.clone(), secret, content.as_ref(), pointers)
            }
        }
    }
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
