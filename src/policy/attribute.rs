//! The attributes of a certificate that `spec.allowed` has a field for.

use super::Request;

/// One attribute of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attribute {
    CommonName,
    DnsNames,
    IpAddresses,
    Uris,
    EmailAddresses,
    Organizations,
    Countries,
    OrganizationalUnits,
    Localities,
    Provinces,
    StreetAddresses,
    PostalCodes,
    SerialNumber,
}

impl Attribute {
    /// All attributes, in the order in which violations are told.
    pub(super) const ALL: [Self; 13] = [
        Self::CommonName,
        Self::DnsNames,
        Self::IpAddresses,
        Self::Uris,
        Self::EmailAddresses,
        Self::Organizations,
        Self::Countries,
        Self::OrganizationalUnits,
        Self::Localities,
        Self::Provinces,
        Self::StreetAddresses,
        Self::PostalCodes,
        Self::SerialNumber,
    ];

    /// Its field in a policy.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::CommonName => "spec.allowed.commonName",
            Self::DnsNames => "spec.allowed.dnsNames",
            Self::IpAddresses => "spec.allowed.ipAddresses",
            Self::Uris => "spec.allowed.uris",
            Self::EmailAddresses => "spec.allowed.emailAddresses",
            Self::Organizations => "spec.allowed.subject.organizations",
            Self::Countries => "spec.allowed.subject.countries",
            Self::OrganizationalUnits => "spec.allowed.subject.organizationalUnits",
            Self::Localities => "spec.allowed.subject.localities",
            Self::Provinces => "spec.allowed.subject.provinces",
            Self::StreetAddresses => "spec.allowed.subject.streetAddresses",
            Self::PostalCodes => "spec.allowed.subject.postalCodes",
            Self::SerialNumber => "spec.allowed.subject.serialNumber",
        }
    }

    /// The key below it that holds the patterns.
    pub(super) const fn patterns_key(self) -> &'static str {
        match self {
            Self::CommonName | Self::SerialNumber => "value",
            _ => "values",
        }
    }

    /// What `request` asks for. An empty common name or serial number is none.
    pub(super) fn of(self, request: &Request) -> Vec<String> {
        let subject = &request.subject;
        let text = |text: &Option<String>| text.iter().filter(|t| !t.is_empty()).cloned().collect();
        match self {
            Self::CommonName => text(&request.common_name),
            Self::DnsNames => request.dns_names.clone(),
            Self::IpAddresses => request
                .ip_addresses
                .iter()
                .map(ToString::to_string)
                .collect(),
            Self::Uris => request.uris.iter().map(|uri| canonical(uri)).collect(),
            Self::EmailAddresses => request.email_addresses.clone(),
            Self::Organizations => subject.organizations.clone(),
            Self::Countries => subject.countries.clone(),
            Self::OrganizationalUnits => subject.organizational_units.clone(),
            Self::Localities => subject.localities.clone(),
            Self::Provinces => subject.provinces.clone(),
            Self::StreetAddresses => subject.street_addresses.clone(),
            Self::PostalCodes => subject.postal_codes.clone(),
            Self::SerialNumber => text(&subject.serial_number),
        }
    }
}

/// A URI as approver-policy sees it: with its scheme in small letters, and no empty fragment.
fn canonical(uri: &str) -> String {
    let uri = uri.strip_suffix('#').unwrap_or(uri);
    match uri.split_once(':') {
        Some((scheme, rest)) => format!("{}:{rest}", scheme.to_ascii_lowercase()),
        None => uri.to_owned(),
    }
}
