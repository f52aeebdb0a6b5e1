//! Judges what a server shows as OpenSSL judges it for libpq and PgBouncer, before a pooler depends on
//! it.
//!
//! rustls-webpki is stricter: it takes no certificate of version 1, none without alternative names,
//! and no self-signed one of a CA as a server's, all of which PostgreSQL's own manual has users make.
//! A refusal by it would keep a configuration away that works. What is accepted here is verified by
//! the pooler itself at every connection, so that a mistake costs a connection and no trust.

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::x509::X509Version;

use super::chain::CHAIN_MAX;
use super::facts::CertificateFacts;
use super::signature::{Signed, split_spki};
use super::text::instant;

/// Why a server's certificate is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// It is not a certificate.
    #[error("the server shows no certificate that can be read")]
    Unreadable,
    /// No path to a trusted root.
    #[error("{leaf}, issued by {issuer}, leads to none of the trusted CAs [{}]", .trusted.join("; "))]
    NoPath {
        /// The leaf's subject.
        leaf: String,
        /// The leaf's issuer.
        issuer: String,
        /// The subjects of the trusted certificates.
        trusted: Vec<String>,
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
    /// A CA of the path forbids so many CAs below it.
    #[error("{who} does not allow so many CAs below it")]
    PathTooLong {
        /// Its subject.
        who: String,
    },
    /// It is not for servers.
    #[error("{leaf} may not be used by a server")]
    WrongUsage {
        /// The leaf's subject.
        leaf: String,
    },
    /// It has another name.
    #[error("{leaf} is for [{}], and not for {wanted}", .found.join(", "))]
    WrongName {
        /// The leaf's subject.
        leaf: String,
        /// The names that it has.
        found: Vec<String>,
        /// The name that was connected to.
        wanted: String,
    },
}

/// One certificate, as far as a path is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    der: CertificateDer<'static>,
    facts: CertificateFacts,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    spki: Vec<u8>,
    /// Version 1 has no extensions, so it cannot say whether it is a CA.
    is_version_1: bool,
    is_trusted: bool,
}

/// Judges the chain that a server has shown, leaf first, by `trusted`; `name` is what was connected
/// to, where it matters.
pub fn judge(
    shown: &[Vec<u8>],
    trusted: &[CertificateDer<'static>],
    name: Option<&str>,
    now: OffsetDateTime,
) -> Result<(), PeerRefusal> {
    let leaf = shown.first().ok_or(PeerRefusal::Unreadable)?;
    let leaf = Link::read(leaf, false).ok_or(PeerRefusal::Unreadable)?;
    let anchors = trusted.iter().filter_map(|der| Link::read(der, true));
    let others = shown.iter().skip(1).take(CHAIN_MAX);
    let others = others.filter_map(|der| Link::read(der, false));
    let known: Vec<Link> = anchors.chain(others).collect();
    let subject = leaf.facts.subject.clone();
    let path = path(leaf, &known, now).ok_or_else(|| PeerRefusal::NoPath {
        leaf: subject,
        issuer: Link::read(&shown[0], false)
            .map(|leaf| leaf.facts.issuer)
            .unwrap_or_default(),
        trusted: known
            .iter()
            .filter(|link| link.is_trusted)
            .map(|link| link.facts.subject.clone())
            .collect(),
    })?;
    check_path(&path, now)?;
    let Some(leaf) = path.first() else {
        return Err(PeerRefusal::Unreadable);
    };
    if !leaf.facts.server_auth {
        let leaf = leaf.facts.subject.clone();
        return Err(PeerRefusal::WrongUsage { leaf });
    }
    match name {
        Some(name) if !carries(&leaf.facts, name) => Err(PeerRefusal::WrongName {
            leaf: leaf.facts.subject.clone(),
            found: names(&leaf.facts),
            wanted: name.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Algorithm (its identifier's contents) and public key of a certificate of any version; `None` if it
/// is not one. webpki reads certificates of version 3 only.
pub fn public_key(certificate: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let (algorithm, key) = split_spki(parsed.public_key().raw).ok()?;
    Some((algorithm.to_vec(), key.to_vec()))
}

/// The path from `leaf` to a trusted root. A trusted certificate goes before one that was shown, and
/// of those one that is valid.
fn path(leaf: Link, known: &[Link], now: OffsetDateTime) -> Option<Vec<Link>> {
    let mut path = vec![leaf];
    while path.len() <= CHAIN_MAX {
        let last = path.last()?;
        let signed = Signed::read(&last.der).ok()?;
        if last.subject == last.issuer && signed.is_by(&last.spki) {
            let is_trusted = |link: &Link| link.is_trusted && link.der == last.der;
            return known.iter().any(is_trusted).then_some(path);
        }
        let above = known
            .iter()
            .filter(|link| link.subject == last.issuer && link.may_issue())
            .filter(|link| path.iter().all(|below| below.der != link.der))
            .filter(|link| signed.is_by(&link.spki))
            .min_by_key(|link| (!link.is_trusted, !link.facts.is_valid_at(now)))?
            .clone();
        path.push(above);
    }
    None
}

fn check_path(path: &[Link], now: OffsetDateTime) -> Result<(), PeerRefusal> {
    for (position, link) in path.iter().enumerate() {
        let (who, facts) = (link.facts.subject.clone(), &link.facts);
        if now > facts.not_after {
            let not_after = facts.not_after;
            return Err(PeerRefusal::Expired {
                who,
                not_after,
                now,
            });
        }
        if now < facts.not_before {
            let not_before = facts.not_before;
            return Err(PeerRefusal::NotYetValid {
                who,
                not_before,
                now,
            });
        }
        let between = path.iter().take(position).skip(1);
        let between = between.filter(|link| !link.facts.is_self_issued).count();
        let most = facts
            .path_length
            .and_then(|most| usize::try_from(most).ok());
        if most.is_some_and(|most| between > most) {
            return Err(PeerRefusal::PathTooLong { who });
        }
    }
    Ok(())
}

/// Whether a leaf carries a host's name or address. The common name counts where there is no
/// alternative name of a host.
fn carries(facts: &CertificateFacts, host: &str) -> bool {
    let by_common_name = || {
        facts.dns_names.is_empty()
            && facts
                .common_name
                .as_deref()
                .is_some_and(|name| is_name_of(name, host))
    };
    match host.parse() {
        Ok(address) => facts.ip_addresses.contains(&address) || by_common_name(),
        Err(_) => facts.dns_names.iter().any(|name| is_name_of(name, host)) || by_common_name(),
    }
}

/// Whether a name of a certificate is a host's; a `*` stands for one whole label, the first.
fn is_name_of(name: &str, host: &str) -> bool {
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    let (Some(behind_star), Some((first, behind_first))) =
        (name.strip_prefix("*."), host.split_once('.'))
    else {
        return false;
    };
    !first.is_empty() && behind_star.contains('.') && behind_star.eq_ignore_ascii_case(behind_first)
}

fn names(facts: &CertificateFacts) -> Vec<String> {
    let addresses = facts.ip_addresses.iter().map(ToString::to_string);
    let mut all: Vec<String> = facts.dns_names.iter().cloned().chain(addresses).collect();
    if all.is_empty() {
        all.extend(facts.common_name.clone());
    }
    all
}

// === impl Link ===

impl Link {
    fn read(der: &[u8], is_trusted: bool) -> Option<Self> {
        let der = CertificateDer::from(der.to_vec());
        let facts = CertificateFacts::read(&der)?;
        let (subject, issuer, spki, is_version_1) = {
            let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
            (
                parsed.subject().as_raw().to_vec(),
                parsed.issuer().as_raw().to_vec(),
                parsed.public_key().raw.to_vec(),
                parsed.version() == X509Version::V1,
            )
        };
        Some(Self {
            der,
            facts,
            subject,
            issuer,
            spki,
            is_version_1,
            is_trusted,
        })
    }

    /// Whether it may sign certificates.
    fn may_issue(&self) -> bool {
        if self.is_version_1 {
            return self.is_trusted;
        }
        self.facts.is_ca && self.facts.may_sign
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::super::pem;
    use super::super::profile::LeafProfile;
    use super::super::testing::{NOW, client, key, openssl, root, serial, server};
    use super::*;
    use crate::instants::Shift;

    fn leaf(profile: &LeafProfile) -> (Vec<Vec<u8>>, Vec<CertificateDer<'static>>) {
        let ca = root("notary");
        let key = key();
        let issued = ca.sign(profile, key.public_key(), serial(7), NOW).unwrap();
        let chain = issued.chain.certificates().map(|der| der.to_vec());
        (chain.collect(), vec![ca.certificate().clone()])
    }

    #[test]
    fn names_addresses_and_one_whole_label_count() {
        let (chain, trusted) = leaf(&server());
        let judged = |name| judge(&chain, &trusted, Some(name), NOW);
        for name in [
            "ledger.treasury.svc",
            "LEDGER.treasury.svc",
            "x.ledger-pods.treasury.svc",
            "127.0.0.1",
        ] {
            assert_eq!(judged(name), Ok(()), "{name}");
        }
        for name in [
            "treasury.svc",
            "a.b.ledger-pods.treasury.svc",
            ".ledger-pods.treasury.svc",
            "127.0.0.2",
        ] {
            let refused = judged(name);
            assert!(
                matches!(refused, Err(PeerRefusal::WrongName { .. })),
                "{name}: {refused:?}"
            );
        }
        assert_eq!(judge(&chain, &trusted, None, NOW), Ok(()));
    }

    #[test]
    fn another_ca_and_other_times_and_uses_are_refused_by_their_names() {
        let (chain, trusted) = leaf(&server());
        let other = vec![root("stranger").certificate().clone()];
        let refused = judge(&chain, &other, None, NOW).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("CN=stranger") && text.contains("CN=notary"),
            "{text}"
        );
        // The same name with another key is another CA.
        let namesake = vec![root("notary").certificate().clone()];
        assert!(judge(&chain, &namesake, None, NOW).is_err());
        let later = NOW.plus(Duration::days(5000));
        let refused = judge(&chain, &trusted, None, later).unwrap_err();
        assert!(matches!(refused, PeerRefusal::Expired { .. }), "{refused}");
        let earlier = NOW.minus(Duration::days(5));
        let refused = judge(&chain, &trusted, None, earlier).unwrap_err();
        assert!(
            matches!(refused, PeerRefusal::NotYetValid { .. }),
            "{refused}"
        );
        let (chain, trusted) = leaf(&client());
        let refused = judge(&chain, &trusted, None, NOW).unwrap_err();
        assert!(
            matches!(refused, PeerRefusal::WrongUsage { .. }),
            "{refused}"
        );
        assert_eq!(
            judge(&[], &trusted, None, NOW),
            Err(PeerRefusal::Unreadable)
        );
        let rubbish = [vec![0x30, 0x03]];
        assert_eq!(
            judge(&rubbish, &trusted, None, NOW),
            Err(PeerRefusal::Unreadable)
        );
    }

    /// What the manual of PostgreSQL has users make: one self-signed certificate with a common name.
    #[test]
    fn a_self_signed_certificate_with_a_common_name_is_its_own_root() {
        let made = openssl(
            &[
                "req",
                "-x509",
                "-nodes",
                "-days",
                "30",
                "-newkey",
                "rsa:2048",
                "-subj",
                "/CN=books.example",
                "-keyout",
                "/dev/null",
            ],
            "",
        );
        let made = pem::read_certificates(&made.unwrap()).unwrap();
        let now = CertificateFacts::read(&made[0]).unwrap().not_before;
        let chain = [made[0].to_vec()];
        assert_eq!(judge(&chain, &made, Some("books.example"), now), Ok(()));
        assert!(judge(&chain, &made, Some("other.example"), now).is_err());
        let strangers = [root("notary").certificate().clone()];
        assert!(judge(&chain, &strangers, None, now).is_err());
    }
}
