//! The paths from an issuing CA up to its roots, found among the certificates of a Secret or an answer.

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::authority::CaError;
use super::bundle::TrustBundle;
use super::chain::{CHAIN_MAX, CertificateChain};
use super::facts::{self, CertificateFacts};
use super::oid;
use super::path::Certificate;
use super::path::search::{self, Stop};
use super::pem::PemError;
use super::tbs::{self, Criticality};

/// Every path from an issuing CA to a root. There is at least one.
#[derive(Debug)]
pub(super) struct Lineage {
    /// Preferred ones first: shorter, then in the order of the documents.
    paths: Vec<LineagePath>,
    /// The other self-signed certificates of `ca.crt`.
    others: Vec<CertificateDer<'static>>,
}

/// One path: the issuing CA first, its root last. Not empty.
#[derive(Clone, Debug)]
pub(super) struct LineagePath {
    certificates: Vec<CertificateDer<'static>>,
    facts: Vec<CertificateFacts>,
    issuing: CaView,
    has_name_constraints: bool,
}

/// What signing needs to know of a CA's certificate.
#[derive(Clone, Debug)]
pub(super) struct CaView {
    /// Its name, byte for byte.
    pub(super) name: Vec<u8>,
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
    /// Follows the paths from the CA among `certificates` whose key is `spki` to self-signed roots,
    /// through the others and `roots`. Where several certificates of that CA are there, paths begin at
    /// each: a root that was renewed, or an issuing CA that two roots signed.
    pub(super) fn trace(
        certificates: &[CertificateDer<'static>],
        spki: &[u8],
        roots: &[CertificateDer<'static>],
    ) -> Result<Self, CaError> {
        let unreadable = CaError::Certificate(PemError::BadCertificate { position: 1 });
        let first = certificates.first().ok_or(unreadable)?;
        let own = certificates.iter().map(CaView::read_any);
        let own: Vec<CaView> = own.flatten().filter(|view| view.spki == spki).collect();
        let Some(issuing) = own.iter().find(|view| view.check().is_ok()) else {
            return Err(match own.into_iter().next() {
                Some(unfit) => unfit.check().err().unwrap_or(CaError::KeyMismatch {
                    subject: unfit.facts.subject,
                }),
                None => CaError::KeyMismatch {
                    subject: CaView::read(first)?.facts.subject,
                },
            });
        };
        let mut pool: Vec<Certificate> = Vec::new();
        for certificate in Certificate::read_all(certificates.iter().chain(roots)) {
            if !pool.contains(&certificate) {
                pool.push(certificate);
            }
        }
        let is_start = |certificate: &&Certificate| {
            certificate.spki == spki
                && certificate.name == issuing.name
                && CaView::read(&certificate.der).is_ok()
        };
        let starts = pool.iter().enumerate();
        let starts: Vec<usize> = starts
            .filter(|(_, certificate)| is_start(certificate))
            .map(|(at, _)| at)
            .collect();
        let found = search::paths(&pool, &starts).map_err(|stop| refusal(stop, issuing))?;
        let paths = found.into_iter().map(|path| {
            LineagePath::read(path.into_iter().map(|at| pool[at].der.clone()).collect())
        });
        let others = Certificate::read_all(roots);
        let others = others.into_iter().filter(Certificate::is_self_signed);
        Ok(Self {
            paths: paths.collect::<Result<_, _>>()?,
            others: others.map(|certificate| certificate.der).collect(),
        })
    }

    /// The path to sign by at `now`, for a certificate that ends at `until`: of the valid ones the first
    /// that lives as long, else the one that lives longest.
    pub(super) fn choose(&self, now: OffsetDateTime, until: OffsetDateTime) -> &LineagePath {
        let mut valid = self.valid_at(now);
        let lasting = valid
            .clone()
            .find(|path| path.ends_first().not_after >= until);
        match lasting.or_else(|| first_max(&mut valid, LineagePath::end)) {
            Some(path) => path,
            None => self.longest(),
        }
    }

    /// The paths that are valid at `now`, preferred ones first.
    pub(super) fn valid_at(
        &self,
        now: OffsetDateTime,
    ) -> impl Iterator<Item = &LineagePath> + Clone {
        self.paths.iter().filter(move |path| path.is_valid_at(now))
    }

    /// The path that lives longest.
    pub(super) fn longest(&self) -> &LineagePath {
        first_max(&mut self.paths.iter(), LineagePath::end).unwrap_or(&self.paths[0])
    }

    /// The root of `path`, then those of the other paths, then the other self-signed certificates of
    /// `ca.crt`.
    pub(super) fn anchors(&self, path: &LineagePath) -> TrustBundle {
        let roots = std::iter::once(path).chain(&self.paths);
        let roots = roots.filter_map(|path| path.certificates.last());
        TrustBundle::from_certificates(roots.chain(&self.others).cloned())
    }

    /// `leaf` with the CAs of `path` below its root, then those of the other paths that are valid at
    /// `now`: a cross-certificate is there for clients that know only the other root.
    pub(super) fn serve(
        &self,
        path: &LineagePath,
        leaf: CertificateDer<'static>,
        now: OffsetDateTime,
    ) -> CertificateChain {
        let mut served = path.below_root().to_vec();
        for other in self.valid_at(now) {
            let more = other.below_root().iter();
            let more: Vec<_> = more.filter(|it| !served.contains(it)).cloned().collect();
            // A part of a path leads nowhere.
            if served.len() + more.len() < CHAIN_MAX {
                served.extend(more);
            }
        }
        CertificateChain::with_intermediates(leaf, served)
    }

    /// Whether `path` is not the only way to serve what the CA signs, or its root not the only anchor.
    pub(super) fn is_ambiguous(&self, path: &LineagePath) -> bool {
        let root = path.certificates.last();
        self.paths.len() > 1 || self.others.iter().any(|other| Some(other) != root)
    }
}

impl LineagePath {
    fn read(certificates: Vec<CertificateDer<'static>>) -> Result<Self, CaError> {
        let views: Result<Vec<CaView>, CaError> =
            certificates.iter().map(CaView::read_any).collect();
        let views = views?;
        let unreadable = CaError::Certificate(PemError::BadCertificate { position: 1 });
        Ok(Self {
            issuing: views.first().ok_or(unreadable)?.clone(),
            has_name_constraints: views.iter().any(|view| view.has_name_constraints),
            facts: views.into_iter().map(|view| view.facts).collect(),
            certificates,
        })
    }

    fn below_root(&self) -> &[CertificateDer<'static>] {
        &self.certificates[..self.certificates.len().saturating_sub(1)]
    }

    fn is_valid_at(&self, now: OffsetDateTime) -> bool {
        self.facts.iter().all(|facts| facts.is_valid_at(now))
    }

    fn end(&self) -> OffsetDateTime {
        self.ends_first().not_after
    }

    /// `leaf` with the CAs below the root, and no more.
    pub(super) fn serve_alone(&self, leaf: CertificateDer<'static>) -> CertificateChain {
        CertificateChain::with_intermediates(leaf, self.below_root().to_vec())
    }

    /// The root alone.
    pub(super) fn root(&self) -> TrustBundle {
        TrustBundle::from_certificates(self.certificates.last().cloned())
    }

    /// The certificate of the path that ends first; a leaf may not live longer.
    pub(super) fn ends_first(&self) -> &CertificateFacts {
        self.facts
            .iter()
            .min_by_key(|facts| facts.not_after)
            .unwrap_or(&self.issuing.facts)
    }

    /// The certificate of the path that is not valid at `now`.
    pub(super) fn out_of_date(&self, now: OffsetDateTime) -> Option<&CertificateFacts> {
        self.facts.iter().find(|facts| !facts.is_valid_at(now))
    }

    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
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
        let view = Self::read_any(certificate)?;
        view.check()?;
        Ok(view)
    }

    fn check(&self) -> Result<(), CaError> {
        let subject = || self.facts.subject.clone();
        if !self.facts.is_ca {
            return Err(CaError::NotCa { subject: subject() });
        }
        if !self.facts.may_sign {
            return Err(CaError::NoCertSign { subject: subject() });
        }
        Ok(())
    }

    /// Reads any certificate.
    fn read_any(certificate: &CertificateDer<'_>) -> Result<Self, CaError> {
        let unreadable = || CaError::Certificate(PemError::BadCertificate { position: 1 });
        let facts = CertificateFacts::read(certificate).ok_or_else(unreadable)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|_| unreadable())?;
        Ok(Self {
            name: parsed.subject().as_raw().to_vec(),
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

fn refusal(stop: Stop, issuing: &CaView) -> CaError {
    match stop {
        Stop::Missing { subject, issuer } => CaError::RootMissing { subject, issuer },
        Stop::TooLong { above, path_length } => CaError::PathTooLong {
            subject: issuing.facts.subject.clone(),
            above,
            path_length,
        },
        Stop::Defect(defect) => CaError::Refused(defect),
    }
}

/// The first of those that are largest.
fn first_max<'a, T, K: PartialOrd>(
    all: &mut impl Iterator<Item = &'a T>,
    key: impl Fn(&T) -> K,
) -> Option<&'a T> {
    all.reduce(|best, next| if key(next) > key(best) { next } else { best })
}
