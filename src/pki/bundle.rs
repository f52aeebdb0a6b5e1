//! Trust bundles: the roots that clients hold. Values with a stable order, newest first.

use rustls_pki_types::{CertificateDer, TrustAnchor};
use time::OffsetDateTime;

use super::chain::CertificateChain;
use super::facts::CertificateFacts;
use super::path::{Authority, Certificate};
use super::pem::{self, PemError};
use super::verdict::Readers;

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

/// What clients tell two anchors apart by: name and key, and to OpenSSL also the key identifiers. A CA
/// that was renewed with its key and another identifier is another anchor to OpenSSL.
#[derive(PartialEq, Eq)]
struct Identity {
    subject: Vec<u8>,
    spki: Vec<u8>,
    identifier: Option<Vec<u8>>,
    authority: Authority,
}

/// An anchor and its life.
struct Anchor {
    identity: Identity,
    life: Option<(OffsetDateTime, OffsetDateTime)>,
    certificate: CertificateDer<'static>,
}

/// Several CAs of one name, which OpenSSL does not tell apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "several CAs are named {name}, and no key identifiers tell them apart: OpenSSL (libpq, PgBouncer) tries one of them alone, so that while both are trusted it refuses what the other one signed; issue the CA again with a subjectKeyIdentifier, or under another name"
)]
pub struct Namesakes {
    /// The name.
    pub name: String,
}

impl TrustBundle {
    /// Reads a PEM document; an empty one is an error, because trusting nobody is never meant.
    pub fn from_pem(text: &str) -> Result<Self, PemError> {
        Ok(Self::from_certificates(pem::read_certificates(text)?))
    }

    /// Takes certificates, newest first. Of the same anchor one goes whose life lies within the other's,
    /// which takes the place of the first; a root and its successor that is valid from tomorrow stay both.
    pub fn from_certificates(
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Self {
        let mut kept: Vec<Anchor> = Vec::new();
        for certificate in certificates {
            let anchor = Anchor::of(certificate);
            if kept.iter().any(|known| known.covers(&anchor)) {
                continue;
            }
            let place = kept.iter().position(|known| anchor.covers(known));
            kept.retain(|known| !anchor.covers(known));
            kept.insert(place.unwrap_or(kept.len()), anchor);
        }
        Self {
            certificates: kept.into_iter().map(|anchor| anchor.certificate).collect(),
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

    /// Whether every anchor of `other` is trusted here as well, and as long.
    pub fn contains_all(&self, other: &Self) -> bool {
        let of = |bundle: &Self| -> Vec<Anchor> {
            let certificates = bundle.certificates.iter().cloned();
            certificates.map(Anchor::of).collect()
        };
        let known = of(self);
        of(other)
            .iter()
            .all(|anchor| known.iter().any(|known| known.covers(anchor)))
    }

    /// Drops the anchors that no known live certificate needs (invariant I6).
    ///
    /// The anchors of `pinned` stay in any case: they are what is issued from now on. Of the others,
    /// oldest first, one goes when every chain of `live` that a reader trusts with it is trusted by that
    /// reader without it. A chain that has expired at `now` needs nobody.
    pub fn retain_needed(
        &self,
        pinned: &Self,
        live: &[CertificateChain],
        now: OffsetDateTime,
    ) -> Retirement {
        let live = Live::of(live, &[self], now);
        let mut kept = self.clone();
        let mut retired = Vec::new();
        for candidate in self.certificates.iter().rev() {
            if pinned.certificates.contains(candidate) {
                continue;
            }
            let without = kept.without(candidate);
            if live.iter().all(|live| live.is_trusted_by(&without)) {
                kept = without;
                retired.extend(CertificateFacts::read(candidate));
            }
        }
        Retirement { kept, retired }
    }

    /// Puts the anchors in an order in which readers trust every chain of `live` that they trust by one
    /// of `parts` alone, all of whose anchors are here. The order matters where CAs have one name and no
    /// key identifiers.
    pub fn ordered_for(
        self,
        parts: &[&Self],
        live: &[CertificateChain],
        now: OffsetDateTime,
    ) -> Result<Self, Namesakes> {
        let namesakes = self.namesakes();
        if namesakes.is_empty() {
            return Ok(self);
        }
        let live = Live::of(live, parts, now);
        let is_right = |bundle: &Self| live.iter().all(|live| live.is_trusted_by(bundle));
        if is_right(&self) {
            return Ok(self);
        }
        // OpenSSL takes the first of them, so that only which one is first makes a difference.
        let first = |place: &usize| {
            let first = self.certificates[*place].clone();
            let rest = self.without(&first).certificates;
            Self {
                certificates: std::iter::once(first).chain(rest).collect(),
            }
        };
        match namesakes.iter().map(first).find(is_right) {
            Some(ordered) => Ok(ordered),
            None => Err(Namesakes {
                name: CertificateFacts::read(&self.certificates[namesakes[0]])
                    .map(|facts| facts.subject)
                    .unwrap_or_default(),
            }),
        }
    }

    /// The places of anchors that have the name of another one.
    fn namesakes(&self) -> Vec<usize> {
        let read = Certificate::read_all(&self.certificates);
        let is_double = |certificate: &CertificateDer<'static>| {
            let own = read.iter().find(|read| read.der == *certificate);
            own.is_some_and(|own| read.iter().filter(|it| it.name == own.name).count() > 1)
        };
        let all = self.certificates.iter().enumerate();
        all.filter(|(_, certificate)| is_double(certificate))
            .map(|(place, _)| place)
            .collect()
    }

    fn without(&self, anchor: &CertificateDer<'static>) -> Self {
        let others = self.certificates.iter().filter(|it| *it != anchor);
        Self {
            certificates: others.cloned().collect(),
        }
    }

    /// The anchors in the form that webpki takes; those it cannot read are left out.
    pub(super) fn anchors(&self) -> Vec<TrustAnchor<'_>> {
        self.certificates
            .iter()
            .filter_map(|certificate| webpki::anchor_from_trusted_cert(certificate).ok())
            .collect()
    }
}

impl Anchor {
    fn of(certificate: CertificateDer<'static>) -> Self {
        match Certificate::read(&certificate) {
            Some(read) => Self {
                life: Some((read.not_before, read.not_after)),
                identity: Identity {
                    subject: read.name,
                    spki: read.spki,
                    identifier: read.identifier,
                    authority: read.authority,
                },
                certificate,
            },
            // What cannot be read is only the same as itself.
            None => Self {
                life: None,
                identity: Identity {
                    subject: certificate.to_vec(),
                    spki: Vec::new(),
                    identifier: None,
                    authority: Authority::default(),
                },
                certificate,
            },
        }
    }

    /// Whether clients that hold this anchor do not need `other`.
    fn covers(&self, other: &Self) -> bool {
        let is_longer = match (self.life, other.life) {
            (Some((begins, ends)), Some((others, other_ends))) => {
                begins <= others && other_ends <= ends
            }
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        is_longer && self.identity == other.identity
    }
}

/// A chain that readers trust.
struct Live<'a> {
    chain: &'a CertificateChain,
    at: OffsetDateTime,
    readers: Readers,
}

impl<'a> Live<'a> {
    /// Those of `chains` that have not expired at `now` and that a reader trusts by one of `bundles`.
    fn of(
        chains: &'a [CertificateChain],
        bundles: &[&TrustBundle],
        now: OffsetDateTime,
    ) -> Vec<Self> {
        let live = chains.iter().filter_map(|chain| {
            let facts = chain.leaf_facts()?;
            // A chain that begins to live tomorrow needs its anchor today.
            let at = now.max(facts.not_before);
            let readers = bundles.iter().map(|bundle| chain.readers_with(bundle, at));
            let readers = readers.fold(Readers::default(), Readers::or);
            let is_live = facts.not_after >= now && readers != Readers::default();
            is_live.then_some(Self { chain, at, readers })
        });
        live.collect()
    }

    fn is_trusted_by(&self, bundle: &TrustBundle) -> bool {
        self.chain
            .readers_with(bundle, self.at)
            .has_all(self.readers)
    }
}
