//! A world small enough to break in every place: one PgBouncer, its pods, its material, and an
//! executor that carries out directives on it as the real one does. Every outside effect goes
//! through [`World::effect`], where a fault may be planted, and checks the invariants afterwards.

use std::collections::BTreeMap;

use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::{Abort, Directive, Observed, Outcome, after_undo_failure, decide};
use crate::names::Alias;
use crate::ops::journal::{Entry, Event, Failure, FailureKind, Journal, Note, State};
use crate::ops::plan::{Plan, Step};
use crate::ops::request::Change;

/// Which of two states a thing is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Former,
    Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) side: Side,
    pub(super) serving: bool,
    pub(super) quiesced: bool,
    /// Told apart from its predecessor by a restart only.
    pub(super) generation: u32,
}

/// What a fault does to the effect it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The effect does not happen; the error may pass.
    Transient,
    /// The effect does not happen, and never will.
    Permanent,
    /// The effect happens, and the daemon dies before it can tell.
    CrashAfter,
    /// The daemon dies first.
    CrashBefore,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct World {
    pub(super) paused: bool,
    pub(super) issued: Vec<Alias>,
    pub(super) trusts_both: bool,
    pub(super) client: Side,
    pub(super) server: Side,
    pub(super) template: Side,
    pub(super) spec: Side,
    pub(super) retired: bool,
    pub(super) replicas: u32,
    pub(super) pods: BTreeMap<String, Pod>,
}

/// Why an act stopped.
enum Stop {
    Trouble(FailureKind),
    Crash,
}

/// A run: the world, the journal, the faults still to come.
pub(super) struct Run {
    pub(super) plan: Plan,
    pub(super) world: World,
    pub(super) journal: Journal,
    pub(super) now: OffsetDateTime,
    pub(super) abort_after_events: Option<usize>,
    /// Every act and undo is done twice.
    pub(super) twice: bool,
    /// By number of the effect, counted over the whole run.
    pub(super) faults: BTreeMap<usize, Fault>,
    /// By number of journal lines: die before, or right after, that line is written.
    pub(super) cut_at: Option<usize>,
    pub(super) effects: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Successful,
    Failed,
    Stuck(usize),
}

impl World {
    pub(super) fn new(plan: &Plan) -> Self {
        let pod = Pod {
            side: Side::Former,
            serving: true,
            quiesced: false,
            generation: 0,
        };
        Self {
            paused: false,
            issued: Vec::new(),
            trusts_both: false,
            client: Side::Former,
            server: Side::Former,
            template: Side::Former,
            spec: Side::Former,
            retired: false,
            replicas: plan.replicas,
            pods: plan
                .pods
                .iter()
                .map(|p| (p.name.clone(), pod.clone()))
                .collect(),
        }
    }

    /// Invariants that hold after every effect.
    fn check(&self, plan: &Plan) {
        let serving = self
            .pods
            .values()
            .filter(|p| p.serving && !p.quiesced)
            .count();
        let together = plan.steps.iter().map(|step| step.rolls().len()).max();
        let least = usize::try_from(plan.replicas.max(2)).unwrap() - together.unwrap_or(1);
        assert!(serving >= least, "I3: {serving} pods serve, {self:?}");
        let issues = |alias| plan.issue.iter().any(|i| i.alias == alias);
        let published = self.server == Side::Target && issues(Alias::Server);
        let handed = self.client == Side::Target && issues(Alias::Client);
        assert!(
            !published || self.issued.contains(&Alias::Server),
            "I5: {self:?}"
        );
        assert!(
            !handed || self.issued.contains(&Alias::Client),
            "I5: {self:?}"
        );
        if handed && plan.published.contains_key(&Alias::Client) {
            let trusted = self
                .pods
                .values()
                .all(|p| !p.serving || p.side == Side::Target);
            assert!(
                trusted,
                "a client with new material meets an old pod: {self:?}"
            );
        }
    }
}

impl Run {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            world: World::new(&plan),
            plan,
            journal: Journal::default(),
            now: datetime!(2033-01-02 03:04 UTC),
            abort_after_events: None,
            twice: false,
            faults: BTreeMap::new(),
            cut_at: None,
            effects: 0,
        }
    }

    /// Runs to the end, starting again after every crash.
    pub(super) fn finish(&mut self) -> End {
        for _ in 0..10_000 {
            let observed = Observed {
                abort: self
                    .abort_after_events
                    .filter(|n| self.journal.entries().len() >= *n)
                    .map(|_| Abort::Asked),
            };
            let directive = decide(&self.plan, &self.journal, &observed, self.now);
            self.now += Duration::milliseconds(10);
            let end = match directive {
                Directive::Run { step, .. } => {
                    self.run(step);
                    continue;
                }
                Directive::Undo { step, until } => {
                    self.undo(step, until);
                    continue;
                }
                Directive::Wait { until, .. } => {
                    assert!(until > self.now - Duration::milliseconds(20));
                    self.now = self.now.max(until);
                    continue;
                }
                Directive::Finish(Outcome::Successful) => End::Successful,
                Directive::Finish(Outcome::Failed) => End::Failed,
                Directive::Stuck(step) => End::Stuck(step),
            };
            return end;
        }
        panic!("no end in sight: {:?}", self.journal);
    }

    fn run(&mut self, step: usize) {
        if !self.write(step, Event::Started) {
            return;
        }
        let mut done = self.act(step);
        if self.twice && done.is_ok() {
            done = self.act(step);
        }
        let event = match done {
            Ok(()) => Event::Succeeded(Note::default()),
            Err(Stop::Trouble(kind)) => Event::Failed(failure(kind)),
            Err(Stop::Crash) => return,
        };
        self.write(step, event);
    }

    fn undo(&mut self, step: usize, until: OffsetDateTime) {
        if !self.write(step, Event::UndoStarted) {
            return;
        }
        let mut done = self.undo_act(step);
        if self.twice && done.is_ok() {
            done = self.undo_act(step);
        }
        let event = match done {
            Ok(()) => Event::Undone,
            Err(Stop::Trouble(kind)) => {
                match after_undo_failure(&self.plan.steps[step], kind, until, self.now) {
                    None => return,
                    Some(kind) => Event::UndoFailed(failure(kind)),
                }
            }
            Err(Stop::Crash) => return,
        };
        self.write(step, event);
    }

    /// Writes a line; `false` if the daemon dies at it. Half of the cuts lose the line.
    fn write(&mut self, step: usize, event: Event) -> bool {
        let n = self.journal.entries().len();
        let cut = self.cut_at == Some(n);
        if cut {
            self.cut_at = None;
            if n.is_multiple_of(2) {
                return false;
            }
        }
        let at = self.now;
        self.journal.record(Entry { at, step, event }).unwrap();
        !cut
    }

    fn effect(&mut self, change: impl FnOnce(&mut World)) -> Result<(), Stop> {
        let n = self.effects;
        self.effects += 1;
        match self.faults.get(&n) {
            Some(Fault::Transient) => return Err(Stop::Trouble(FailureKind::Transient)),
            Some(Fault::Permanent) => return Err(Stop::Trouble(FailureKind::Permanent)),
            Some(Fault::CrashBefore) => return Err(Stop::Crash),
            Some(Fault::CrashAfter) | None => {}
        }
        change(&mut self.world);
        self.world.check(&self.plan);
        match self.faults.get(&n) {
            Some(Fault::CrashAfter) => Err(Stop::Crash),
            _ => Ok(()),
        }
    }

    fn act(&mut self, step: usize) -> Result<(), Stop> {
        let removes = matches!(self.plan.change, Change::Remove { .. });
        match self.plan.steps[step].clone() {
            Step::Pause => self.effect(|w| w.paused = true),
            Step::Issue(alias) if self.world.issued.contains(&alias) => Ok(()),
            Step::Issue(alias) => self.effect(|w| w.issued.push(alias)),
            Step::Stage => self.effect(|w| w.trusts_both = true),
            Step::HandOut => self.effect(|w| w.client = Side::Target),
            Step::Switch => {
                self.effect(|w| w.server = Side::Target)?;
                self.effect(|w| w.template = Side::Target)
            }
            Step::Surge => self.surge(),
            Step::Roll(pod) => self.roll(&pod),
            Step::RollTogether(pods) => self.roll_together(&pods),
            Step::Unsurge => self.unsurge(),
            Step::Prove => {
                let side = self.wanted();
                let proved = self
                    .world
                    .pods
                    .values()
                    .all(|p| p.side == side && p.serving);
                assert!(proved, "I9: {:?}", self.world);
                self.effect(|_| ())
            }
            Step::Commit => self.effect(|w| w.spec = Side::Target),
            Step::Retire => self.effect(|w| w.retired = removes || w.retired),
            Step::Resume => self.effect(|w| w.paused = false),
        }
    }

    fn undo_act(&mut self, step: usize) -> Result<(), Stop> {
        match self.plan.steps[step].clone() {
            Step::Pause => self.effect(|w| w.paused = false),
            Step::Issue(alias) => self.effect(|w| w.issued.retain(|issued| *issued != alias)),
            Step::Stage => self.effect(|w| w.trusts_both = false),
            Step::HandOut => self.effect(|w| w.client = Side::Former),
            Step::Switch => self.converge_back(),
            Step::Roll(_) | Step::RollTogether(_) => {
                for pod in self.plan.steps[step].rolls().to_vec() {
                    self.effect(|w| {
                        if let Some(pod) = w.pods.get_mut(&pod) {
                            pod.quiesced = false;
                            pod.serving = true;
                        }
                    })?;
                }
                Ok(())
            }
            Step::Surge if self.plan.change == Change::Restart => self.unsurge(),
            Step::Surge | Step::Unsurge | Step::Prove | Step::Retire | Step::Resume => Ok(()),
            Step::Commit => self.effect(|w| w.spec = Side::Former),
        }
    }

    fn wanted(&self) -> Side {
        if matches!(self.plan.change, Change::Restart | Change::NoOp) {
            Side::Former
        } else {
            Side::Target
        }
    }

    fn surge(&mut self) -> Result<(), Stop> {
        let (name, side) = (self.plan.surge_pod(), self.world.template);
        if self.world.pods.contains_key(&name) {
            return Ok(());
        }
        let pod = Pod {
            side,
            serving: true,
            quiesced: false,
            generation: 0,
        };
        self.effect(|w| {
            w.replicas += 1;
            w.pods.insert(name, pod);
        })
    }

    fn unsurge(&mut self) -> Result<(), Stop> {
        let (name, replicas) = (self.plan.surge_pod(), self.plan.replicas);
        if self.world.pods.contains_key(&name) {
            self.drain(&name)?;
        }
        self.effect(|w| {
            w.replicas = replicas;
            w.pods.remove(&name);
        })
    }

    fn drain(&mut self, name: &str) -> Result<(), Stop> {
        self.effect(|w| w.pods.get_mut(name).unwrap().serving = false)?;
        self.effect(|w| w.pods.get_mut(name).unwrap().quiesced = true)
    }

    fn is_rolled(&self, name: &str) -> bool {
        let restart = self.plan.change == Change::Restart;
        let pod = &self.world.pods[name];
        pod.side == self.world.template && (!restart || pod.generation > 0) && pod.serving
    }

    fn roll(&mut self, name: &str) -> Result<(), Stop> {
        if self.is_rolled(name) {
            return Ok(());
        }
        self.replace(name)
    }

    /// At worst all of them are out of service at once.
    fn roll_together(&mut self, names: &[String]) -> Result<(), Stop> {
        let stale: Vec<_> = names.iter().filter(|name| !self.is_rolled(name)).collect();
        for name in &stale {
            self.drain(name)?;
        }
        for name in stale {
            self.restart(name)?;
        }
        Ok(())
    }

    fn replace(&mut self, name: &str) -> Result<(), Stop> {
        self.drain(name)?;
        self.restart(name)
    }

    fn restart(&mut self, name: &str) -> Result<(), Stop> {
        let side = self.world.template;
        self.effect(|w| {
            let pod = w.pods.get_mut(name).unwrap();
            *pod = Pod {
                side,
                serving: true,
                quiesced: false,
                generation: pod.generation + 1,
            };
        })
    }

    /// Publishes the former material and brings every pod to it; a single replica gets company.
    fn converge_back(&mut self) -> Result<(), Stop> {
        self.effect(|w| w.template = Side::Former)?;
        self.effect(|w| w.server = Side::Former)?;
        let stale: Vec<String> = self
            .plan
            .pods
            .iter()
            .map(|pod| pod.name.clone())
            .filter(|name| self.world.pods[name].side == Side::Target)
            .collect();
        let surge = self.plan.surge_pod();
        if self.plan.replicas == 1 && !stale.is_empty() {
            self.surge()?;
            if self.world.pods[&surge].side == Side::Target {
                self.replace(&surge)?;
            }
        }
        for name in stale {
            self.replace(&name)?;
        }
        if self.world.pods.contains_key(&surge) {
            self.unsurge()?;
        }
        Ok(())
    }

    /// What an ended run must look like.
    pub(super) fn check_end(&self, end: End) {
        let world = &self.world;
        let unserved = world.pods.values().any(|p| p.quiesced || !p.serving);
        assert!(!world.paused && !unserved, "I2 after {end:?}: {world:?}");
        match end {
            End::Failed => {
                let mut before = World::new(&self.plan);
                for (name, pod) in &mut before.pods {
                    pod.generation = world.pods[name].generation;
                }
                assert_eq!(*world, before, "a failed request leaves nothing");
            }
            End::Successful => {
                let side = self.wanted();
                let proved = world.pods.values().all(|pod| pod.side == side);
                assert!(proved, "I9: {world:?}");
                assert_eq!(world.pods.len(), self.plan.pods.len(), "{world:?}");
            }
            End::Stuck(step) => {
                let state = self.journal.of(step).state;
                assert!(
                    matches!(state, State::UndoFailed | State::Failed),
                    "{state:?}"
                );
            }
        }
    }
}

fn failure(kind: FailureKind) -> Failure {
    Failure {
        kind,
        cause: "planted".to_owned(),
    }
}
