//! The steps: one file for each, with all that is known of it – its names, what it does and how that is
//! undone, what its failure comes to, and what is told of it.
//!
//! [`of`] is the only list of them. A new step is a variant of [`Step`], a file here and a line there.
//! Acts and undos read the cluster first and can be repeated, and may be dropped at any `await`.

mod commit;
mod hand_out;
mod issue;
mod pause;
mod prove;
mod reload;
mod resume;
mod retire;
mod roll;
mod stage;
mod surge;
mod switch;
mod unsurge;

use futures::future::BoxFuture;

use super::journal::{Event, Note};
use super::plan::{Plan, Step};
use super::view::{Milestone, Said};
use super::work::{Bench, StepError};
use crate::names::Alias;

/// An act or an undo under way. Boxed here, so that no future contains that of every step.
type Doing<'a> = BoxFuture<'a, Result<(), StepError>>;

/// All that is known of a step.
pub(super) trait Action: Modelled + Send + Sync {
    /// Its name in metrics.
    fn label(&self) -> &'static str;

    /// Its name in messages.
    fn title(&self) -> String;

    /// What it does, in words for a person who asks what would happen.
    fn outline(&self, plan: &Plan) -> String;

    /// The pods that it replaces.
    fn rolls(&self) -> Vec<String> {
        Vec::new()
    }

    /// The pod that it reloads.
    fn reloads(&self) -> Option<String> {
        None
    }

    /// What its failure comes to, once it is not tried again.
    fn loss(&self) -> Loss {
        Loss::Unwinds
    }

    /// What its undo owes.
    fn debt(&self) -> Debt {
        Debt::Goods
    }

    /// What is reached when it, and all others of that milestone, have succeeded.
    fn milestone(&self) -> Option<Milestone> {
        None
    }

    /// What an event of it says to people, besides its milestone's condition.
    fn said(&self, _event: &Event, _plan: &Plan) -> Option<Said> {
        None
    }

    /// Does it.
    fn act<'a>(&'a self, bench: &'a Bench<'a>) -> Doing<'a>;

    /// Undoes it, whether it was done, half done, or not begun.
    fn undo<'a>(&'a self, _bench: &'a Bench<'a>) -> Doing<'a> {
        Box::pin(async { Ok(()) })
    }
}

/// What the failure of a step comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Everything that was begun is undone.
    Unwinds,
    /// Nothing: the request has succeeded without it.
    Ignored,
    /// The request has succeeded, and a person has to look.
    Stuck,
}

/// What an undo owes, which says how long it is tried, and whether it is owed after another undo has
/// failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Debt {
    /// Material or words. Lasting trouble ends the undo, and it is not owed after another has failed:
    /// every pod serves the new material, so what it needs is better left alone.
    Goods,
    /// What pods serve. The undo is tried until its bound. A pod that could not be put back is replaced
    /// by it, so it is owed after that.
    Pods,
    /// Service: a pause, or a pod that is out. The undo is tried until its bound, and owed always.
    Service,
}

/// The list of all steps.
pub(super) fn of(step: &Step) -> Box<dyn Action + '_> {
    match step {
        Step::Pause => Box::new(pause::Pause),
        Step::Issue(alias) => Box::new(issue::Issue(*alias)),
        Step::Stage => Box::new(stage::Stage),
        Step::HandOut => Box::new(hand_out::HandOut),
        Step::Switch => Box::new(switch::Switch),
        Step::Surge => Box::new(surge::Surge),
        Step::Roll(pod) => Box::new(roll::Roll(std::slice::from_ref(pod))),
        Step::Reload(pod) => Box::new(reload::Reload(pod)),
        Step::RollTogether(pods) => Box::new(roll::Roll(pods)),
        Step::Unsurge => Box::new(unsurge::Unsurge),
        Step::Prove => Box::new(prove::Prove),
        Step::Commit => Box::new(commit::Commit),
        Step::Retire => Box::new(retire::Retire),
        Step::Resume => Box::new(resume::Resume),
    }
}

/// One step of each label, for what counts them from the start.
pub(super) fn one_of_each() -> [Step; 13] {
    [
        Step::Pause,
        Step::Issue(Alias::Server),
        Step::Stage,
        Step::HandOut,
        Step::Switch,
        Step::Surge,
        Step::Roll(String::new()),
        Step::Reload(String::new()),
        Step::Unsurge,
        Step::Prove,
        Step::Commit,
        Step::Retire,
        Step::Resume,
    ]
}

/// Does a step; returns what it has to tell.
pub(super) async fn act(bench: &Bench<'_>, step: &Step) -> Result<Note, StepError> {
    of(step).act(bench).await?;
    Ok(bench.tally.take())
}

/// Undoes a step, whether it was done, half done, or not begun.
pub(super) async fn undo(bench: &Bench<'_>, step: &Step) -> Result<(), StepError> {
    match of(step).undo(bench).await {
        // Whatever there was went with the PgBouncer.
        Err(StepError::Gone(_)) => Ok(()),
        other => other,
    }
}

// === impl Plan ===

impl Plan {
    /// The plan in words, one line per step, for a person who asks what would happen.
    pub fn outline(&self) -> Vec<String> {
        let steps = self.steps.iter();
        steps.map(|step| of(step).outline(self)).collect()
    }
}

// === impl Step ===

impl Step {
    /// Whether the step comes after the point of no return: everything is proved and written, and
    /// going back would undo a success.
    pub fn is_final(&self) -> bool {
        of(self).loss() != Loss::Unwinds
    }

    /// The pods that the step replaces.
    pub fn rolls(&self) -> Vec<String> {
        of(self).rolls()
    }

    /// The pod that the step reloads.
    pub fn reloads(&self) -> Option<String> {
        of(self).reloads()
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&of(self).title())
    }
}

/// What a step does in the model.
#[cfg(not(test))]
pub(super) trait Modelled {}

#[cfg(not(test))]
impl<T> Modelled for T {}

#[cfg(test)]
pub(super) use self::modelled::Modelled;

#[cfg(test)]
mod modelled;
