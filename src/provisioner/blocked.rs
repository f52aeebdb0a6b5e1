//! What keeps an object from being provisioned, and the reasons that its conditions name; pure.

use crate::blueprint::bounds::OutOfBounds;
use crate::blueprint::certificates::WantedError;
use crate::blueprint::{InputsError, PodTemplateError};
use crate::causes::chain;
use crate::cluster::{ClusterError, Foreign};
use crate::names::ObjectRef;
use crate::retry::Retry;
use crate::surroundings::SurroundingsError;

/// Why the objects of a PgBouncer cannot be made now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Blocked {
    /// A call that is worth trying again.
    #[error(transparent)]
    Passing(ClusterError),
    /// A call that the API server refuses.
    #[error("the API server refuses it: {}", .0.server_message().unwrap_or_default())]
    Refused(#[source] ClusterError),
    /// Something that the specification names is missing or of no use.
    #[error(transparent)]
    Surroundings(SurroundingsError),
    /// The specification asks for more than there is room for.
    #[error(transparent)]
    Bounds(#[from] OutOfBounds),
    /// The specification has no meaning.
    #[error(transparent)]
    Inputs(#[from] InputsError),
    /// The certificates asked for cannot be made.
    #[error(transparent)]
    Certificates(#[from] WantedError),
    /// `spec.podTemplate` makes no pod.
    #[error(transparent)]
    PodTemplate(#[from] PodTemplateError),
    /// The auth Secret is somebody else's.
    #[error("auth secret is owned by a different resource kind/instance: {0}")]
    ForeignAuthSecret(ObjectRef),
    /// An auth Secret that somebody else has to write.
    #[error("auth Secret {0} is externally managed and not there yet")]
    NoExternalAuthSecret(ObjectRef),
    /// An auth Secret without credentials.
    #[error("auth Secret {0} lacks a username or a password")]
    EmptyAuthSecret(ObjectRef),
    /// An auth Secret that is none.
    #[error("spec.authSecret.kind {0} is not supported; use a Secret")]
    AuthSecretKind(String),
    /// A certificate is on its way.
    #[error("waiting for {on}")]
    CertificatePending {
        /// What it waits for.
        on: String,
    },
    /// A certificate is not issued.
    #[error("the certificate for {alias} is denied: {reason}")]
    CertificateDenied {
        /// Which.
        alias: crate::names::Alias,
        /// Why.
        reason: String,
    },
    /// Material could not be made or published.
    #[error("the certificate for {alias} is not there: {reason}")]
    CertificateFailed {
        /// Which.
        alias: crate::names::Alias,
        /// The error, with all its causes.
        reason: String,
    },
    /// TLS was switched by an edit of the live object.
    #[error(
        "TLS was {what} by an edit of spec; nothing is changed: take the edit back and make a \
         PgBouncerOpsRequest of type ReconfigureTLS, which carries the change into the pods"
    )]
    TlsEdited {
        /// What was done to it.
        what: &'static str,
    },
    /// Objects that are not ours have names that ours need.
    #[error("{}", name_foreign(.0))]
    Foreign(Vec<Foreign>),
    /// A request took the object over while we were at it.
    #[error("a request holds the object")]
    TakenOver,
}

/// Why a condition is as it is. It becomes text where the condition is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// All pods are ready, or accept connections.
    AllReplicasReady,
    /// Some are not.
    SomeReplicasNotReady,
    /// A pod accepts connections.
    AcceptingConnection,
    /// None does.
    NotAcceptingConnection,
    /// Too few do.
    ReadinessCheckFailed,
    /// Work has begun.
    ProvisioningStarted,
    /// The object was ready once.
    Provisioned,
    /// It has no pods because it is halted.
    Halted,
    /// A deletion waits for another deletion policy.
    DoNotTerminate,
    /// Pods run with an earlier configuration.
    RestartPending,
    /// Something that the specification names is missing.
    WaitingForDependency,
    /// A reference into another namespace is not granted.
    ReferenceNotGranted,
    /// A certificate is missing.
    WaitingForCertificates,
    /// The auth Secret cannot be used.
    AuthSecretUnusable,
    /// The specification cannot be provisioned.
    SpecificationUnusable,
    /// TLS comes and goes by requests only.
    ReconfigureTlsRequired,
    /// Objects that are not ours have names that ours need.
    ForeignObject,
    /// The API server refuses a write.
    ApplyFailed,
}

// === impl Reason ===

impl Reason {
    /// The text in a condition.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::AllReplicasReady => "AllReplicasReady",
            Self::SomeReplicasNotReady => "SomeReplicasNotReady",
            Self::AcceptingConnection => "AcceptingConnection",
            Self::NotAcceptingConnection => "DatabaseNotAcceptingConnectionRequest",
            Self::ReadinessCheckFailed => "ReadinessCheckFailed",
            Self::ProvisioningStarted => "DatabaseProvisioningStartedSuccessfully",
            Self::Provisioned => "DatabaseSuccessfullyProvisioned",
            Self::Halted => "DatabaseHaltedSuccessfully",
            Self::DoNotTerminate => "DoNotTerminate",
            Self::RestartPending => "RestartPending",
            Self::WaitingForDependency => "WaitingForDependency",
            Self::ReferenceNotGranted => "ReferenceNotGranted",
            Self::WaitingForCertificates => "WaitingForCertificates",
            Self::AuthSecretUnusable => "AuthSecretUnusable",
            Self::SpecificationUnusable => "SpecificationUnusable",
            Self::ReconfigureTlsRequired => "ReconfigureTLSRequired",
            Self::ForeignObject => "ForeignObject",
            Self::ApplyFailed => "ApplyFailed",
        }
    }
}

// === impl Blocked ===

impl Blocked {
    /// The reason of the condition that tells it.
    pub(super) const fn reason(&self) -> Reason {
        match self {
            Self::Surroundings(error) if error.is_not_granted() => Reason::ReferenceNotGranted,
            Self::Surroundings(_)
            | Self::NoExternalAuthSecret(_)
            | Self::Inputs(InputsError::NoAuthSecret(_)) => Reason::WaitingForDependency,
            Self::CertificatePending { .. }
            | Self::CertificateDenied { .. }
            | Self::CertificateFailed { .. }
            | Self::Inputs(InputsError::NoMaterial(_)) => Reason::WaitingForCertificates,
            Self::ForeignAuthSecret(_) | Self::EmptyAuthSecret(_) | Self::AuthSecretKind(_) => {
                Reason::AuthSecretUnusable
            }
            Self::Bounds(_) | Self::Inputs(_) | Self::Certificates(_) | Self::PodTemplate(_) => {
                Reason::SpecificationUnusable
            }
            Self::TlsEdited { .. } => Reason::ReconfigureTlsRequired,
            Self::Foreign(_) => Reason::ForeignObject,
            Self::Passing(_) | Self::Refused(_) | Self::TakenOver => Reason::ApplyFailed,
        }
    }

    /// A sentence for people, with all its causes.
    pub(super) fn message(&self) -> String {
        chain(self)
    }
}

impl From<ClusterError> for Blocked {
    fn from(error: ClusterError) -> Self {
        match (error.retry(), error) {
            (_, ClusterError::Foreign(foreign)) => Self::Foreign(vec![*foreign]),
            (Retry::Never, error) => Self::Refused(error),
            (Retry::Backoff | Retry::WhenChanged, error) => Self::Passing(error),
        }
    }
}

impl From<SurroundingsError> for Blocked {
    fn from(error: SurroundingsError) -> Self {
        match error {
            SurroundingsError::Cluster(error) => error.into(),
            error => Self::Surroundings(error),
        }
    }
}

/// What is to be said of foreign objects.
pub(super) fn name_foreign(foreign: &[Foreign]) -> String {
    let named: Vec<String> = foreign.iter().map(ToString::to_string).collect();
    named.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_all_causes_once() {
        let error = Blocked::from(SurroundingsError::Missing {
            kind: "AppBinding",
            at: ObjectRef::new("vault", "books"),
            by: "spec.database.databaseRef",
        });
        assert_eq!(
            error.message(),
            "AppBinding vault/books, named by spec.database.databaseRef, does not exist: create it, or name \
             one that does"
        );
        assert_eq!(error.reason().as_str(), "WaitingForDependency");
    }
}
