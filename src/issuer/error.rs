//! Why an issuer could not sign: each variant names the issuer, the object, the field, and what to
//! change.

use super::IssuerName;
use crate::cluster::ClusterError;
use crate::names::ObjectRef;
use crate::pki::authority::{CaError, SignError};
use crate::retry::Retry;

/// Why an issuer could not sign.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// Neither an `Issuer` nor a `ClusterIssuer`.
    #[error("issuerRef.kind is {kind:?}: write Issuer or ClusterIssuer")]
    UnknownKind {
        /// What the reference says.
        kind: String,
    },
    /// A group other than cert-manager's.
    #[error("issuers of the group {group:?} are not supported yet: use cert-manager.io")]
    UnknownGroup {
        /// What the reference says.
        group: String,
    },
    /// There is no such issuer.
    #[error("{issuer} does not exist: create it or correct spec.tls.issuerRef")]
    NotFound {
        /// The issuer.
        issuer: IssuerName,
    },
    /// It signs in a way that is not supported.
    #[error(
        "{issuer} signs by {method}, which is not supported yet: use an issuer with ca or selfSigned"
    )]
    Unsupported {
        /// The issuer.
        issuer: IssuerName,
        /// The field of its spec.
        method: &'static str,
    },
    /// It does not say how it signs.
    #[error("{issuer} does not say how it signs: set spec.ca or spec.selfSigned")]
    NoMethod {
        /// The issuer.
        issuer: IssuerName,
    },
    /// The CA's Secret is not there.
    #[error(
        "{issuer} needs the Secret {secret}, which does not exist: create it with tls.crt and tls.key of the CA, or correct spec.ca.secretName"
    )]
    SecretNotFound {
        /// The issuer.
        issuer: IssuerName,
        /// The Secret.
        secret: Box<ObjectRef>,
    },
    /// The CA's Secret lacks a field.
    #[error(
        "the Secret {secret} of {issuer} has no {field}: it must hold tls.crt and tls.key of the CA"
    )]
    FieldMissing {
        /// The issuer.
        issuer: IssuerName,
        /// The Secret.
        secret: Box<ObjectRef>,
        /// The field.
        field: &'static str,
    },
    /// The CA's Secret has a field that is no text.
    #[error("{field} in the Secret {secret} of {issuer} is not PEM: it is not even text")]
    NotText {
        /// The issuer.
        issuer: IssuerName,
        /// The Secret.
        secret: Box<ObjectRef>,
        /// The field.
        field: &'static str,
    },
    /// What the Secret holds is no CA that can sign.
    #[error("the Secret {secret} of {issuer} holds no usable CA")]
    Authority {
        /// The issuer.
        issuer: IssuerName,
        /// The Secret.
        secret: Box<ObjectRef>,
        /// What is wrong with it.
        #[source]
        source: Box<CaError>,
    },
    /// The issuer will not sign this.
    #[error("{issuer} cannot sign this certificate")]
    Sign {
        /// The issuer.
        issuer: IssuerName,
        /// Why.
        #[source]
        source: Box<SignError>,
    },
    /// The API server did not give the issuer or its Secret.
    #[error("cannot look up {issuer}")]
    Lookup {
        /// The issuer.
        issuer: IssuerName,
        /// What the API server said.
        #[source]
        source: Box<ClusterError>,
    },
    /// The system has no randomness for a serial number.
    #[error("cannot make a serial number: no randomness")]
    NoRandomness,
}

impl IssuerError {
    /// Whether trying again may help, and when.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotFound { .. }
            | Self::Unsupported { .. }
            | Self::NoMethod { .. }
            | Self::SecretNotFound { .. }
            | Self::FieldMissing { .. }
            | Self::NotText { .. }
            | Self::Authority { .. } => Retry::WhenChanged,
            Self::UnknownKind { .. } | Self::UnknownGroup { .. } => Retry::Never,
            Self::Sign { source, .. } => match source.as_ref() {
                SignError::Profile(_) => Retry::Never,
                SignError::OutlivesIssuer { .. }
                | SignError::Authority(_)
                | SignError::Constraints(_) => Retry::WhenChanged,
                SignError::Key(_) => Retry::Backoff,
            },
            Self::Lookup { source, .. } => source.retry(),
            Self::NoRandomness => Retry::Backoff,
        }
    }

    /// One word for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownKind { .. } | Self::UnknownGroup { .. } => "InvalidIssuerReference",
            Self::NotFound { .. } => "IssuerNotFound",
            Self::Unsupported { .. } | Self::NoMethod { .. } => "IssuerNotSupported",
            Self::SecretNotFound { .. } => "IssuerSecretNotFound",
            Self::FieldMissing { .. } | Self::NotText { .. } | Self::Authority { .. } => {
                "IssuerSecretInvalid"
            }
            Self::Sign { source, .. } => match source.as_ref() {
                SignError::Profile(_) => "InvalidCertificateSpec",
                SignError::OutlivesIssuer { .. } => "CertificateOutlivesIssuer",
                SignError::Authority(_) => "IssuerOutOfDate",
                SignError::Constraints(_) => "ForbiddenByIssuer",
                SignError::Key(_) => "SigningFailed",
            },
            Self::Lookup { .. } => "IssuerUnreachable",
            Self::NoRandomness => "SigningFailed",
        }
    }

    /// The error and its causes, in one line for a condition or an event.
    pub fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
