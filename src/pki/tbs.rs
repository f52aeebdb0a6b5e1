//! Encodes and signs certificates: RFC 5280 section 4.1, field by field.

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::key::{KeyError, KeyKind, PrivateKey};
use super::profile::{LeafProfile, LeafUsage, Pointers, Subject};
use super::{der, oid};

/// A certificate's serial number: 20 octets, positive, never zero (RFC 5280 4.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Serial([u8; 20]);

impl Serial {
    /// Takes 20 random octets; 158 of their bits stay random.
    pub const fn from_random(mut octets: [u8; 20]) -> Self {
        // The highest bit is the sign; the next keeps the length at 20 octets for every number.
        octets[0] = octets[0] & 0x7f | 0x40;
        Self(octets)
    }
}

/// Everything that a certificate states, besides the algorithm.
pub(super) struct Statement<'a> {
    pub(super) serial: Serial,
    /// The issuer's name, exactly as its own certificate has it.
    pub(super) issuer: &'a [u8],
    pub(super) not_before: OffsetDateTime,
    pub(super) not_after: OffsetDateTime,
    /// The subject's name, encoded.
    pub(super) subject: &'a [u8],
    pub(super) spki: &'a [u8],
    /// Complete extensions.
    pub(super) extensions: &'a [Vec<u8>],
}

/// `keyUsage` bits, highest first.
pub(super) const DIGITAL_SIGNATURE: u16 = 0x8000;
pub(super) const KEY_ENCIPHERMENT: u16 = 0x2000;
pub(super) const KEY_CERT_SIGN: u16 = 0x0400;
pub(super) const CRL_SIGN: u16 = 0x0200;

/// Signs a statement.
pub(super) fn sign(
    statement: &Statement<'_>,
    key: &PrivateKey,
) -> Result<CertificateDer<'static>, KeyError> {
    let algorithm = key.public_key().signature_algorithm();
    let version_3 = der::element(der::explicit(0), &[&der::unsigned(&[2])]);
    let extensions: Vec<&[u8]> = statement.extensions.iter().map(Vec::as_slice).collect();
    let tbs = der::sequence(&[
        &version_3,
        &der::unsigned(&statement.serial.0),
        &algorithm,
        statement.issuer,
        &der::sequence(&[
            &der::validity_time(statement.not_before),
            &der::validity_time(statement.not_after),
        ]),
        statement.subject,
        statement.spki,
        &der::element(der::explicit(3), &[&der::sequence(&extensions)]),
    ]);
    let signature = der::bit_string(&key.sign(&tbs)?);
    let certificate = der::sequence(&[&tbs, &algorithm, &signature]);
    #[cfg(test)]
    super::testing::keep_for_lint(&certificate);
    Ok(certificate.into())
}

/// Encodes a name, one attribute per set; the order is that of Go's `pkix.Name`, which
/// cert-manager's users see.
pub(super) fn name(common_name: Option<&str>, subject: &Subject) -> Vec<u8> {
    let attributes = [
        (oid::COUNTRY, subject.countries.as_slice()),
        (oid::ORGANIZATION, &subject.organizations),
        (oid::ORGANIZATIONAL_UNIT, &subject.organizational_units),
        (oid::LOCALITY, &subject.localities),
        (oid::PROVINCE, &subject.provinces),
        (oid::STREET_ADDRESS, &subject.street_addresses),
        (oid::POSTAL_CODE, &subject.postal_codes),
    ];
    let mut sets: Vec<Vec<u8>> = attributes
        .iter()
        .flat_map(|(kind, values)| values.iter().map(|value| attribute(kind, value)))
        .collect();
    sets.extend(common_name.map(|value| attribute(oid::COMMON_NAME, value)));
    sets.extend(
        subject
            .serial_number
            .iter()
            .map(|value| attribute(oid::SERIAL_NUMBER, value)),
    );
    let sets: Vec<&[u8]> = sets.iter().map(Vec::as_slice).collect();
    der::sequence(&sets)
}

/// The extensions of a leaf; `key_identifiers` come first because they do not depend on it.
///
/// `keyEncipherment` is of use to RSA keys only, and forbidden with others (RFC 8813, RFC 9295).
pub(super) fn leaf_extensions(profile: &LeafProfile, key: KeyKind) -> Vec<Vec<u8>> {
    let encipherment = if key.enciphers() { KEY_ENCIPHERMENT } else { 0 };
    let mut extensions = vec![
        key_usage(DIGITAL_SIGNATURE | encipherment),
        extended_key_usage(profile.usage),
        extension(
            oid::BASIC_CONSTRAINTS,
            Criticality::Critical,
            &der::sequence(&[]),
        ),
    ];
    extensions.extend(subject_alt_name(profile));
    extensions
}

/// The extensions of a CA.
pub(super) fn ca_extensions(path_length: Option<u8>, permitted: &[String]) -> Vec<Vec<u8>> {
    let path_length = path_length.map_or_else(Vec::new, |length| der::unsigned(&[length]));
    let constraints = der::sequence(&[der::TRUE, &path_length]);
    let mut extensions = vec![
        key_usage(DIGITAL_SIGNATURE | KEY_CERT_SIGN | CRL_SIGN),
        extension(oid::BASIC_CONSTRAINTS, Criticality::Critical, &constraints),
    ];
    if !permitted.is_empty() {
        let subtrees: Vec<Vec<u8>> = permitted
            .iter()
            .map(|domain| der::sequence(&[&der::element(der::implicit(2), &[domain.as_bytes()])]))
            .collect();
        let subtrees: Vec<&[u8]> = subtrees.iter().map(Vec::as_slice).collect();
        let value = der::sequence(&[&der::element(der::explicit(0), &subtrees)]);
        extensions.push(extension(
            oid::NAME_CONSTRAINTS,
            Criticality::Critical,
            &value,
        ));
    }
    extensions
}

/// `cRLDistributionPoints` and `authorityInfoAccess`, where there is something to say.
pub(super) fn pointers(pointers: &Pointers) -> Vec<Vec<u8>> {
    let Pointers {
        crl_distribution_points,
        ocsp_servers,
        issuing_certificate_urls,
    } = pointers;
    let url = |url: &String| der::element(der::implicit(6), &[url.as_bytes()]);
    let point = |location: &String| {
        let full_name = der::element(der::explicit(0), &[&url(location)]);
        der::sequence(&[&der::element(der::explicit(0), &[&full_name])])
    };
    let access = |method, location| der::sequence(&[&der::oid(method), &url(location)]);
    let points: Vec<Vec<u8>> = crl_distribution_points.iter().map(point).collect();
    let ocsp = ocsp_servers
        .iter()
        .map(|server| access(oid::ACCESS_OCSP, server));
    let issuers = issuing_certificate_urls.iter();
    let issuers = issuers.map(|location| access(oid::ACCESS_CA_ISSUERS, location));
    let accesses: Vec<Vec<u8>> = ocsp.chain(issuers).collect();
    [
        (oid::CRL_DISTRIBUTION_POINTS, points),
        (oid::AUTHORITY_INFO_ACCESS, accesses),
    ]
    .into_iter()
    .filter(|(_, entries)| !entries.is_empty())
    .map(|(identifier, entries)| {
        let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        extension(identifier, Criticality::Plain, &der::sequence(&entries))
    })
    .collect()
}

/// `subjectKeyIdentifier` and `authorityKeyIdentifier`.
pub(super) fn key_identifiers(subject: &[u8], authority: &[u8]) -> [Vec<u8>; 2] {
    let authority = der::sequence(&[&der::element(der::implicit(0), &[authority])]);
    [
        extension(
            oid::SUBJECT_KEY_IDENTIFIER,
            Criticality::Plain,
            &der::octet_string(subject),
        ),
        extension(
            oid::AUTHORITY_KEY_IDENTIFIER,
            Criticality::Plain,
            &authority,
        ),
    ]
}

/// `subjectAltName`; none where there are no names, because the list must not be empty.
fn subject_alt_name(profile: &LeafProfile) -> Option<Vec<u8>> {
    let text = |tag, value: &String| der::element(der::implicit(tag), &[value.as_bytes()]);
    let mut names: Vec<Vec<u8>> = Vec::new();
    names.extend(profile.dns_names.iter().map(|name| text(2, name)));
    names.extend(profile.email_addresses.iter().map(|name| text(1, name)));
    names.extend(profile.ip_addresses.iter().map(|address| match address {
        IpAddr::V4(address) => der::element(der::implicit(7), &[&address.octets()]),
        IpAddr::V6(address) => der::element(der::implicit(7), &[&address.octets()]),
    }));
    names.extend(profile.uris.iter().map(|name| text(6, name)));
    let mut seen = std::collections::HashSet::new();
    let names: Vec<&[u8]> = names
        .iter()
        .map(Vec::as_slice)
        .filter(|name| seen.insert(*name))
        .collect();
    if names.is_empty() {
        return None;
    }
    // RFC 5280 4.1.2.6: with an empty subject the names are all there is, so they must be read.
    let criticality = if profile.common_name.is_none() && profile.subject == Subject::default() {
        Criticality::Critical
    } else {
        Criticality::Plain
    };
    Some(extension(
        oid::SUBJECT_ALT_NAME,
        criticality,
        &der::sequence(&names),
    ))
}

fn key_usage(bits: u16) -> Vec<u8> {
    extension(
        oid::KEY_USAGE,
        Criticality::Critical,
        &der::named_bits(bits),
    )
}

fn extended_key_usage(usage: LeafUsage) -> Vec<u8> {
    let purposes: &[&[u8]] = match usage {
        LeafUsage::ServerAndClient => &[oid::SERVER_AUTH, oid::CLIENT_AUTH],
        LeafUsage::Server => &[oid::SERVER_AUTH],
        LeafUsage::Client => &[oid::CLIENT_AUTH],
    };
    let purposes: Vec<Vec<u8>> = purposes.iter().map(|purpose| der::oid(purpose)).collect();
    let purposes: Vec<&[u8]> = purposes.iter().map(Vec::as_slice).collect();
    extension(
        oid::EXTENDED_KEY_USAGE,
        Criticality::Plain,
        &der::sequence(&purposes),
    )
}

/// Whether a reader that does not know an extension must refuse the certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Criticality {
    Critical,
    Plain,
}

impl Criticality {
    /// What the flag of an encoded extension means.
    pub(super) const fn of(critical: bool) -> Self {
        if critical {
            Self::Critical
        } else {
            Self::Plain
        }
    }
}

/// A complete extension.
pub(super) fn extension(identifier: &[u8], criticality: Criticality, value: &[u8]) -> Vec<u8> {
    let critical = match criticality {
        Criticality::Critical => der::TRUE,
        Criticality::Plain => &[],
    };
    der::sequence(&[&der::oid(identifier), critical, &der::octet_string(value)])
}

fn attribute(kind: &[u8], value: &str) -> Vec<u8> {
    let is_printable = |c: char| c.is_ascii_alphanumeric() || " '()+,-./:=?".contains(c);
    let tag = if value.chars().all(is_printable) {
        der::PRINTABLE_STRING
    } else {
        der::UTF8_STRING
    };
    let pair = der::sequence(&[&der::oid(kind), &der::element(tag, &[value.as_bytes()])]);
    der::element(der::SET, &[&pair])
}
