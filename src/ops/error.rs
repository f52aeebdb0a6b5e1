//! What can go wrong with a request as a whole. Trouble in a step is the journal's business; this is
//! trouble in getting at requests, plans and journals.

use crate::cluster::ClusterError;
use crate::names::ObjectRef;
use crate::ops::journal::IllegalEvent;
use crate::ops::plan::PLAN_FORM;
use crate::ops::request::Refusal;
use crate::retry::Retry;

/// A request cannot be carried on with now.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// The API server did not do what it was asked.
    #[error("the request cannot be carried on with")]
    Cluster(#[from] ClusterError),
    /// Plan or journal cannot be read.
    #[error("ConfigMap {at} does not hold a plan and a journal of this version of Bouncert")]
    ReadLedger {
        /// The ConfigMap.
        at: ObjectRef,
        /// Why.
        #[source]
        source: LedgerError,
    },
    /// An own invariant is broken.
    #[error("the journal of {at} is not consistent")]
    Journal {
        /// The ConfigMap.
        at: ObjectRef,
        /// How.
        #[source]
        source: IllegalEvent,
    },
}

/// Why plan or journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A key is missing.
    #[error("it has no {0}")]
    NoKey(&'static str),
    /// Not what was written.
    #[error("{key} cannot be read")]
    Json {
        /// Which key.
        key: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An older version's, of a form that nobody reads any more.
    #[error("its plan has form {0}, which is no longer read")]
    Older(u32),
    /// A newer version's.
    #[error("its plan has form {0}, and this daemon reads no newer one than {PLAN_FORM}")]
    Newer(u32),
    /// Events that cannot follow on each other.
    #[error("its events cannot have happened")]
    Events(#[from] IllegalEvent),
    /// An event of a step that the plan does not have.
    #[error("it tells of step {0}, which its plan does not have")]
    NoStep(usize),
    /// A plan that was made for another object.
    #[error("its plan was made for {what} `{kept}`, and the request has `{live}`")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// What the plan says.
        kept: String,
        /// What the request says.
        live: String,
    },
}

/// Why there is no plan for a request.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It has no meaning; its condition says why.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It would lead to something that does not work; nothing has been touched.
    #[error("{0}")]
    Unworkable(String),
    /// The API server did not do what it was asked.
    #[error("the plan cannot be made now")]
    Cluster(#[from] ClusterError),
}

// === impl OpsError ===

impl OpsError {
    /// Whether trying again may help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Cluster(source) => source.retry(),
            Self::ReadLedger { .. } | Self::Journal { .. } => Retry::WhenChanged,
        }
    }
}
