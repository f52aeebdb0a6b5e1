//! Refusals, and how an error of webpki becomes one.

use std::net::IpAddr;

use time::OffsetDateTime;
use webpki::Error;

use super::{AnyUsage, find_path};
use crate::pki::bundle::TrustBundle;
use crate::pki::chain::CertificateChain;
use crate::pki::facts::CertificateFacts;
use crate::pki::path::Defect;
use crate::pki::profile::LeafUsage;
use crate::pki::text::instant;

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
    /// A reader refuses the path, or it cannot be verified here.
    #[error(transparent)]
    Defect(Defect),
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

pub(super) fn names_missing(leaf: &CertificateFacts, missing: Vec<String>) -> Verdict {
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
pub(super) fn explain(
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
            let is_trusted_otherwise = find_path(chain, &bundle.anchors(), now, AnyUsage).is_ok();
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
