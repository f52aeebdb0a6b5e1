//! What a certificate says, read by x509-parser: a reader that did not make it.

use std::net::IpAddr;

use data_encoding::HEXLOWER;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::key::{KeyError, KeyKind, PublicKey};
use super::pem::{self, PemError};
use crate::names::Fingerprint;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one bit of the certificate, independent of the others"
)]
pub struct CertificateFacts {
    /// The subject, as RFC 4514 writes names.
    pub subject: String,
    /// The subject's common name.
    pub common_name: Option<String>,
    /// The issuer's name, as RFC 4514 writes names.
    pub issuer: String,
    /// The serial number in hexadecimal.
    pub serial: String,
    /// The first instant of its life.
    #[serde(with = "time::serde::rfc3339")]
    pub not_before: OffsetDateTime,
    /// The last instant of its life.
    #[serde(with = "time::serde::rfc3339")]
    pub not_after: OffsetDateTime,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// IP addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// URIs.
    pub uris: Vec<String>,
    /// E-mail addresses.
    pub email_addresses: Vec<String>,
    /// SHA-256 of the certificate.
    pub fingerprint: Fingerprint,
    /// SHA-256 of its public key (`SubjectPublicKeyInfo`).
    pub spki_sha256: Fingerprint,
    /// The public key's kind and size.
    pub key: String,
    /// Whether it is a CA.
    pub is_ca: bool,
    /// Whether it may sign certificates; true as well where it does not say.
    pub may_sign: bool,
    /// How many CAs may follow below it.
    pub path_length: Option<u32>,
    /// Whether it may be used by a TLS server.
    pub server_auth: bool,
    /// Whether it may be used by a TLS client.
    pub client_auth: bool,
    /// Whether subject and issuer are the same name.
    pub is_self_issued: bool,
}

/// Reads every certificate of a PEM document, in order.
pub fn read_chain(text: &str) -> Result<Vec<CertificateFacts>, PemError> {
    let certificates = pem::read_certificates(text)?;
    certificates
        .iter()
        .enumerate()
        .map(|(index, certificate)| {
            CertificateFacts::read(certificate).ok_or(PemError::BadCertificate {
                position: index + 1,
            })
        })
        .collect()
}

impl CertificateFacts {
    /// Reads a certificate; `None` if it is none.
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (rest, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let mut facts = Self {
            subject: rfc4514(parsed.subject()),
            common_name: parsed.subject().iter_common_name().last().map(value_text),
            issuer: rfc4514(parsed.issuer()),
            serial: HEXLOWER.encode(without_leading_zero(parsed.raw_serial())),
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            uris: Vec::new(),
            email_addresses: Vec::new(),
            fingerprint: sha256(certificate),
            spki_sha256: sha256(parsed.public_key().raw),
            key: key_kind(parsed.public_key().raw),
            is_ca: false,
            may_sign: true,
            path_length: None,
            server_auth: true,
            client_auth: true,
            is_self_issued: parsed.subject().as_raw() == parsed.issuer().as_raw(),
        };
        facts.read_extensions(&parsed);
        Some(facts)
    }

    /// Whether `at` is within its life.
    pub fn is_valid_at(&self, at: OffsetDateTime) -> bool {
        (self.not_before..=self.not_after).contains(&at)
    }

    fn read_extensions(&mut self, parsed: &X509Certificate<'_>) {
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    names
                        .general_names
                        .iter()
                        .for_each(|name| self.read_name(name));
                }
                ParsedExtension::BasicConstraints(constraints) => {
                    self.is_ca = constraints.ca;
                    self.path_length = constraints.path_len_constraint;
                }
                ParsedExtension::KeyUsage(usage) => self.may_sign = usage.key_cert_sign(),
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    self.server_auth = usage.any || usage.server_auth;
                    self.client_auth = usage.any || usage.client_auth;
                }
                _ => {}
            }
        }
    }

    fn read_name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => self.email_addresses.push((*name).to_owned()),
            GeneralName::URI(name) => self.uris.push((*name).to_owned()),
            GeneralName::IPAddress(octets) => self.ip_addresses.extend(ip_address(octets)),
            _ => {}
        }
    }
}

/// A name as RFC 4514 writes it: the last attribute first, with its escapes.
pub(super) fn rfc4514(name: &X509Name<'_>) -> String {
    let mut sets: Vec<String> = name
        .iter_rdn()
        .map(|set| set.iter().map(attribute_text).collect::<Vec<_>>().join("+"))
        .collect();
    sets.reverse();
    sets.join(",")
}

/// An encoded name as RFC 4514 writes it; `None` if it is none.
pub(super) fn name_text(encoded: &[u8]) -> Option<String> {
    let (rest, name) = X509Name::from_der(encoded).ok()?;
    rest.is_empty().then(|| rfc4514(&name))
}

/// SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> Fingerprint {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut octets = [0; 32];
    octets.copy_from_slice(digest.as_ref());
    Fingerprint::from_sha256(octets)
}

/// The subject key identifier of a certificate, or the one that its key would get from us.
pub(super) fn key_identifier(parsed: &X509Certificate<'_>) -> Vec<u8> {
    parsed
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
            _ => None,
        })
        .unwrap_or_else(|| {
            let digest = ring::digest::digest(
                &ring::digest::SHA256,
                &parsed.public_key().subject_public_key.data,
            );
            digest.as_ref()[..20].to_vec()
        })
}

fn key_kind(spki: &[u8]) -> String {
    match PublicKey::from_spki(spki) {
        Ok(key) => key.kind().to_string(),
        Err(KeyError::TooSmall { bits } | KeyError::TooLarge { bits }) => {
            KeyKind::Rsa { bits }.to_string()
        }
        Err(KeyError::Unsupported { kind }) => kind.to_owned(),
        Err(_) => "unreadable".to_owned(),
    }
}

fn ip_address(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

fn attribute_text(attribute: &AttributeTypeAndValue<'_>) -> String {
    let identifier = attribute.attr_type().to_id_string();
    let kind = match identifier.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.17" => "postalCode",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        other => other,
    };
    format!("{kind}={}", escape(&value_text(attribute)))
}

fn value_text(attribute: &AttributeTypeAndValue<'_>) -> String {
    attribute.as_str().map_or_else(
        |_| format!("#{}", HEXLOWER.encode(attribute.as_slice())),
        str::to_owned,
    )
}

/// RFC 4514 2.4.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, c) in value.chars().enumerate() {
        let at_edge = (c == ' ' && (index == 0 || index == last)) || (c == '#' && index == 0);
        if at_edge || "\"+,;<>\\".contains(c) {
            out.push('\\');
        }
        // Names come from anybody's certificates and end up in logs and on terminals.
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// DER puts a zero before a number whose highest bit is set; it is not part of the number.
const fn without_leading_zero(serial: &[u8]) -> &[u8] {
    match serial {
        [0, rest @ ..] if !rest.is_empty() => rest,
        _ => serial,
    }
}
