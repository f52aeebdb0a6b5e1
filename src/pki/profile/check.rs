//! The rules that a profile must obey, one small function each.

use std::net::IpAddr;

use time::Duration;

use super::{
    ATTRIBUTE_MAX_CHARS, COMMON_NAME_MAX_CHARS, CaProfile, LIFETIME_MAX, LIFETIME_MIN, LeafProfile,
    NAMES_MAX, Pointers, ProfileError, Subject, is_uri,
};

// === impl LeafProfile ===

impl LeafProfile {
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
        self.ip_addresses.iter().try_for_each(check_address)?;
        self.uris.iter().try_for_each(|uri| check_uri(uri))?;
        self.email_addresses
            .iter()
            .try_for_each(|address| check_email_address(address))?;
        check_lifetime(self.lifetime)
    }
}

// === impl CaProfile ===

impl CaProfile {
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
        let fields = [
            ("organizations", organizations.as_slice(), &NAME),
            ("organizationalUnits", organizational_units, &NAME),
            ("countries", countries, &COUNTRY),
            ("localities", localities, &PLACE),
            ("provinces", provinces, &PLACE),
            ("streetAddresses", street_addresses, &PLACE),
            ("postalCodes", postal_codes, &POSTAL_CODE),
            ("serialNumber", serial_number.as_slice(), &SERIAL_NUMBER),
        ];
        for (field, values, kind) in fields {
            for value in values {
                let length = value.chars().count();
                let is_long_enough = (kind.least..=kind.most).contains(&length);
                if !is_long_enough || !value.chars().all(kind.allows) {
                    return Err(ProfileError::Attribute {
                        field,
                        value: value.clone(),
                        rule: kind.rule,
                    });
                }
            }
        }
        Ok(())
    }
}

/// What RFC 5280 and X.520 allow in an attribute.
struct Kind {
    least: usize,
    most: usize,
    allows: fn(char) -> bool,
    rule: &'static str,
}

const NAME: Kind = Kind {
    least: 1,
    most: 64,
    allows: |c| !c.is_control(),
    rule: "write 1 to 64 characters, none of them a control character",
};
const PLACE: Kind = Kind {
    least: 1,
    most: ATTRIBUTE_MAX_CHARS,
    allows: |c| !c.is_control(),
    rule: "write 1 to 128 characters, none of them a control character",
};
const POSTAL_CODE: Kind = Kind {
    least: 1,
    most: 40,
    allows: |c| !c.is_control(),
    rule: "write 1 to 40 characters, none of them a control character",
};
const COUNTRY: Kind = Kind {
    least: 2,
    most: 2,
    allows: |c| c.is_ascii_alphabetic(),
    rule: "write the two letters of ISO 3166, such as DE",
};
const SERIAL_NUMBER: Kind = Kind {
    least: 1,
    most: 64,
    allows: |c| c.is_ascii_alphanumeric() || " '()+,-./:=?".contains(c),
    rule: "write 1 to 64 letters, digits, spaces or '()+,-./:=?",
};

fn check_common_name(name: &str) -> Result<(), ProfileError> {
    let length = name.chars().count();
    if name.chars().any(char::is_control) {
        return Err(ProfileError::CommonNameControl {
            value: name.to_owned(),
        });
    }
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
    let last = host.rsplit('.').next().unwrap_or_default();
    if last.chars().all(|c| c.is_ascii_digit()) {
        return refuse(
            "its last part is a number, as an IP address has it: write those in ipAddresses",
        );
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

fn check_address(address: &IpAddr) -> Result<(), ProfileError> {
    let IpAddr::V6(value) = *address else {
        return Ok(());
    };
    match value.to_ipv4_mapped() {
        Some(plain) => Err(ProfileError::MappedAddress { value, plain }),
        None => Ok(()),
    }
}

fn check_email_address(address: &str) -> Result<(), ProfileError> {
    let is_atom = |atom: &str| {
        let is_good = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
        !atom.is_empty() && atom.chars().all(is_good)
    };
    let is_good = address.split_once('@').is_some_and(|(user, host)| {
        user.len() <= 64
            && user.split('.').all(is_atom)
            && !host.starts_with('*')
            && check_dns_name(host).is_ok()
    });
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
