//! What a certificate shall state: the profile of a leaf and of a CA, and the rules that a profile
//! must obey before anybody signs it.

mod check;
mod uri;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use time::Duration;

pub(crate) use self::uri::is_uri;
use crate::pki::key::KeyKind;
use crate::pki::text::length;

/// RFC 5280 appendix A.1, `ub-common-name`; cert-manager refuses longer ones as well.
pub const COMMON_NAME_MAX_CHARS: usize = 64;
/// The largest bound that RFC 5280 and X.520 know of any attribute of a subject.
pub const ATTRIBUTE_MAX_CHARS: usize = 128;
/// More names than this in one certificate slow every handshake down.
pub const NAMES_MAX: usize = 256;
/// A shorter life leaves no time to renew.
pub const LIFETIME_MIN: Duration = Duration::minutes(5);
/// A longer life is a mistake in the manifest.
pub const LIFETIME_MAX: Duration = Duration::days(30 * 366);
/// cert-manager's default (2160h), which KubeDB's examples show.
pub const LIFETIME_DEFAULT: Duration = Duration::days(90);

/// What a leaf certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeafUsage {
    /// Shown by the pooler: serverAuth and clientAuth.
    ServerAndClient,
    /// The same where the issuer signs for others too: serverAuth alone, so that no pooler takes it for a
    /// client's.
    Server,
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
    /// A common name with a character that no certificate may have.
    #[error("commonName {value:?} has a control character: write printable characters only")]
    CommonNameControl {
        /// The name.
        value: String,
    },
    /// A subject attribute that its type does not allow.
    #[error("subject.{field} has the value {value:?}: {rule}")]
    Attribute {
        /// The field of the manifest.
        field: &'static str,
        /// The value.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
    /// An address of IPv4 in the form of IPv6.
    #[error(
        "ipAddresses has {value}, an IPv4 address in the form of IPv6, for which Go refuses the whole certificate: write {plain}"
    )]
    MappedAddress {
        /// The address.
        value: Ipv6Addr,
        /// The same as an IPv4 address.
        plain: Ipv4Addr,
    },
    /// Not a DNS name.
    #[error("dnsNames has {value:?}, which is no DNS name: {detail}")]
    DnsName {
        /// The name.
        value: String,
        /// The rule it breaks.
        detail: &'static str,
    },
    /// Not an absolute URI in ASCII, or one that not every client can read.
    #[error(
        "uris has {value:?}, which is not an absolute URI in ASCII (RFC 3986) that every client can read, such as spiffe://host/path"
    )]
    Uri {
        /// The value.
        value: String,
    },
    /// Not an absolute URI in ASCII, in the issuer's own spec.
    #[error("the issuer's spec.ca has the URL {value:?}, which is not an absolute URI in ASCII")]
    Pointer {
        /// The value.
        value: String,
    },
    /// Not an e-mail address in ASCII.
    #[error(
        "emailAddresses has {value:?}, which is not an e-mail address in ASCII, such as name@example.org"
    )]
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

// === impl LeafUsage, LeafProfile, CaProfile ===

impl LeafUsage {
    /// What another issuer is asked for. A pooler never shows its server certificate as a client, and many
    /// issuers certify one of the two uses only.
    #[must_use]
    pub const fn asked(self) -> Self {
        match self {
            Self::ServerAndClient => Self::Server,
            other => other,
        }
    }

    /// cert-manager's names of what a certificate for that use and with that key allows.
    pub fn names(self, key: KeyKind) -> Vec<String> {
        let own: &[&str] = match self {
            Self::ServerAndClient => &["server auth", "client auth"],
            Self::Server => &["server auth"],
            Self::Client => &["client auth"],
        };
        let encipherment = key.enciphers().then_some(&"key encipherment");
        let all = [&"digital signature"].into_iter().chain(encipherment);
        all.chain(own).map(|usage| (*usage).to_owned()).collect()
    }
}

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
}

impl CaProfile {
    /// A CA of that name which may sign anything, other CAs included.
    pub fn new(common_name: impl Into<String>, lifetime: Duration) -> Self {
        Self {
            common_name: common_name.into(),
            subject: Subject::default(),
            lifetime,
            path_length: None,
            permitted_dns_domains: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
