//! The schema of a `CertificateRequestPolicy`'s spec, for serde. Unknown fields are refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::duration::GoDuration;

/// The spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    #[serde(default)]
    pub(super) allowed: Option<Allowed>,
    #[serde(default)]
    pub(super) constraints: Option<Constraints>,
    pub(super) selector: Selector,
    #[serde(default)]
    pub(super) plugins: Option<BTreeMap<String, Value>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Allowed {
    pub(super) common_name: Option<AllowedString>,
    pub(super) dns_names: Option<AllowedList>,
    pub(super) ip_addresses: Option<AllowedList>,
    pub(super) uris: Option<AllowedList>,
    pub(super) email_addresses: Option<AllowedList>,
    #[serde(rename = "isCA")]
    pub(super) is_ca: Option<bool>,
    pub(super) usages: Option<Vec<String>>,
    pub(super) subject: Option<AllowedSubject>,
    #[serde(default)]
    pub(super) other_names: Vec<Foreign>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AllowedSubject {
    pub(super) organizations: Option<AllowedList>,
    pub(super) countries: Option<AllowedList>,
    pub(super) organizational_units: Option<AllowedList>,
    pub(super) localities: Option<AllowedList>,
    pub(super) provinces: Option<AllowedList>,
    pub(super) street_addresses: Option<AllowedList>,
    pub(super) postal_codes: Option<AllowedList>,
    pub(super) serial_number: Option<AllowedString>,
    #[serde(default)]
    pub(super) other_attributes: Vec<Foreign>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AllowedString {
    #[serde(default)]
    pub(super) required: bool,
    pub(super) value: Option<String>,
    #[serde(default)]
    pub(super) validations: Vec<Validation>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AllowedList {
    #[serde(default)]
    pub(super) required: bool,
    pub(super) values: Option<Vec<String>>,
    #[serde(default)]
    pub(super) validations: Vec<Validation>,
}

/// A name or attribute by its object identifier: nothing of ours carries one, so only whether it is
/// required matters.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Foreign {
    #[serde(default)]
    pub(super) oid: String,
    #[serde(default)]
    pub(super) required: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Validation {
    pub(super) rule: String,
    pub(super) message: Option<String>,
}

/// Bounds that a request has to keep.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Constraints {
    pub(super) min_duration: Option<GoDuration>,
    pub(super) max_duration: Option<GoDuration>,
    pub(super) private_key: Option<PrivateKey>,
}

/// Bounds of the key.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PrivateKey {
    pub(super) algorithm: Option<Algorithm>,
    pub(super) min_size: Option<i64>,
    pub(super) max_size: Option<i64>,
}

/// Kinds of keys that a policy can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Algorithm {
    #[serde(rename = "RSA")]
    Rsa,
    #[serde(rename = "ECDSA")]
    Ecdsa,
    Ed25519,
}

/// Which requests a policy is for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Selector {
    pub(super) issuer_ref: Option<IssuerSelector>,
    pub(super) namespace: Option<NamespaceSelector>,
}

/// Patterns for an issuer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssuerSelector {
    pub(super) name: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) group: Option<String>,
}

/// Names or labels of namespaces.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NamespaceSelector {
    #[serde(default)]
    pub(super) match_names: Vec<String>,
    #[serde(default)]
    pub(super) match_labels: BTreeMap<String, String>,
}

impl Algorithm {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "RSA",
            Self::Ecdsa => "ECDSA",
            Self::Ed25519 => "Ed25519",
        }
    }
}
