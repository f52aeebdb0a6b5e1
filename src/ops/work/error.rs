//! Why a step cannot be done now, or at all.

use std::net::SocketAddr;

use crate::blueprint::certificates::WantedError;
use crate::blueprint::{InputsError, PodTemplateError};
use crate::cluster::ClusterError;
use crate::material::MaterialError;
use crate::names::{Alias, Fingerprint, ObjectRef};
use crate::ops::journal::NoReload;
use crate::pgbouncer::console::ConsoleError;
use crate::pgbouncer::probe::ProbeError;
use crate::pgbouncer::session::SessionError;
use crate::pgbouncer::tls::TlsSetupError;
use crate::pki::pem::PemError;
use crate::retry::Retry;
use crate::surroundings::SurroundingsError;

/// Trouble in a step.
#[derive(Debug, thiserror::Error)]
pub(in crate::ops) enum StepError {
    /// The API server did not do what it was asked.
    #[error("the API server did not do its part")]
    Cluster(#[from] ClusterError),
    /// Material cannot be made, read or published.
    #[error("the material cannot be handled")]
    Material(#[from] MaterialError),
    /// The issuer fails, or does not answer, for too long, measured by the life of what it is to sign.
    #[error(
        "the certificate of {alias} was not issued within {seconds} s, a twentieth of its life: {last}"
    )]
    NotIssued {
        /// Whose.
        alias: Alias,
        /// How long it was tried.
        seconds: u64,
        /// What the last answer was, or what was waited for.
        last: String,
    },
    /// What is around the PgBouncer is incomplete.
    #[error("what the PgBouncer needs is not complete")]
    Surroundings(#[from] SurroundingsError),
    /// No objects can be made from the spec.
    #[error("the changed PgBouncer would not work")]
    Inputs(#[from] InputsError),
    /// No pods can be made from the spec.
    #[error("the changed PgBouncer would have no pods")]
    PodTemplate(#[from] PodTemplateError),
    /// The certificates cannot be told from the spec.
    #[error("the certificates of the PgBouncer cannot be told")]
    Wanted(#[from] WantedError),
    /// The PgBouncer is not there any more, or another of its name is.
    #[error("PgBouncer {0} has been deleted")]
    Gone(ObjectRef),
    /// Somebody else has paused it.
    #[error(
        "PgBouncer {at} is paused by somebody else ({message}): let that end, or remove its \
         condition Paused"
    )]
    PausedByOther {
        /// Which.
        at: ObjectRef,
        /// What the condition says.
        message: String,
    },
    /// The issuer, or a policy, says no.
    #[error("the certificate of {alias} is refused: {reason}")]
    Denied {
        /// Whose.
        alias: Alias,
        /// Why.
        reason: String,
    },
    /// The plan names an alias that the spec does not want.
    #[error("the plan issues {0}, which the changed PgBouncer has no use for")]
    NotWanted(Alias),
    /// A bundle that the plan remembers cannot be read.
    #[error("the former trust bundle of {alias} cannot be read")]
    FormerTrust {
        /// Whose.
        alias: Alias,
        /// Why.
        #[source]
        source: PemError,
    },
    /// There is nothing that makes pods.
    #[error("{0} has no workload")]
    NoWorkload(ObjectRef),
    /// A pod without an address.
    #[error("{0} has no usable address")]
    NoAddress(ObjectRef),
    /// A pod that starts and ends, again and again.
    #[error("{0}")]
    Broken(String),
    /// Nothing could be seen.
    #[error("{name} cannot be looked at")]
    Probe {
        /// Pod or Service.
        name: String,
        /// Why.
        #[source]
        source: ProbeError,
    },
    /// Something else is served than what is published.
    #[error("{name} serves {served}, and {wanted} is published")]
    Serves {
        /// Pod or Service.
        name: String,
        /// What is served.
        served: Leaf,
        /// What should be.
        wanted: Leaf,
    },
    /// No login.
    #[error("{name} does not let us work")]
    Login {
        /// Pod or Service.
        name: String,
        /// Why.
        #[source]
        source: Box<SessionError>,
    },
    /// The pooler's console is of no help.
    #[error("the console of {name} does not do its part")]
    Console {
        /// Pod.
        name: String,
        /// Why.
        #[source]
        source: Box<ConsoleError>,
    },
    /// Our own side of TLS.
    #[error("the published material is of no use for a login to {address}")]
    Tls {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: TlsSetupError,
    },
    /// A pod that has to be restarted.
    #[error("pod {name} cannot be reloaded: {why}")]
    NoReload {
        /// Which.
        name: String,
        /// Why.
        why: NoReload,
    },
    /// A reload that made things worse, or will never come to anything.
    #[error("pod {name} was reloaded: {why}")]
    Spoilt {
        /// Which.
        name: String,
        /// What was seen.
        why: String,
    },
    /// Reloads that came to nothing.
    #[error(
        "pod {name} was reloaded again and again, and does not take up what is published; it should \
         come to: {missing}"
    )]
    NotTakenUp {
        /// Which.
        name: String,
        /// What it should have shown.
        missing: String,
    },
    /// A configuration that the running program would not load.
    #[error(
        "the program in pod {name} does not know {parameters}: remove it from spec.configuration, or \
         let the pod run the version that spec.version names (a request of type Restart)"
    )]
    UnknownParameters {
        /// Which.
        name: String,
        /// The parameters.
        parameters: String,
    },
    /// A leaf that PgBouncer would load and that no client accepts.
    #[error("the leaf in Secret {0} is not in its lifetime: rotate the certificates")]
    OutOfLifetime(ObjectRef),
    /// The spec is no longer what the plan was made from.
    #[error(
        "spec.tls, spec.sslMode or authType of PgBouncer {0} was changed by somebody else while \
         the request ran"
    )]
    SpecChanged(ObjectRef),
}

/// What an address serves, or should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Leaf {
    /// No TLS.
    Plaintext,
    /// The leaf of that fingerprint.
    Of(Fingerprint),
    /// TLS without a certificate that could be read.
    Unknown,
}

// === impl Leaf ===

impl std::fmt::Display for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plaintext => f.write_str("no TLS"),
            Self::Of(print) => {
                let hex = print.to_string();
                write!(f, "the certificate {}", hex.get(..16).unwrap_or(&hex))
            }
            Self::Unknown => f.write_str("TLS without a certificate"),
        }
    }
}

// === impl StepError ===

impl StepError {
    /// Trouble with the console of the pod `name`.
    pub(super) fn console(name: impl Into<String>, source: ConsoleError) -> Self {
        Self::Console {
            name: name.into(),
            source: Box::new(source),
        }
    }

    /// Whether trying again may help.
    pub(in crate::ops) fn retry(&self) -> Retry {
        match self {
            Self::Cluster(source) => source.retry(),
            // Whoever holds it is in no hurry, and the PgBouncer is paused meanwhile.
            Self::Material(MaterialError::Foreign { .. })
            | Self::Inputs(_)
            | Self::PodTemplate(_)
            | Self::Wanted(_)
            | Self::Gone(_)
            | Self::PausedByOther { .. }
            | Self::Denied { .. }
            | Self::NotIssued { .. }
            | Self::NotWanted(_)
            | Self::FormerTrust { .. }
            | Self::Tls { .. }
            | Self::Broken(_)
            | Self::NoReload { .. }
            | Self::Spoilt { .. }
            | Self::NotTakenUp { .. }
            | Self::UnknownParameters { .. }
            | Self::OutOfLifetime(_)
            | Self::SpecChanged(_) => Retry::Never,
            Self::Material(source) => source.retry(),
            Self::Surroundings(source) => source.retry(),
            Self::Probe { source, .. } => source.retry(),
            Self::Login { source, .. } => source.retry(),
            Self::Console { source, .. } => source.retry(),
            Self::Serves { .. } | Self::NoAddress(_) | Self::NoWorkload(_) => Retry::Backoff,
        }
    }
}
