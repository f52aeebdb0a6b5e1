//! The words that people and programs read in a request's conditions and events: KubeDB's, as the
//! compatibility document has them. Everything else in `ops` knows them as these types.

use crate::api::RequestType;
use crate::ops::journal::Event;
use crate::ops::plan::Plan;

/// What is reached when all steps of a kind have succeeded; the order is that of
/// docs/kubedb-compatibility.md, "Conditions of a request".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// The provisioner leaves the PgBouncer alone.
    Paused,
    /// The certificates are issued.
    Issued,
    /// Configuration and pod template are the new ones.
    Switched,
    /// The pods have been replaced.
    Restarted,
    /// The pods have read their files again.
    Reloaded,
    /// The specification is written.
    Committed,
}

/// What a condition of a request is about: its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The request has begun; the topic has the name of its type.
    Begun(RequestType),
    /// A milestone is reached.
    Reached(Milestone),
    /// All certificates of a rotation are being issued.
    Issuing,
    /// A step waits for something else than a certificate; it goes when the request ends.
    Running,
    /// A step could not be undone.
    UndoFailed,
    /// The request has succeeded.
    Successful,
    /// The request has failed.
    Failed,
    /// A newer request took its place.
    Skipped,
}

/// Why a condition is as it is, or what an event is about: its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Something begins.
    Starting,
    /// Something is done.
    Successful,
    /// Something has failed.
    Failed,
    /// A step could not be undone.
    UndoFailed,
    /// A step waits.
    Waiting,
    /// A newer daemon has begun the request.
    JournalIsNewer,
    /// What is kept of the request cannot be read.
    Stuck,
    /// A milestone is reached, as an event has it.
    Reached(Milestone),
}

/// What a step says to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// These words.
    Words {
        /// What they are about.
        reason: Reason,
        /// A sentence.
        message: String,
    },
    /// What the condition of its milestone says, if that is reached.
    Milestone,
}

// === impl Milestone ===

impl Milestone {
    /// All, in their order.
    pub const ALL: [Self; 6] = [
        Self::Paused,
        Self::Issued,
        Self::Switched,
        Self::Restarted,
        Self::Reloaded,
        Self::Committed,
    ];

    /// The type of its condition, and the reason of its events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "DatabasePauseSucceeded",
            Self::Issued => "CertificateSynced",
            Self::Switched => "UpdatePetSets",
            Self::Restarted => "RestartPods",
            Self::Reloaded => "ReloadPods",
            Self::Committed => "UpdateDatabase",
        }
    }
}

// === impl Topic ===

impl Topic {
    /// The type, as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun(type_) => type_.as_str(),
            Self::Reached(milestone) => milestone.as_str(),
            Self::Issuing => "IssueCertificatesSucceeded",
            Self::Running => "Running",
            Self::UndoFailed => "UndoFailed",
            Self::Successful => "Successful",
            Self::Failed => "Failed",
            Self::Skipped => "Skipped",
        }
    }

    /// The reason of a condition of that type that is true, as it is written.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Reached(Milestone::Restarted) => "RestartPodsSucceeded",
            Self::Reached(Milestone::Reloaded) => "ReloadPodsSucceeded",
            Self::Begun(_)
            | Self::Reached(_)
            | Self::Issuing
            | Self::Running
            | Self::UndoFailed
            | Self::Successful
            | Self::Failed
            | Self::Skipped => self.as_str(),
        }
    }
}

// === impl Reason ===

impl Reason {
    /// The reason, as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::Successful => "Successful",
            Self::Failed => "Failed",
            Self::UndoFailed => "UndoFailed",
            Self::Waiting => "Waiting",
            Self::JournalIsNewer => "JournalIsNewer",
            Self::Stuck => "Stuck",
            Self::Reached(milestone) => milestone.as_str(),
        }
    }
}

// === impl Said ===

impl Said {
    /// The milestone, where the event is the step's success.
    pub(in crate::ops) const fn milestone_of(event: &Event) -> Option<Self> {
        match event {
            Event::Succeeded(_) => Some(Self::Milestone),
            Event::Started
            | Event::Failed(_)
            | Event::UndoStarted
            | Event::Undone
            | Event::UndoFailed(_) => None,
        }
    }

    /// The PgBouncer is resumed.
    pub(in crate::ops) fn resumed(plan: &Plan) -> Self {
        let (database, request) = (plan.database_at(), &plan.request.name);
        Self::Words {
            reason: Reason::Successful,
            message: format!(
                "Successfully resumed PgBouncer database: {database} for PgBouncerOpsRequest: \
                 {request}"
            ),
        }
    }
}
