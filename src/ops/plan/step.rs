//! The steps: what each does, and what undoing owes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::Alias;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Step {
    /// Take the Paused condition of the PgBouncer; undo: release it.
    Pause,
    /// Issue the planned revision of an alias; undo: delete it.
    Issue(Alias),
    /// Publish trust in old and new issuers; undo: the former bundle.
    Stage,
    /// Publish the new client and exporter material; undo: the former.
    HandOut,
    /// Publish the server's material, the configuration and the pod template; undo: publish what
    /// was there and bring every pod back to it.
    Switch,
    /// Start one pod more, prove it and let it serve; undone by [`Step::Switch`].
    Surge,
    /// Replace a pod: drain, restart, prove, back into service; undo: back into service.
    Roll(String),
    /// Have a pod read its files again, and prove it; undo: publish what was there before, and have
    /// the pod serve that again.
    Reload(String),
    /// Replace several pods at the same time, each as [`Step::Roll`] does.
    RollTogether(Vec<String>),
    /// Take the surge pod away again.
    Unsurge,
    /// See every pod and the Service serve what was planned; log in and ask.
    Prove,
    /// Write the change into the PgBouncer's spec; undo: the former spec.
    Commit,
    /// Delete what nobody needs any more.
    Retire,
    /// Release the pause.
    Resume,
}

impl Step {
    /// Whether the step comes after the point of no return: everything is proved and written, and
    /// going back would undo a success.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Retire | Self::Resume)
    }

    /// The pods that the step replaces.
    pub fn rolls(&self) -> &[String] {
        match self {
            Self::Roll(pod) => std::slice::from_ref(pod),
            Self::RollTogether(pods) => pods,
            Self::Pause
            | Self::Issue(_)
            | Self::Stage
            | Self::HandOut
            | Self::Switch
            | Self::Surge
            | Self::Reload(_)
            | Self::Unsurge
            | Self::Prove
            | Self::Commit
            | Self::Retire
            | Self::Resume => &[],
        }
    }

    /// Whether undoing the step is still owed after undoing `stuck` has failed. Pods that are out of
    /// service come back and the pause is released, always. A pod that could not be put back is
    /// replaced by undoing the switch; after any other failure every pod serves the new material,
    /// so what it needs (revision, trust, configuration) is better left alone. A reload that came
    /// before such a failure has left its pod in service and not paused.
    pub const fn is_owed_after(&self, stuck: &Self) -> bool {
        match self {
            Self::Pause | Self::Surge | Self::Roll(_) | Self::RollTogether(_) | Self::Unsurge => {
                true
            }
            Self::Switch | Self::Reload(_) => {
                matches!(
                    stuck,
                    Self::Roll(_) | Self::RollTogether(_) | Self::Reload(_)
                )
            }
            Self::Issue(_)
            | Self::Stage
            | Self::HandOut
            | Self::Prove
            | Self::Commit
            | Self::Retire
            | Self::Resume => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause => f.write_str("pause"),
            Self::Issue(alias) => write!(f, "issue {alias}"),
            Self::Stage => f.write_str("stage trust"),
            Self::HandOut => f.write_str("hand out client material"),
            Self::Switch => f.write_str("switch"),
            Self::Surge => f.write_str("surge"),
            Self::Roll(pod) => write!(f, "roll {pod}"),
            Self::Reload(pod) => write!(f, "reload {pod}"),
            Self::RollTogether(pods) => write!(f, "roll {}", pods.join(" and ")),
            Self::Unsurge => f.write_str("end surge"),
            Self::Prove => f.write_str("prove"),
            Self::Commit => f.write_str("commit"),
            Self::Retire => f.write_str("retire"),
            Self::Resume => f.write_str("resume"),
        }
    }
}
