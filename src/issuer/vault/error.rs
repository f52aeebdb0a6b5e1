//! What can go wrong between us and Vault.

use http::StatusCode;

use super::http::EXCHANGE_TIMEOUT;
use crate::cluster::ClusterError;
use crate::fence::Fenced;
use crate::names::ObjectRef;
use crate::pki::pem::PemError;
use crate::retry::Retry;

/// Vault did not sign.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// `spec.vault` is not what cert-manager defines.
    #[error("spec.vault cannot be read: {detail}")]
    Spec {
        /// What is wrong with it.
        detail: String,
    },
    /// `spec.vault.server` is no URL.
    #[error("spec.vault.server is {server:?}: write a URL such as https://vault.example:8200")]
    Server {
        /// What it says.
        server: String,
    },
    /// No way to log in that we know.
    #[error("spec.vault.auth names no way to log in: set tokenSecretRef, appRole or kubernetes")]
    NoLogin,
    /// A Secret of the login, or its key, is not there.
    #[error("the Secret {secret} has no {key}, which {field} names")]
    NoSecret {
        /// The Secret.
        secret: ObjectRef,
        /// The key.
        key: String,
        /// The field of the issuer's spec.
        field: &'static str,
    },
    /// There is no such ServiceAccount, or it gets no token.
    #[error("the ServiceAccount {account} gets no token")]
    NoToken {
        /// The ServiceAccount.
        account: ObjectRef,
    },
    /// The API server did not give a Secret or a token.
    #[error("cannot read what is needed to log in")]
    Cluster(#[from] ClusterError),
    /// Signing is an act, and we may not act any more.
    #[error("it is not asked")]
    Fenced(#[from] Fenced),
    /// The CAs of the server's certificate cannot be read.
    #[error("spec.vault.caBundle cannot be read")]
    CaBundle(#[source] PemError),
    /// No connection, or it broke, or its certificate is not trusted.
    #[error("cannot speak to {server}: {detail}")]
    Unreachable {
        /// The server.
        server: String,
        /// What happened.
        detail: String,
    },
    /// No answer in time.
    #[error("{server} gave no answer within {} s", EXCHANGE_TIMEOUT.as_secs())]
    TimedOut {
        /// The server.
        server: String,
    },
    /// Vault is sealed or not initialised.
    #[error("Vault at {server} is sealed or not ready: {message}")]
    Sealed {
        /// The server.
        server: String,
        /// Its words.
        message: String,
    },
    /// Vault says no.
    #[error("Vault answers {} to {what}: {message}", .status.as_u16())]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// HTTP status.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// Vault's answer is not what its API defines.
    #[error("Vault's answer to {what} has no {field}")]
    Malformed {
        /// What was asked for.
        what: &'static str,
        /// What is missing.
        field: &'static str,
    },
}

impl VaultError {
    /// Whether trying again may help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Spec { .. }
            | Self::Server { .. }
            | Self::NoLogin
            | Self::NoSecret { .. }
            | Self::NoToken { .. }
            | Self::CaBundle(_) => Retry::WhenChanged,
            Self::Cluster(source) => source.retry(),
            Self::Fenced(_) => Retry::Never,
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Sealed { .. }
            | Self::Malformed { .. } => Retry::Backoff,
            Self::Refused { status, .. } => {
                if status.is_client_error() && *status != StatusCode::TOO_MANY_REQUESTS {
                    Retry::WhenChanged
                } else {
                    Retry::Backoff
                }
            }
        }
    }

    /// One word for conditions, events and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Spec { .. } | Self::Server { .. } | Self::NoLogin | Self::CaBundle(_) => {
                "IssuerNotSupported"
            }
            Self::NoSecret { .. } | Self::NoToken { .. } => "IssuerSecretNotFound",
            Self::Cluster(_)
            | Self::Fenced(_)
            | Self::Unreachable { .. }
            | Self::TimedOut { .. } => "IssuerUnreachable",
            Self::Sealed { .. } => "IssuerSealed",
            Self::Refused { .. } => "IssuerRefused",
            Self::Malformed { .. } => "IssuerAnswerUnusable",
        }
    }
}
