//! What is asked for, as policies see it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use time::Duration;

use crate::api::tls::IssuerRef;
use crate::pki::key::KeyKind;
use crate::pki::profile::{LeafProfile, Subject};

/// One certificate that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Namespace of whoever asks.
    pub namespace: String,
    /// Labels of that namespace, for policies that select by them.
    pub namespace_labels: BTreeMap<String, String>,
    /// Name of the request; ours have the name of the certificate, `<db>-<alias>-cert`.
    pub name: String,
    /// Who is to sign.
    pub issuer: IssuerRef,
    /// `CN`.
    pub common_name: Option<String>,
    /// The rest of the subject.
    pub subject: Subject,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// IP addresses.
    pub ip_addresses: Vec<IpAddr>,
    /// URIs.
    pub uris: Vec<String>,
    /// E-mail addresses.
    pub email_addresses: Vec<String>,
    /// Usages by cert-manager's names.
    pub usages: Vec<String>,
    /// Whether a CA is asked for.
    pub is_ca: bool,
    /// Lifetime asked for.
    pub duration: Option<Duration>,
    /// What the key is.
    pub key: KeyKind,
}

impl Request {
    /// What `profile` asks of `issuer`, with a key of that kind.
    pub fn for_leaf(
        namespace: &str,
        name: &str,
        issuer: &IssuerRef,
        profile: &LeafProfile,
        key: KeyKind,
    ) -> Self {
        let LeafProfile {
            common_name,
            subject,
            dns_names,
            ip_addresses,
            uris,
            email_addresses,
            usage,
            lifetime,
            outliving: _,
        } = profile.clone();
        Self {
            namespace: namespace.to_owned(),
            namespace_labels: BTreeMap::new(),
            name: name.to_owned(),
            issuer: issuer.clone(),
            common_name,
            subject,
            dns_names,
            ip_addresses,
            uris,
            email_addresses,
            usages: usage.names(key),
            is_ca: false,
            duration: Some(lifetime),
            key,
        }
    }
}
