//! A cluster small enough to break in every place: one PgBouncer, its pods and its material, and what
//! each step does to them. Every outside effect goes through [`Run::effect`], where a fault may strike,
//! and where the invariants are checked afterwards (`invariants.rs`). The executor's own code carries
//! the request out (`daemon.rs`).
//!
//! A new step is one arm in [`Run::act`] and one in [`Run::undo_act`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use time::OffsetDateTime;
use time::macros::datetime;

use super::random::{Chance, Late};
use crate::names::Alias;
use crate::ops::journal::{FailureKind, Journal};
use crate::ops::plan::{Plan, Step, Way};
use crate::ops::request::Change;

/// Which of two states a thing is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Former,
    Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is seen on its own from outside"
)]
pub(super) struct Pod {
    pub(super) side: Side,
    pub(super) serving: bool,
    pub(super) quiesced: bool,
    /// What its mark says that it has loaded; nothing while it is being reloaded.
    pub(super) marked: Option<Side>,
    /// Paused for a reload: clients stay, and wait.
    pub(super) paused: bool,
    /// Whether a client is in a transaction on it.
    pub(super) in_flight: bool,
    /// What it was last seen serving, and in which generation.
    pub(super) seen: Option<(Side, u32)>,
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
    /// The effect does not happen, and no answer comes.
    Silence,
    /// The effect happens, and the daemon dies before it can tell.
    CrashAfter,
    /// The daemon dies first.
    CrashBefore,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) paused: bool,
    pub(super) issued: Vec<Alias>,
    /// Whose new material somebody has verified who did not make it.
    pub(super) verified: BTreeSet<Alias>,
    pub(super) trusts_both: bool,
    pub(super) client: Side,
    pub(super) server: Side,
    pub(super) template: Side,
    pub(super) spec: Side,
    pub(super) retired: bool,
    pub(super) replicas: u32,
    pub(super) pods: BTreeMap<String, Pod>,
}

/// A mistake built into the executor, to see that the checker notices: one for each invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    /// I1: material is published that nobody has read.
    IssuesUnread,
    /// I2: the pause stays.
    KeepsPause,
    /// I3: a second pod goes out of service along with the first.
    DrainsTwo,
    /// I4: a pod is replaced in the middle of a transaction.
    Cuts,
    /// I5: the former material goes with the switch.
    RetiresEarly,
    /// I6: the former anchor goes with the switch.
    DropsAnchor,
    /// I7: a message quotes the key.
    TellsKey,
    /// I8: issuing again makes another revision.
    IssuesTwice,
    /// I9: nobody looks at the pods.
    ProvesBlindly,
    /// I10: a daemon that has been replaced may write.
    HearsDeposed,
}

/// What stands in for the octets of a private key.
pub(super) const KEY: &str = "-----BEGIN PRIVATE KEY-----";

/// Why an act stopped.
pub(super) enum Stop {
    Trouble(FailureKind),
    /// No answer comes.
    Silence,
    /// The daemon is dead.
    Crash,
}

/// A run: the cluster, the journal, the clocks, the faults still to come.
pub(super) struct Run {
    pub(super) plan: Plan,
    pub(super) world: Site,
    pub(super) journal: Journal,
    pub(super) clocks: Clocks,
    pub(super) abort_after_events: Option<usize>,
    /// By number of journal lines: the daemon is told to stop then, once.
    pub(super) stop_after_events: Option<usize>,
    /// Every act and undo is done twice.
    pub(super) twice: bool,
    /// By number of the effect, counted over the whole run.
    pub(super) faults: BTreeMap<usize, Fault>,
    /// By number of journal lines: die before, or right after, that line is written.
    pub(super) cut_at: Option<usize>,
    pub(super) effects: usize,
    pub(super) chance: Option<Chance>,
    pub(super) mistake: Option<Mistake>,
    /// What a daemon that has been replaced still has in hand.
    pub(super) late: Option<Late>,
    /// The daemon's number, and that of the one whose write was the last.
    pub(super) daemon: u32,
    pub(super) last_writer: u32,
    /// How often it was looked what comes next.
    pub(super) looks: usize,
    /// Whether an act is under way that does not answer.
    pub(super) is_silent: bool,
    /// Whether the daemon has just died.
    pub(super) is_dead: bool,
    pub(super) violations: Vec<String>,
}

/// The wall's clock, which is set now and then, and the one that is not; both go on when everything
/// waits.
#[derive(Debug)]
pub(super) struct Clocks {
    /// What the wall's clock showed when the other was at zero.
    pub(super) wall: OffsetDateTime,
    pub(super) elapsed: Duration,
    /// The ends of what is waited for.
    pub(super) timers: Vec<Duration>,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            wall: datetime!(2033-01-02 03:04 UTC),
            elapsed: Duration::ZERO,
            timers: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Successful,
    Failed,
    Stuck(usize),
}

impl Site {
    pub(super) fn new(plan: &Plan) -> Self {
        let pod = Pod {
            side: Side::Former,
            marked: Some(Side::Former),
            serving: true,
            quiesced: false,
            paused: false,
            in_flight: true,
            seen: None,
            generation: 0,
        };
        Self {
            paused: false,
            issued: Vec::new(),
            verified: BTreeSet::new(),
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
}

impl Site {
    pub(super) fn put_back(&mut self, name: &str) {
        if let Some(pod) = self.pods.get_mut(name) {
            pod.quiesced = false;
            pod.paused = false;
            pod.serving = true;
            pod.in_flight = true;
        }
    }

    /// Every pod that is there goes back into service.
    pub(super) fn calm(&mut self) {
        let names: Vec<String> = self.pods.keys().cloned().collect();
        for name in names {
            self.put_back(&name);
        }
    }
}

impl Run {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            world: Site::new(&plan),
            plan,
            journal: Journal::default(),
            clocks: Clocks::default(),
            abort_after_events: None,
            stop_after_events: None,
            twice: false,
            faults: BTreeMap::new(),
            cut_at: None,
            effects: 0,
            chance: None,
            mistake: None,
            late: None,
            daemon: 0,
            last_writer: 0,
            looks: 0,
            is_silent: false,
            is_dead: false,
            violations: Vec::new(),
        }
    }

    pub(super) fn errs(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// What the wall's clock shows.
    pub(super) fn now(&self) -> OffsetDateTime {
        self.clocks.wall + self.clocks.elapsed
    }

    pub(super) fn effect(&mut self, change: impl FnOnce(&mut Site)) -> Result<(), Stop> {
        let n = self.effects;
        self.effects += 1;
        let fault = self.faults.get(&n).copied().or_else(|| self.strike());
        match fault {
            Some(Fault::Transient) => return Err(Stop::Trouble(FailureKind::Transient)),
            Some(Fault::Permanent) => return Err(Stop::Trouble(FailureKind::Permanent)),
            Some(Fault::Silence) => return Err(Stop::Silence),
            Some(Fault::CrashBefore) => return Err(Stop::Crash),
            Some(Fault::CrashAfter) | None => {}
        }
        change(&mut self.world);
        self.last_writer = self.daemon;
        self.check_effect();
        match fault {
            Some(Fault::CrashAfter) => Err(Stop::Crash),
            _ => Ok(()),
        }
    }

    pub(super) fn act(&mut self, step: usize) -> Result<(), Stop> {
        let removes = matches!(self.plan.change, Change::Remove { .. });
        match self.plan.steps[step].clone() {
            Step::Pause => self.effect(|w| w.paused = true),
            Step::Issue(alias)
                if self.world.issued.contains(&alias) && !self.errs(Mistake::IssuesTwice) =>
            {
                Ok(())
            }
            Step::Issue(alias) => {
                let read = !self.errs(Mistake::IssuesUnread);
                self.effect(|w| {
                    w.issued.push(alias);
                    if read {
                        w.verified.insert(alias);
                    }
                })
            }
            Step::Stage => self.effect(|w| w.trusts_both = true),
            Step::HandOut => self.effect(|w| w.client = Side::Target),
            Step::Switch => {
                let retires = self.errs(Mistake::RetiresEarly);
                let drops = self.errs(Mistake::DropsAnchor);
                self.effect(|w| {
                    w.server = Side::Target;
                    w.retired |= retires;
                    w.trusts_both &= !drops;
                })?;
                self.effect(|w| w.template = Side::Target)
            }
            Step::Surge => self.surge(),
            Step::Roll(pod) => self.roll(&pod),
            Step::Reload(pod) => self.reload(&pod),
            Step::RollTogether(pods) => self.roll_together(&pods),
            Step::Unsurge => self.unsurge(),
            Step::Prove => self.prove(),
            Step::Commit => self.effect(|w| w.spec = Side::Target),
            Step::Retire => self.effect(|w| w.retired = removes || w.retired),
            Step::Resume => {
                let stays = self.errs(Mistake::KeepsPause);
                self.effect(|w| w.paused = stays)
            }
        }
    }

    pub(super) fn undo_act(&mut self, step: usize) -> Result<(), Stop> {
        match self.plan.steps[step].clone() {
            Step::Pause => self.effect(|w| w.paused = false),
            Step::Issue(alias) => self.effect(|w| {
                w.issued.retain(|issued| *issued != alias);
                w.verified.remove(&alias);
            }),
            Step::Stage => self.effect(|w| w.trusts_both = false),
            Step::HandOut => self.effect(|w| w.client = Side::Former),
            Step::Switch => self.converge_back(),
            Step::Roll(pod) => self.effect(|w| w.put_back(&pod)),
            Step::RollTogether(pods) => pods
                .iter()
                .try_for_each(|pod| self.effect(|w| w.put_back(pod))),
            Step::Reload(pod) => self.unreload(&pod),
            Step::Surge if self.plan.change == Change::Restart => self.unsurge(),
            Step::Surge | Step::Unsurge | Step::Prove | Step::Retire | Step::Resume => Ok(()),
            Step::Commit => self.effect(|w| w.spec = Side::Former),
        }
    }

    fn prove(&mut self) -> Result<(), Stop> {
        let side = self.wanted();
        let serves = |pod: &Pod| pod.side == side && pod.serving;
        if self.errs(Mistake::ProvesBlindly) {
            return self.effect(|_| ());
        }
        if !self.world.pods.values().all(serves) {
            return Err(Stop::Trouble(FailureKind::Permanent));
        }
        self.effect(|w| {
            for pod in w.pods.values_mut() {
                pod.seen = Some((pod.side, pod.generation));
            }
        })
    }

    pub(super) fn wanted(&self) -> Side {
        if matches!(self.plan.change, Change::Restart | Change::NoOp) {
            Side::Former
        } else {
            Side::Target
        }
    }

    pub(super) fn surge(&mut self) -> Result<(), Stop> {
        let (name, side) = (self.plan.surge_pod(), self.world.template);
        if self.world.pods.contains_key(&name) {
            return Ok(());
        }
        let pod = Pod {
            side,
            marked: Some(side),
            serving: true,
            quiesced: false,
            paused: false,
            in_flight: true,
            seen: None,
            generation: 0,
        };
        self.effect(|w| {
            w.replicas += 1;
            w.pods.insert(name, pod);
        })
    }

    pub(super) fn unsurge(&mut self) -> Result<(), Stop> {
        let (name, replicas) = (self.plan.surge_pod(), self.plan.replicas);
        if self.world.pods.contains_key(&name) {
            self.drain(&name)?;
            self.check_cut(&name);
        }
        self.effect(|w| {
            w.replicas = replicas;
            w.pods.remove(&name);
        })
    }

    fn drain(&mut self, name: &str) -> Result<(), Stop> {
        let others = self.errs(Mistake::DrainsTwo);
        self.effect(|w| {
            for (other, pod) in &mut w.pods {
                pod.serving &= other != name && !others;
            }
        })?;
        if self.errs(Mistake::Cuts) {
            return Ok(());
        }
        self.effect(|w| {
            let pod = w.pods.get_mut(name).unwrap();
            pod.quiesced = true;
            pod.in_flight = false;
        })
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

    pub(super) fn replace(&mut self, name: &str) -> Result<(), Stop> {
        self.drain(name)?;
        self.restart(name)
    }

    fn restart(&mut self, name: &str) -> Result<(), Stop> {
        self.check_cut(name);
        let side = self.world.template;
        self.effect(|w| {
            let pod = w.pods.get_mut(name).unwrap();
            *pod = Pod {
                side,
                marked: Some(side),
                serving: true,
                quiesced: false,
                paused: false,
                in_flight: true,
                seen: None,
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
        if self.plan.choice.way == Way::Reload {
            for pod in self.plan.pods.clone() {
                self.go_back(&pod.name)?;
            }
            if self.world.pods.contains_key(&surge) {
                self.unsurge()?;
            }
            return Ok(());
        }
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
}
