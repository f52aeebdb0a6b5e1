//! What can go wrong between us and Vault.

use http::StatusCode;

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
    /// An address that issuers may not name.
    #[error(
        "spec.vault.server is {server:?}, whose address the daemon does not connect to: name a server at \
         another address, or have the daemon started with --vault-networks and the network of this one"
    )]
    Address {
        /// The server.
        server: String,
    },
    /// No connection, no answer in time, a certificate that is not trusted, or an answer that Vault does
    /// not give. It is one text, so that an issuer does not find out what listens where; the cause is in
    /// the daemon's log, at level debug.
    #[error(
        "cannot speak to {server} as to a Vault: see whether spec.vault.server is right, whether the \
         daemon reaches it, and whether spec.vault.caBundle verifies its certificate"
    )]
    Unreachable {
        /// The server.
        server: String,
    },
    /// A value that cannot be sent.
    #[error("{field} has characters that an HTTP header cannot have")]
    NotAHeader {
        /// The value's place.
        field: &'static str,
    },
    /// The daemon may not ask for a token of the ServiceAccount.
    #[error(
        "the API server does not give the daemon a token of the ServiceAccount {account}: write a Role in \
         namespace {} that allows create of serviceaccounts/token with resourceNames [{}], and bind it to \
         the daemon's ServiceAccount: {message}", .account.namespace, .account.name
    )]
    TokenForbidden {
        /// The ServiceAccount.
        account: ObjectRef,
        /// What the API server says, which names the daemon's user.
        message: String,
    },
    /// A token for that audience could be used for something else than Vault.
    #[error(
        "spec.vault.auth.kubernetes.serviceAccountRef.audiences has {audience:?}, which {why}: remove it, \
         and bind the role in Vault to the audience {own}, which every token has"
    )]
    Audience {
        /// The audience.
        audience: String,
        /// What is wrong with it.
        why: &'static str,
        /// The audience of this issuer.
        own: String,
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
            | Self::Address { .. }
            | Self::NotAHeader { .. }
            | Self::Audience { .. }
            | Self::CaBundle(_) => Retry::WhenChanged,
            Self::Cluster(source) => source.retry(),
            Self::Fenced(_) => Retry::Never,
            // Nothing wakes us when a Role is written.
            Self::Unreachable { .. } | Self::TokenForbidden { .. } | Self::Sealed { .. } => {
                Retry::Backoff
            }
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
            Self::Spec { .. }
            | Self::Server { .. }
            | Self::NoLogin
            | Self::Address { .. }
            | Self::NotAHeader { .. }
            | Self::Audience { .. }
            | Self::CaBundle(_) => "IssuerNotSupported",
            Self::NoSecret { .. } | Self::NoToken { .. } => "IssuerSecretNotFound",
            Self::TokenForbidden { .. } => "IssuerTokenForbidden",
            Self::Cluster(_) | Self::Fenced(_) | Self::Unreachable { .. } => "IssuerUnreachable",
            Self::Sealed { .. } => "IssuerSealed",
            Self::Refused { .. } => "IssuerRefused",
        }
    }
}
