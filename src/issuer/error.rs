//! Why an issuer could not sign: each variant names the issuer, the object, the field, and what to
//! change.

use super::IssuerName;
use super::vault::VaultError;
use crate::causes::chain;
use crate::cluster::ClusterError;
use crate::names::ObjectRef;
use crate::pki::answer::AnswerError;
use crate::pki::authority::{CaError, SignError};
use crate::pki::csr::CsrError;
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
    /// There is no such issuer.
    #[error("{issuer} does not exist: create it or correct spec.tls.issuerRef")]
    NotFound {
        /// The issuer.
        issuer: IssuerName,
    },
    /// It does not say how it signs.
    #[error("{issuer} does not say how it signs: set spec.ca, spec.selfSigned or spec.vault")]
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
    /// No request for a certificate could be made.
    #[error("cannot make a request for {issuer}")]
    Request {
        /// The issuer.
        issuer: IssuerName,
        /// Why.
        #[source]
        source: Box<CsrError>,
    },
    /// Vault did not sign.
    #[error("{issuer} cannot sign through Vault")]
    Vault {
        /// The issuer.
        issuer: IssuerName,
        /// Why.
        #[source]
        source: Box<VaultError>,
    },
    /// What an issuer elsewhere answered cannot be used.
    #[error("{issuer} gave an answer that cannot be used")]
    Answer {
        /// The issuer.
        issuer: IssuerName,
        /// Why.
        #[source]
        source: Box<AnswerError>,
    },
    /// An issuer elsewhere answered without the root.
    #[error("{issuer} gave an answer without its root: {remedy}")]
    RootMissing {
        /// The issuer.
        issuer: IssuerName,
        /// What to change, for an issuer of this kind.
        remedy: &'static str,
        /// What is missing.
        #[source]
        source: Box<AnswerError>,
    },
    /// The cluster knows no `CertificateRequest`s.
    #[error(
        "{issuer} signs through cert-manager's CertificateRequest, which this cluster does not have: install cert-manager, or use an issuer with ca, selfSigned or vault"
    )]
    NoCertManager {
        /// The issuer.
        issuer: IssuerName,
    },
    /// The request is somebody else's.
    #[error(
        "{issuer} was to be asked by the CertificateRequest {request}, which is somebody else's: delete it"
    )]
    ForeignRequest {
        /// The issuer.
        issuer: IssuerName,
        /// The `CertificateRequest`.
        request: Box<ObjectRef>,
    },
    /// The `CertificateRequest` failed.
    #[error("{issuer} did not sign: the CertificateRequest {request} failed: {message}")]
    Rejected {
        /// The issuer.
        issuer: IssuerName,
        /// The `CertificateRequest`.
        request: Box<ObjectRef>,
        /// What its conditions say.
        message: String,
    },
    /// Nobody answered in time.
    #[error(
        "{issuer} did not answer the CertificateRequest {request} within {minutes} minutes: see whether its controller and an approver run"
    )]
    NoAnswer {
        /// The issuer.
        issuer: IssuerName,
        /// The `CertificateRequest`, which has been taken away.
        request: Box<ObjectRef>,
        /// How long it was waited for.
        minutes: i64,
    },
    /// The system has no randomness for a serial number.
    #[error("cannot make a serial number: no randomness")]
    NoRandomness,
}

impl IssuerError {
    /// An answer of an issuer elsewhere that cannot be used; `remedy` helps where its root is missing.
    pub(super) fn answer(issuer: &IssuerName, source: AnswerError, remedy: &'static str) -> Self {
        let issuer = issuer.clone();
        let source = Box::new(source);
        match *source {
            AnswerError::RootMissing { .. } => Self::RootMissing {
                issuer,
                remedy,
                source,
            },
            AnswerError::Certificate(_)
            | AnswerError::Authorities(_)
            | AnswerError::PrivateKey
            | AnswerError::Lineage(_)
            | AnswerError::Refused(_) => Self::Answer { issuer, source },
        }
    }

    /// Whether trying again may help, and when.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotFound { .. }
            | Self::NoMethod { .. }
            | Self::SecretNotFound { .. }
            | Self::FieldMissing { .. }
            | Self::NotText { .. }
            | Self::Authority { .. }
            | Self::Answer { .. }
            | Self::RootMissing { .. }
            | Self::NoCertManager { .. }
            | Self::ForeignRequest { .. }
            | Self::Rejected { .. } => Retry::WhenChanged,
            Self::UnknownKind { .. } | Self::Request { .. } => Retry::Never,
            Self::Vault { source, .. } => source.retry(),
            Self::Sign { source, .. } => match source.as_ref() {
                SignError::Profile(_) => Retry::Never,
                SignError::OutlivesIssuer { .. }
                | SignError::Authority(_)
                | SignError::Constraints(_) => Retry::WhenChanged,
                SignError::Key(_) => Retry::Backoff,
            },
            Self::Lookup { source, .. } => source.retry(),
            Self::NoRandomness | Self::NoAnswer { .. } => Retry::Backoff,
        }
    }

    /// One word for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownKind { .. } => "InvalidIssuerReference",
            Self::NotFound { .. } => "IssuerNotFound",
            Self::NoMethod { .. } | Self::NoCertManager { .. } => "IssuerNotSupported",
            Self::Request { .. } => "InvalidCertificateSpec",
            Self::Vault { source, .. } => source.reason(),
            Self::Answer { .. } | Self::RootMissing { .. } => "IssuerAnswerUnusable",
            Self::ForeignRequest { .. } => "CertificateRequestForeign",
            Self::Rejected { .. } => "CertificateRequestFailed",
            Self::NoAnswer { .. } => "IssuerSilent",
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
        chain(self)
    }
}
