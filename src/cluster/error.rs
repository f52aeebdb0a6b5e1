//! What can go wrong between us and the API server.

use super::{CALL_TIMEOUT, Foreign};
use crate::names::ObjectRef;
use crate::retry::Retry;

/// A call to the API server failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The server, or the way to it, answered with an error.
    #[error("cannot {verb} {kind} {at}")]
    Call {
        /// What was asked for.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// The object.
        at: ObjectRef,
        /// What the client says.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("cannot {verb} {kind} {at}: no answer within {} s", CALL_TIMEOUT.as_secs())]
    TimedOut {
        /// What was asked for.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// The object.
        at: ObjectRef,
    },
    /// A name that would lead to another path at the API server; it is not asked.
    #[error("cannot {verb} {kind} {at}: that is not a name of an object")]
    NotAName {
        /// What was to be done.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// The object.
        at: ObjectRef,
    },
    /// We do not lead any more; whether the call came through before is not known.
    #[error("cannot {verb} {kind} {at}: this daemon does not lead any more")]
    Fenced {
        /// What was to be done.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// The object.
        at: ObjectRef,
    },
    /// An object at a name that one of ours needs, and that is not ours.
    #[error("{0}")]
    Foreign(Box<Foreign>),
    /// An object that is another one at every look.
    #[error("cannot write {kind} {at}: it is deleted and made again all the time")]
    Swapped {
        /// Kind of the object.
        kind: String,
        /// The object.
        at: ObjectRef,
    },
}

impl ClusterError {
    /// HTTP status of the server's answer, if it gave one.
    pub fn code(&self) -> Option<u16> {
        self.api().map(|status| status.code)
    }

    /// The server's own words.
    pub fn server_message(&self) -> Option<String> {
        self.api().map(|status| status.message.clone())
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether somebody else wrote in between.
    pub fn is_conflict(&self) -> bool {
        self.api()
            .is_some_and(|status| status.code == 409 && status.reason != "AlreadyExists")
    }

    /// Whether an object of that name was there already.
    pub fn is_already_exists(&self) -> bool {
        self.api()
            .is_some_and(|status| status.code == 409 && status.reason == "AlreadyExists")
    }

    /// Whether trying again may help.
    pub fn retry(&self) -> Retry {
        match self {
            // A fence that is closed stays closed. What there is to do is the next leader's.
            Self::Fenced { .. } | Self::NotAName { .. } | Self::Foreign(_) => return Retry::Never,
            Self::Call { .. } | Self::TimedOut { .. } | Self::Swapped { .. } => {}
        }
        match self.code() {
            Some(404) => Retry::WhenChanged,
            Some(409 | 410 | 429 | 500..) | None => Retry::Backoff,
            Some(_) => Retry::Never,
        }
    }

    fn api(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Call { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.as_ref()),
                _ => None,
            },
            Self::TimedOut { .. }
            | Self::Fenced { .. }
            | Self::NotAName { .. }
            | Self::Foreign(_)
            | Self::Swapped { .. } => None,
        }
    }
}
