//! A cluster small enough to break in every place: one PgBouncer, its pods and its material, and what
//! each step does to them. Every outside effect goes through [`Run::effect`], where a fault may strike,
//! and where the invariants are checked afterwards (`invariants.rs`). The executor's own code carries
//! the request out (`daemon.rs`).
//!
//! What a step does to the cluster stands in the step's own file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use time::OffsetDateTime;
use time::macros::datetime;

use super::random::{Chance, Late};
use crate::names::Alias;
use crate::ops::journal::{FailureKind, Journal};
use crate::ops::plan::{Plan, Way};
use crate::ops::request::Change;
use crate::ops::steps::of;

/// Which of two states a thing is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Side {
    Former,
    Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is seen on its own from outside"
)]
pub(in crate::ops) struct Pod {
    pub(in crate::ops) side: Side,
    pub(in crate::ops) serving: bool,
    pub(in crate::ops) quiesced: bool,
    /// What its mark says that it has loaded; nothing while it is being reloaded.
    pub(in crate::ops) marked: Option<Side>,
    /// Paused for a reload: clients stay, and wait.
    pub(in crate::ops) paused: bool,
    /// Whether a client is in a transaction on it.
    pub(in crate::ops) in_flight: bool,
    /// What it was last seen serving, and in which generation.
    pub(in crate::ops) seen: Option<(Side, u32)>,
    /// Told apart from its predecessor by a restart only.
    pub(in crate::ops) generation: u32,
}

/// What a fault does to the effect it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Fault {
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
pub(in crate::ops) struct Site {
    pub(in crate::ops) paused: bool,
    pub(in crate::ops) issued: Vec<Alias>,
    /// Whose new material somebody has verified who did not make it.
    pub(in crate::ops) verified: BTreeSet<Alias>,
    pub(in crate::ops) trusts_both: bool,
    pub(in crate::ops) client: Side,
    pub(in crate::ops) server: Side,
    pub(in crate::ops) template: Side,
    pub(in crate::ops) spec: Side,
    pub(in crate::ops) retired: bool,
    pub(in crate::ops) replicas: u32,
    pub(in crate::ops) pods: BTreeMap<String, Pod>,
}

/// A mistake built into the executor, to see that the checker notices: one for each invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Mistake {
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
pub(in crate::ops) const KEY: &str = "-----BEGIN PRIVATE KEY-----";

/// Why an act stopped.
pub(in crate::ops) enum Stop {
    Trouble(FailureKind),
    /// No answer comes.
    Silence,
    /// The daemon is dead.
    Crash,
}

/// A run: the cluster, the journal, the clocks, the faults still to come.
pub(in crate::ops) struct Run {
    pub(in crate::ops) plan: Plan,
    pub(in crate::ops) world: Site,
    pub(in crate::ops) journal: Journal,
    pub(in crate::ops) clocks: Clocks,
    pub(in crate::ops) abort_after_events: Option<usize>,
    /// By number of journal lines: the daemon is told to stop then, once.
    pub(in crate::ops) stop_after_events: Option<usize>,
    /// Every act and undo is done twice.
    pub(in crate::ops) twice: bool,
    /// By number of the effect, counted over the whole run.
    pub(in crate::ops) faults: BTreeMap<usize, Fault>,
    /// By number of journal lines: die before, or right after, that line is written.
    pub(in crate::ops) cut_at: Option<usize>,
    pub(in crate::ops) effects: usize,
    pub(in crate::ops) chance: Option<Chance>,
    pub(in crate::ops) mistake: Option<Mistake>,
    /// What a daemon that has been replaced still has in hand.
    pub(in crate::ops) late: Option<Late>,
    /// The daemon's number, and that of the one whose write was the last.
    pub(in crate::ops) daemon: u32,
    pub(in crate::ops) last_writer: u32,
    /// How often it was looked what comes next.
    pub(in crate::ops) looks: usize,
    /// Whether an act is under way that does not answer.
    pub(in crate::ops) is_silent: bool,
    /// Whether the daemon has just died.
    pub(in crate::ops) is_dead: bool,
    pub(in crate::ops) violations: Vec<String>,
}

/// The wall's clock, which is set now and then, and the one that is not; both go on when everything
/// waits.
#[derive(Debug)]
pub(in crate::ops) struct Clocks {
    /// What the wall's clock showed when the other was at zero.
    pub(in crate::ops) wall: OffsetDateTime,
    pub(in crate::ops) elapsed: Duration,
    /// The ends of what is waited for.
    pub(in crate::ops) timers: Vec<Duration>,
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
pub(in crate::ops) enum End {
    Successful,
    Failed,
    Stuck(usize),
}

impl Site {
    pub(in crate::ops) fn new(plan: &Plan) -> Self {
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
    pub(in crate::ops) fn put_back(&mut self, name: &str) {
        if let Some(pod) = self.pods.get_mut(name) {
            pod.quiesced = false;
            pod.paused = false;
            pod.serving = true;
            pod.in_flight = true;
        }
    }

    /// Every pod that is there goes back into service.
    pub(in crate::ops) fn calm(&mut self) {
        let names: Vec<String> = self.pods.keys().cloned().collect();
        for name in names {
            self.put_back(&name);
        }
    }
}

impl Run {
    pub(in crate::ops) fn new(plan: Plan) -> Self {
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

    pub(in crate::ops) fn errs(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// What the wall's clock shows.
    pub(in crate::ops) fn now(&self) -> OffsetDateTime {
        self.clocks.wall + self.clocks.elapsed
    }

    pub(in crate::ops) fn effect(&mut self, change: impl FnOnce(&mut Site)) -> Result<(), Stop> {
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

    pub(in crate::ops) fn act(&mut self, step: usize) -> Result<(), Stop> {
        let step = self.plan.steps[step].clone();
        of(&step).model(self)
    }

    pub(in crate::ops) fn undo_act(&mut self, step: usize) -> Result<(), Stop> {
        let step = self.plan.steps[step].clone();
        of(&step).model_undo(self)
    }

    pub(in crate::ops) fn wanted(&self) -> Side {
        if matches!(self.plan.change, Change::Restart | Change::NoOp) {
            Side::Former
        } else {
            Side::Target
        }
    }

    pub(in crate::ops) fn surge(&mut self) -> Result<(), Stop> {
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

    pub(in crate::ops) fn unsurge(&mut self) -> Result<(), Stop> {
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

    /// At worst all of them are out of service at once.
    pub(in crate::ops) fn roll(&mut self, names: &[String]) -> Result<(), Stop> {
        let stale: Vec<_> = names.iter().filter(|name| !self.is_rolled(name)).collect();
        for name in &stale {
            self.drain(name)?;
        }
        for name in stale {
            self.restart(name)?;
        }
        Ok(())
    }

    pub(in crate::ops) fn replace(&mut self, name: &str) -> Result<(), Stop> {
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
    pub(in crate::ops) fn converge_back(&mut self) -> Result<(), Stop> {
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
