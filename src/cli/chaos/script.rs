//! What happens when: drawn from a seed, pure.

use std::time::Duration;

use fastrand::Rng;
use serde::Serialize;

use crate::ops::request::Strategy;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fault {
    /// `kill -9` of the daemon; another one starts a little later.
    DaemonKilled,
    /// `kill -9` of a pooler.
    PoolerKilled,
    /// `kill -9` of a pooler that is being drained.
    DrainedPoolerKilled,
    /// A pod is deleted by somebody else.
    PodDeleted,
    /// The API refuses, stalls, forgets, and breaks off.
    ApiErrors,
    /// PostgreSQL is stopped, and starts again.
    PostgresRestarted,
    /// An issuer's key cannot be read.
    IssuerBroken,
    /// The API's store has no room.
    DiskFull,
    /// The daemon's clock is an hour off, or right again.
    ClockJump,
}

impl Fault {
    /// All of them.
    pub(super) const ALL: [Self; 9] = [
        Self::DaemonKilled,
        Self::PoolerKilled,
        Self::DrainedPoolerKilled,
        Self::PodDeleted,
        Self::ApiErrors,
        Self::PostgresRestarted,
        Self::IssuerBroken,
        Self::DiskFull,
        Self::ClockJump,
    ];

    /// Name in reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::DaemonKilled => "daemon killed",
            Self::PoolerKilled => "pooler killed",
            Self::DrainedPoolerKilled => "drained pooler killed",
            Self::PodDeleted => "pod deleted",
            Self::ApiErrors => "API errors",
            Self::PostgresRestarted => "PostgreSQL restarted",
            Self::IssuerBroken => "issuer broken",
            Self::DiskFull => "disk full",
            Self::ClockJump => "clock jump",
        }
    }

    /// Whether it ends connections by its nature.
    pub(super) const fn cuts(self) -> bool {
        match self {
            Self::PoolerKilled
            | Self::DrainedPoolerKilled
            | Self::PodDeleted
            | Self::PostgresRestarted => true,
            Self::DaemonKilled
            | Self::ApiErrors
            | Self::IssuerBroken
            | Self::DiskFull
            | Self::ClockJump => false,
        }
    }
}

/// One fault, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cue {
    /// After the last one.
    pub(super) after: Duration,
    /// Which.
    pub(super) fault: Fault,
    /// How long it lasts, where it lasts.
    pub(super) lasts: Duration,
    /// For its own choices.
    pub(super) luck: u64,
}

/// The faults, one after the other, without end. Every kind comes once before one comes again.
pub(super) struct Faults {
    rng: Rng,
    left: Vec<Fault>,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            left: Vec::new(),
        }
    }
}

impl Iterator for Faults {
    type Item = Cue;

    fn next(&mut self) -> Option<Cue> {
        if self.left.is_empty() {
            self.left = Fault::ALL.to_vec();
            self.rng.shuffle(&mut self.left);
        }
        Some(Cue {
            after: Duration::from_millis(self.rng.u64(1_000..5_000)),
            fault: self.left.pop()?,
            lasts: Duration::from_millis(self.rng.u64(500..4_000)),
            luck: self.rng.u64(..),
        })
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ask {
    /// TLS where there is none.
    Add,
    /// All certificates anew.
    Rotate,
    /// The other issuer.
    ChangeIssuer,
    /// Another `sslMode`.
    Mode,
    /// The client's certificate, with other contents.
    Update,
    /// No TLS any more.
    Remove,
    /// New processes.
    Restart,
}

impl Ask {
    /// Name in reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Rotate => "rotate",
            Self::ChangeIssuer => "change-issuer",
            Self::Mode => "mode",
            Self::Update => "update",
            Self::Remove => "remove",
            Self::Restart => "restart",
        }
    }
}

/// One request: what is asked for, and how it is to reach the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// What.
    pub(super) ask: Ask,
    /// How; the usual way is not written down.
    pub(super) strategy: Strategy,
}

impl Wish {
    /// Name in reports.
    pub(super) fn name(self) -> String {
        let ask = self.ask.name();
        match self.strategy {
            Strategy::RollingRestart => ask.to_owned(),
            Strategy::Reload => format!("{ask}-reload"),
            Strategy::Auto => format!("{ask}-auto"),
        }
    }
}

/// What becomes of it on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing.
    Left,
    /// Another one comes along.
    Joined(Wish),
    /// It is asked to stop, after that time.
    Aborted(Duration),
    /// It is deleted, after that time.
    Deleted(Duration),
}

/// The requests, as far as they can be told before it is known how the last one ended.
pub(super) struct Requests {
    rng: Rng,
    /// For the strategies alone.
    ways: Rng,
}

impl Requests {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            ways: Rng::with_seed(!seed),
        }
    }

    /// What is asked for next of a PgBouncer with or without TLS.
    pub(super) fn next(&mut self, has_tls: bool) -> (Wish, Fate) {
        let wish = self.wish(has_tls);
        let moment = Duration::from_millis(self.rng.u64(..4_000));
        let fate = match self.rng.u32(..20) {
            0..3 => Fate::Joined(self.wish(has_tls)),
            3..6 => Fate::Aborted(moment),
            6..8 => Fate::Deleted(moment),
            _ => Fate::Left,
        };
        (wish, fate)
    }

    /// The strategy is drawn where there may be a choice; where a reload does not suffice after all,
    /// `Reload` is refused.
    fn wish(&mut self, has_tls: bool) -> Wish {
        const WAYS: [Strategy; 3] = [Strategy::RollingRestart, Strategy::Reload, Strategy::Auto];
        let ask = self.ask(has_tls);
        let strategy = match ask {
            Ask::Rotate | Ask::ChangeIssuer | Ask::Mode => WAYS[self.ways.usize(..WAYS.len())],
            Ask::Add | Ask::Update | Ask::Remove | Ask::Restart => Strategy::default(),
        };
        Wish { ask, strategy }
    }

    /// Removal is rare, because nothing can be rotated after it.
    fn ask(&mut self, has_tls: bool) -> Ask {
        let pick: &[Ask] = if has_tls {
            &[
                Ask::Rotate,
                Ask::Rotate,
                Ask::ChangeIssuer,
                Ask::ChangeIssuer,
                Ask::Mode,
                Ask::Update,
                Ask::Restart,
                Ask::Remove,
            ]
        } else {
            &[Ask::Add, Ask::Add, Ask::Add, Ask::Restart]
        };
        pick[self.rng.usize(..pick.len())]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_is_a_schedule_and_every_kind_comes_around() {
        let some = |seed| Faults::new(seed).take(18).collect::<Vec<_>>();
        assert_eq!(some(71), some(71));
        assert_ne!(some(71), some(72));
        for round in some(71).chunks(9) {
            let mut kinds: Vec<Fault> = round.iter().map(|cue| cue.fault).collect();
            kinds.sort_unstable();
            assert_eq!(kinds, Fault::ALL);
        }
        let asked = |seed| {
            let mut requests = Requests::new(seed);
            (0..50).map(|n| requests.next(n > 2).0).collect::<Vec<_>>()
        };
        assert_eq!(asked(71), asked(71));
        let rotations = |wishes: &[Wish]| {
            let ways = wishes.iter().filter(|wish| wish.ask == Ask::Rotate);
            ways.map(|wish| wish.name()).collect::<BTreeSet<_>>()
        };
        assert!(rotations(&asked(71)[..3]).is_empty());
        let all = ["rotate", "rotate-auto", "rotate-reload"].map(str::to_owned);
        assert_eq!(rotations(&asked(71)), BTreeSet::from(all));
    }
}
