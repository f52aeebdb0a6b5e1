//! All PgBouncers, and which of them begin now: the limits. No clock, no input or output.
//!
//! ```text
//!            upsert                     pass(now)
//! Facts ───────────▶ timers ──(time)──▶ ready, by deadline ──(room)──▶ Start
//!                      ▲                  │
//!                      └── not now ───────┘
//! ```
//!
//! A pass looks at those whose time has come and at nobody else, so it costs what is due and not
//! what there is. Whoever is started counts as busy at once, also while the cluster does not show the
//! request yet; this assumption ends when it is seen, or after [`ASSUMED_MAX`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use time::{Duration, OffsetDateTime};

use super::decide::{Openings, Task, Verdict, Waiting, guarded_verdict};
use super::facts::{Facts, Remedy};
use super::limits::Limits;
use crate::instants::Shift;
use crate::names::{NAME_LABEL_MAX, ObjectRef, name_with_suffix};
use crate::pki::renewal::jitter_seed;

/// How long a request that was asked for counts without being seen.
pub const ASSUMED_MAX: Duration = Duration::seconds(60);
/// What [`Limits::starts_per_minute`] counts in.
const MINUTE: Duration = Duration::minutes(1);

/// Somebody begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The PgBouncer.
    pub at: ObjectRef,
    /// Name of the request. It derives from the PgBouncer, the revision and how often it went wrong:
    /// whoever decides the same again finds it there already.
    pub request: String,
    /// Which attempt it is; the first is 1.
    pub attempt: u32,
    /// What to do, and why.
    pub task: Task,
}

/// What came of a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Who begins, in order.
    pub starts: Vec<Start>,
    /// When the next pass has something to look at; `None`: when facts change.
    pub wake: Option<OffsetDateTime>,
    /// Whose time had come: what is decided about them may have changed.
    pub looked_at: Vec<ObjectRef>,
    /// How many wait for room.
    pub waiting: usize,
}

/// All PgBouncers.
#[derive(Clone, Debug)]
pub struct Fleet {
    limits: Limits,
    members: HashMap<ObjectRef, Member>,
    timers: BTreeSet<(OffsetDateTime, ObjectRef)>,
    ready: BTreeSet<(OffsetDateTime, ObjectRef)>,
    starts: BTreeSet<(OffsetDateTime, ObjectRef)>,
    assumed: BTreeSet<(OffsetDateTime, ObjectRef)>,
    busy: usize,
    busy_in: HashMap<String, usize>,
    openings: Openings,
}

#[derive(Clone, Debug)]
struct Member {
    facts: Facts,
    place: Place,
    verdict: Verdict,
    /// The request that was asked for and not seen yet, and when.
    assumed: Option<(String, OffsetDateTime)>,
    started_at: Option<OffsetDateTime>,
    is_busy: bool,
}

/// Where a member waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Timer(OffsetDateTime),
    Ready(OffsetDateTime),
    Nowhere,
}

// === impl Fleet ===

impl Fleet {
    /// Nobody yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            members: HashMap::new(),
            timers: BTreeSet::new(),
            ready: BTreeSet::new(),
            starts: BTreeSet::new(),
            assumed: BTreeSet::new(),
            busy: 0,
            busy_in: HashMap::new(),
            openings: Openings::default(),
        }
    }

    /// Takes notice of what is known now of the PgBouncer at `at`.
    pub fn upsert(&mut self, at: &ObjectRef, facts: Facts, now: OffsetDateTime) {
        let mut member = self.take(at).unwrap_or_else(Member::new);
        let seen =
            |name: &String| facts.live.is_some() || facts.history.newest.as_ref() == Some(name);
        member.assumed = member
            .assumed
            .filter(|(name, since)| !seen(name) && since.plus(ASSUMED_MAX) > now);
        if let Some(created) = facts.history.started_at {
            // What was noted when it was asked for is more precise than the object's whole seconds.
            let noted = member.started_at.filter(|noted| *noted >= created);
            member.started_at = Some(noted.unwrap_or(created));
        }
        member.facts = facts;
        self.put(at, member, now);
    }

    /// Forgets a PgBouncer.
    pub fn remove(&mut self, at: &ObjectRef) {
        self.take(at);
    }

    /// What is decided about a PgBouncer, as of the last time it was looked at.
    pub fn verdict(&self, at: &ObjectRef) -> Option<&Verdict> {
        self.members.get(at).map(|member| &member.verdict)
    }

    /// What is known of a PgBouncer.
    pub fn facts(&self, at: &ObjectRef) -> Option<&Facts> {
        self.members.get(at).map(|member| &member.facts)
    }

    /// The PgBouncers, in no order.
    pub fn members(&self) -> impl Iterator<Item = &ObjectRef> {
        self.members.keys()
    }

    /// Whose rotation is due and is not begun, and why: one word of [`Waiting::as_str`].
    pub fn held(&self) -> BTreeMap<ObjectRef, &'static str> {
        let why = |member: &Member| match &member.verdict {
            Verdict::At(_, waiting) | Verdict::Hold(waiting) if waiting.is_holding() => {
                Some(waiting.as_str())
            }
            _ => None,
        };
        let members = self.members.iter();
        members
            .filter_map(|(at, member)| Some((at.clone(), why(member)?)))
            .collect()
    }

    /// How many are busy.
    pub const fn busy(&self) -> usize {
        self.busy
    }

    /// How many are busy in a namespace.
    pub fn busy_in(&self, namespace: &str) -> usize {
        self.busy_in.get(namespace).copied().unwrap_or(0)
    }

    /// Decides who begins at `now`.
    pub fn pass(&mut self, now: OffsetDateTime) -> Pass {
        let looked_at = self.look_at_due(now);
        let mut starts = Vec::new();
        let mut over = Vec::new();
        let room = self.room(now);
        let mut begun_in: HashMap<&str, usize> = HashMap::new();
        // Candidates are looked at in order of their deadlines, and only while there is room.
        for (_, at) in &self.ready {
            if starts.len() >= room {
                break;
            }
            let here = begun_in.get(at.namespace.as_str()).copied().unwrap_or(0);
            if self.busy_in(&at.namespace) + here >= self.limits.concurrency_per_namespace {
                continue;
            }
            let Some(member) = self.members.get(at) else {
                continue;
            };
            // Its window may have closed since it became ready.
            match guarded_verdict(&member.facts, now, &mut self.openings) {
                Verdict::Begin(task) => {
                    *begun_in.entry(&at.namespace).or_default() += 1;
                    starts.push(start(at, &member.facts, task));
                }
                Verdict::At(..) | Verdict::Hold(_) => over.push(at.clone()),
            }
        }
        for at in over {
            self.touch(&at, now, |_| {});
        }
        for start in &starts {
            let request = start.request.clone();
            self.touch(&start.at, now, |member| {
                member.assumed = Some((request, now));
                member.started_at = Some(now);
            });
        }
        Pass {
            wake: self.wake(now),
            waiting: self.ready.len(),
            looked_at,
            starts,
        }
    }

    /// Looks again at those whose time has come.
    fn look_at_due(&mut self, now: OffsetDateTime) -> Vec<ObjectRef> {
        let mut looked_at = Vec::new();
        while let Some((_, at)) = self
            .timers
            .first()
            .filter(|(when, _)| *when <= now)
            .cloned()
        {
            self.touch(&at, now, |_| {});
            looked_at.push(at);
        }
        while let Some((since, at)) = self.assumed.first().cloned() {
            if since.plus(ASSUMED_MAX) > now {
                break;
            }
            self.touch(&at, now, |member| member.assumed = None);
        }
        while let Some(oldest) = self
            .starts
            .first()
            .filter(|(at, _)| at.plus(MINUTE) <= now)
            .cloned()
        {
            self.starts.remove(&oldest);
        }
        looked_at
    }

    /// How many may begin now.
    fn room(&self, now: OffsetDateTime) -> usize {
        let recent = self
            .starts
            .iter()
            .filter(|(at, _)| at.plus(MINUTE) > now)
            .count();
        let by_pace = self.limits.starts_per_minute.saturating_sub(recent);
        by_pace.min(self.limits.concurrency.saturating_sub(self.busy))
    }

    fn wake(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let assumed = self
            .assumed
            .first()
            .map(|(since, _)| since.plus(ASSUMED_MAX));
        let is_paced = !self.ready.is_empty() && self.starts.len() >= self.limits.starts_per_minute;
        let paced = self
            .starts
            .first()
            .filter(|_| is_paced)
            .map(|(at, _)| at.plus(MINUTE));
        let soonest = [timer, assumed, paced].into_iter().flatten().min();
        soonest.map(|at| at.max(now))
    }

    fn touch(&mut self, at: &ObjectRef, now: OffsetDateTime, change: impl FnOnce(&mut Member)) {
        if let Some(mut member) = self.take(at) {
            change(&mut member);
            self.put(at, member, now);
        }
    }

    /// Takes a member out, with everything that counts it.
    fn take(&mut self, at: &ObjectRef) -> Option<Member> {
        let member = self.members.remove(at)?;
        match member.place {
            Place::Timer(when) => {
                self.timers.remove(&(when, at.clone()));
            }
            Place::Ready(deadline) => {
                self.ready.remove(&(deadline, at.clone()));
            }
            Place::Nowhere => {}
        }
        if let Some((_, since)) = &member.assumed {
            self.assumed.remove(&(*since, at.clone()));
        }
        if let Some(started) = member.started_at {
            self.starts.remove(&(started, at.clone()));
        }
        if member.is_busy {
            self.busy = self.busy.saturating_sub(1);
            if let Some(count) = self.busy_in.get_mut(&at.namespace) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.busy_in.remove(&at.namespace);
                }
            }
        }
        Some(member)
    }

    /// Puts a member where it belongs at `now`.
    fn put(&mut self, at: &ObjectRef, mut member: Member, now: OffsetDateTime) {
        member.is_busy = member.assumed.is_some() || member.facts.live.is_some();
        member.verdict = match &member.assumed {
            Some((name, _)) => Verdict::Hold(Waiting::Request(name.clone())),
            None => guarded_verdict(&member.facts, now, &mut self.openings),
        };
        member.place = match &member.verdict {
            Verdict::Begin(task) => Place::Ready(task.deadline),
            Verdict::At(when, _) => Place::Timer(*when),
            Verdict::Hold(_) => Place::Nowhere,
        };
        match member.place {
            Place::Timer(when) => {
                self.timers.insert((when, at.clone()));
            }
            Place::Ready(deadline) => {
                self.ready.insert((deadline, at.clone()));
            }
            Place::Nowhere => {}
        }
        if let Some((_, since)) = &member.assumed {
            self.assumed.insert((*since, at.clone()));
        }
        if let Some(started) = member
            .started_at
            .filter(|started| started.plus(MINUTE) > now)
        {
            self.starts.insert((started, at.clone()));
        }
        if member.is_busy {
            self.busy += 1;
            *self.busy_in.entry(at.namespace.clone()).or_default() += 1;
        }
        self.members.insert(at.clone(), member);
    }
}

// === impl Member ===

impl Member {
    fn new() -> Self {
        Self {
            facts: Facts::default(),
            place: Place::Nowhere,
            verdict: Verdict::Hold(Waiting::Nothing),
            assumed: None,
            started_at: None,
            is_busy: false,
        }
    }
}

// === helpers ===

fn start(at: &ObjectRef, facts: &Facts, task: Task) -> Start {
    let name = |attempt| request_name(at, task.remedy, facts.next_revision(), attempt);
    let first = facts.history.failures.saturating_add(1);
    // A finished request of that name is about something that is over: the same revision number
    // after TLS was removed and added again, or a pod that went astray twice.
    let finished = &facts.history.finished;
    let most = first.saturating_add(u32::try_from(finished.len()).unwrap_or(u32::MAX));
    let attempt = (first..=most)
        .find(|attempt| !finished.contains(&name(*attempt)))
        .unwrap_or(most);
    Start {
        request: name(attempt),
        at: at.clone(),
        attempt,
        task,
    }
}

/// `<db>-rotate-r<N>`, with the attempt behind it from the second on. What would be too long for a
/// label is cut, and told apart by a hash.
fn request_name(at: &ObjectRef, remedy: Remedy, revision: u32, attempt: u32) -> String {
    let verb = match remedy {
        Remedy::Rotate => "rotate",
        Remedy::Restart => "restart",
    };
    let suffix = match attempt {
        0 | 1 => format!("{verb}-r{revision}"),
        _ => format!("{verb}-r{revision}-{attempt}"),
    };
    if at.name.len() + 1 + suffix.len() <= NAME_LABEL_MAX {
        return format!("{}-{suffix}", at.name);
    }
    let hash = jitter_seed(&at.name) & 0xffff_ffff;
    name_with_suffix(&at.name, &format!("{hash:08x}-{suffix}"))
}
