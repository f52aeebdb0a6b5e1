//! What a certificate shall state: the profile of a leaf and of a CA, and the rules that a profile
//! must obey before anybody signs it.

use std::net::IpAddr;

use time::Duration;

use super::text::length;

/// RFC 5280 appendix A.1, `ub-common-name`; cert-manager refuses longer ones as well.
pub const COMMON_NAME_MAX_CHARS: usize = 64;
/// No other attribute of a subject may be longer (the largest bound that RFC 5280 knows).
pub const ATTRIBUTE_MAX_CHARS: usize = 128;
/// More names than this in one certificate slow every handshake down.
pub const NAMES_MAX: usize = 256;
/// A shorter life leaves no time to renew.
pub const LIFETIME_MIN: Duration = Duration::minutes(5);
/// A longer life is a mistake in the manifest.
pub const LIFETIME_MAX: Duration = Duration::days(30 * 366);
/// cert-manager's default (2160h), which KubeDB's examples show (CONTRACT 3.3).
pub const LIFETIME_DEFAULT: Duration = Duration::days(90);

/// What a leaf certificate is for (CONTRACT 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeafUsage {
    /// Shown by the pooler: serverAuth and clientAuth.
    ServerAndClient,
    /// Shown to the pooler: clientAuth alone.
    Client,
}

/// What happens when a leaf is asked to live longer than the CA that signs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Outliving {
    /// Nothing is signed; the error names both times.
    #[default]
    Refuse,
    /// The leaf ends with its CA, and the caller is told.
    Clamp,
}

/// The attributes of a subject other than its common name, as `tls.certificates[].subject` has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subject {
    /// `O`.
    pub organizations: Vec<String>,
    /// `OU`.
    pub organizational_units: Vec<String>,
    /// `C`.
    pub countries: Vec<String>,
    /// `L`.
    pub localities: Vec<String>,
    /// `ST`.
    pub provinces: Vec<String>,
    /// `STREET`.
    pub street_addresses: Vec<String>,
    /// `postalCode`.
    pub postal_codes: Vec<String>,
    /// `serialNumber` of the subject, which is not the certificate's.
    pub serial_number: Option<String>,
}

/// What a leaf certificate shall state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeafProfile {
    /// `CN`; a client's is the user that it logs in as.
    pub common_name: Option<String>,
    /// The other attributes of the subject.
    pub subject: Subject,
    /// DNS names; the leftmost label may be `*`.
    pub dns_names: Vec<String>,
    /// IP addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// URIs.
    pub uris: Vec<String>,
    /// E-mail addresses.
    pub email_addresses: Vec<String>,
    /// What it is for.
    pub usage: LeafUsage,
    /// How long it lives from now on.
    pub lifetime: Duration,
    /// What to do when that is longer than its issuer lives.
    pub outliving: Outliving,
}

/// What a CA certificate shall state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CaProfile {
    /// `CN`.
    pub common_name: String,
    /// The other attributes of the subject.
    pub subject: Subject,
    /// How long it lives from now on.
    pub lifetime: Duration,
    /// How many CAs may follow below it; unlimited if absent.
    pub path_length: Option<u8>,
    /// The only DNS domains that it may sign for; any if empty.
    pub permitted_dns_domains: Vec<String>,
}

/// Where readers of a certificate find more about its issuer; a `ca` issuer's spec has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pointers {
    /// URLs of the list of revoked certificates.
    pub crl_distribution_points: Vec<String>,
    /// URLs of the service that says whether a certificate is revoked.
    pub ocsp_servers: Vec<String>,
    /// URLs of the issuer's own certificate.
    pub issuing_certificate_urls: Vec<String>,
}

/// What is wrong with a profile; each variant names the field of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Neither a subject nor a name: nobody could tell whose certificate it is.
    #[error("the certificate would name nobody: set a common name or a DNS name")]
    NamesNobody,
    /// A common name that is empty or too long.
    #[error(
        "commonName {value:?} has {length} characters, allowed are 1 to {COMMON_NAME_MAX_CHARS}"
    )]
    CommonName {
        /// The name.
        value: String,
        /// Its length.
        length: usize,
    },
    /// A subject attribute that is empty or too long.
    #[error(
        "subject.{field} has the value {value:?}: allowed are 1 to {ATTRIBUTE_MAX_CHARS} characters"
    )]
    Attribute {
        /// The field of the manifest.
        field: &'static str,
        /// The value.
        value: String,
    },
    /// Not a DNS name.
    #[error("dnsNames has {value:?}, which is no DNS name: {detail}")]
    DnsName {
        /// The name.
        value: String,
        /// The rule it breaks.
        detail: &'static str,
    },
    /// Not an absolute URI in ASCII.
    #[error("uris has {value:?}, which is no absolute URI in ASCII")]
    Uri {
        /// The value.
        value: String,
    },
    /// Not an absolute URI in ASCII, in the issuer's own spec.
    #[error("the issuer's spec.ca has the URL {value:?}, which is no absolute URI in ASCII")]
    Pointer {
        /// The value.
        value: String,
    },
    /// Not an e-mail address in ASCII.
    #[error("emailAddresses has {value:?}, which is no e-mail address in ASCII")]
    EmailAddress {
        /// The value.
        value: String,
    },
    /// More names than [`NAMES_MAX`].
    #[error("{count} names are more than the {NAMES_MAX} that fit in one certificate")]
    TooManyNames {
        /// How many there are.
        count: usize,
    },
    /// A lifetime outside the limits.
    #[error("duration {} is outside the limits: {} to {}", length(.lifetime), length(&LIFETIME_MIN), length(&LIFETIME_MAX))]
    Lifetime {
        /// What was asked for.
        lifetime: Duration,
    },
}

// === impl LeafProfile ===

impl LeafProfile {
    /// A profile of that use and common name, with the default lifetime and nothing else.
    pub fn new(usage: LeafUsage, common_name: impl Into<String>) -> Self {
        Self {
            common_name: Some(common_name.into()),
            subject: Subject::default(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            uris: Vec::new(),
            email_addresses: Vec::new(),
            usage,
            lifetime: LIFETIME_DEFAULT,
            outliving: Outliving::Refuse,
        }
    }

    /// Checks every field; the first finding wins.
    pub fn check(&self) -> Result<(), ProfileError> {
        if let Some(name) = &self.common_name {
            check_common_name(name)?;
        }
        self.subject.check()?;
        let count = self.dns_names.len()
            + self.ip_addresses.len()
            + self.uris.len()
            + self.email_addresses.len();
        if count > NAMES_MAX {
            return Err(ProfileError::TooManyNames { count });
        }
        if count == 0 && self.common_name.is_none() && self.subject == Subject::default() {
            return Err(ProfileError::NamesNobody);
        }
        self.dns_names
            .iter()
            .try_for_each(|name| check_dns_name(name))?;
        self.uris.iter().try_for_each(|uri| check_uri(uri))?;
        self.email_addresses
            .iter()
            .try_for_each(|address| check_email_address(address))?;
        check_lifetime(self.lifetime)
    }
}

// === impl CaProfile ===

impl CaProfile {
    /// A CA of that name which may sign anything, below which no other CA may follow.
    pub fn new(common_name: impl Into<String>, lifetime: Duration) -> Self {
        Self {
            common_name: common_name.into(),
            subject: Subject::default(),
            lifetime,
            path_length: None,
            permitted_dns_domains: Vec::new(),
        }
    }

    /// Checks every field; the first finding wins.
    pub fn check(&self) -> Result<(), ProfileError> {
        check_common_name(&self.common_name)?;
        self.subject.check()?;
        self.permitted_dns_domains
            .iter()
            .try_for_each(|domain| check_dns_name(domain))?;
        check_lifetime(self.lifetime)
    }
}

// === impl Pointers ===

impl Pointers {
    /// Checks every URL; the first finding wins.
    pub fn check(&self) -> Result<(), ProfileError> {
        let Self {
            crl_distribution_points,
            ocsp_servers,
            issuing_certificate_urls,
        } = self;
        [
            crl_distribution_points,
            ocsp_servers,
            issuing_certificate_urls,
        ]
        .into_iter()
        .flatten()
        .find(|url| !is_uri(url))
        .map_or(Ok(()), |url| {
            Err(ProfileError::Pointer { value: url.clone() })
        })
    }
}

// === impl Subject ===

impl Subject {
    fn check(&self) -> Result<(), ProfileError> {
        let Self {
            organizations,
            organizational_units,
            countries,
            localities,
            provinces,
            street_addresses,
            postal_codes,
            serial_number,
        } = self;
        let serial_number = serial_number.as_slice();
        let fields = [
            ("organizations", organizations.as_slice()),
            ("organizationalUnits", organizational_units),
            ("countries", countries),
            ("localities", localities),
            ("provinces", provinces),
            ("streetAddresses", street_addresses),
            ("postalCodes", postal_codes),
            ("serialNumber", serial_number),
        ];
        for (field, values) in fields {
            for value in values {
                if value.is_empty() || value.chars().count() > ATTRIBUTE_MAX_CHARS {
                    return Err(ProfileError::Attribute {
                        field,
                        value: value.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}

fn check_common_name(name: &str) -> Result<(), ProfileError> {
    let length = name.chars().count();
    if (1..=COMMON_NAME_MAX_CHARS).contains(&length) {
        Ok(())
    } else {
        Err(ProfileError::CommonName {
            value: name.to_owned(),
            length,
        })
    }
}

fn check_dns_name(name: &str) -> Result<(), ProfileError> {
    let refuse = |detail| {
        Err(ProfileError::DnsName {
            value: name.to_owned(),
            detail,
        })
    };
    if name.len() > 253 {
        return refuse("it is longer than 253 characters");
    }
    let host = name.strip_prefix("*.").unwrap_or(name);
    for label in host.split('.') {
        if label.is_empty() || label.len() > 63 {
            return refuse("between its dots are 1 to 63 characters");
        }
        // Underscores are no host names, but resolvers and TLS libraries take them.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !label.chars().all(is_plain) {
            return refuse("only letters, digits, - and _ (and * as the first label) are allowed");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return refuse("no part of it begins or ends with -");
        }
    }
    Ok(())
}

fn check_uri(uri: &str) -> Result<(), ProfileError> {
    if is_uri(uri) {
        Ok(())
    } else {
        Err(ProfileError::Uri {
            value: uri.to_owned(),
        })
    }
}

fn is_uri(text: &str) -> bool {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    };
    text.chars().all(|c| c.is_ascii_graphic())
        && text
            .split_once(':')
            .is_some_and(|(scheme, rest)| is_scheme(scheme) && !rest.is_empty())
}

fn check_email_address(address: &str) -> Result<(), ProfileError> {
    let is_good = address.chars().all(|c| c.is_ascii_graphic())
        && address
            .rsplit_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    if is_good {
        Ok(())
    } else {
        Err(ProfileError::EmailAddress {
            value: address.to_owned(),
        })
    }
}

fn check_lifetime(lifetime: Duration) -> Result<(), ProfileError> {
    if (LIFETIME_MIN..=LIFETIME_MAX).contains(&lifetime) {
        Ok(())
    } else {
        Err(ProfileError::Lifetime { lifetime })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(dns_name: &str) -> LeafProfile {
        LeafProfile {
            dns_names: vec![dns_name.to_owned()],
            ..LeafProfile::new(LeafUsage::ServerAndClient, "ledger.treasury.svc")
        }
    }

    #[test]
    fn names_of_the_contract_are_accepted() {
        for name in [
            "*.ledger-pods.treasury.svc",
            "localhost",
            "ledger",
            "a_b.example",
        ] {
            server(name).check().unwrap();
        }
    }

    #[test]
    fn what_is_no_dns_name_is_refused_with_its_rule() {
        for name in [
            "",
            "a..b",
            "-a.example",
            "bücher.example",
            "*",
            "a.*.b",
            "10.0.0.1/8",
        ] {
            let error = server(name).check().unwrap_err();
            assert!(
                matches!(error, ProfileError::DnsName { .. }),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn a_profile_that_names_nobody_is_refused() {
        let mut profile = LeafProfile::new(LeafUsage::Client, "clerk");
        profile.common_name = None;
        assert_eq!(profile.check(), Err(ProfileError::NamesNobody));
    }

    #[test]
    fn what_is_no_uri_or_address_is_refused() {
        for (uri, is_good) in [("spiffe://a/b", true), ("a/b", false), ("x:\u{fc}", false)] {
            let profile = LeafProfile {
                uris: vec![uri.to_owned()],
                ..server("ledger")
            };
            assert_eq!(profile.check().is_ok(), is_good, "{uri}");
            let pointers = Pointers {
                ocsp_servers: vec![uri.to_owned()],
                ..Pointers::default()
            };
            assert_eq!(pointers.check().is_ok(), is_good, "{uri}");
        }
        for (address, is_good) in [("ops@x", true), ("ops", false), ("@x", false)] {
            let profile = LeafProfile {
                email_addresses: vec![address.to_owned()],
                ..server("ledger")
            };
            assert_eq!(profile.check().is_ok(), is_good, "{address}");
        }
    }

    #[test]
    fn limits_are_limits() {
        let mut profile = server("ledger");
        profile.lifetime = Duration::minutes(4);
        assert!(matches!(
            profile.check(),
            Err(ProfileError::Lifetime { .. })
        ));
        let mut profile = server("ledger");
        profile.common_name = Some("x".repeat(65));
        assert!(matches!(
            profile.check(),
            Err(ProfileError::CommonName { length: 65, .. })
        ));
        let mut profile = server("ledger");
        profile.subject.countries = vec![String::new()];
        let error = profile.check().unwrap_err().to_string();
        assert!(error.contains("subject.countries"), "{error}");
    }
}
