//! Chance: what strikes a run is drawn from a seed, so that any run can be had again.
//!
//! `BOUNCERT_SEED=7 cargo test --lib model` runs that one; `BOUNCERT_RUNS=100000` as many from 0 on.

use fastrand::Rng;
use serde_json::{Value, json};
use time::Duration;

use super::model::{Fault, Mistake, Run};
use crate::ops::journal::{Entry, Event};
use crate::ops::plan::Plan;
use crate::ops::plan::tests::{issuer, plan, plan_with, present, reload_plan};
use crate::ops::request::{MaxUnavailable, Settings, Strategy};

/// Where nothing else is asked for.
const RUNS: u64 = 6_000;

/// How often what strikes; each is one in so many.
#[derive(Debug)]
pub(in crate::ops) struct Chance {
    rng: Rng,
    fault: u32,
    cut: u32,
    jump: u32,
    late: u32,
}

/// What a daemon that has been replaced still wants to write.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Late {
    daemon: u32,
    step: usize,
    /// The journal's lines and the effects as it knew them.
    lines: usize,
    effects: usize,
}

/// Every kind of request, on every interesting number of replicas.
pub(in crate::ops) fn plans() -> Vec<Plan> {
    let off = json!({ "sslMode": "disable" });
    let asked = [
        (off, issuer()),
        (present(), issuer()),
        (present(), json!({ "rotateCertificates": true })),
        (
            present(),
            json!({ "certificates": [{ "alias": "client" }] }),
        ),
        (present(), json!({ "sslMode": "require" })),
        (present(), json!({ "remove": true })),
        (present(), Value::Null),
    ];
    let restarts = asked
        .iter()
        .flat_map(|(before, asked)| [0, 1, 3, 5].map(|replicas| plan(before, asked, replicas)));
    let reloads = asked[1..5].iter().flat_map(|(before, asked)| {
        [
            (1, Strategy::Reload),
            (3, Strategy::Reload),
            (1, Strategy::Auto),
            (3, Strategy::Auto),
        ]
        .map(|(replicas, strategy)| reload_plan(before, asked, replicas, strategy))
    });
    let wide = Settings {
        max_unavailable: MaxUnavailable::Pods(2),
        ..Settings::default()
    };
    let together = [issuer(), Value::Null].map(|asked| plan_with(&present(), &asked, 5, wide));
    restarts.chain(reloads).chain(together).collect()
}

/// The run of that seed.
pub(in crate::ops) fn run_of(plans: &[Plan], seed: u64) -> Run {
    let mut rng = Rng::with_seed(seed);
    let mut run = Run::new(plans[rng.usize(..plans.len())].clone());
    run.twice = rng.u8(..4) == 0;
    if rng.u8(..3) == 0 {
        run.abort_after_events = Some(rng.usize(..40));
    }
    // Some runs are calm but for one thing, some are a storm.
    let rates = [8, 20, 60, 200, u32::MAX];
    let mut rate = || rates[rng.usize(..rates.len())];
    let (fault, cut, jump, late) = (rate(), rate(), rate(), rate());
    run.chance = Some(Chance {
        rng,
        fault,
        cut,
        jump,
        late,
    });
    run
}

/// The seeds that are asked for.
pub(in crate::ops) fn seeds() -> std::ops::Range<u64> {
    let number = |name| {
        let text: String = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a seed is a number"))
    };
    match number("BOUNCERT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BOUNCERT_RUNS").unwrap_or(RUNS),
    }
}

impl Chance {
    fn once_in(&mut self, many: u32) -> bool {
        many != u32::MAX && self.rng.u32(..many) == 0
    }
}

impl Run {
    /// Between two looks: the clock is set.
    pub(in crate::ops) fn disturb(&mut self) {
        if let Some(chance) = &mut self.chance
            && chance.once_in(chance.jump)
        {
            let hour = if chance.rng.bool() { 1 } else { -1 };
            self.clocks.wall += Duration::hours(hour);
        }
    }

    /// What strikes an effect.
    pub(in crate::ops) fn strike(&mut self) -> Option<Fault> {
        let chance = self.chance.as_mut()?;
        chance.once_in(chance.fault).then(|| {
            let all = [
                Fault::Transient,
                Fault::Transient,
                Fault::Permanent,
                Fault::Silence,
                Fault::CrashBefore,
                Fault::CrashAfter,
            ];
            all[chance.rng.usize(..all.len())]
        })
    }

    /// Whether the daemon dies at a line of the journal.
    pub(in crate::ops) fn is_cut(&mut self) -> bool {
        self.chance
            .as_mut()
            .is_some_and(|chance| chance.once_in(chance.cut))
    }

    /// Not every daemon that is replaced is dead.
    pub(in crate::ops) fn remember_deposed(&mut self, step: usize) {
        let lives = self.chance.as_mut().is_some_and(|c| c.rng.bool());
        if lives && self.late.is_none() {
            self.late = Some(Late {
                daemon: self.daemon - 1,
                step,
                lines: self.journal.entries().len(),
                effects: self.effects,
            });
        }
    }

    /// A daemon that has been replaced writes what it had in hand. Lines are compare-and-swap, and its
    /// lease ends before another one's begins: where somebody else has written since, nothing comes
    /// through.
    pub(in crate::ops) fn hear_deposed(&mut self) {
        let wakes = self
            .chance
            .as_mut()
            .is_some_and(|chance| chance.once_in(chance.late.min(8)));
        let Some(late) = self.late.filter(|_| wakes) else {
            return;
        };
        self.late = None;
        let lines = self.journal.entries().len();
        let is_alone = (late.lines, late.effects) == (lines, self.effects);
        if is_alone || self.errs(Mistake::HearsDeposed) {
            self.check_writer(late.daemon);
            let (at, step, event) = (self.now(), late.step, Event::Started);
            // A line that cannot follow is one that it would not write.
            let _written = self.journal.record(Entry { at, step, event });
        }
    }
}
