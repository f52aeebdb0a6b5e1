//! What to do about one PgBouncer now, and when to ask again. Pure: a list of small rules, of which
//! the first that speaks wins.

use std::collections::HashMap;

use time::{Duration, OffsetDateTime};

use super::brake::Recent;
use super::facts::{Facts, Freeze, Held, Remedy, Standing, Window};
use super::limits::pause;
use super::window::{Opening, Windows};
use crate::api::common::rfc3339_seconds;
use crate::instants::Shift;
use crate::names::Alias;
use crate::panics::readable;

/// For a wish that has no age: how soon it is to be granted, for the order among others.
const WISH_GRANTED_WITHIN: Duration = Duration::days(1);

/// How long after a success nothing begins: what it changed is seen by then, and is not taken for
/// what was there before.
const SETTLES_WITHIN: Duration = Duration::seconds(10);

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Begin, as soon as there is room.
    Begin(Task),
    /// Not before then; a change of the facts may say otherwise.
    At(OffsetDateTime, Waiting),
    /// Nothing, until the facts change.
    Hold(Waiting),
}

/// What is to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What to do.
    pub remedy: Remedy,
    /// The aliases that are due; empty for a wish.
    pub due: Vec<Alias>,
    /// Why, for people.
    pub why: String,
    /// Whether it breaks a window.
    pub urgent: bool,
    /// When it has to be over: the order among others.
    pub deadline: OffsetDateTime,
}

/// Why nothing begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// There is no certificate.
    Nothing,
    /// It is not time.
    NotDue,
    /// A request waits or runs.
    Request(String),
    /// One has just succeeded.
    Settling,
    /// The pause after failures.
    BackOff {
        /// How many in a row.
        failures: u32,
    },
    /// The maintenance window is closed.
    Closed,
    /// The window's text cannot be read; until the rotation is urgent.
    WindowUnreadable,
    /// Somebody has frozen it.
    Frozen,
    /// The freeze's text cannot be read; until it is mended.
    FreezeUnreadable,
    /// The PgBouncer is not Ready; until the rotation is urgent.
    NotReady,
    /// Somebody else holds the PgBouncer.
    Paused,
    /// It has no pods, or is about to go.
    Absent,
    /// Somebody else renews the certificates.
    RenewedByOthers,
    /// It was rotated too short a time ago.
    Braked,
    /// Deciding about it panicked.
    Broken,
}

impl Waiting {
    /// Whether something is due, and this is what keeps it from beginning.
    pub const fn is_holding(&self) -> bool {
        matches!(
            self,
            Self::BackOff { .. }
                | Self::Closed
                | Self::WindowUnreadable
                | Self::Frozen
                | Self::FreezeUnreadable
                | Self::NotReady
                | Self::Braked
                | Self::Broken
        )
    }

    /// One word for programs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::NotDue => "not due",
            Self::Request(_) => "request",
            Self::Settling => "settling",
            Self::BackOff { .. } => "back-off",
            Self::Closed => "window closed",
            Self::WindowUnreadable => "window unreadable",
            Self::Frozen => "frozen",
            Self::FreezeUnreadable => "freeze unreadable",
            Self::NotReady => "not ready",
            Self::Paused => "paused",
            Self::Absent => "absent",
            Self::RenewedByOthers => "renewed by others",
            Self::Braked => "rotated too often",
            Self::Broken => "internal error",
        }
    }
}

/// Openings that are kept: as many different texts as a fleet may have; beyond that they are computed anew.
const OPENINGS_MAX: usize = 4_096;

/// Openings that were computed, by the windows' text: fleets have few windows.
#[derive(Clone, Debug, Default)]
pub struct Openings(HashMap<String, Option<Opening>>);

/// What is necessary, from when on, and from when on it is urgent.
struct Need {
    remedy: Remedy,
    from: OffsetDateTime,
    urgent_at: OffsetDateTime,
    deadline: OffsetDateTime,
    lifetime: Duration,
    /// Whether a certificate is due by age.
    is_due: bool,
}

/// What to do about a PgBouncer of which `facts` are known.
pub fn verdict(facts: &Facts, now: OffsetDateTime, openings: &mut Openings) -> Verdict {
    if let Some(name) = &facts.live {
        return Verdict::Hold(Waiting::Request(name.clone()));
    }
    match facts.standing {
        Standing::Absent => return Verdict::Hold(Waiting::Absent),
        Standing::Paused => return Verdict::Hold(Waiting::Paused),
        Standing::RenewedByOthers if facts.wish.is_none() => {
            return Verdict::Hold(Waiting::RenewedByOthers);
        }
        Standing::RenewedByOthers | Standing::NotReady | Standing::Fit => {}
    }
    let Some(need) = need(facts, now) else {
        return Verdict::Hold(Waiting::Nothing);
    };
    if need.from > now {
        return Verdict::At(need.from, Waiting::NotDue);
    }
    match facts.freeze {
        Freeze::Frozen => return Verdict::Hold(Waiting::Frozen),
        Freeze::Unreadable => return Verdict::Hold(Waiting::FreezeUnreadable),
        Freeze::Until(end) if end > now => return Verdict::At(end, Waiting::Frozen),
        Freeze::Until(_) | Freeze::None => {}
    }
    let settled = facts.history.succeeded_at.map(|at| at.plus(SETTLES_WITHIN));
    if let Some(at) = settled.filter(|at| *at > now) {
        return Verdict::At(at, Waiting::Settling);
    }
    if let Some(at) = backed_off(facts, &need).filter(|at| *at > now) {
        let failures = facts.history.failures;
        return Verdict::At(at, Waiting::BackOff { failures });
    }
    if let Some(at) = braked(facts, &need, now) {
        return Verdict::At(at, Waiting::Braked);
    }
    if need.urgent_at > now
        && let Some((at, waiting)) = held_back(facts, now, openings)
    {
        let at = at.map_or(need.urgent_at, |at| at.min(need.urgent_at));
        return Verdict::At(at, waiting);
    }
    Verdict::Begin(task(facts, &need, now))
}

/// The same; a panic over one PgBouncer's facts holds that PgBouncer, and no other.
pub fn guarded_verdict(facts: &Facts, now: OffsetDateTime, openings: &mut Openings) -> Verdict {
    readable(|| Some(verdict(facts, now, openings))).unwrap_or(Verdict::Hold(Waiting::Broken))
}

/// What keeps off that which is not urgent, and until when (`None`: until it is urgent).
fn held_back(
    facts: &Facts,
    now: OffsetDateTime,
    openings: &mut Openings,
) -> Option<(Option<OffsetDateTime>, Waiting)> {
    if facts.standing == Standing::NotReady {
        return Some((None, Waiting::NotReady));
    }
    match &facts.window {
        Window::Always => None,
        Window::Unreadable => Some((None, Waiting::WindowUnreadable)),
        Window::Within(windows) => match openings.next(windows, now) {
            Some(opening) if opening.from <= now => None,
            Some(opening) => Some((Some(opening.from), Waiting::Closed)),
            None => Some((None, Waiting::Closed)),
        },
    }
}

/// What is necessary: what is wished for, or the renewal that comes first.
fn need(facts: &Facts, now: OffsetDateTime) -> Option<Need> {
    let all = &facts.certificates;
    let first = facts.first_due();
    let ends = all.iter().map(|held| held.not_after).min();
    let lifetime = all.iter().map(Held::lifetime).min();
    let lifetime = lifetime.unwrap_or(WISH_GRANTED_WITHIN);
    // Old age is cured by a rotation only; but a restart that is wished for comes first, because it
    // is what a rotation would find undone.
    let is_old = first.is_some_and(|held| held.renews_at <= now);
    let wish = facts.wish.as_ref();
    if let Some(wish) = wish.filter(|wish| wish.remedy == Remedy::Restart || !is_old) {
        let granted = wish.since.plus(WISH_GRANTED_WITHIN);
        return Some(Need {
            remedy: wish.remedy,
            from: wish.since,
            urgent_at: wish.urgent_at,
            deadline: ends.map_or(granted, |ends| ends.min(granted)),
            lifetime,
            is_due: false,
        });
    }
    if facts.standing == Standing::RenewedByOthers {
        return None;
    }
    Some(Need {
        remedy: Remedy::Rotate,
        from: first?.renews_at,
        urgent_at: all.iter().map(Held::urgent_at).min()?,
        deadline: ends?,
        lifetime,
        is_due: true,
    })
}

fn task(facts: &Facts, need: &Need, now: OffsetDateTime) -> Task {
    let due = facts.certificates.iter();
    let due: Vec<Alias> = due
        .filter(|held| held.renews_at <= now && need.remedy == Remedy::Rotate)
        .map(|held| held.alias)
        .collect();
    let why = facts.wish.as_ref().filter(|_| due.is_empty());
    let old = || {
        let names: Vec<&str> = due.iter().map(|alias| alias.as_str()).collect();
        let since = rfc3339_seconds(need.from);
        format!("{} due for renewal since {since}", names.join(", "))
    };
    let why = why.map_or_else(old, |wish| wish.why.clone());
    Task {
        remedy: need.remedy,
        due,
        why,
        urgent: need.urgent_at <= now,
        deadline: need.deadline,
    }
}

/// When the brake is released, if it holds.
fn braked(facts: &Facts, need: &Need, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let issued = facts.certificates.iter().map(|held| held.granted);
    let succeeded = facts.history.succeeded;
    let last = issued.chain(succeeded.last).filter(|at| *at <= now).max();
    let recent = Recent { last, ..succeeded };
    recent.released_at(need.lifetime, need.is_due, now)
}

/// When the pause after failures is over.
fn backed_off(facts: &Facts, need: &Need) -> Option<OffsetDateTime> {
    let failures = facts.history.failures;
    let failed_at = facts.history.failed_at.filter(|_| failures > 0)?;
    Some(failed_at.plus(pause(failures, need.lifetime, facts.seed)))
}

// === impl Openings ===

impl Openings {
    /// The opening that holds `now`, else the next one.
    pub fn next(&mut self, windows: &Windows, now: OffsetDateTime) -> Option<Opening> {
        let known = self.0.get(windows.as_str());
        if let Some(known) = known
            && known.is_none_or(|opening| now < opening.until)
        {
            return *known;
        }
        let found = windows.next(now);
        if self.0.len() >= OPENINGS_MAX {
            self.0.clear();
        }
        self.0.insert(windows.as_str().to_owned(), found);
        found
    }
}
