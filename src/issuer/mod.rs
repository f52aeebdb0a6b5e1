//! A signing request in, `Issued · Pending · Denied · Failed` out.
//!
//! Reading (`observe`) and deciding (`signer`) are apart: [`Issuers`] fetches the issuer and its
//! Secret and hands them to the pure [`Signer`], which knows what kind of issuer it is and signs with
//! `pki`. So do `ca` and `selfSigned`, of one namespace (`Issuer`) or of all (`ClusterIssuer`, whose
//! Secrets are in the cluster resource namespace). `vault` sends a request for a certificate to
//! Vault's `sign` endpoint. Whatever else there is, such as `acme` or an issuer of a group other than
//! cert-manager's, signs through a `CertificateRequest` (`delegate`), which somebody else answers.
//! The key never leaves the process in any of them.
//!
//! ```text
//! IssuerRef ─▶ observe ─┬─ ca, selfSigned ──▶ Signer (pure)
//!                       ├─ vault ───────────▶ HTTP: login, sign
//!                       └─ anything else ───▶ CertificateRequest, asked again until it is answered
//! ```

#![warn(clippy::wildcard_enum_match_arm)]

mod delegate;
mod error;
mod observe;
mod signer;
mod vault;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use time::{Duration, OffsetDateTime};

pub use self::delegate::ANSWER_TIMEOUT;
pub use self::error::IssuerError;
pub use self::observe::Issuers;
pub use self::signer::{IssuerKind, Observed, Signer};
pub use self::vault::{Network, NotANetwork, VaultError, VaultNetworks};
use crate::api::IssuerRef;
use crate::instants::Shift;
use crate::pki::bundle::TrustBundle;
use crate::pki::chain::CertificateChain;
use crate::pki::facts::CertificateFacts;
use crate::pki::key::PrivateKey;
use crate::pki::profile::LeafProfile;
use crate::retry::Retry;

/// Where cert-manager, by default, keeps the Secrets of cluster-wide issuers.
pub const CLUSTER_RESOURCE_NAMESPACE_DEFAULT: &str = "cert-manager";

/// What is to be signed, and by whom.
#[derive(Debug)]
pub struct SigningRequest<'a> {
    /// Who signs.
    pub issuer: &'a IssuerRef,
    /// Namespace of whoever asks; an `Issuer` is looked for there.
    pub namespace: &'a str,
    /// Name of this very issuance: a repeat has the same, the next one another. A
    /// `CertificateRequest` is called so.
    pub name: &'a str,
    /// Who owns what is created for it.
    pub owner: Option<&'a OwnerReference>,
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

impl Outcome {
    /// Whether asking again may help; `None` if the certificate is there.
    pub fn retry(&self) -> Option<Retry> {
        match self {
            Self::Issued(_) => None,
            Self::Pending { .. } => Some(Retry::Backoff),
            // Somebody may decide otherwise, or be asked for something else.
            Self::Denied { .. } => Some(Retry::WhenChanged),
            Self::Failed(error) => Some(error.retry()),
        }
    }
}

/// Whether an issuer elsewhere made a leaf shorter than was asked for; a minute is rounding.
fn clamped(chain: &CertificateChain, profile: &LeafProfile, now: OffsetDateTime) -> bool {
    chain
        .leaf_facts()
        .is_some_and(|leaf| leaf.not_after.plus(Duration::minutes(1)) < now.plus(profile.lifetime))
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
