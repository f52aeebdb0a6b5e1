//! From PEM that somebody made to a chain that clients will believe.
//!
//! [`CertificateChain`] is leaf and intermediates as served. [`KeyedChain`] adds a key that is proven
//! to be the leaf's. [`VerifiedChain`] adds the proof that webpki finds a path from the leaf to the
//! bundle that clients hold, that OpenSSL's path is sound as well, that names, use and dates are the
//! wanted ones; only it can be turned into the data of a Secret (invariant I1).

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::bundle::TrustBundle;
use super::facts::CertificateFacts;
use super::key::{KeyEncoding, KeyError, PrivateKey};
use super::path::Certificate;
use super::pem::{self, Labels, PemError};
use super::profile::LeafUsage;
use super::verdict::Readers;
pub use super::verdict::{Expectation, Verdict};
use crate::redacted::Redacted;

/// The certificates that a server sends. webpki, and so clients on rustls, follow six CAs between leaf and
/// root; OpenSSL, Go and Java follow the seven that there can be.
pub const CHAIN_MAX: usize = 8;

/// A leaf certificate and its intermediates, in the order in which they are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateChain {
    leaf: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
}

/// A chain with the key of its leaf.
#[derive(Debug)]
pub struct KeyedChain {
    chain: CertificateChain,
    key: PrivateKey,
    encoding: KeyEncoding,
}

/// A chain with its key, and the bundle that was proven to lead to it.
#[derive(Debug)]
pub struct VerifiedChain {
    keyed: KeyedChain,
    bundle: TrustBundle,
    facts: CertificateFacts,
}

/// The contents of a certificate Secret.
#[derive(Clone, Debug)]
pub struct SecretData {
    /// `tls.crt`: leaf and intermediates.
    pub tls_crt: String,
    /// `tls.key`.
    pub tls_key: Redacted<String>,
    /// `ca.crt`: the trust bundle.
    pub ca_crt: String,
}

/// Why PEM documents do not make a chain with its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The certificates cannot be read.
    #[error("cannot read the certificate chain")]
    Certificates(#[source] PemError),
    /// The key cannot be read.
    #[error("cannot read the private key")]
    Key(#[source] KeyError),
    /// More certificates than [`CHAIN_MAX`].
    #[error("the chain has {length} certificates, more than the {CHAIN_MAX} that clients read")]
    TooLong {
        /// How many there are.
        length: usize,
    },
    /// The key belongs to another certificate.
    #[error("the private key is not the one that {leaf} was issued for")]
    KeyMismatch {
        /// The leaf's subject.
        leaf: String,
    },
}

// === impl CertificateChain ===

impl CertificateChain {
    /// Reads a PEM document, leaf first.
    pub fn from_pem(text: &str) -> Result<Self, ChainError> {
        let certificates = pem::read_certificates(text).map_err(ChainError::Certificates)?;
        Self::from_certificates(certificates)
    }

    /// Takes certificates as they came over the wire, leaf first.
    pub fn from_certificates(
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, ChainError> {
        let length = certificates.len();
        if length > CHAIN_MAX {
            return Err(ChainError::TooLong { length });
        }
        let mut certificates = certificates.into_iter();
        let leaf = certificates.next().ok_or_else(|| {
            ChainError::Certificates(PemError::Missing {
                wanted: "certificate",
                found: Labels::default(),
            })
        })?;
        Ok(Self {
            leaf,
            intermediates: certificates.collect(),
        })
    }

    /// A leaf without intermediates.
    pub(super) const fn alone(leaf: CertificateDer<'static>) -> Self {
        Self::with_intermediates(leaf, Vec::new())
    }

    /// A leaf and what follows it.
    pub(super) const fn with_intermediates(
        leaf: CertificateDer<'static>,
        intermediates: Vec<CertificateDer<'static>>,
    ) -> Self {
        Self {
            leaf,
            intermediates,
        }
    }

    /// The PEM document that a server reads.
    pub fn to_pem(&self) -> String {
        pem::write_certificates(self.certificates())
    }

    /// Leaf first, as served.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        std::iter::once(&self.leaf).chain(&self.intermediates)
    }

    /// The leaf.
    pub const fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// What follows the leaf.
    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.intermediates
    }

    /// What the leaf says; `None` if it is no certificate.
    pub fn leaf_facts(&self) -> Option<CertificateFacts> {
        CertificateFacts::read(&self.leaf)
    }

    /// What every certificate says, leaf first; those that cannot be read are left out.
    pub fn facts(&self) -> Vec<CertificateFacts> {
        self.certificates()
            .filter_map(CertificateFacts::read)
            .collect()
    }

    /// Proves the chain against the bundle that clients hold.
    pub fn verify(
        &self,
        bundle: &TrustBundle,
        expectation: &Expectation,
    ) -> Result<CertificateFacts, Verdict> {
        super::verdict::verify(self, bundle, expectation)
    }

    /// Proves that the bundle leads to the leaf for one use: for [`LeafUsage::ServerAndClient`] the
    /// server's. What else a profile of ours wants is not asked: for certificates of somebody else.
    pub fn verify_path(
        &self,
        bundle: &TrustBundle,
        usage: LeafUsage,
        now: OffsetDateTime,
    ) -> Result<CertificateFacts, Verdict> {
        super::verdict::verify_path(self, bundle, usage, now)
    }

    /// What some clients hold against CAs of the chain or of `bundle` that libpq and PgBouncer accept.
    pub fn remarks(&self, bundle: &TrustBundle) -> Vec<String> {
        let anchors = bundle.certificates().iter();
        let anchors = anchors.filter(|anchor| *anchor != &self.leaf);
        let read = Certificate::read_all(self.intermediates.iter().chain(anchors));
        let remark = |ca: &Certificate| {
            let trouble = ca.strict_trouble()?;
            let subject = ca.subject();
            Some(format!(
                "the CA {subject} {trouble}, and Python 3.13 and later refuse it by default"
            ))
        };
        read.iter().filter_map(remark).collect()
    }

    /// The readers that trust the leaf at `at`, whatever it is for.
    pub(super) fn readers_with(&self, bundle: &TrustBundle, at: OffsetDateTime) -> Readers {
        super::verdict::readers(self, bundle, at)
    }
}

// === impl KeyedChain ===

impl KeyedChain {
    /// Reads chain and key, and proves that they belong together. The key keeps its encoding.
    pub fn new(chain_pem: &str, key_pem: &str) -> Result<Self, ChainError> {
        let (key, encoding) = PrivateKey::with_encoding(key_pem).map_err(ChainError::Key)?;
        Self::from_parts(CertificateChain::from_pem(chain_pem)?, key, encoding)
    }

    /// Joins a chain and a key that are at hand, and proves that they belong together.
    pub fn from_parts(
        chain: CertificateChain,
        key: PrivateKey,
        encoding: KeyEncoding,
    ) -> Result<Self, ChainError> {
        let belongs = x509_parser::parse_x509_certificate(&chain.leaf)
            .is_ok_and(|(_, leaf)| leaf.public_key().raw == key.public_key_der());
        if belongs {
            Ok(Self {
                chain,
                key,
                encoding,
            })
        } else {
            Err(ChainError::KeyMismatch {
                leaf: chain
                    .leaf_facts()
                    .map(|facts| facts.subject)
                    .unwrap_or_default(),
            })
        }
    }

    /// The chain.
    pub const fn chain(&self) -> &CertificateChain {
        &self.chain
    }

    /// The instant nearest to `now` at which every certificate of the chain is valid.
    pub fn within_life(&self, now: OffsetDateTime) -> OffsetDateTime {
        self.chain.facts().iter().fold(now, |at, facts| {
            at.min(facts.not_after).max(facts.not_before)
        })
    }

    /// The key alone, to be certified again.
    pub fn into_key(self) -> PrivateKey {
        self.key
    }

    /// Proves the chain against the very bundle that clients will hold.
    pub fn verify(
        self,
        bundle: &TrustBundle,
        expectation: &Expectation,
    ) -> Result<VerifiedChain, Verdict> {
        let facts = self.chain.verify(bundle, expectation)?;
        Ok(VerifiedChain {
            keyed: self,
            bundle: bundle.clone(),
            facts,
        })
    }
}

// === impl VerifiedChain ===

impl VerifiedChain {
    /// What the leaf says.
    pub const fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// The chain.
    pub const fn chain(&self) -> &CertificateChain {
        &self.keyed.chain
    }

    /// The bundle that it was verified against.
    pub const fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// The contents of its Secret.
    pub fn into_secret_data(self) -> SecretData {
        SecretData {
            tls_crt: self.keyed.chain.to_pem(),
            tls_key: self.keyed.key.to_pem(self.keyed.encoding),
            ca_crt: self.bundle.to_pem(),
        }
    }
}
