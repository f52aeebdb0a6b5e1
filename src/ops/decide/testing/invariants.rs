//! The checker: what holds in the model after every effect, every line, and at the end.
//!
//! A violation is written down, not thrown, so that a planted mistake can be told from another one;
//! each begins with the invariant's number (ARCHITECTURE.md).

use super::model::{End, KEY, Run, Side, Site};
use crate::names::Alias;
use crate::ops::decide::FINAL_TRIES;
use crate::ops::journal::{Event, FailureKind, State};
use crate::ops::plan::Step;

impl Run {
    /// What holds after every effect.
    pub(in crate::ops) fn check_effect(&mut self) {
        for check in [published, served, trusted, kept] {
            if let Some(words) = check(self) {
                self.violations.push(format!("{words}: {:?}", self.world));
            }
        }
    }

    /// What holds of every line of the journal.
    pub(in crate::ops) fn check_line(&mut self) {
        let line = self.journal.entries().last();
        let text = serde_json::to_string(&line).unwrap();
        if text.contains(KEY) {
            self.violations.push(format!("I7: a key in {text}"));
        }
    }

    /// What holds when a pod is about to end.
    pub(in crate::ops) fn check_cut(&mut self, name: &str) {
        let pod = &self.world.pods[name];
        if pod.in_flight {
            let words = format!("I4: {name} ends in a transaction: {pod:?}");
            self.violations.push(words);
        }
    }

    /// What holds when a write has come through.
    pub(in crate::ops) fn check_writer(&mut self, daemon: u32) {
        if daemon < self.last_writer {
            let words = format!("I10: daemon {daemon} wrote after {} had", self.last_writer);
            self.violations.push(words);
        }
    }

    /// What an ended run must look like.
    pub(in crate::ops) fn check_end(&self, end: End) {
        let violations = self.violations(end);
        assert_eq!(violations, Vec::<String>::new(), "{:?}", self.journal);
    }

    /// Everything that went against an invariant in a run that has ended.
    pub(in crate::ops) fn violations(&self, end: End) -> Vec<String> {
        let mut all = self.violations.clone();
        let mut expect = |holds: bool, words: &str| {
            if !holds {
                all.push(format!("{words} after {end:?}: {:?}", self.world));
            }
        };
        let world = &self.world;
        let serve = world
            .pods
            .values()
            .all(|p| !p.quiesced && !p.paused && p.serving);
        // Where the pause cannot be released, however often it is tried, the journal says so.
        let gave_up = |step: &Step| {
            let record = self.journal.of_step(&self.plan, step);
            record.is_some_and(|r| matches!(r.state, State::UndoFailed | State::Failed))
        };
        let named =
            matches!(end, End::Stuck(_)) && (gave_up(&Step::Pause) || gave_up(&Step::Resume));
        expect(!world.paused || named, "I2: the pause stays");
        expect(serve, "I2: a pod stays out of service");
        match end {
            End::Failed => {
                let mut before = Site::new(&self.plan);
                let known = before.pods.keys().eq(world.pods.keys());
                for (name, pod) in before.pods.iter_mut().filter(|_| known) {
                    // It may have been replaced there and back.
                    pod.generation = world.pods[name].generation;
                    pod.seen = world.pods[name].seen;
                }
                expect(*world == before, "I8: something is left");
            }
            End::Successful => {
                let side = self.wanted();
                let proved = world
                    .pods
                    .values()
                    .all(|pod| pod.seen == Some((side, pod.generation)));
                expect(
                    proved || self.plan.steps.is_empty(),
                    "I9: a pod was not seen",
                );
                expect(*world == self.done(), "I8: it is not as it should be");
            }
            End::Stuck(step) => {
                let state = self.journal.of(step).state;
                let stuck = matches!(state, State::UndoFailed | State::Failed);
                expect(stuck, "a step that is not stuck is called so");
                expect(self.was_hopeless(step), "stuck without need");
            }
        }
        all
    }

    /// The world after a success, but for what does not matter.
    fn done(&self) -> Site {
        let mut run = Self::new(self.plan.clone());
        run.finish();
        for (name, pod) in &mut run.world.pods {
            if let Some(found) = self.world.pods.get(name) {
                pod.generation = found.generation;
                pod.seen = found.seen;
            }
        }
        // Cleaning up is not worth a failure.
        let retire = self.journal.of_step(&self.plan, &Step::Retire);
        if retire.is_some_and(|record| record.state == State::Failed) {
            run.world.retired = self.world.retired;
        }
        run.world
    }

    /// Whether there was a reason to give up: trouble that does not pass by itself, or has not for as
    /// often as is tried.
    fn was_hopeless(&self, step: usize) -> bool {
        let tried = self.journal.of(step).failures >= FINAL_TRIES;
        tried
            || self.journal.entries().iter().any(|entry| {
                entry.step == step
                    && match &entry.event {
                        Event::Failed(failure) | Event::UndoFailed(failure) => {
                            matches!(failure.kind, FailureKind::Permanent | FailureKind::TimedOut)
                        }
                        Event::Started
                        | Event::Succeeded(_)
                        | Event::UndoStarted
                        | Event::Undone => false,
                    }
            })
    }
}

/// I1, I5: only what was verified is published, and only while its revision is there.
fn published(run: &Run) -> Option<&'static str> {
    let world = &run.world;
    let issues = |alias| run.plan.issue.iter().any(|i| i.alias == alias);
    for (alias, side) in [(Alias::Server, world.server), (Alias::Client, world.client)] {
        if side == Side::Former || !issues(alias) {
            continue;
        }
        if !world.issued.contains(&alias) {
            return Some("I5: the revision of published material is gone");
        }
        if !world.verified.contains(&alias) {
            return Some("I1: published without having been verified");
        }
    }
    None
}

/// I3: pods in service.
fn served(run: &Run) -> Option<&'static str> {
    let pods = run.world.pods.values();
    let serving = pods.filter(|p| p.serving && !p.quiesced).count();
    let least = match run.plan.replicas {
        0 => 0,
        replicas => {
            let together = run.plan.steps.iter().map(|step| step.rolls().len()).max();
            usize::try_from(replicas.max(2)).unwrap() - together.unwrap_or(1).max(1)
        }
    };
    (serving < least).then_some("I3: too few pods serve")
}

/// I6: whoever holds material meets somebody who trusts it.
fn trusted(run: &Run) -> Option<&'static str> {
    let (world, plan) = (&run.world, &run.plan);
    let issues = |alias| plan.issue.iter().any(|i| i.alias == alias);
    let handed = world.client == Side::Target && issues(Alias::Client);
    let both = !plan.published.is_empty();
    let new = (world.server == Side::Target && issues(Alias::Server)) || handed;
    if new && both && !world.trusts_both {
        return Some("I6: an anchor has left that a live certificate needs");
    }
    let old = |p: &super::model::Pod| p.serving && p.side == Side::Former;
    let held = plan.published.contains_key(&Alias::Client);
    if handed && held && world.pods.values().any(old) {
        return Some("I6: a client with new material meets an old pod");
    }
    None
}

/// I5: the former material is there until every pod serves the new.
fn kept(run: &Run) -> Option<&'static str> {
    let side = run.wanted();
    let all = run.world.pods.values().all(|pod| pod.side == side);
    (run.world.retired && !all).then_some("I5: the former material is gone, and pods serve it")
}
