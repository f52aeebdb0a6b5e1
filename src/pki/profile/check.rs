//! The rules that a profile must obey, one small function each.

use time::Duration;

use super::{
    ATTRIBUTE_MAX_CHARS, COMMON_NAME_MAX_CHARS, CaProfile, LIFETIME_MAX, LIFETIME_MIN, LeafProfile,
    NAMES_MAX, Pointers, ProfileError, Subject,
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
