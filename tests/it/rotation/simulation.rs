//! A fleet in virtual time: the very [`Fleet`] that the daemon drives, with certificates that age, an
//! issuer and a daemon that are away now and then, and rotations that take time and fail.
//!
//! The world is what an API server would hold; the fleet sees it as facts. When the daemon comes
//! back, its fleet is made anew from the world, as after a restart.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use bouncert::names::{Alias, ObjectRef};
use bouncert::pki::renewal::{RenewPolicy, jitter_seed};
use bouncert::rotation::facts::{Facts, Held, Window};
use bouncert::rotation::fleet::{Fleet, Start};
use bouncert::rotation::limits::Limits;
use bouncert::rotation::window::Windows;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::computed;

/// When virtual time begins.
pub(crate) const BEGINNING: OffsetDateTime = datetime!(2031-01-01 00:00 UTC);
/// How long a request waits for its issuer: two tries of a step's five minutes.
const PATIENCE: Duration = Duration::minutes(10);
/// One rotation in so many fails for another reason.
const UNLUCKY: u64 = 100;

/// What is simulated.
pub(crate) struct World {
    pub(crate) members: usize,
    pub(crate) namespaces: usize,
    pub(crate) length: Duration,
    pub(crate) limits: Limits,
    /// When the daemon is away.
    pub(crate) daemon_away: Vec<(OffsetDateTime, OffsetDateTime)>,
    /// When the issuer is away.
    pub(crate) issuer_away: Vec<(OffsetDateTime, OffsetDateTime)>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) rotations: usize,
    pub(crate) failures: usize,
    /// Most rotations at the same time.
    pub(crate) most_at_once: usize,
    /// The same in one namespace.
    pub(crate) most_in_a_namespace: usize,
    /// Most rotations that began within 60 s.
    pub(crate) worst_minute: usize,
    /// The same, of the minutes in the hour after the daemon or the issuer came back.
    pub(crate) worst_minute_after_an_outage: usize,
    /// The oldest that a certificate became before its successor was served, as part of its life, of
    /// those during whose last third the issuer was never away.
    pub(crate) oldest: f64,
    /// Certificates that became older than nine tenths although the issuer was there.
    pub(crate) late: usize,
    /// Certificates that became older than nine tenths because the issuer was away.
    pub(crate) excused: usize,
    /// Rotations outside their window that were not urgent.
    pub(crate) outside_window: usize,
    /// The least part of its granted life that a certificate was served before it was rotated by age.
    pub(crate) soonest: f64,
    /// The most rotations by age that succeeded within the granted life of one certificate.
    pub(crate) most_in_a_life: usize,
    /// How long each pass took, in ascending order.
    pub(crate) passes: Vec<std::time::Duration>,
}

impl Report {
    /// In one line.
    pub(crate) fn told(&self) -> String {
        format!(
            "{} rotations, {} failures; at most {} at once and {} in a namespace; worst minute {}, \
             within an hour of an outage {}; oldest {:.3} of its life, {} late, {} late because the \
             issuer was away; soonest {:.3} of its life, {} within one life",
            self.rotations,
            self.failures,
            self.most_at_once,
            self.most_in_a_namespace,
            self.worst_minute,
            self.worst_minute_after_an_outage,
            self.oldest,
            self.late,
            self.excused,
            self.soonest,
            self.most_in_a_life,
        )
    }

    pub(crate) fn median_pass(&self) -> std::time::Duration {
        self.passes
            .get(self.passes.len() / 2)
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn longest_pass(&self) -> std::time::Duration {
        self.passes.last().copied().unwrap_or_default()
    }
}

struct Member {
    at: ObjectRef,
    facts: Facts,
    lifetime: Duration,
    policy: RenewPolicy,
    /// When rotations succeeded, newest last.
    rotated: VecDeque<OffsetDateTime>,
}

struct Run<'a> {
    world: &'a World,
    members: Vec<Member>,
    by_name: HashMap<ObjectRef, usize>,
    running: BinaryHeap<Reverse<(OffsetDateTime, usize, bool)>>,
    running_in: HashMap<String, usize>,
    recent: VecDeque<OffsetDateTime>,
    dice: u64,
    report: Report,
}

/// Lets virtual time pass.
pub(crate) fn run(world: &World) -> Report {
    let mut run = Run::new(world);
    let end = BEGINNING + world.length;
    let mut now = BEGINNING;
    let mut fleet = run.fleet(now);
    while now < end {
        if let Some(back) = until(&world.daemon_away, now) {
            // Nothing is carried on meanwhile: whoever runs is carried on afterwards.
            run.postpone(back - now);
            now = back;
            fleet = run.fleet(now);
        }
        for member in run.finish(now) {
            fleet.upsert(
                &run.members[member].at,
                run.members[member].facts.clone(),
                now,
            );
        }
        let begun = computed();
        let pass = fleet.pass(now);
        run.report.passes.push(computed().saturating_sub(begun));
        for start in &pass.starts {
            let member = run.begin(start, now);
            fleet.upsert(&start.at, run.members[member].facts.clone(), now);
        }
        run.check(&fleet);
        let next_end = run.running.peek().map(|Reverse((at, ..))| *at);
        let outage = world
            .daemon_away
            .iter()
            .map(|(from, _)| *from)
            .filter(|from| *from > now);
        let next = [next_end, pass.wake, outage.min(), Some(end)];
        let next = next.into_iter().flatten().min().unwrap_or(end);
        // A pass that has nothing left to do now has to say a later time.
        now = next.max(now + Duration::milliseconds(1));
    }
    run.report.passes.sort_unstable();
    run.report
}

impl<'a> Run<'a> {
    fn new(world: &'a World) -> Self {
        let mut run = Self {
            world,
            members: Vec::new(),
            by_name: HashMap::new(),
            running: BinaryHeap::new(),
            running_in: HashMap::new(),
            recent: VecDeque::new(),
            dice: 42,
            report: Report {
                soonest: f64::MAX,
                ..Report::default()
            },
        };
        let weeknights = Arc::new(Windows::parse("Mon-Fri 01:00-05:00 Europe/Berlin").unwrap());
        let saturdays =
            Arc::new(Windows::parse("cron 0 2 * * SAT for 4h America/New_York").unwrap());
        for n in 0..world.members {
            let at = ObjectRef::new(
                format!("team-{}", n % world.namespaces),
                format!("pooler-{n}"),
            );
            let (lifetime, policy) = match n % 100 {
                0..3 => (Duration::days(7), RenewPolicy::TwoThirds),
                3..20 => (Duration::days(30), RenewPolicy::BeforePercentage(30)),
                20..40 => (Duration::days(90), RenewPolicy::Before(Duration::days(20))),
                // An issuer that grants a third of what was asked for, or less: the margin fills the life.
                40 => (Duration::days(30), RenewPolicy::Before(Duration::days(60))),
                41 => (Duration::days(30), RenewPolicy::Before(Duration::days(29))),
                42 => (Duration::days(30), RenewPolicy::Before(Duration::days(28))),
                43 => (Duration::days(30), RenewPolicy::BeforePercentage(99)),
                _ => (Duration::days(90), RenewPolicy::TwoThirds),
            };
            let window = match run.roll() % 5 {
                0 | 1 => Window::Within(Arc::clone(&weeknights)),
                2 => Window::Within(Arc::clone(&saturdays)),
                _ => Window::Always,
            };
            // The whole fleet was set up within one day: nothing but jitter keeps it apart.
            let seconds = i64::try_from(run.roll() % 86_400).unwrap();
            let issued = BEGINNING - Duration::seconds(seconds);
            let mut member = Member {
                facts: Facts {
                    window,
                    seed: jitter_seed(&at.to_string()),
                    ..Facts::default()
                },
                at,
                lifetime,
                policy,
                rotated: VecDeque::new(),
            };
            member.issue(1, issued);
            run.by_name.insert(member.at.clone(), run.members.len());
            run.members.push(member);
        }
        run
    }

    /// What a daemon that has just started knows.
    fn fleet(&self, now: OffsetDateTime) -> Fleet {
        let mut fleet = Fleet::new(self.world.limits);
        for member in &self.members {
            fleet.upsert(&member.at, member.facts.clone(), now);
        }
        fleet
    }

    /// A request is created and carried out.
    fn begin(&mut self, start: &Start, now: OffsetDateTime) -> usize {
        let index = self.by_name[&start.at];
        let takes = Duration::seconds(20 + i64::try_from(self.roll() % 100).unwrap());
        let is_lucky = !self.roll().is_multiple_of(UNLUCKY);
        let (ends, works) = match until(&self.world.issuer_away, now) {
            Some(back) if back - now > PATIENCE => (now + PATIENCE, false),
            Some(back) => (back + takes, is_lucky),
            None => (now + takes, is_lucky),
        };
        self.running.push(Reverse((ends, index, works)));
        self.recent.push_back(now);
        while self
            .recent
            .front()
            .is_some_and(|at| *at + Duration::minutes(1) <= now)
        {
            self.recent.pop_front();
        }
        self.report.worst_minute = self.report.worst_minute.max(self.recent.len());
        let outages = self.world.daemon_away.iter().chain(&self.world.issuer_away);
        let mut ends = outages.map(|(_, end)| *end);
        if ends.any(|end| end <= now && now < end + Duration::hours(1)) {
            let worst = &mut self.report.worst_minute_after_an_outage;
            *worst = (*worst).max(self.recent.len());
        }
        let member = &mut self.members[index];
        // Computed here once more, without the fleet's cache; for some, because it costs much.
        if let Window::Within(windows) = &member.facts.window
            && index.is_multiple_of(8)
        {
            let is_open = windows.next(now).is_some_and(|opening| opening.from <= now);
            if !is_open && !start.task.urgent {
                self.report.outside_window += 1;
            }
        }
        let held = &member.facts.certificates[0];
        let age = (now - held.granted) / held.lifetime();
        self.report.soonest = self.report.soonest.min(age);
        assert!(
            member.facts.live.is_none(),
            "{} has two requests",
            start.request
        );
        member.facts.live = Some(start.request.clone());
        member.facts.history.started_at = Some(now);
        member.facts.history.newest = Some(start.request.clone());
        *self
            .running_in
            .entry(start.at.namespace.clone())
            .or_default() += 1;
        index
    }

    /// Everything that has ended by `now`; whom it concerns.
    fn finish(&mut self, now: OffsetDateTime) -> Vec<usize> {
        let mut concerned = Vec::new();
        while let Some(Reverse((at, index, works))) = self.running.peek().copied() {
            if at > now {
                break;
            }
            self.running.pop();
            concerned.push(index);
            let member = &mut self.members[index];
            *self.running_in.get_mut(&member.at.namespace).unwrap() -= 1;
            let name = member.facts.live.take();
            let history = &mut member.facts.history;
            history.finished = name.into_iter().collect();
            if works {
                history.failures = 0;
                history.failed_at = None;
                self.report.rotations += 1;
                member.rotated.push_back(now);
                while member
                    .rotated
                    .front()
                    .is_some_and(|at| *at + member.lifetime <= now)
                {
                    member.rotated.pop_front();
                }
                let most = &mut self.report.most_in_a_life;
                *most = (*most).max(member.rotated.len());
                let held = member.facts.certificates[0].clone();
                member.issue(held.revision + 1, now);
                self.age(&held, now);
            } else {
                history.failures += 1;
                history.failed_at = Some(now);
                self.report.failures += 1;
            }
        }
        concerned
    }

    /// How old a certificate was when its successor was served.
    fn age(&mut self, held: &Held, now: OffsetDateTime) {
        let age = (now - held.granted) / held.lifetime();
        let was_away =
            |(from, to): &(OffsetDateTime, OffsetDateTime)| *from < now && *to > held.renews_at;
        let is_excused = self.world.issuer_away.iter().any(was_away);
        match (age > 0.9, is_excused) {
            (true, true) => self.report.excused += 1,
            (true, false) => self.report.late += 1,
            (false, _) => {}
        }
        if !is_excused {
            self.report.oldest = self.report.oldest.max(age);
        }
    }

    /// The limits, as the world sees them.
    fn check(&mut self, fleet: &Fleet) {
        assert_eq!(self.running.len(), fleet.busy());
        self.report.most_at_once = self.report.most_at_once.max(self.running.len());
        let most = self.running_in.values().max().copied().unwrap_or(0);
        self.report.most_in_a_namespace = self.report.most_in_a_namespace.max(most);
    }

    fn postpone(&mut self, by: Duration) {
        let running = std::mem::take(&mut self.running).into_iter();
        self.running = running
            .map(|Reverse((at, index, works))| Reverse((at + by, index, works)))
            .collect();
    }

    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Member {
    fn issue(&mut self, revision: u32, at: OffsetDateTime) {
        let life = (at, at + self.lifetime);
        let (identity, policy) = (self.at.to_string(), self.policy);
        let held = Held::new(&identity, Alias::Server, revision, life, policy);
        self.facts.certificates = vec![held];
    }
}

/// The end of the outage that holds `now`.
fn until(
    outages: &[(OffsetDateTime, OffsetDateTime)],
    now: OffsetDateTime,
) -> Option<OffsetDateTime> {
    let inside = outages.iter().find(|(from, to)| *from <= now && now < *to);
    inside.map(|(_, to)| *to)
}

/// Ten thousand PgBouncers in a hundred namespaces for two years. The daemon is away every month,
/// from minutes to a day; the issuer every two months, from minutes to four days.
pub(crate) fn two_years() -> World {
    let day = |n: i64| BEGINNING + Duration::days(n);
    let minutes = [5, 45, 180, 720, 1_440];
    let daemon_away = (1..24).map(|n: i64| {
        let from = day(n * 30) + Duration::minutes(n * 97);
        let length = minutes[usize::try_from(n).unwrap() % minutes.len()];
        (from, from + Duration::minutes(length))
    });
    let hours = [1, 6, 96, 12, 24];
    let issuer_away = (1..12).map(|n: i64| {
        let from = day(n * 61) + Duration::minutes(n * 331);
        (
            from,
            from + Duration::hours(hours[usize::try_from(n).unwrap() % hours.len()]),
        )
    });
    World {
        members: 10_000,
        namespaces: 100,
        length: Duration::days(730),
        limits: Limits::default(),
        daemon_away: daemon_away.collect(),
        issuer_away: issuer_away.collect(),
    }
}
