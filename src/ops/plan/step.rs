//! The steps as they are stored; all else that is known of them is in [`crate::ops::steps`].

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
