//! Judges a chain as two readers do: rustls-webpki builds one path, [`super::path::openssl`] another, and
//! both must be sound; the fields are read by x509-parser. A refusal carries the facts.
//!
//! webpki refuses some paths that clients accept: critical certificate policies, RSA-PSS with unusual
//! salts, seven CAs below the root. There OpenSSL's path, checked here, is the proof.

use std::net::IpAddr;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, DnsName, ServerName, TrustAnchor, UnixTime};
use time::OffsetDateTime;
use webpki::{EndEntityCert, Error, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage};

use super::algorithms;
use super::bundle::TrustBundle;
use super::chain::CertificateChain;
use super::facts::CertificateFacts;
use super::path::{Certificate, Defect, Usage, openssl, policies};
use super::profile::{LeafProfile, LeafUsage};

mod refusal;

pub use self::refusal::Verdict;
use self::refusal::{explain, names_missing};

/// What a chain must be, to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// What it is for.
    pub usage: LeafUsage,
    /// The common name, where it matters: a client's is its user.
    pub common_name: Option<String>,
    /// The DNS names that it must have, wildcards included.
    pub dns_names: Vec<String>,
    /// The IP addresses that it must have.
    pub ip_addresses: Vec<IpAddr>,
    /// When it must be valid.
    pub now: OffsetDateTime,
}

impl Expectation {
    /// What a certificate issued for `profile` must be at `now`.
    pub fn of(profile: &LeafProfile, now: OffsetDateTime) -> Self {
        Self {
            usage: profile.usage,
            common_name: profile.common_name.clone(),
            dns_names: profile.dns_names.clone(),
            ip_addresses: profile.ip_addresses.clone(),
            now,
        }
    }
}

/// Proves `chain` against `bundle`; what the leaf says, or why it is refused.
pub(super) fn verify(
    chain: &CertificateChain,
    bundle: &TrustBundle,
    wanted: &Expectation,
) -> Result<CertificateFacts, Verdict> {
    let leaf = verify_path(chain, bundle, wanted.usage, wanted.now)?;
    check_fields(&leaf, wanted)?;
    check_served_names(chain, &leaf, wanted)?;
    Ok(leaf)
}

/// The part of [`verify`] that holds for everybody's certificates: a path to an anchor that is valid
/// at `now`, for one use: of [`LeafUsage::ServerAndClient`] the server's.
pub(super) fn verify_path(
    chain: &CertificateChain,
    bundle: &TrustBundle,
    wanted: LeafUsage,
    now: OffsetDateTime,
) -> Result<CertificateFacts, Verdict> {
    let leaf = chain.leaf_facts().ok_or(Verdict::Unreadable)?;
    let anchors = usable_anchors(bundle, now);
    let (key_usage, usage) = match wanted {
        LeafUsage::ServerAndClient | LeafUsage::Server => (KeyUsage::server_auth(), Usage::Server),
        LeafUsage::Client => (KeyUsage::client_auth(), Usage::Client),
    };
    let served = Certificate::read_all(chain.certificates());
    let store = Certificate::read_all(bundle.certificates());
    if served
        .first()
        .is_none_or(|first| first.der != *chain.leaf())
    {
        return Err(Verdict::Unreadable);
    }
    let second = |known: &[(&[u8], &[u8])]| {
        let is_known = |below: &Certificate, above: &Certificate| {
            known.contains(&(below.der.as_ref(), above.spki.as_slice()))
        };
        openssl::verify(&served, &store, (usage, now), is_known)
    };
    let path = match find_path(chain, &anchors, now, key_usage) {
        Ok(known) => {
            let known: Vec<(&[u8], &[u8])> = known
                .iter()
                .map(|(below, spki)| (below.as_slice(), spki.as_slice()))
                .collect();
            second(&known).map_err(|defect| refused(defect, &leaf))?
        }
        Err(error) => {
            let refusal = || explain(&error, chain, bundle, &leaf, (wanted, now));
            if !may_be_accepted(&error) {
                return Err(refusal());
            }
            second(&[]).map_err(|defect| match (refusal(), defect) {
                (refusal @ Verdict::NoPath { .. }, Defect::NoRoot { .. }) => refusal,
                (Verdict::NoPath { .. } | Verdict::Refused { .. }, defect) => {
                    refused(defect, &leaf)
                }
                (refusal, _) => refusal,
            })?
        }
    };
    if leaf.is_ca && path.len() > 1 {
        return Err(Verdict::IsCa { leaf: leaf.subject });
    }
    policies::check(&path).map_err(Verdict::Defect)?;
    Ok(leaf)
}

/// The readers that trust a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Readers {
    webpki: bool,
    openssl: bool,
}

impl Readers {
    /// The readers of either.
    pub(super) const fn or(self, other: Self) -> Self {
        Self {
            webpki: self.webpki || other.webpki,
            openssl: self.openssl || other.openssl,
        }
    }

    /// Whether all readers of `other` are here.
    pub(super) const fn has_all(self, other: Self) -> bool {
        (self.webpki || !other.webpki) && (self.openssl || !other.openssl)
    }
}

/// The readers that trust the leaf at `at`, whatever it is for; webpki does not ask how long its anchor
/// lives.
pub(super) fn readers(
    chain: &CertificateChain,
    bundle: &TrustBundle,
    at: OffsetDateTime,
) -> Readers {
    let served = Certificate::read_all(chain.certificates());
    let store = Certificate::read_all(bundle.certificates());
    let is_read = served
        .first()
        .is_some_and(|first| first.der == *chain.leaf());
    Readers {
        webpki: find_path(chain, &bundle.anchors(), at, AnyUsage).is_ok(),
        openssl: is_read
            && openssl::verify(&served, &store, (Usage::Any, at), |_, _| false).is_ok(),
    }
}

/// Whether webpki refuses a path that other clients may accept: it does not know policies, names of
/// directories in constraints and unusual signatures, counts self-issued CAs, and follows six CAs.
const fn may_be_accepted(error: &Error) -> bool {
    matches!(
        error,
        Error::UnsupportedCriticalExtension
            | Error::MaximumPathDepthExceeded
            | Error::UnsupportedSignatureAlgorithmContext(_)
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
            | Error::UnknownIssuer
            | Error::InvalidSignatureForPublicKey
            | Error::PathLenConstraintViolated
            | Error::NameConstraintViolation
    )
}

fn refused(defect: Defect, leaf: &CertificateFacts) -> Verdict {
    match defect {
        Defect::PathLength { .. } => Verdict::PathTooLong {
            leaf: leaf.subject.clone(),
        },
        defect => Verdict::Defect(defect),
    }
}

/// The certificates of a path that webpki found, leaf first, each with the key that signed it.
type Signers = Vec<(Vec<u8>, Vec<u8>)>;

fn find_path(
    chain: &CertificateChain,
    anchors: &[TrustAnchor<'_>],
    at: OffsetDateTime,
    usage: impl ExtendedKeyUsageValidator,
) -> Result<Signers, Error> {
    let leaf = EndEntityCert::try_from(chain.leaf())?;
    let path = leaf.verify_for_usage(
        algorithms::ALL,
        anchors,
        chain.intermediates(),
        unix_time(at),
        usage,
        None,
        None,
    )?;
    let mut below = chain.leaf().to_vec();
    let mut signers = Vec::new();
    for above in path.intermediate_certificates() {
        signers.push((below, above.subject_public_key_info().to_vec()));
        below = above.der().to_vec();
    }
    let root = webpki::spki_for_anchor(path.anchor());
    signers.push((below, root.to_vec()));
    Ok(signers)
}

/// The anchors that are valid at `at`.
fn usable_anchors(bundle: &TrustBundle, at: OffsetDateTime) -> Vec<TrustAnchor<'_>> {
    let usable = |certificate: &&CertificateDer<'static>| {
        x509_parser::parse_x509_certificate(certificate).is_ok_and(|(_, parsed)| {
            let validity = parsed.validity();
            let life = validity.not_before.to_datetime()..=validity.not_after.to_datetime();
            life.contains(&at)
        })
    };
    let usable = bundle.certificates().iter().filter(usable);
    usable
        .filter_map(|certificate| webpki::anchor_from_trusted_cert(certificate).ok())
        .collect()
}

fn check_fields(leaf: &CertificateFacts, wanted: &Expectation) -> Result<(), Verdict> {
    if leaf.is_ca {
        return Err(Verdict::IsCa {
            leaf: leaf.subject.clone(),
        });
    }
    // A pooler never shows its server certificate as a client.
    if !leaf.client_auth && wanted.usage == LeafUsage::Client {
        return Err(Verdict::WrongUsage {
            leaf: leaf.subject.clone(),
            wanted: "TLS client authentication",
        });
    }
    // A server is known by its alternative names; other issuers may leave its common name out.
    let may_lack = wanted.usage != LeafUsage::Client && !wanted.dns_names.is_empty();
    if let Some(common_name) = &wanted.common_name
        && leaf.common_name.as_ref() != Some(common_name)
        && !(may_lack && leaf.common_name.is_none())
    {
        return Err(Verdict::CommonNameDiffers {
            wanted: common_name.clone(),
            found: leaf.common_name.clone(),
        });
    }
    let lacks_dns = |name: &&String| {
        !leaf
            .dns_names
            .iter()
            .any(|found| found.eq_ignore_ascii_case(name))
    };
    let mut missing: Vec<String> = wanted.dns_names.iter().filter(lacks_dns).cloned().collect();
    missing.extend(
        wanted
            .ip_addresses
            .iter()
            .filter(|address| !leaf.ip_addresses.contains(address))
            .map(IpAddr::to_string),
    );
    if missing.is_empty() {
        Ok(())
    } else {
        Err(names_missing(leaf, missing))
    }
}

/// Names that a client may connect to must also be accepted by the verifier, not only be present.
fn check_served_names(
    chain: &CertificateChain,
    leaf: &CertificateFacts,
    wanted: &Expectation,
) -> Result<(), Verdict> {
    let certificate = EndEntityCert::try_from(chain.leaf()).map_err(|_| Verdict::Unreadable)?;
    let is_refused =
        |name: &ServerName<'_>| certificate.verify_is_valid_for_subject_name(name).is_err();
    let dns = wanted
        .dns_names
        .iter()
        .filter(|name| !name.starts_with("*."))
        .filter_map(|name| {
            DnsName::try_from(name.as_str())
                .ok()
                .map(ServerName::DnsName)
        });
    let ip = wanted
        .ip_addresses
        .iter()
        .map(|address| ServerName::IpAddress((*address).into()));
    let refused: Vec<String> = dns
        .chain(ip)
        .filter(is_refused)
        .map(|name| name.to_str().into_owned())
        .collect();
    if refused.is_empty() {
        Ok(())
    } else {
        Err(names_missing(leaf, refused))
    }
}

/// Instants before 1970 are of no certificate that we could meet.
fn unix_time(at: OffsetDateTime) -> UnixTime {
    let seconds = u64::try_from(at.unix_timestamp()).unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// Accepts every extended key usage.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        Ok(())
    }
}
