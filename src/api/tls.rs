//! The TLS part of both kinds: modes, issuers, certificates
//! (docs/kubedb-compatibility.md, "Modes and what clients see").

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the pooler asks of its clients' connections (`client_tls_sslmode`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS if the client wants it.
    Allow,
    /// The same as `allow` on the server's side.
    Prefer,
    /// TLS is a must; a certificate is verified if one is shown.
    Require,
    /// A client certificate of a known CA is a must.
    VerifyCa,
    /// The same as `verify-ca` in PgBouncer: names are not compared.
    VerifyFull,
}

impl SslMode {
    /// All modes, the weakest first.
    pub const ALL: [Self; 6] = [
        Self::Disable,
        Self::Allow,
        Self::Prefer,
        Self::Require,
        Self::VerifyCa,
        Self::VerifyFull,
    ];

    /// The mode of that name; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text)
    }

    /// As written in manifests and in `pgbouncer.ini`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    /// Whether a pooler in this mode needs key and certificate.
    pub const fn is_tls(self) -> bool {
        !matches!(self, Self::Disable)
    }

    /// Whether a pooler in this mode refuses clients that show no certificate.
    pub const fn wants_client_certificate(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

/// How clients prove who they are (`auth_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthType {
    /// MD5 challenge.
    #[serde(rename = "md5")]
    Md5,
    /// SCRAM-SHA-256.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
}

impl AuthType {
    /// As written in manifests and in `pgbouncer.ini`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::ScramSha256 => "scram-sha-256",
        }
    }
}

/// API group of cert-manager's own issuers.
pub const CERT_MANAGER_GROUP: &str = "cert-manager.io";

/// Who signs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct IssuerRef {
    /// API group of the issuer; `cert-manager.io` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,
    /// `Issuer` or `ClusterIssuer`.
    pub kind: String,
    /// Name of the issuer.
    pub name: String,
}

impl IssuerRef {
    /// Whether it may sign for other namespaces as well. A namespaced Issuer of cert-manager's own signs
    /// for its namespace alone; of issuers of other groups that is not known.
    pub fn is_shared(&self) -> bool {
        self.group() != CERT_MANAGER_GROUP || self.kind != "Issuer"
    }

    /// The group, with its default.
    pub fn group(&self) -> &str {
        self.api_group
            .as_deref()
            .filter(|group| !group.is_empty())
            .unwrap_or(CERT_MANAGER_GROUP)
    }
}

/// TLS of a `PgBouncer`: `spec.tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsConfig {
    /// Who signs all certificates, unless an entry of `certificates` names another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
    /// What is special about single certificates; missing aliases are completed by defaulting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateSpec>,
}

impl TlsConfig {
    /// The entry of that alias.
    pub fn certificate(&self, alias: &str) -> Option<&CertificateSpec> {
        self.certificates
            .iter()
            .find(|certificate| certificate.alias == alias)
    }
}

/// One certificate of a `PgBouncer`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSpec {
    /// Which certificate: `server`, `client` or `metrics-exporter`; other names are kept and
    /// ignored.
    pub alias: String,
    /// Who signs this certificate, where it is not the common issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
    /// Secret that receives key and certificates; `<name>-<alias>-cert` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Parts of the subject besides the common name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<X509Subject>,
    /// Lifetime asked for, a Go duration such as `2160h`; 90 days by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// How long before its end the certificate is renewed, a Go duration; a third of its life by
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_before: Option<String>,
    /// Further DNS names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// Further IP addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_addresses: Vec<String>,
    /// URI names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uris: Vec<String>,
    /// E-mail names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub email_addresses: Vec<String>,
    /// Form of the private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PrivateKeySpec>,
}

/// Parts of an X.509 subject besides the common name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct X509Subject {
    /// `O`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,
    /// `C`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub countries: Vec<String>,
    /// `OU`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub organizational_units: Vec<String>,
    /// `L`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub localities: Vec<String>,
    /// `ST`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub provinces: Vec<String>,
    /// `STREET`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub street_addresses: Vec<String>,
    /// `postalCode`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub postal_codes: Vec<String>,
    /// `serialNumber` of the subject, not of the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
}

/// Form of the private key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrivateKeySpec {
    /// PEM form; PKCS1 by default, as in cert-manager (SEC1 for elliptic curves).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<PrivateKeyEncoding>,
}

/// PEM form of a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PrivateKeyEncoding {
    /// The algorithm's own form: `RSA PRIVATE KEY` or `EC PRIVATE KEY`.
    #[serde(rename = "PKCS1")]
    Pkcs1,
    /// `PRIVATE KEY`.
    #[serde(rename = "PKCS8")]
    Pkcs8,
}
