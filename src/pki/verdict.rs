//! Judges a chain: a path by rustls-webpki, the fields by x509-parser; a refusal carries the facts.

use std::net::IpAddr;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, DnsName, ServerName, TrustAnchor, UnixTime};
use time::OffsetDateTime;
use webpki::{EndEntityCert, Error, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage};

use super::bundle::TrustBundle;
use super::chain::CertificateChain;
use super::facts::CertificateFacts;
use super::profile::{LeafProfile, LeafUsage};
use super::text::instant;

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

/// Why a chain is refused: who, what was wanted, what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Verdict {
    /// No path from the leaf to any anchor.
    #[error("no trust: {leaf} is issued by {issuer}, and clients trust only [{}]", .anchors.join("; "))]
    NoPath {
        /// The leaf's subject.
        leaf: String,
        /// The leaf's issuer.
        issuer: String,
        /// The subjects of the anchors.
        anchors: Vec<String>,
    },
    /// A certificate of the path has expired.
    #[error("{who} expired at {} (now {})", instant(.not_after), instant(.now))]
    Expired {
        /// Its subject.
        who: String,
        /// Its last instant.
        not_after: OffsetDateTime,
        /// The instant of the judgement.
        now: OffsetDateTime,
    },
    /// A certificate of the path is not valid yet.
    #[error("{who} is valid only from {} (now {})", instant(.not_before), instant(.now))]
    NotYetValid {
        /// Its subject.
        who: String,
        /// Its first instant.
        not_before: OffsetDateTime,
        /// The instant of the judgement.
        now: OffsetDateTime,
    },
    /// A wanted name is not in the leaf.
    #[error("{leaf} lacks the names [{}]; it has [{}]", .missing.join(", "), .found.join(", "))]
    NamesMissing {
        /// The leaf's subject.
        leaf: String,
        /// What was wanted and is not there.
        missing: Vec<String>,
        /// What is there.
        found: Vec<String>,
    },
    /// The common name is another.
    #[error("the common name is {found:?}, wanted {wanted:?}")]
    CommonNameDiffers {
        /// What was wanted.
        wanted: String,
        /// What is there.
        found: Option<String>,
    },
    /// The extended key usage does not allow the use.
    #[error("{leaf} may not be used for {wanted}")]
    WrongUsage {
        /// The leaf's subject.
        leaf: String,
        /// What it should be used for.
        wanted: &'static str,
    },
    /// A CA of the path forbids the leaf's names.
    #[error("the name constraints of the CA {issuer} forbid the names of {leaf}: [{}]", .names.join(", "))]
    NamesForbidden {
        /// The leaf's subject.
        leaf: String,
        /// The leaf's issuer.
        issuer: String,
        /// The leaf's names.
        names: Vec<String>,
    },
    /// A CA of the path forbids so many CAs below it.
    #[error("a CA above {leaf} does not allow so many CAs below it")]
    PathTooLong {
        /// The leaf's subject.
        leaf: String,
    },
    /// The leaf is itself a CA.
    #[error("{leaf} is a CA, not the certificate of a server or client")]
    IsCa {
        /// The leaf's subject.
        leaf: String,
    },
    /// The leaf is no certificate.
    #[error("the leaf is not a readable certificate")]
    Unreadable,
    /// Another refusal of the path validator.
    #[error("the path validator refuses {leaf}: {detail}")]
    Refused {
        /// The leaf's subject.
        leaf: String,
        /// What it said.
        detail: String,
    },
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
    let (anchors, path_lengths) = usable_anchors(bundle, now);
    let usage = match wanted {
        LeafUsage::ServerAndClient | LeafUsage::Server => KeyUsage::server_auth(),
        LeafUsage::Client => KeyUsage::client_auth(),
    };
    match find_path(chain, &anchors, now, usage) {
        Ok(path) => check_anchor(&path, &path_lengths, &leaf)?,
        Err(error) => return Err(explain(&error, chain, bundle, &leaf, (wanted, now))),
    }
    Ok(leaf)
}

/// Whether the leaf is trusted at `at`, whatever it is for and however long its anchor lives.
pub(super) fn has_path(chain: &CertificateChain, bundle: &TrustBundle, at: OffsetDateTime) -> bool {
    find_path(chain, &bundle.anchors(), at, AnyUsage).is_ok()
}

/// The end of a path, as the place of its anchor among those that were offered, and how many CAs are
/// between it and the leaf.
struct Path {
    anchor: Option<usize>,
    n_intermediates: usize,
}

fn find_path(
    chain: &CertificateChain,
    anchors: &[TrustAnchor<'_>],
    at: OffsetDateTime,
    usage: impl ExtendedKeyUsageValidator,
) -> Result<Path, Error> {
    let leaf = EndEntityCert::try_from(chain.leaf())?;
    let path = leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        anchors,
        chain.intermediates(),
        unix_time(at),
        usage,
        None,
        None,
    )?;
    Ok(Path {
        anchor: anchors.iter().position(|anchor| anchor == path.anchor()),
        n_intermediates: path.intermediate_certificates().count(),
    })
}

/// The anchors that are valid at `at`, and what each says of the CAs below it.
fn usable_anchors<'a>(
    bundle: &'a TrustBundle,
    at: OffsetDateTime,
) -> (Vec<TrustAnchor<'a>>, Vec<Option<u32>>) {
    let usable = |certificate: &'a CertificateDer<'static>| {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let validity = parsed.validity();
        let life = validity.not_before.to_datetime()..=validity.not_after.to_datetime();
        let path_length = parsed
            .basic_constraints()
            .ok()
            .flatten()
            .and_then(|constraints| constraints.value.path_len_constraint);
        let anchor = webpki::anchor_from_trusted_cert(certificate).ok()?;
        life.contains(&at).then_some((anchor, path_length))
    };
    bundle.certificates().iter().filter_map(usable).unzip()
}

/// webpki keeps only name and key of an anchor; OpenSSL, which libpq and PgBouncer use, also obeys
/// the path length of a root.
fn check_anchor(
    path: &Path,
    path_lengths: &[Option<u32>],
    leaf: &CertificateFacts,
) -> Result<(), Verdict> {
    let allowed = path
        .anchor
        .and_then(|anchor| path_lengths.get(anchor).copied().flatten());
    match allowed {
        Some(allowed) if path.n_intermediates as u64 > u64::from(allowed) => {
            Err(Verdict::PathTooLong {
                leaf: leaf.subject.clone(),
            })
        }
        Some(_) | None => Ok(()),
    }
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

fn names_missing(leaf: &CertificateFacts, missing: Vec<String>) -> Verdict {
    Verdict::NamesMissing {
        leaf: leaf.subject.clone(),
        missing,
        found: all_names(leaf),
    }
}

fn all_names(leaf: &CertificateFacts) -> Vec<String> {
    leaf.dns_names
        .iter()
        .cloned()
        .chain(leaf.ip_addresses.iter().map(IpAddr::to_string))
        .collect()
}

/// Turns the validator's error into facts.
fn explain(
    error: &Error,
    chain: &CertificateChain,
    bundle: &TrustBundle,
    leaf: &CertificateFacts,
    (wanted, now): (LeafUsage, OffsetDateTime),
) -> Verdict {
    let everybody = || chain.facts().into_iter().chain(bundle.facts());
    match error {
        // A signature that does not fit is that of another CA of the same name.
        Error::CertExpired { .. }
        | Error::CertNotValidYet { .. }
        | Error::UnknownIssuer
        | Error::InvalidSignatureForPublicKey => {
            // An anchor that is out of date was not offered; it would have been the path.
            let is_trusted_otherwise = has_path(chain, bundle, now);
            let is_about_dates = matches!(
                error,
                Error::CertExpired { .. } | Error::CertNotValidYet { .. }
            );
            let culprit = if is_about_dates || is_trusted_otherwise {
                everybody().find(|facts| !facts.is_valid_at(now))
            } else {
                None
            };
            match culprit {
                Some(facts) => out_of_date(facts, now),
                None => Verdict::NoPath {
                    leaf: leaf.subject.clone(),
                    issuer: leaf.issuer.clone(),
                    anchors: bundle
                        .facts()
                        .into_iter()
                        .map(|facts| facts.subject)
                        .collect(),
                },
            }
        }
        Error::RequiredEkuNotFoundContext(_) => Verdict::WrongUsage {
            leaf: leaf.subject.clone(),
            wanted: match wanted {
                LeafUsage::ServerAndClient | LeafUsage::Server => "TLS server authentication",
                LeafUsage::Client => "TLS client authentication",
            },
        },
        Error::NameConstraintViolation => Verdict::NamesForbidden {
            leaf: leaf.subject.clone(),
            issuer: leaf.issuer.clone(),
            names: all_names(leaf),
        },
        Error::PathLenConstraintViolated => Verdict::PathTooLong {
            leaf: leaf.subject.clone(),
        },
        Error::CaUsedAsEndEntity => Verdict::IsCa {
            leaf: leaf.subject.clone(),
        },
        other => Verdict::Refused {
            leaf: leaf.subject.clone(),
            detail: other.to_string(),
        },
    }
}

fn out_of_date(facts: CertificateFacts, now: OffsetDateTime) -> Verdict {
    if facts.not_before > now {
        Verdict::NotYetValid {
            who: facts.subject,
            not_before: facts.not_before,
            now,
        }
    } else {
        Verdict::Expired {
            who: facts.subject,
            not_after: facts.not_after,
            now,
        }
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
