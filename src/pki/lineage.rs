//! The path from an issuing CA up to its root, found among the certificates of a Secret.

use rustls_pki_types::CertificateDer;

use super::authority::CaError;
use super::bundle::TrustBundle;
use super::chain::{CHAIN_MAX, CertificateChain};
use super::facts::{self, CertificateFacts};
use super::oid;
use super::pem::PemError;
use super::signature::Signed;
use super::tbs::{self, Criticality};

/// The issuing CA first, its root last. Not empty; `certificates` and `facts` have equal length.
#[derive(Debug)]
pub(super) struct Lineage {
    certificates: Vec<CertificateDer<'static>>,
    facts: Vec<CertificateFacts>,
    issuing: CaView,
    has_name_constraints: bool,
}

/// What signing needs to know of a CA's certificate.
#[derive(Debug)]
pub(super) struct CaView {
    /// Its name, byte for byte.
    pub(super) name: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    pub(super) spki: Vec<u8>,
    /// Its own subject key identifier, or the one that its key would get.
    pub(super) key_identifier: Vec<u8>,
    pub(super) facts: CertificateFacts,
    /// The extensions that say what it may sign; a cross-certificate repeats them.
    pub(super) constraints: Vec<Vec<u8>>,
    has_name_constraints: bool,
}

/// The extensions that say what a CA may sign.
const CONSTRAINTS: [&[u8]; 4] = [
    oid::BASIC_CONSTRAINTS,
    oid::KEY_USAGE,
    oid::EXTENDED_KEY_USAGE,
    oid::NAME_CONSTRAINTS,
];

impl Lineage {
    /// Follows the path from the first of `certificates`, whose key must be `spki`, to a root,
    /// through the others and `roots`.
    pub(super) fn trace(
        certificates: &[CertificateDer<'static>],
        spki: &[u8],
        roots: &[CertificateDer<'static>],
    ) -> Result<Self, CaError> {
        let unreadable = CaError::Certificate(PemError::BadCertificate { position: 1 });
        let first = certificates.first().ok_or(unreadable)?.clone();
        let issuing = CaView::read(&first)?;
        if issuing.spki != spki {
            return Err(CaError::KeyMismatch {
                subject: issuing.facts.subject,
            });
        }
        let mut has_name_constraints = issuing.has_name_constraints;
        let mut path = vec![first];
        let mut path_facts = vec![issuing.facts.clone()];
        let mut below_issuer = issuing.issuer.clone();
        while path.len() <= CHAIN_MAX {
            let (Some(below), Some(below_facts)) = (path.last(), path_facts.last()) else {
                break;
            };
            if below_facts.is_self_issued {
                break;
            }
            let above = certificates
                .iter()
                .chain(roots)
                .filter(|candidate| !path.contains(candidate))
                .find_map(|candidate| {
                    let view = CaView::read(candidate).ok()?;
                    let signs = view.name == below_issuer
                        && Signed::read(below).is_ok_and(|signed| signed.is_by(&view.spki));
                    signs.then(|| (candidate.clone(), view))
                });
            let Some((certificate, view)) = above else {
                return Err(CaError::RootMissing {
                    subject: below_facts.subject.clone(),
                    issuer: below_facts.issuer.clone(),
                });
            };
            check_path_length(&view.facts, path.len(), &issuing.facts)?;
            has_name_constraints |= view.has_name_constraints;
            below_issuer.clone_from(&view.issuer);
            path.push(certificate);
            path_facts.push(view.facts);
        }
        Ok(Self {
            certificates: path,
            facts: path_facts,
            issuing,
            has_name_constraints,
        })
    }

    /// The root of the path, then the other self-issued certificates of `ca.crt`.
    pub(super) fn anchors(&self, roots: &[CertificateDer<'static>]) -> TrustBundle {
        let root = self.certificates.last().cloned();
        let others = roots.iter().filter(|certificate| {
            CertificateFacts::read(certificate).is_some_and(|facts| facts.is_self_issued)
        });
        TrustBundle::from_certificates(root.into_iter().chain(others.cloned()))
    }

    /// `leaf` with the CAs below the root.
    pub(super) fn serve(&self, leaf: CertificateDer<'static>) -> CertificateChain {
        let below_root = self.certificates.len().saturating_sub(1);
        CertificateChain::with_intermediates(leaf, self.certificates[..below_root].to_vec())
    }

    /// The certificate of the path that ends first; a leaf may not live longer.
    pub(super) fn ends_first(&self) -> &CertificateFacts {
        self.facts
            .iter()
            .min_by_key(|facts| facts.not_after)
            .unwrap_or(&self.issuing.facts)
    }

    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    pub(super) fn facts(&self) -> &[CertificateFacts] {
        &self.facts
    }

    pub(super) const fn issuing_facts(&self) -> &CertificateFacts {
        &self.issuing.facts
    }

    pub(super) fn issuing_certificate(&self) -> &CertificateDer<'static> {
        &self.certificates[0]
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.issuing.name
    }

    pub(super) fn key_identifier(&self) -> &[u8] {
        &self.issuing.key_identifier
    }

    pub(super) const fn has_name_constraints(&self) -> bool {
        self.has_name_constraints
    }
}

impl CaView {
    /// Reads a certificate that is, and may act as, a CA.
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<Self, CaError> {
        let unreadable = || CaError::Certificate(PemError::BadCertificate { position: 1 });
        let facts = CertificateFacts::read(certificate).ok_or_else(unreadable)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|_| unreadable())?;
        if !facts.is_ca {
            return Err(CaError::NotCa {
                subject: facts.subject,
            });
        }
        if !facts.may_sign {
            return Err(CaError::NoCertSign {
                subject: facts.subject,
            });
        }
        Ok(Self {
            name: parsed.subject().as_raw().to_vec(),
            issuer: parsed.issuer().as_raw().to_vec(),
            spki: parsed.public_key().raw.to_vec(),
            key_identifier: facts::key_identifier(&parsed),
            facts,
            constraints: parsed
                .extensions()
                .iter()
                .filter(|extension| CONSTRAINTS.contains(&extension.oid.as_bytes()))
                .map(|extension| {
                    tbs::extension(
                        extension.oid.as_bytes(),
                        Criticality::of(extension.critical),
                        extension.value,
                    )
                })
                .collect(),
            has_name_constraints: parsed.name_constraints().ok().flatten().is_some(),
        })
    }
}

fn check_path_length(
    above: &CertificateFacts,
    n_below: usize,
    issuing: &CertificateFacts,
) -> Result<(), CaError> {
    match above.path_length {
        Some(path_length) if n_below as u64 > u64::from(path_length) => Err(CaError::PathTooLong {
            subject: issuing.subject.clone(),
            above: above.subject.clone(),
            path_length,
        }),
        Some(_) | None => Ok(()),
    }
}
