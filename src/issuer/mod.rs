//! A signing request in, `Issued · Pending · Denied · Failed` out.
//!
//! Reading (`observe`) and deciding (`signer`) are apart: [`Issuers`] fetches the issuer and its
//! Secret and hands them to the pure [`Signer`], which knows what kind of issuer it is and signs with
//! `pki`. Native issuers are `ca` and `selfSigned`, of one namespace (`Issuer`) or of all
//! (`ClusterIssuer`, whose Secret is in the cluster resource namespace).

#![warn(clippy::wildcard_enum_match_arm)]

mod error;
mod observe;
mod signer;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;

use std::fmt;

pub use self::error::IssuerError;
pub use self::observe::Issuers;
pub use self::signer::{IssuerKind, Observed, Signer};
use crate::api::IssuerRef;
use crate::pki::bundle::TrustBundle;
use crate::pki::chain::CertificateChain;
use crate::pki::facts::CertificateFacts;
use crate::pki::key::PrivateKey;
use crate::pki::profile::LeafProfile;

/// Where cert-manager, by default, keeps the Secrets of cluster-wide issuers.
pub const CLUSTER_RESOURCE_NAMESPACE_DEFAULT: &str = "cert-manager";

/// What is to be signed, and by whom.
#[derive(Debug)]
pub struct SigningRequest<'a> {
    /// Who signs.
    pub issuer: &'a IssuerRef,
    /// Namespace of whoever asks; an `Issuer` is looked for there.
    pub namespace: &'a str,
    /// What the certificate shall state.
    pub profile: &'a LeafProfile,
    /// The key that it is for. It does not leave the process: only its public half, and for
    /// `selfSigned` a signature, are used.
    pub key: &'a PrivateKey,
}

/// What came of a signing request.
#[derive(Debug)]
pub enum Outcome {
    /// The certificate is there.
    Issued(Box<Issuance>),
    /// Not yet; wait for what is named.
    Pending {
        /// What is waited for.
        on: String,
    },
    /// Somebody who may decide it has said no.
    Denied {
        /// Why.
        reason: String,
    },
    /// It cannot be signed; the error says what to change.
    Failed(IssuerError),
}

/// A certificate, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuance {
    /// Leaf and intermediates, to be served.
    pub chain: CertificateChain,
    /// What clients have to trust.
    pub anchors: TrustBundle,
    /// Whether the leaf ends earlier than asked for, because its CA does.
    pub clamped: bool,
    /// What the certificate says that signed: the CA's, or the leaf's own.
    pub signer: CertificateFacts,
}

/// Kind, namespace and name of an issuer, for people: `Issuer treasury/ca`, `ClusterIssuer ca`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IssuerName {
    /// `Issuer` or `ClusterIssuer`.
    pub kind: String,
    /// Namespace; empty for a ClusterIssuer.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for IssuerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}
