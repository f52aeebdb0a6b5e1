//! Name constraints as OpenSSL applies them (RFC 5280 4.2.1.10).

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use super::certificate::Certificate;
use super::defect::Defect;
use crate::pki::der::{self, Reader};
use crate::pki::facts::rfc4514;

/// Refuses a path, leaf first and root last, on which a CA forbids a name of a certificate below it. Names
/// of self-issued CAs are not asked for.
pub(super) fn check(path: &[&Certificate]) -> Result<(), Defect> {
    for (place, certificate) in path.iter().enumerate() {
        if place > 0 && certificate.is_self_issued() {
            continue;
        }
        for constraining in path[place + 1..]
            .iter()
            .filter(|it| it.has_name_constraints)
        {
            let forbidden = forbidden_name(certificate, constraining, place == 0);
            if let Some(name) = forbidden {
                return Err(Defect::NamesForbidden {
                    certificate: constraining.subject(),
                    name,
                });
            }
        }
    }
    Ok(())
}

/// A name of `certificate` that `constraining` forbids, or a kind of name that OpenSSL cannot compare.
fn forbidden_name(
    certificate: &Certificate,
    constraining: &Certificate,
    is_leaf: bool,
) -> Option<String> {
    let (_, above) = X509Certificate::from_der(&constraining.der).ok()?;
    let (_, below) = X509Certificate::from_der(&certificate.der).ok()?;
    let constraints =
        above
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::NameConstraints(constraints) => Some(constraints),
                _ => None,
            })?;
    let mut names = Vec::new();
    if below.subject().iter_rdn().next().is_some() {
        names.push(GeneralName::DirectoryName(below.subject().clone()));
    }
    let emails = below.subject().iter_email();
    names.extend(emails.filter_map(|email| email.as_str().ok().map(GeneralName::RFC822Name)));
    let alternatives = below.subject_alternative_name().ok().flatten();
    let alternatives = alternatives.map_or(&[][..], |names| &names.value.general_names);
    names.extend(alternatives.iter().cloned());
    let has_dns = alternatives
        .iter()
        .any(|name| matches!(name, GeneralName::DNSName(_)));
    if is_leaf && !has_dns {
        let common = below.subject().iter_common_name();
        let common = common.filter_map(|name| name.as_str().ok());
        names.extend(
            common
                .filter(|name| is_host(name))
                .map(GeneralName::DNSName),
        );
    }
    let permitted = constraints.permitted_subtrees.as_deref().unwrap_or(&[]);
    let excluded = constraints.excluded_subtrees.as_deref().unwrap_or(&[]);
    let is_allowed = |name: &GeneralName<'_>| {
        let of_kind = |subtree: &&GeneralSubtree<'_>| {
            std::mem::discriminant(&subtree.base) == std::mem::discriminant(name)
        };
        // OpenSSL refuses what it cannot compare.
        if !is_comparable(name) {
            return !permitted.iter().chain(excluded).any(|it| of_kind(&it));
        }
        let matches = |subtree: &GeneralSubtree<'_>| lies_in(name, &subtree.base);
        let mut permitted = permitted.iter().filter(of_kind).peekable();
        (permitted.peek().is_none() || permitted.any(matches))
            && !excluded.iter().filter(of_kind).any(matches)
    };
    names.iter().find(|name| !is_allowed(name)).map(text)
}

/// A common name that OpenSSL takes for a host's: labels with at least one dot between them.
fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !label.is_empty()
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.contains('.') && name.split('.').all(is_label)
}

const fn is_comparable(name: &GeneralName<'_>) -> bool {
    matches!(
        name,
        GeneralName::DNSName(_)
            | GeneralName::RFC822Name(_)
            | GeneralName::URI(_)
            | GeneralName::IPAddress(_)
            | GeneralName::DirectoryName(_)
    )
}

fn lies_in(name: &GeneralName<'_>, base: &GeneralName<'_>) -> bool {
    match (name, base) {
        (GeneralName::DNSName(name), GeneralName::DNSName(base)) => is_below(name, base),
        (GeneralName::RFC822Name(name), GeneralName::RFC822Name(base)) => is_mail_of(name, base),
        (GeneralName::URI(uri), GeneralName::URI(base)) => host_of(uri).is_some_and(|host| {
            if base.starts_with('.') {
                ends_with(host, base)
            } else {
                host.eq_ignore_ascii_case(base)
            }
        }),
        (GeneralName::IPAddress(address), GeneralName::IPAddress(base)) => {
            let (network, mask) = base.split_at(base.len() / 2);
            let octets = address.iter().zip(network.iter().zip(mask));
            base.len() == address.len() * 2
                && octets
                    .into_iter()
                    .all(|(octet, (net, mask))| octet & mask == net & mask)
        }
        (GeneralName::DirectoryName(name), GeneralName::DirectoryName(base)) => {
            match (sets(name.as_raw()), sets(base.as_raw())) {
                (Some(name), Some(base)) => name.starts_with(base),
                (None | Some(_), None) | (None, Some(_)) => false,
            }
        }
        _ => false,
    }
}

/// Whether a DNS name is `base` or below it.
fn is_below(name: &str, base: &str) -> bool {
    let is_at_label = || {
        base.starts_with('.')
            || name
                .len()
                .checked_sub(base.len())
                .and_then(|start| start.checked_sub(1))
                .is_some_and(|before| name.as_bytes().get(before) == Some(&b'.'))
    };
    base.is_empty()
        || name.eq_ignore_ascii_case(base)
        || (name.len() > base.len() && ends_with(name, base) && is_at_label())
}

fn ends_with(name: &str, end: &str) -> bool {
    name.len()
        .checked_sub(end.len())
        .and_then(|start| name.get(start..))
        .is_some_and(|rest| rest.eq_ignore_ascii_case(end))
}

fn is_mail_of(mail: &str, base: &str) -> bool {
    let Some((local, host)) = mail.rsplit_once('@') else {
        return false;
    };
    match base.rsplit_once('@') {
        Some((wanted, base)) => {
            (wanted.is_empty() || wanted == local) && host.eq_ignore_ascii_case(base)
        }
        None if base.starts_with('.') => ends_with(host, base),
        None => host.eq_ignore_ascii_case(base),
    }
}

fn host_of(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("//")?;
    let host = rest.split(['/', ':']).next()?;
    (!host.is_empty()).then_some(host)
}

/// The relative names that a name consists of, encoded.
fn sets(name: &[u8]) -> Option<&[u8]> {
    Reader::new(name).read(der::SEQUENCE).ok()
}

fn text(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            (*name).to_owned()
        }
        GeneralName::DirectoryName(name) => rfc4514(name),
        GeneralName::IPAddress(octets) => match octets {
            [a, b, c, d] => format!("{a}.{b}.{c}.{d}"),
            octets => <[u8; 16]>::try_from(*octets).map_or_else(
                |_| "an IP address".to_owned(),
                |octets| std::net::Ipv6Addr::from(octets).to_string(),
            ),
        },
        _ => "a name of another kind".to_owned(),
    }
}
