//! What keeps an object from being provisioned, and how its specification is completed; pure.

use kube::ResourceExt;
use serde_json::{Map, Value, json};

use crate::api::PgBouncer;
use crate::api::annotations::FINALIZER;
use crate::api::pgbouncer::PgBouncerSpec;
use crate::blueprint::bounds::OutOfBounds;
use crate::blueprint::certificates::WantedError;
use crate::blueprint::{InputsError, PodTemplateError};
use crate::causes::chain;
use crate::cluster::{ClusterError, Foreign};
use crate::names::ObjectRef;
use crate::retry::Retry;
use crate::surroundings::{BackendRefusal, SurroundingsError};

/// Reason of a refused reference into another namespace.
pub(super) const REFERENCE_NOT_GRANTED: &str = "ReferenceNotGranted";
/// Reason of TLS towards PostgreSQL that does not work as it is wanted.
pub(super) const BACKEND_TLS_REFUSED: &str = "BackendTLSRefused";
/// Reason of the condition that names objects which are not ours.
pub(super) const FOREIGN_OBJECT: &str = "ForeignObject";

/// Why the objects of a PgBouncer cannot be made now.
#[derive(Debug, thiserror::Error)]
pub enum Blocked {
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
    /// TLS towards PostgreSQL as it is wanted does not work, or nobody can tell.
    #[error("TLS towards PostgreSQL is not as the AppBinding asks for, and {consequence}")]
    Backend {
        /// What it is instead.
        consequence: &'static str,
        /// Why it is not proven.
        #[source]
        source: BackendRefusal,
    },
    /// Objects that are not ours have names that ours need.
    #[error("{}", told(.0))]
    Foreign(Vec<Foreign>),
    /// A request took the object over while we were at it.
    #[error("a request holds the object")]
    TakenOver,
}

// === impl Blocked ===

impl Blocked {
    /// One word for programs.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Surroundings(error) if error.is_not_granted() => REFERENCE_NOT_GRANTED,
            Self::Surroundings(_)
            | Self::NoExternalAuthSecret(_)
            | Self::Inputs(InputsError::NoAuthSecret(_)) => "WaitingForDependency",
            Self::CertificatePending { .. }
            | Self::CertificateDenied { .. }
            | Self::CertificateFailed { .. }
            | Self::Inputs(InputsError::NoMaterial(_)) => "WaitingForCertificates",
            Self::ForeignAuthSecret(_) | Self::EmptyAuthSecret(_) | Self::AuthSecretKind(_) => {
                "AuthSecretUnusable"
            }
            Self::Bounds(_) | Self::Inputs(_) | Self::Certificates(_) | Self::PodTemplate(_) => {
                "SpecificationUnusable"
            }
            Self::TlsEdited { .. } => "ReconfigureTLSRequired",
            Self::Backend { .. } => BACKEND_TLS_REFUSED,
            Self::Foreign(_) => FOREIGN_OBJECT,
            Self::Passing(_) | Self::Refused(_) | Self::TakenOver => "ApplyFailed",
        }
    }

    /// A sentence for people, with all its causes.
    pub fn message(&self) -> String {
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
pub(super) fn told(foreign: &[Foreign]) -> String {
    let told: Vec<String> = foreign.iter().map(ToString::to_string).collect();
    told.join("; ")
}

/// The merge patch that turns the specification into the completed one; `None` if it is complete.
/// Only the fields that change stand in it, so that fields we do not know survive.
pub(super) fn completion(bouncer: &PgBouncer, completed: &PgBouncerSpec) -> Option<Value> {
    let fields = |spec: &PgBouncerSpec| match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (before, after) = (fields(&bouncer.spec), fields(completed));
    let mut changed: Map<String, Value> = after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for gone in before.keys().filter(|key| !after.contains_key(*key)) {
        changed.insert(gone.clone(), Value::Null);
    }
    (!changed.is_empty()).then(|| compare_and_swap(bouncer, json!({ "spec": changed })))
}

/// The merge patch that puts our finalizer on the object; `None` if it is there.
pub(super) fn finalizer(bouncer: &PgBouncer) -> Option<Value> {
    let mut finalizers = bouncer.finalizers().to_vec();
    if finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return None;
    }
    finalizers.push(FINALIZER.to_owned());
    Some(compare_and_swap(
        bouncer,
        json!({ "metadata": { "finalizers": finalizers } }),
    ))
}

/// Lets a patch succeed only on the very version that was read.
pub(super) fn compare_and_swap(bouncer: &PgBouncer, mut patch: Value) -> Value {
    if let Some(version) = bouncer.resource_version() {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::defaults::{IssuerKind, complete};
    use crate::blueprint::testing;

    #[test]
    fn only_what_changes_is_written_back_and_only_on_the_version_that_was_read() {
        let mut bouncer = testing::bouncer("billing");
        bouncer.metadata.resource_version = Some("41".into());
        let completed = complete(&bouncer.spec, "billing", IssuerKind::Private);
        let patch = completion(&bouncer, &completed).unwrap();
        assert_eq!(patch["metadata"]["resourceVersion"], "41");
        assert_eq!(patch["spec"]["sslMode"], "disable");
        assert!(patch["spec"].get("database").is_none());
        bouncer.spec = completed.clone();
        assert_eq!(completion(&bouncer, &completed), None);
    }

    #[test]
    fn a_folded_field_is_removed() {
        let mut bouncer = testing::bouncer("billing");
        bouncer.spec.config_secret = Some(crate::api::common::LocalRef {
            name: "tuned".into(),
        });
        let completed = complete(&bouncer.spec, "billing", IssuerKind::Private);
        let patch = completion(&bouncer, &completed).unwrap();
        assert_eq!(patch["spec"]["configSecret"], Value::Null);
        assert_eq!(patch["spec"]["configuration"]["secretName"], "tuned");
    }

    #[test]
    fn a_message_names_all_causes_once() {
        let error = Blocked::from(SurroundingsError::Missing {
            kind: "AppBinding",
            at: ObjectRef::new("vault", "books"),
            by: "spec.database.databaseRef",
        });
        assert_eq!(
            error.message(),
            "AppBinding vault/books, named by spec.database.databaseRef, is not there"
        );
        assert_eq!(error.reason(), "WaitingForDependency");
    }
}
