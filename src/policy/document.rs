//! Policies as they are written: `CertificateRequestPolicy` (`policy.cert-manager.io/v1alpha1`),
//! read strictly, because a restriction that is overlooked is a hole.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::attribute::Attribute;
use super::rule::Rule;
use super::schema::{
    Algorithm, Allowed, AllowedList, AllowedString, AllowedSubject, Constraints, Selector, Spec,
};
use super::{Field, Judgement, Policies, Policy, Rules};
use crate::duration::GoDuration;
use crate::opaque::{self, YamlTrouble};

/// `apiVersion` of a policy.
const API_VERSION: &str = "policy.cert-manager.io/v1alpha1";
/// `kind` of a policy.
const KIND: &str = "CertificateRequestPolicy";
/// Largest text that policies are read from; etcd holds no larger object.
const TEXT_MAX_BYTES: usize = 1_572_864;
/// Most policies in one set; every one is looked at for every certificate.
const POLICIES_MAX: usize = 1_000;
/// Sizes of keys that a policy may name.
const KEY_SIZES: std::ops::RangeInclusive<i64> = 0..=8192;
/// The usages that cert-manager knows by name.
const USAGES: [&str; 23] = [
    "signing",
    "digital signature",
    "content commitment",
    "key encipherment",
    "key agreement",
    "data encipherment",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
    "any",
    "server auth",
    "client auth",
    "code signing",
    "email protection",
    "s/mime",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "timestamping",
    "ocsp signing",
    "microsoft sgc",
    "netscape sgc",
];

/// A policy as the API keeps it; its spec is read apart, so that one that cannot be read does not
/// hide the others.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "policy.cert-manager.io",
    version = "v1alpha1",
    kind = "CertificateRequestPolicy",
    plural = "certificaterequestpolicies",
    schema = "disabled",
    derive = "PartialEq"
)]
pub struct CertificateRequestPolicySpec {
    /// All fields of the spec.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// Why policies cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not YAML.
    #[error("the policies are not YAML: {0}")]
    Yaml(YamlTrouble),
    /// More than the limits.
    #[error("the policies exceed {limit}")]
    TooLarge {
        /// The limit.
        limit: String,
    },
    /// Another kind of object.
    #[error("a document is a {found}; a policy is a {KIND} of {API_VERSION}")]
    Kind {
        /// What it is.
        found: String,
    },
    /// No name to tell it by.
    #[error("a policy has no metadata.name")]
    Unnamed,
    /// Two of one name.
    #[error("there are two policies of the name {policy}")]
    Duplicate {
        /// The name.
        policy: String,
    },
    /// A field that is unknown, missing or of the wrong type.
    #[error("policy {policy}: spec cannot be read: {detail}")]
    Spec {
        /// Which policy.
        policy: String,
        /// What is wrong.
        detail: String,
    },
    /// Plugins are programs inside approver-policy.
    #[error(
        "policy {policy}: spec.plugins names {plugins}; plugins are part of approver-policy and do \
         not exist in Bouncert: remove them, or write the same as validations in CEL"
    )]
    Plugins {
        /// Which policy.
        policy: String,
        /// The plugins.
        plugins: String,
    },
    /// A validation that cannot be compiled.
    #[error("policy {policy}: {path}: rule `{rule}` cannot be compiled: {detail}")]
    Rule {
        /// Which policy.
        policy: String,
        /// The field.
        path: String,
        /// The rule.
        rule: String,
        /// What is wrong.
        detail: String,
    },
    /// A field with a value that has no meaning.
    #[error("policy {policy}: {path}: {detail}")]
    Value {
        /// Which policy.
        policy: String,
        /// The field.
        path: &'static str,
        /// What is wrong.
        detail: String,
    },
}

// === impl Policies ===

impl Policies {
    /// Reads a YAML text of one policy per document. Any that cannot be used is an error.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > TEXT_MAX_BYTES {
            let limit = format!("{TEXT_MAX_BYTES} octets");
            return Err(PolicyError::TooLarge { limit });
        }
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(text).map_err(|error| PolicyError::Yaml(error.into()))?;
        let mut read = Self::default();
        for document in documents.iter().filter(|document| !document.is_null()) {
            let kind = (&document["apiVersion"], &document["kind"]);
            if (kind.0.as_str(), kind.1.as_str()) != (Some(API_VERSION), Some(KIND)) {
                let word = |value: &Value| opaque::words(value.as_str().unwrap_or("nothing"));
                return Err(PolicyError::Kind {
                    found: format!("{} of {}", word(kind.1), word(kind.0)),
                });
            }
            let name = document["metadata"]["name"].as_str().unwrap_or_default();
            read.add(Policy::compile(name, &document["spec"])?)?;
        }
        Ok(read)
    }

    /// Takes the policies of a cluster. One that cannot be used stays in the set and allows
    /// nothing, so that what it was to forbid is not let through.
    pub fn of_cluster(found: &[CertificateRequestPolicy]) -> Self {
        let policies = found.iter().map(|policy| {
            let name = policy.metadata.name.clone().unwrap_or_default();
            let spec = Value::Object(policy.spec.fields.clone());
            Policy::compile(&name, &spec).unwrap_or_else(|error| Policy {
                selector: serde_json::from_value(without_nulls(&spec["selector"]))
                    .unwrap_or_default(),
                judgement: Judgement::Unusable(format!("it cannot be used: {error}")),
                name,
            })
        });
        Self {
            policies: policies.collect(),
        }
    }

    /// Adds the policies of another text.
    pub fn join(mut self, other: Self) -> Result<Self, PolicyError> {
        for policy in other.policies {
            self.add(policy)?;
        }
        Ok(self)
    }

    fn add(&mut self, policy: Policy) -> Result<(), PolicyError> {
        if self.policies.len() == POLICIES_MAX {
            let limit = format!("{POLICIES_MAX} policies");
            return Err(PolicyError::TooLarge { limit });
        }
        if self.policies.iter().any(|other| other.name == policy.name) {
            return Err(PolicyError::Duplicate {
                policy: policy.name,
            });
        }
        self.policies.push(policy);
        Ok(())
    }
}

// === impl Policy ===

impl Policy {
    fn compile(name: &str, spec: &Value) -> Result<Self, PolicyError> {
        if name.is_empty() {
            return Err(PolicyError::Unnamed);
        }
        let spec: Spec =
            serde_json::from_value(without_nulls(spec)).map_err(|error| PolicyError::Spec {
                policy: name.to_owned(),
                detail: opaque::shape(&error),
            })?;
        let plugins: Vec<String> = spec.plugins.unwrap_or_default().into_keys().collect();
        if !plugins.is_empty() {
            return Err(PolicyError::Plugins {
                policy: name.to_owned(),
                plugins: plugins.join(", "),
            });
        }
        let constraints = spec.constraints.unwrap_or_default();
        let refuse = |(path, detail)| PolicyError::Value {
            policy: name.to_owned(),
            path,
            detail,
        };
        spec.selector.check().map_err(refuse)?;
        constraints.check().map_err(refuse)?;
        let allowed = spec.allowed.unwrap_or_default();
        allowed.check_usages().map_err(refuse)?;
        Ok(Self {
            name: name.to_owned(),
            selector: spec.selector,
            judgement: Judgement::Rules(allowed.compile(name, constraints)?),
        })
    }
}

/// The same without fields that are null: the API server leaves them out.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let present = fields.iter().filter(|(_, value)| !value.is_null());
            let present = present.map(|(name, value)| (name.clone(), without_nulls(value)));
            Value::Object(present.collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

// === impl Selector, Allowed, Constraints ===

impl Selector {
    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.issuer_ref.is_none() && self.namespace.is_none() {
            let detail = "it selects nothing: write issuerRef, namespace or both; {} in either is \
                          everything";
            return Err(("spec.selector", detail.to_owned()));
        }
        let labels = self.namespace.iter().flat_map(|n| &n.match_labels);
        for (key, value) in labels {
            let name = key.rsplit_once('/').map_or(key.as_str(), |(_, name)| name);
            if !is_label(name) || name.is_empty() || !is_label(value) {
                let detail = format!("{key:?}: {value:?} is not a label that a namespace can have");
                return Err(("spec.selector.namespace.matchLabels", detail));
            }
        }
        Ok(())
    }
}

/// Whether a text is a label's value.
fn is_label(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_end = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.chars().all(is_inner)
        && is_end(text.chars().next())
        && is_end(text.chars().next_back())
}

impl Allowed {
    fn compile(mut self, policy: &str, constraints: Constraints) -> Result<Rules, PolicyError> {
        let mut subject = self.subject.take().unwrap_or_default();
        let foreign = [
            ("spec.allowed.otherNames", &self.other_names),
            (
                "spec.allowed.subject.otherAttributes",
                &subject.other_attributes,
            ),
        ];
        let impossible = foreign.iter().flat_map(|(path, entries)| {
            let required = entries.iter().filter(|entry| entry.required);
            required.map(move |entry| format!("{path}[{}].required", entry.oid))
        });
        let impossible = impossible.collect();
        let fields = Attribute::ALL.iter().map(|attribute| {
            let written = self.take(*attribute, &mut subject).unwrap_or_default();
            written.compile(policy, *attribute)
        });
        Ok(Rules {
            fields: fields.collect::<Result<_, _>>()?,
            is_ca: self.is_ca.unwrap_or_default(),
            usages: self.usages.unwrap_or_default(),
            constraints,
            impossible,
        })
    }

    fn take(&mut self, attribute: Attribute, subject: &mut AllowedSubject) -> Option<AllowedList> {
        let list = match attribute {
            Attribute::CommonName => return self.common_name.take().map(AllowedList::from),
            Attribute::SerialNumber => return subject.serial_number.take().map(AllowedList::from),
            Attribute::DnsNames => &mut self.dns_names,
            Attribute::IpAddresses => &mut self.ip_addresses,
            Attribute::Uris => &mut self.uris,
            Attribute::EmailAddresses => &mut self.email_addresses,
            Attribute::Organizations => &mut subject.organizations,
            Attribute::Countries => &mut subject.countries,
            Attribute::OrganizationalUnits => &mut subject.organizational_units,
            Attribute::Localities => &mut subject.localities,
            Attribute::Provinces => &mut subject.provinces,
            Attribute::StreetAddresses => &mut subject.street_addresses,
            Attribute::PostalCodes => &mut subject.postal_codes,
        };
        list.take()
    }

    fn check_usages(&self) -> Result<(), (&'static str, String)> {
        let mut usages = self.usages.iter().flatten();
        match usages.find(|usage| !USAGES.contains(&usage.as_str())) {
            None => Ok(()),
            Some(unknown) => Err((
                "spec.allowed.usages",
                format!("{unknown:?} is no usage that cert-manager knows"),
            )),
        }
    }
}

impl Constraints {
    fn check(&self) -> Result<(), (&'static str, String)> {
        for (path, duration) in [
            ("spec.constraints.minDuration", self.min_duration),
            ("spec.constraints.maxDuration", self.max_duration),
        ] {
            if let Some(duration) = duration.filter(|duration| *duration < GoDuration::ZERO) {
                return Err((path, format!("{duration} is negative: write 0s or more")));
            }
        }
        if let (Some(least), Some(most)) = (self.min_duration, self.max_duration)
            && least > most
        {
            let detail = format!("{most} is less than minDuration {least}");
            return Err(("spec.constraints.maxDuration", detail));
        }
        let Some(key) = &self.private_key else {
            return Ok(());
        };
        if key.algorithm == Some(Algorithm::Ed25519)
            && (key.min_size.is_some() || key.max_size.is_some())
        {
            let detail = "Ed25519 keys have no size: remove minSize and maxSize".to_owned();
            return Err(("spec.constraints.privateKey", detail));
        }
        for (path, size) in [
            ("spec.constraints.privateKey.minSize", key.min_size),
            ("spec.constraints.privateKey.maxSize", key.max_size),
        ] {
            if let Some(size) = size.filter(|size| !KEY_SIZES.contains(size)) {
                return Err((path, format!("{size} is outside the limits: 0 to 8192")));
            }
        }
        if let (Some(least), Some(most)) = (key.min_size, key.max_size)
            && least > most
        {
            let detail = format!("{most} is less than minSize {least}");
            return Err(("spec.constraints.privateKey.maxSize", detail));
        }
        Ok(())
    }
}

// === impl AllowedList ===

impl AllowedList {
    fn compile(self, policy: &str, attribute: Attribute) -> Result<Field, PolicyError> {
        if self.required && self.values.is_none() && self.validations.is_empty() {
            return Err(PolicyError::Value {
                policy: policy.to_owned(),
                path: attribute.path(),
                detail: format!(
                    "it is required, and nothing says what it may be: write {} or validations",
                    attribute.patterns_key()
                ),
            });
        }
        let rules = self.validations.iter().enumerate().map(|(index, written)| {
            Rule::compile(&written.rule, written.message.as_deref()).map_err(|detail| {
                PolicyError::Rule {
                    policy: policy.to_owned(),
                    path: format!("{}.validations[{index}]", attribute.path()),
                    rule: written.rule.chars().take(80).collect(),
                    detail,
                }
            })
        });
        Ok(Field {
            attribute,
            required: self.required,
            rules: rules.collect::<Result<_, _>>()?,
            patterns: self.values,
        })
    }
}

impl From<AllowedString> for AllowedList {
    fn from(single: AllowedString) -> Self {
        Self {
            required: single.required,
            values: single.value.map(|value| vec![value]),
            validations: single.validations,
        }
    }
}
