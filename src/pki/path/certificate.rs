//! One certificate, as far as paths depend on it.

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::defect::Defect;
use crate::pki::der::{self, Reader};
use crate::pki::facts::name_text;
use crate::pki::oid;
use crate::pki::signature::{self, Fit, Signed};

/// Extensions that OpenSSL accepts where they are critical.
const OPENSSL_KNOWS: [&[u8]; 11] = [
    oid::KEY_USAGE,
    oid::SUBJECT_ALT_NAME,
    oid::BASIC_CONSTRAINTS,
    oid::CERTIFICATE_POLICIES,
    oid::CRL_DISTRIBUTION_POINTS,
    oid::EXTENDED_KEY_USAGE,
    oid::POLICY_CONSTRAINTS,
    oid::NAME_CONSTRAINTS,
    oid::POLICY_MAPPINGS,
    oid::INHIBIT_ANY_POLICY,
    oid::NETSCAPE_CERT_TYPE,
];

/// Extensions that OpenSSL reads of every certificate; a damaged one makes it refuse.
const MUST_BE_READ: [&[u8]; 8] = [
    oid::SUBJECT_KEY_IDENTIFIER,
    oid::AUTHORITY_KEY_IDENTIFIER,
    oid::KEY_USAGE,
    oid::EXTENDED_KEY_USAGE,
    oid::BASIC_CONSTRAINTS,
    oid::NAME_CONSTRAINTS,
    oid::SUBJECT_ALT_NAME,
    oid::CRL_DISTRIBUTION_POINTS,
];

/// A certificate, as far as paths depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::pki) struct Certificate {
    pub(in crate::pki) der: CertificateDer<'static>,
    /// The subject, byte for byte.
    pub(in crate::pki) name: Vec<u8>,
    /// The issuer, byte for byte.
    pub(in crate::pki) issuer: Vec<u8>,
    pub(in crate::pki) spki: Vec<u8>,
    pub(in crate::pki) not_before: OffsetDateTime,
    pub(in crate::pki) not_after: OffsetDateTime,
    /// The `subjectKeyIdentifier`.
    pub(in crate::pki) identifier: Option<Vec<u8>>,
    /// The `authorityKeyIdentifier`.
    pub(in crate::pki) authority: Authority,
    pub(in crate::pki) policies: Policies,
    pub(in crate::pki) has_name_constraints: bool,
    /// The first extension that cannot be read.
    pub(super) unreadable: Option<String>,
    /// The first critical extension that OpenSSL does not know.
    pub(super) critical: Option<String>,
    serial: Vec<u8>,
    /// The content of the signature's `AlgorithmIdentifier`.
    algorithm: Vec<u8>,
    is_version_1: bool,
    /// `cA` and `pathLenConstraint`.
    basic_constraints: Option<(bool, Option<u32>)>,
    is_basic_critical: bool,
    /// Whether `keyUsage`, where it is there, has the bits: keyCertSign, one that a server needs, one
    /// that a client needs.
    key_usage: Option<[bool; 3]>,
    /// Whether `extendedKeyUsage`, where it is there, has serverAuth and clientAuth.
    purposes: Option<[bool; 2]>,
}

/// The contents of an `authorityKeyIdentifier`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in crate::pki) struct Authority {
    identifier: Option<Vec<u8>>,
    /// The first directory name of `authorityCertIssuer`.
    issuer: Option<Vec<u8>>,
    serial: Option<Vec<u8>>,
}

/// What a certificate says about certificate policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::pki) struct Policies {
    /// `certificatePolicies`; `None` where the extension is absent.
    pub(super) of: Option<Vec<String>>,
    /// `requireExplicitPolicy`: after how many more certificates a policy is required.
    pub(super) required_after: Option<u32>,
    pub(super) has_mappings: bool,
}

/// The purpose that a reader checks a path for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pki) enum Usage {
    Server,
    Client,
    /// None: of a certificate whose use is not known.
    Any,
}

/// How far OpenSSL takes a certificate for a CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CaKind {
    /// By `basicConstraints`.
    Full,
    /// X.509 v1 and self-signed, or `keyUsage` alone: as a root only.
    RootOnly,
    /// `keyUsage` lacks keyCertSign.
    NoCertSign,
    None,
}

impl Certificate {
    /// Reads a certificate; `None` if it is not one.
    pub(in crate::pki) fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (rest, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let mut signed = Reader::new(certificate).enter(der::SEQUENCE).ok()?;
        signed.read(der::SEQUENCE).ok()?;
        let algorithm = signed.read(der::SEQUENCE).ok()?;
        let mut read = Self {
            der: certificate.clone().into_owned(),
            name: parsed.subject().as_raw().to_vec(),
            issuer: parsed.issuer().as_raw().to_vec(),
            spki: parsed.public_key().raw.to_vec(),
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
            identifier: None,
            authority: Authority::default(),
            policies: Policies::default(),
            has_name_constraints: false,
            unreadable: None,
            critical: None,
            serial: parsed.raw_serial().to_vec(),
            algorithm: algorithm.to_vec(),
            is_version_1: parsed.version.0 == 0,
            basic_constraints: None,
            is_basic_critical: false,
            key_usage: None,
            purposes: None,
        };
        read.read_extensions(&parsed);
        Some(read)
    }

    /// Reads all of `certificates` that can be read.
    pub(in crate::pki) fn read_all<'a>(
        certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
    ) -> Vec<Self> {
        certificates.into_iter().filter_map(Self::read).collect()
    }

    fn read_extensions(&mut self, parsed: &X509Certificate<'_>) {
        for extension in parsed.extensions() {
            let name = || {
                let dotted = extension.oid.to_id_string();
                oid::extension_name(extension.oid.as_bytes(), &dotted)
            };
            if extension.critical
                && self.critical.is_none()
                && !OPENSSL_KNOWS.contains(&extension.oid.as_bytes())
            {
                self.critical = Some(name());
            }
            match extension.parsed_extension() {
                ParsedExtension::ParseError { .. }
                    if MUST_BE_READ.contains(&extension.oid.as_bytes()) =>
                {
                    self.unreadable = self.unreadable.take().or_else(|| Some(name()));
                }
                ParsedExtension::SubjectKeyIdentifier(identifier) => {
                    self.identifier = Some(identifier.0.to_vec());
                }
                ParsedExtension::AuthorityKeyIdentifier(authority) => {
                    self.authority = Authority::read(authority);
                }
                ParsedExtension::BasicConstraints(constraints) => {
                    self.basic_constraints =
                        Some((constraints.ca, constraints.path_len_constraint));
                    self.is_basic_critical = extension.critical;
                }
                ParsedExtension::KeyUsage(usage) => {
                    let for_both = usage.digital_signature() || usage.key_agreement();
                    let for_server = for_both || usage.key_encipherment();
                    self.key_usage = Some([usage.key_cert_sign(), for_server, for_both]);
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    self.purposes = Some([usage.server_auth, usage.client_auth]);
                }
                ParsedExtension::NameConstraints(_) => self.has_name_constraints = true,
                ParsedExtension::CertificatePolicies(policies) => {
                    let names = policies
                        .iter()
                        .map(|policy| policy.policy_id.to_id_string());
                    self.policies.of = Some(names.collect());
                }
                ParsedExtension::PolicyConstraints(constraints) => {
                    self.policies.required_after = constraints.require_explicit_policy;
                }
                ParsedExtension::PolicyMappings(_) => self.policies.has_mappings = true,
                _ => {}
            }
        }
    }

    /// The subject, as RFC 4514 writes names.
    pub(in crate::pki) fn subject(&self) -> String {
        name_text(&self.name).unwrap_or_default()
    }

    /// The issuer, as RFC 4514 writes names.
    pub(in crate::pki) fn issuer_name(&self) -> String {
        name_text(&self.issuer).unwrap_or_default()
    }

    pub(in crate::pki) fn is_valid_at(&self, at: OffsetDateTime) -> bool {
        (self.not_before..=self.not_after).contains(&at)
    }

    /// Whether subject and issuer are one name. A link certificate (RFC 4210) is self-issued, too.
    pub(in crate::pki) fn is_self_issued(&self) -> bool {
        self.name == self.issuer
    }

    /// Whether it is a root to OpenSSL: self-issued, and identifiers and the kind of the signature fit
    /// its own key. OpenSSL does not verify the signature of what it trusts.
    pub(super) fn is_root(&self) -> bool {
        self.is_self_issued() && self.is_likely_of(self)
    }

    /// Whether it is a root, and its own key signed it as far as that can be verified.
    pub(in crate::pki) fn is_self_signed(&self) -> bool {
        self.is_root() && self.fit_of(self) != Fit::Invalid
    }

    /// Whether `issuer` can have issued it, by name, identifiers and the kind of the key: what OpenSSL
    /// chooses by.
    pub(super) fn is_likely_of(&self, issuer: &Self) -> bool {
        self.issuer == issuer.name && self.authority.fits(issuer) && self.is_of_kind(issuer)
    }

    fn is_of_kind(&self, issuer: &Self) -> bool {
        signature::split_spki(&issuer.spki)
            .is_ok_and(|(algorithm, _)| signature::is_for(&self.algorithm, algorithm))
    }

    /// Checks its signature against the key of `issuer`.
    pub(super) fn fit_of(&self, issuer: &Self) -> Fit {
        Signed::read(&self.der).map_or(Fit::Invalid, |signed| signed.fit(&issuer.spki))
    }

    /// Whether the key of `issuer` signed it, to every reader. `None`: it did not, or that cannot be said.
    pub(in crate::pki) fn judge(&self, issuer: &Self) -> Result<(), Option<Defect>> {
        if self.issuer == issuer.name {
            self.judge_fit(issuer, self.fit_of(issuer))
        } else {
            Err(None)
        }
    }

    pub(super) fn judge_fit(&self, issuer: &Self, fit: Fit) -> Result<(), Option<Defect>> {
        let fits = self.authority.fits(issuer);
        let (certificate, issuer) = match fit {
            Fit::Valid if fits => return Ok(()),
            Fit::Invalid => return Err(None),
            // Which of several CAs of that name it is cannot be verified.
            Fit::Weak(_) | Fit::Unknown(_) if !fits => return Err(None),
            Fit::Valid | Fit::Weak(_) | Fit::Unknown(_) => (self.subject(), issuer.subject()),
        };
        Err(Some(match fit {
            Fit::Weak(algorithm) => Defect::Weak {
                certificate,
                issuer,
                algorithm,
            },
            Fit::Unknown(algorithm) => Defect::Algorithm {
                certificate,
                issuer,
                algorithm,
            },
            Fit::Valid | Fit::Invalid => Defect::KeyIdentifier {
                certificate,
                issuer,
            },
        }))
    }

    /// How far OpenSSL takes it for a CA.
    pub(super) fn ca_kind(&self) -> CaKind {
        match (self.basic_constraints, self.key_usage) {
            (_, Some([false, ..])) => CaKind::NoCertSign,
            (Some((true, _)), _) => CaKind::Full,
            (None, Some(_)) => CaKind::RootOnly,
            (None, None) if self.is_version_1 && self.is_root() => CaKind::RootOnly,
            (Some((false, _)), _) | (None, None) => CaKind::None,
        }
    }

    /// Whether it can act as a CA at `place`, a root or not.
    pub(super) fn may_issue(&self) -> bool {
        match self.ca_kind() {
            CaKind::Full => true,
            CaKind::RootOnly => self.is_self_issued(),
            CaKind::NoCertSign | CaKind::None => false,
        }
    }

    /// How many CAs it allows below it.
    pub(super) fn path_length(&self) -> Option<u32> {
        self.basic_constraints.and_then(|(_, length)| length)
    }

    pub(super) const fn is_version_1(&self) -> bool {
        self.is_version_1
    }

    /// Whether `extendedKeyUsage` allows `usage`.
    pub(super) fn allows(&self, usage: Usage) -> bool {
        match (usage, self.purposes) {
            (Usage::Server, Some([server, _])) => server,
            (Usage::Client, Some([_, client])) => client,
            (Usage::Any, _) | (_, None) => true,
        }
    }

    /// Whether `keyUsage` allows the leaf's `usage`.
    pub(super) fn may_shake_hands(&self, usage: Usage) -> bool {
        match (usage, self.key_usage) {
            (Usage::Server, Some([_, server, _])) => server,
            (Usage::Client, Some([.., client])) => client,
            (Usage::Any, _) | (_, None) => true,
        }
    }

    /// What `X509_V_FLAG_X509_STRICT`, which Python sets since 3.13, holds against a CA.
    pub(in crate::pki) fn strict_trouble(&self) -> Option<&'static str> {
        let is_root = self.is_root();
        match self.basic_constraints {
            None => Some("has no basicConstraints"),
            Some(_) if !self.is_basic_critical => {
                Some("has basicConstraints that are not critical")
            }
            Some(_) if self.key_usage.is_none() => Some("has no keyUsage"),
            Some(_) if self.identifier.is_none() => Some("has no subjectKeyIdentifier"),
            Some(_) if !is_root && self.authority.identifier.is_none() => {
                Some("has no authorityKeyIdentifier")
            }
            Some(_) => None,
        }
    }

    /// The bits of an RSA key.
    pub(super) fn rsa_bits(&self) -> Option<usize> {
        let (algorithm, key) = signature::split_spki(&self.spki).ok()?;
        signature::rsa_bits(algorithm, key)
    }
}

// === impl Authority ===

impl Authority {
    fn read(extension: &x509_parser::extensions::AuthorityKeyIdentifier<'_>) -> Self {
        let names = extension.authority_cert_issuer.iter().flatten();
        let issuer = names.filter_map(|name| match name {
            GeneralName::DirectoryName(name) => Some(name.as_raw().to_vec()),
            _ => None,
        });
        Self {
            identifier: extension
                .key_identifier
                .as_ref()
                .map(|identifier| identifier.0.to_vec()),
            issuer: issuer.into_iter().next(),
            serial: extension.authority_cert_serial.map(<[u8]>::to_vec),
        }
    }

    /// Whether it names `issuer`: an identifier that either side lacks excludes nothing.
    pub(in crate::pki) fn fits(&self, issuer: &Certificate) -> bool {
        let is_same_key = match (&self.identifier, &issuer.identifier) {
            (Some(wanted), Some(found)) => wanted == found,
            (Some(_) | None, _) => true,
        };
        let is_same_serial = self
            .serial
            .as_ref()
            .is_none_or(|wanted| *wanted == issuer.serial);
        let is_same_issuer = self
            .issuer
            .as_ref()
            .is_none_or(|wanted| *wanted == issuer.issuer);
        is_same_key && is_same_serial && is_same_issuer
    }
}
