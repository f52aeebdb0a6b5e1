//! Trust bundles: the roots that clients hold. Values with a stable order, newest first.

use std::collections::HashSet;

use rustls_pki_types::{CertificateDer, TrustAnchor};
use time::OffsetDateTime;

use super::chain::CertificateChain;
use super::facts::CertificateFacts;
use super::pem::{self, PemError};

/// Trust anchors in order of preference, newest first, none twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustBundle {
    certificates: Vec<CertificateDer<'static>>,
}

/// What [`TrustBundle::retain_needed`] decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retirement {
    /// The anchors that stay.
    pub kept: TrustBundle,
    /// The anchors that no known live certificate needs.
    pub retired: Vec<CertificateFacts>,
}

/// By what clients tell two anchors apart: name and key. Two certificates of one CA that differ only
/// in their dates are the same anchor.
#[derive(PartialEq, Eq, Hash)]
struct Identity {
    subject: Vec<u8>,
    spki: Vec<u8>,
}

impl TrustBundle {
    /// Reads a PEM document; an empty one is an error, because trusting nobody is never meant.
    pub fn from_pem(text: &str) -> Result<Self, PemError> {
        Ok(Self::from_certificates(pem::read_certificates(text)?))
    }

    /// Takes certificates, newest first; of the same anchor only the one that lives longest stays,
    /// in the place of the first.
    pub fn from_certificates(
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Self {
        let mut kept: Vec<(Identity, CertificateDer<'static>)> = Vec::new();
        for certificate in certificates {
            let identity = Identity::of(&certificate);
            match kept.iter_mut().find(|(known, _)| *known == identity) {
                None => kept.push((identity, certificate)),
                Some((_, known)) if ends(known) < ends(&certificate) => *known = certificate,
                Some(_) => {}
            }
        }
        Self {
            certificates: kept
                .into_iter()
                .map(|(_, certificate)| certificate)
                .collect(),
        }
    }

    /// The anchors of both: those of `self` first, because they are the newer.
    #[must_use]
    pub fn union(&self, older: &Self) -> Self {
        Self::from_certificates(self.certificates.iter().chain(&older.certificates).cloned())
    }

    /// The PEM document that clients get.
    pub fn to_pem(&self) -> String {
        pem::write_certificates(&self.certificates)
    }

    /// How many anchors there are.
    pub const fn len(&self) -> usize {
        self.certificates.len()
    }

    /// Whether nobody is trusted.
    pub const fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// The anchors, newest first.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// What the anchors say, newest first.
    pub fn facts(&self) -> Vec<CertificateFacts> {
        self.certificates
            .iter()
            .filter_map(CertificateFacts::read)
            .collect()
    }

    /// Whether every anchor of `other` is trusted here as well.
    pub fn contains_all(&self, other: &Self) -> bool {
        let known: HashSet<Identity> = self.certificates.iter().map(Identity::of).collect();
        other
            .certificates
            .iter()
            .all(|certificate| known.contains(&Identity::of(certificate)))
    }

    /// Drops the anchors that no known live certificate needs (invariant I6).
    ///
    /// The anchors of `pinned` stay in any case: they are what is issued from now on. Of the others,
    /// oldest first, one goes when every chain of `live` that is trusted with it is trusted without
    /// it. A chain that has expired at `now` needs nobody.
    pub fn retain_needed(
        &self,
        pinned: &Self,
        live: &[CertificateChain],
        now: OffsetDateTime,
    ) -> Retirement {
        let live: Vec<(&CertificateChain, OffsetDateTime)> = live
            .iter()
            .filter_map(|chain| {
                let facts = chain.leaf_facts()?;
                // A chain that begins to live tomorrow needs its anchor today.
                (facts.not_after >= now).then_some((chain, now.max(facts.not_before)))
            })
            .filter(|(chain, at)| chain.has_path_to(self, *at))
            .collect();
        let pinned: HashSet<Identity> = pinned.certificates.iter().map(Identity::of).collect();
        let mut kept = self.clone();
        let mut retired = Vec::new();
        for candidate in self.certificates.iter().rev() {
            if pinned.contains(&Identity::of(candidate)) {
                continue;
            }
            let without = Self {
                certificates: kept
                    .certificates
                    .iter()
                    .filter(|certificate| *certificate != candidate)
                    .cloned()
                    .collect(),
            };
            if live
                .iter()
                .all(|(chain, at)| chain.has_path_to(&without, *at))
            {
                kept = without;
                retired.extend(CertificateFacts::read(candidate));
            }
        }
        Retirement { kept, retired }
    }

    /// The anchors in the form that webpki takes; those it cannot read are left out.
    pub(super) fn anchors(&self) -> Vec<TrustAnchor<'_>> {
        self.certificates
            .iter()
            .filter_map(|certificate| webpki::anchor_from_trusted_cert(certificate).ok())
            .collect()
    }
}

impl Identity {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        match x509_parser::parse_x509_certificate(certificate) {
            Ok((_, parsed)) => Self {
                subject: parsed.subject().as_raw().to_vec(),
                spki: parsed.public_key().raw.to_vec(),
            },
            // What cannot be read is only the same as itself.
            Err(_) => Self {
                subject: certificate.to_vec(),
                spki: Vec::new(),
            },
        }
    }
}

fn ends(certificate: &CertificateDer<'_>) -> Option<OffsetDateTime> {
    CertificateFacts::read(certificate).map(|facts| facts.not_after)
}
