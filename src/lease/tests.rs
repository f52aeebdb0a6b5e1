//! The rules one by one, and many candidates whose clocks disagree, whose messages are late or lost,
//! and who are frozen now and then: never two of them may act.

use proptest::prelude::*;

use super::*;

const S: Duration = Duration::from_secs(1);

fn record(holder: Option<&str>, renewed: u32) -> Record {
    Record {
        holder: holder.map(str::to_owned),
        lease: Some(15 * S),
        renewed: renewed.to_string(),
        transitions: 3,
    }
}

fn candidate() -> Election {
    Election::new("ada".to_owned(), Timing::default())
}

#[test]
fn durations_have_to_fit_together() {
    assert!(Timing::new(15 * S, 10 * S, 2 * S).is_ok_and(|timing| timing == Timing::default()));
    let refused = |lease, renew, retry| Timing::new(lease, renew, retry).unwrap_err();
    assert_eq!(refused(S / 2, S / 4, S / 16), TimingError::Lease);
    assert_eq!(refused(10 * S, 10 * S, S), TimingError::Renew);
    assert_eq!(refused(15 * S, 10 * S, 5 * S), TimingError::Retry);
    assert_eq!(refused(15 * S, 10 * S, Duration::ZERO), TimingError::Retry);
    let timing = Timing::default();
    assert!(timing.renew() < timing.fence() && timing.fence() < timing.lease());
}

#[test]
fn a_lease_that_nobody_holds_is_taken_at_once() {
    assert_eq!(candidate().observe(None, 100 * S), Verdict::Acquire);
    let released = record(None, 1);
    assert_eq!(
        candidate().observe(Some(&released), 100 * S),
        Verdict::Acquire
    );
}

#[test]
fn anothers_lease_is_waited_for_from_when_we_saw_it_change() {
    let mut ada = candidate();
    let until = |s| Verdict::Wait { until: s * S };
    assert_eq!(
        ada.observe(Some(&record(Some("bob"), 1)), 100 * S),
        until(115)
    );
    assert_eq!(
        ada.observe(Some(&record(Some("bob"), 1)), 110 * S),
        until(115)
    );
    assert_eq!(
        ada.observe(Some(&record(Some("bob"), 2)), 114 * S),
        until(129)
    );
    assert_eq!(
        ada.observe(Some(&record(Some("bob"), 2)), 129 * S),
        Verdict::Acquire
    );
}

/// Whoever holds it decides for how long, so that daemons with other flags agree.
#[test]
fn the_record_says_how_long_it_is_left_alone() {
    let mut long = record(Some("bob"), 1);
    long.lease = Some(60 * S);
    assert_eq!(
        candidate().observe(Some(&long), 100 * S),
        Verdict::Wait { until: 160 * S }
    );
}

#[test]
fn a_lease_that_is_deleted_is_waited_for_all_the_same() {
    let mut ada = candidate();
    ada.observe(Some(&record(Some("bob"), 1)), 100 * S);
    let wait = Verdict::Wait { until: 125 * S };
    assert_eq!(ada.observe(None, 110 * S), wait);
    assert_eq!(ada.observe(None, 124 * S), wait);
    assert_eq!(ada.observe(None, 125 * S), Verdict::Acquire);
}

#[test]
fn the_leader_counts_from_when_it_asked() {
    let mut ada = candidate();
    ada.observe(None, 100 * S);
    let ours = record(Some("ada"), 1);
    ada.won(ours.clone(), 100 * S, 104 * S);
    assert_eq!(ada.gives_up_at(), Some(110 * S));
    assert_eq!(ada.fence_at(), Some(112 * S + S / 2));
    assert_eq!(ada.observe(Some(&ours), 109 * S), Verdict::Hold);
    // A process that was frozen comes back to a record that still names it.
    let late = ada.observe(Some(&ours), 110 * S);
    assert_eq!(late, Verdict::Wait { until: 119 * S });
    assert_eq!(ada.fence_at(), None);
    assert_eq!(ada.observe(Some(&ours), 119 * S), Verdict::Acquire);
}

#[test]
fn the_leader_that_sees_another_or_nobody_leads_no_more() {
    for found in [Some(record(Some("bob"), 9)), Some(record(None, 9)), None] {
        let mut ada = candidate();
        ada.won(record(Some("ada"), 1), 100 * S, 100 * S);
        assert_ne!(ada.observe(found.as_ref(), 101 * S), Verdict::Hold);
        assert_eq!(ada.fence_at(), None);
    }
}

// === many candidates ===

/// The API server: one record with a version.
#[derive(Default)]
struct Server {
    record: Option<Record>,
    version: u64,
}

/// What a candidate is about to do next, in true time.
enum Phase {
    /// Its read arrives at the server.
    Read,
    /// The answer to its read arrives.
    Judge(Option<Record>, u64),
    /// Its write arrives at the server, if the record is still that version.
    Write(u64, Duration),
    /// The answer to its write arrives; `None` is a conflict or a lost answer.
    Answer(Option<Record>, Duration),
}

struct Node {
    election: Election,
    phase: Phase,
    at: f64,
    rate: f64,
    offset: f64,
    /// Its fence, on its own clock.
    fence: Duration,
}

impl Node {
    fn clock(&self, now: f64) -> Duration {
        Duration::try_from_secs_f64(self.offset + self.rate * now).unwrap()
    }

    fn acts(&self, now: f64) -> bool {
        self.clock(now) < self.fence
    }

    /// True time of an instant of its clock.
    fn after(&self, now: f64, pause: Duration) -> f64 {
        now + pause.as_secs_f64() / self.rate
    }
}

struct World {
    server: Server,
    nodes: Vec<Node>,
    seed: u64,
    terms: u32,
}

impl World {
    fn new(rates: &[f64], offsets: &[f64], seed: u64) -> Self {
        let nodes = rates.iter().zip(offsets).enumerate();
        Self {
            server: Server::default(),
            nodes: nodes
                .map(|(number, (rate, offset))| Node {
                    election: Election::new(format!("n{number}"), Timing::default()),
                    phase: Phase::Read,
                    at: 0.0,
                    rate: *rate,
                    offset: *offset,
                    fence: Duration::ZERO,
                })
                .collect(),
            seed,
            terms: 0,
        }
    }

    /// A number from 0 to below 1.
    fn dice(&mut self) -> f64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        f64::from(u32::try_from(self.seed >> 40).unwrap()) / f64::from(1 << 24)
    }

    /// How long a message takes, or a process is frozen: mostly little, sometimes very long.
    fn delay(&mut self) -> f64 {
        match self.dice() {
            luck if luck < 0.90 => self.dice() * 0.2,
            luck if luck < 0.97 => self.dice() * 8.0,
            _ => self.dice() * 60.0,
        }
    }

    fn write(&mut self, node: usize, now: f64, version: u64) -> Option<Record> {
        if version != self.server.version {
            return None;
        }
        let released = self.dice() < 0.01 && !self.nodes[node].acts(now);
        self.server.version += 1;
        self.server.record = Some(Record {
            holder: (!released).then(|| self.nodes[node].election.me.clone()),
            ..record(None, u32::try_from(self.server.version).unwrap())
        });
        self.server.record.clone().filter(|_| !released)
    }

    /// Lets the earliest event happen; returns its time.
    fn step(&mut self) -> f64 {
        let earliest = |a: &usize, b: &usize| self.nodes[*a].at.total_cmp(&self.nodes[*b].at);
        let index = (0..self.nodes.len()).min_by(earliest).unwrap();
        let now = self.nodes[index].at;
        let (delay, lost) = (self.delay(), self.dice() < 0.05);
        let phase = std::mem::replace(&mut self.nodes[index].phase, Phase::Read);
        let (next, at) = match phase {
            Phase::Read => {
                let (record, version) = (self.server.record.clone(), self.server.version);
                (Phase::Judge(record, version), now + delay)
            }
            Phase::Judge(record, version) => {
                let node = &mut self.nodes[index];
                let clock = node.clock(now);
                match node.election.observe(record.as_ref(), clock) {
                    Verdict::Hold | Verdict::Acquire => (Phase::Write(version, clock), now + delay),
                    Verdict::Wait { .. } => {
                        // What it led is over: the program closes the fence here.
                        node.fence = Duration::ZERO;
                        (
                            Phase::Read,
                            node.after(now, node.election.timing.retry()) + delay,
                        )
                    }
                }
            }
            Phase::Write(version, asked) => {
                let written = self.write(index, now, version).filter(|_| !lost);
                (Phase::Answer(written, asked), now + delay)
            }
            Phase::Answer(Some(record), asked) => {
                let node = &mut self.nodes[index];
                let clock = node.clock(now);
                let led = node.acts(now);
                node.election.won(record, asked, clock);
                node.fence = node.fence.max(node.election.fence_at().unwrap());
                self.terms += u32::from(!led && node.acts(now));
                let node = &self.nodes[index];
                (
                    Phase::Read,
                    node.after(now, node.election.timing.retry()) + delay,
                )
            }
            Phase::Answer(None, _) => (Phase::Read, now + delay),
        };
        self.nodes[index].phase = next;
        self.nodes[index].at = at;
        now
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Rates within 9 % of the truth either way are less than a fifth apart.
    #[test]
    fn never_two_act_whatever_their_clocks_and_the_network_do(
        rates in prop::collection::vec(0.915_f64..1.09, 3),
        offsets in prop::collection::vec(0.0_f64..1e6, 3),
        seed in 1_u64..,
    ) {
        let mut world = World::new(&rates, &offsets, seed);
        for _ in 0..2_000 {
            let now = world.step();
            let acting: Vec<usize> =
                (0..3).filter(|node| world.nodes[*node].acts(now)).collect();
            prop_assert!(acting.len() <= 1, "at {now}: {acting:?}");
        }
        prop_assert!(world.terms > 0, "nobody ever led");
    }
}

/// The limit that the module states is one: beyond it two would act. So the property can fail.
#[test]
fn clocks_that_differ_by_more_than_the_limit_would_let_two_act() {
    let rates = [0.5, 1.0, 1.5];
    let broken = (1..200).any(|seed| {
        let mut world = World::new(&rates, &[0.0, 1.0, 2.0], seed * 7_919);
        (0..2_000).any(|_| {
            let now = world.step();
            world.nodes.iter().filter(|node| node.acts(now)).count() > 1
        })
    });
    assert!(broken);
}
