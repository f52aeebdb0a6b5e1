//! A CA: proves that what it was given is one, and signs.

use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use super::bundle::TrustBundle;
use super::chain::CertificateChain;
use super::facts::CertificateFacts;
use super::key::{KeyError, PrivateKey, PublicKey};
use super::lineage::{self, Lineage, LineagePath};
use super::path::Defect;
use super::pem::{self, PemError};
use super::profile::{CaProfile, LeafProfile, Outliving, Pointers, ProfileError};
use super::tbs::{self, Statement};
use super::text::instant;
use super::verdict::{Expectation, Verdict};

use crate::instants::{Shift, Since};

pub use super::tbs::Serial;

/// How far certificates are dated back: clocks of clients may be that far behind. cert-manager's own
/// CA issuer does not do so, and its certificates are refused by such clients.
pub const BACKDATE: Duration = Duration::minutes(5);

/// A CA with its key, its paths to roots, and what clients have to trust.
#[derive(Debug)]
pub struct CertificateAuthority {
    key: PrivateKey,
    lineage: Lineage,
    anchors: TrustBundle,
    pointers: Pointers,
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Leaf and intermediates; the root is not served.
    pub chain: CertificateChain,
    /// What clients have to trust.
    pub anchors: TrustBundle,
    /// Whether the leaf ends earlier than asked for, because its CA does.
    pub clamped: bool,
}

/// Why documents do not make a CA that can sign; the fields are those of its Secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// `tls.crt` cannot be read.
    #[error("cannot read the CA's certificate in tls.crt")]
    Certificate(#[source] PemError),
    /// `tls.key` cannot be read.
    #[error("cannot read the CA's key in tls.key")]
    Key(#[source] KeyError),
    /// `ca.crt` is there and cannot be read.
    #[error("cannot read the root certificates in ca.crt")]
    Roots(#[source] PemError),
    /// The key belongs to another certificate.
    #[error(
        "tls.key is not the key of {subject}, the first certificate in tls.crt: store the pair that belongs together"
    )]
    KeyMismatch {
        /// The certificate's subject.
        subject: String,
    },
    /// The certificate is not a CA's.
    #[error("{subject} in tls.crt is not a CA: its basic constraints do not say so")]
    NotCa {
        /// The certificate's subject.
        subject: String,
    },
    /// The certificate forbids signing.
    #[error("{subject} in tls.crt may not sign certificates: its key usage lacks keyCertSign")]
    NoCertSign {
        /// The certificate's subject.
        subject: String,
    },
    /// The CA, or one above it, has expired.
    #[error("the CA {subject} expired at {} (now {}): renew it", instant(.not_after), instant(.now))]
    Expired {
        /// The certificate's subject.
        subject: String,
        /// Its last instant.
        not_after: OffsetDateTime,
        /// The present.
        now: OffsetDateTime,
    },
    /// The CA, or one above it, is not valid yet.
    #[error("the CA {subject} is valid only from {} (now {}): check the clock", instant(.not_before), instant(.now))]
    NotYetValid {
        /// The certificate's subject.
        subject: String,
        /// Its first instant.
        not_before: OffsetDateTime,
        /// The present.
        now: OffsetDateTime,
    },
    /// An intermediate without the CA above it.
    #[error(
        "{subject} is issued by {issuer}, which is neither in tls.crt nor in ca.crt: add it to ca.crt, because clients trust roots only"
    )]
    RootMissing {
        /// The intermediate's subject.
        subject: String,
        /// The missing CA.
        issuer: String,
    },
    /// A CA above this one does not allow another below it.
    #[error("the CA {above} does not allow {subject} below it: its path length is {path_length}")]
    PathTooLong {
        /// The issuing CA's subject.
        subject: String,
        /// The CA above it.
        above: String,
        /// What it allows.
        path_length: u32,
    },
    /// The certificate above the CA is there, and readers refuse it.
    #[error("clients would refuse what this CA signs")]
    Refused(#[source] Defect),
}

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// What was asked for breaks a rule.
    #[error("the certificate asked for is not possible")]
    Profile(#[from] ProfileError),
    /// The leaf would live longer than a CA above it.
    #[error("the certificate would end at {}, after its CA {issuer} ({}): lower spec.tls.certificates[].duration to at most {} or renew the CA", instant(.wanted), instant(.not_after), hours(.remaining))]
    OutlivesIssuer {
        /// The CA that ends first.
        issuer: String,
        /// When the leaf should end.
        wanted: OffsetDateTime,
        /// When the CA ends.
        not_after: OffsetDateTime,
        /// What is left of it.
        remaining: Duration,
    },
    /// The CA is out of date.
    #[error("the CA cannot sign now")]
    Authority(#[from] CaError),
    /// A CA of the path forbids what was asked for.
    #[error("clients would refuse the certificate")]
    Constraints(#[source] Box<Verdict>),
    /// The signature could not be made.
    #[error("the signature failed")]
    Key(#[from] KeyError),
}

// === impl CertificateAuthority ===

impl CertificateAuthority {
    /// Reads a CA from the documents of its Secret: `tls.crt` (the CA, then what is above it),
    /// `tls.key`, and `ca.crt` where it is there (the roots).
    pub fn load(tls_crt: &str, tls_key: &str, ca_crt: Option<&str>) -> Result<Self, CaError> {
        let certificates = pem::read_certificates(tls_crt).map_err(CaError::Certificate)?;
        let key = PrivateKey::from_pem(tls_key).map_err(CaError::Key)?;
        let roots = match ca_crt.filter(|text| !text.trim().is_empty()) {
            Some(text) => pem::read_certificates(text).map_err(CaError::Roots)?,
            None => Vec::new(),
        };
        Self::assemble(&certificates, key, &roots)
    }

    /// Puts `pointers` into every leaf that it signs from now on.
    #[must_use]
    pub fn with_pointers(self, pointers: Pointers) -> Self {
        Self { pointers, ..self }
    }

    /// A new root CA.
    pub fn self_signed(
        profile: &CaProfile,
        key: PrivateKey,
        serial: Serial,
        now: OffsetDateTime,
    ) -> Result<Self, SignError> {
        profile.check()?;
        let name = tbs::name(Some(&profile.common_name), &profile.subject);
        let identifier = key.public_key().key_identifier();
        let mut extensions =
            tbs::ca_extensions(profile.path_length, &profile.permitted_dns_domains);
        extensions.extend(tbs::key_identifiers(&identifier, &identifier));
        let statement = Statement {
            serial,
            issuer: &name,
            not_before: whole_second(now.minus(BACKDATE)),
            not_after: whole_second(now.saturating_add(profile.lifetime)),
            subject: &name,
            spki: key.public_key_der(),
            extensions: &extensions,
        };
        let certificate = tbs::sign(&statement, &key)?;
        Ok(Self::assemble(&[certificate], key, &[])?)
    }

    /// Signs an intermediate CA, which gets `key`.
    pub fn sign_ca(
        &self,
        profile: &CaProfile,
        key: PrivateKey,
        serial: Serial,
        now: OffsetDateTime,
    ) -> Result<Self, SignError> {
        profile.check()?;
        let path = self.path(profile.lifetime, now)?;
        let (not_after, _) = end_of_life(path, profile.lifetime, Outliving::Refuse, now)?;
        let extensions = tbs::ca_extensions(profile.path_length, &profile.permitted_dns_domains);
        let name = tbs::name(Some(&profile.common_name), &profile.subject);
        let dates = (start_of_life(path, now), not_after);
        let certificate = self.issue(path, (&name, key.public_key()), extensions, serial, dates)?;
        Ok(Self::assemble(&[certificate], key, path.certificates())?)
    }

    /// Signs a leaf.
    pub fn sign(
        &self,
        profile: &LeafProfile,
        public_key: &PublicKey,
        serial: Serial,
        now: OffsetDateTime,
    ) -> Result<Issued, SignError> {
        profile.check()?;
        self.pointers.check()?;
        let path = self.path(profile.lifetime, now)?;
        let (not_after, clamped) = end_of_life(path, profile.lifetime, profile.outliving, now)?;
        let name = tbs::name(profile.common_name.as_deref(), &profile.subject);
        let mut extensions = tbs::leaf_extensions(profile, public_key.kind());
        extensions.extend(tbs::pointers(&self.pointers));
        let dates = (start_of_life(path, now), not_after);
        let leaf = self.issue(path, (&name, public_key), extensions, serial, dates)?;
        let (chain, anchors) = self.compose(path, &leaf, profile, now)?;
        Ok(Issued {
            chain,
            anchors,
            clamped,
        })
    }

    /// What is served with `leaf`, and what clients have to trust: every path if clients accept that,
    /// else one.
    fn compose(
        &self,
        path: &LineagePath,
        leaf: &CertificateDer<'static>,
        profile: &LeafProfile,
        now: OffsetDateTime,
    ) -> Result<(CertificateChain, TrustBundle), SignError> {
        let all = (
            self.lineage.serve(path, leaf.clone(), now),
            self.lineage.anchors(path),
        );
        if !path.has_name_constraints() && !self.lineage.is_ambiguous(path) {
            return Ok(all);
        }
        let wanted = Expectation::of(profile, now);
        let Err(verdict) = all.0.verify(&all.1, &wanted) else {
            return Ok(all);
        };
        // The leaf names its issuer by the identifier that the chosen path has.
        let alike = |other: &&LineagePath| other.key_identifier() == path.key_identifier();
        let others = self.lineage.valid_at(now).filter(alike);
        std::iter::once(path)
            .chain(others)
            .flat_map(|path| {
                let chain = path.serve_alone(leaf.clone());
                [
                    (chain.clone(), self.lineage.anchors(path)),
                    (chain, path.root()),
                ]
            })
            .find(|(chain, anchors)| chain.verify(anchors, &wanted).is_ok())
            .ok_or_else(|| SignError::Constraints(Box::new(verdict)))
    }

    /// Signs another CA's name and key: whoever trusts only this CA then trusts what the other one
    /// signs. The cross-certificate goes into the served chain, and ends with the first of both.
    pub fn cross_sign(
        &self,
        other: &CertificateDer<'_>,
        serial: Serial,
        now: OffsetDateTime,
    ) -> Result<CertificateDer<'static>, SignError> {
        let path = self.path(Duration::ZERO, now)?;
        let other = lineage::CaView::read(other)?;
        let not_after = path.ends_first().not_after.min(other.facts.not_after);
        let mut extensions = other.constraints;
        extensions.extend(tbs::key_identifiers(
            &other.key_identifier,
            path.key_identifier(),
        ));
        let statement = Statement {
            serial,
            issuer: path.name(),
            not_before: start_of_life(path, now),
            not_after,
            subject: &other.name,
            spki: &other.spki,
            extensions: &extensions,
        };
        Ok(tbs::sign(&statement, &self.key)?)
    }

    /// Whether it, and every CA above it on one of its paths, may sign at `now`.
    pub fn check_valid_at(&self, now: OffsetDateTime) -> Result<(), CaError> {
        self.path(Duration::ZERO, now).map(drop)
    }

    /// The path to sign by at `now`.
    fn path(&self, lifetime: Duration, now: OffsetDateTime) -> Result<&LineagePath, CaError> {
        let path = self.lineage.choose(now, now.saturating_add(lifetime));
        match path.out_of_date(now) {
            None => Ok(path),
            Some(facts) if facts.not_before > now => Err(CaError::NotYetValid {
                subject: facts.subject.clone(),
                not_before: facts.not_before,
                now,
            }),
            Some(facts) => Err(CaError::Expired {
                subject: facts.subject.clone(),
                not_after: facts.not_after,
                now,
            }),
        }
    }

    /// What clients have to trust.
    pub const fn anchors(&self) -> &TrustBundle {
        &self.anchors
    }

    /// What the issuing CA says: of several certificates of it the one that can be used longest.
    pub fn facts(&self) -> &CertificateFacts {
        self.lineage.longest().issuing_facts()
    }

    /// What the issuing CA says: of several certificates of it the one that signs at `now`.
    pub fn facts_at(&self, now: OffsetDateTime) -> &CertificateFacts {
        self.lineage.choose(now, now).issuing_facts()
    }

    /// `tls.crt` of the CA's Secret: the CA and everything above it, root included.
    pub fn certificate_pem(&self) -> String {
        pem::write_certificates(self.lineage.longest().certificates())
    }

    /// The issuing CA's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.lineage.longest().issuing_certificate()
    }

    /// The key.
    pub const fn key(&self) -> &PrivateKey {
        &self.key
    }

    fn assemble(
        certificates: &[CertificateDer<'static>],
        key: PrivateKey,
        roots: &[CertificateDer<'static>],
    ) -> Result<Self, CaError> {
        let lineage = Lineage::trace(certificates, key.public_key_der(), roots)?;
        let anchors = lineage.anchors(lineage.longest());
        Ok(Self {
            key,
            lineage,
            anchors,
            pointers: Pointers::default(),
        })
    }

    fn issue(
        &self,
        path: &LineagePath,
        (name, public_key): (&[u8], &PublicKey),
        mut extensions: Vec<Vec<u8>>,
        serial: Serial,
        (not_before, not_after): (OffsetDateTime, OffsetDateTime),
    ) -> Result<CertificateDer<'static>, SignError> {
        extensions.extend(tbs::key_identifiers(
            &public_key.key_identifier(),
            path.key_identifier(),
        ));
        let statement = Statement {
            serial,
            issuer: path.name(),
            not_before,
            not_after,
            subject: name,
            spki: public_key.spki(),
            extensions: &extensions,
        };
        Ok(tbs::sign(&statement, &self.key)?)
    }
}

/// Dated back, but never to before the CA itself.
fn start_of_life(path: &LineagePath, now: OffsetDateTime) -> OffsetDateTime {
    whole_second(now.minus(BACKDATE)).max(path.issuing_facts().not_before)
}

fn end_of_life(
    path: &LineagePath,
    lifetime: Duration,
    outliving: Outliving,
    now: OffsetDateTime,
) -> Result<(OffsetDateTime, bool), SignError> {
    let wanted = whole_second(now.saturating_add(lifetime));
    let first = path.ends_first();
    if wanted <= first.not_after {
        return Ok((wanted, false));
    }
    match outliving {
        Outliving::Clamp => Ok((first.not_after, true)),
        Outliving::Refuse => Err(SignError::OutlivesIssuer {
            issuer: first.subject.clone(),
            wanted,
            not_after: first.not_after,
            remaining: first.not_after.since(now),
        }),
    }
}

/// Signs a leaf with its own key, as the `selfSigned` issuer does: its certificate is its own anchor,
/// so each one has to be trusted by name.
pub fn self_signed_leaf(
    profile: &LeafProfile,
    key: &PrivateKey,
    serial: Serial,
    now: OffsetDateTime,
) -> Result<Issued, SignError> {
    profile.check()?;
    let name = tbs::name(profile.common_name.as_deref(), &profile.subject);
    let identifier = key.public_key().key_identifier();
    let mut extensions = tbs::leaf_extensions(profile, key.kind());
    extensions.extend(tbs::key_identifiers(&identifier, &identifier));
    let statement = Statement {
        serial,
        issuer: &name,
        not_before: whole_second(now.minus(BACKDATE)),
        not_after: whole_second(now.saturating_add(profile.lifetime)),
        subject: &name,
        spki: key.public_key_der(),
        extensions: &extensions,
    };
    let leaf = tbs::sign(&statement, key)?;
    Ok(Issued {
        anchors: TrustBundle::from_certificates([leaf.clone()]),
        chain: CertificateChain::alone(leaf),
        clamped: false,
    })
}

/// Certificates know no fractions of a second.
fn whole_second(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(0).unwrap_or(at)
}

fn hours(remaining: &Duration) -> String {
    format!("{}h", remaining.whole_hours().max(0))
}
