//! Who leads: the arithmetic of a lease, without clock and without cluster.
//!
//! Candidates share one record. The leader renews it; who finds it unchanged for as long as it says
//! may take it over. Nobody compares clocks: a candidate measures, on its own clock that cannot be
//! set, how long *it* has seen the record unchanged, and the leader measures how long ago it *asked*
//! for its last renewal. Wall-clock times in the record are for people.
//!
//! ```text
//!  asked         answered            gives up        fence closes       others may take over
//!    ├──────────────┼────────────────────┼────────────────┼───────────────────┤
//!    0                                 renew       half-way between         lease
//! ```
//!
//! Everybody's `lease` starts no earlier than the leader's own, because a record is seen after it
//! was asked for. So there is never a second leader while the fence of the first is open, as long as
//! no clock runs faster than another by `lease / fence` (a fifth, by default) or more. The part
//! between giving up and the fence is for leaving things in order.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::instants::{Scale, Shift};

/// How long things take. client-go's names and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    lease: Duration,
    renew: Duration,
    retry: Duration,
}

/// Durations that do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// The API holds whole seconds.
    #[error("the lease duration has to be a whole number of seconds, and at least 1s")]
    Lease,
    /// The leader has to give up before others take over.
    #[error("the renew deadline has to be shorter than the lease duration")]
    Renew,
    /// One renewal may fail.
    #[error("the retry period has to be shorter than half the renew deadline, and not zero")]
    Retry,
}

/// What the shared record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who leads; `None` once it was released.
    pub holder: Option<String>,
    /// For how long others leave it alone; `None` where it does not say.
    pub lease: Option<Duration>,
    /// Changes with every renewal; not interpreted.
    pub renewed: String,
    /// Changes with every holder; not interpreted.
    pub transitions: i32,
}

/// What a look at the record comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// We lead: renew it.
    Hold,
    /// Nobody leads: take it, if nobody else has meanwhile.
    Acquire,
    /// Somebody else leads, or may still believe it, at least until then.
    Wait {
        /// On our clock.
        until: Duration,
    },
}

/// One candidate's view. All instants are those of its own clock.
#[derive(Clone, Debug)]
pub struct Election {
    me: String,
    timing: Timing,
    /// The record, and when it was first seen like this.
    seen: Option<(Record, Duration)>,
    /// Whether the record was there at the last look.
    missing: bool,
    /// When the last renewal that succeeded was asked for.
    asked: Option<Duration>,
}

// === impl Timing ===

impl Timing {
    /// Checks that they fit together.
    pub fn new(lease: Duration, renew: Duration, retry: Duration) -> Result<Self, TimingError> {
        if lease.is_zero() || lease.subsec_nanos() != 0 || lease.as_secs() > i32::MAX as u64 {
            return Err(TimingError::Lease);
        }
        if renew >= lease {
            return Err(TimingError::Renew);
        }
        if retry.is_zero() || retry.times(2) >= renew {
            return Err(TimingError::Retry);
        }
        Ok(Self {
            lease,
            renew,
            retry,
        })
    }

    /// How long others leave a lease alone that is not renewed.
    pub const fn lease(&self) -> Duration {
        self.lease
    }

    /// How long the leader tries to renew before it gives up.
    pub const fn renew(&self) -> Duration {
        self.renew
    }

    /// How often the record is looked at or renewed.
    pub const fn retry(&self) -> Duration {
        self.retry
    }

    /// How long after a renewal the leader may act.
    pub fn fence(&self) -> Duration {
        self.renew
            .plus(self.lease.saturating_sub(self.renew).part(2))
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

// === impl Election ===

impl Election {
    /// A candidate of that name, which no other may have.
    pub const fn new(me: String, timing: Timing) -> Self {
        Self {
            me,
            timing,
            seen: None,
            missing: false,
            asked: None,
        }
    }

    /// Judges what is in the record (`None`: there is none); `now` is an instant after it was read.
    pub fn observe(&mut self, record: Option<&Record>, now: Duration) -> Verdict {
        let Some(record) = record else {
            return self.observe_nothing(now);
        };
        self.missing = false;
        if self.seen.as_ref().map(|(seen, _)| seen) != Some(record) {
            self.seen = Some((record.clone(), now));
        }
        let Some(holder) = record.holder.as_ref() else {
            self.asked = None;
            return Verdict::Acquire;
        };
        if *holder == self.me && self.gives_up_at().is_some_and(|at| now < at) {
            return Verdict::Hold;
        }
        // A lease of ours that we have lost is like anybody's: what was in flight may still arrive.
        self.asked = None;
        self.verdict_by_time(now)
    }

    /// Notes that we have written `record`, which was asked for at `asked` and answered by `now`.
    pub fn won(&mut self, record: Record, asked: Duration, now: Duration) {
        self.missing = false;
        self.seen = Some((record, now));
        self.asked = Some(asked);
    }

    /// Until when the leader tries to renew; `None` for who does not lead.
    pub fn gives_up_at(&self) -> Option<Duration> {
        self.asked.map(|asked| asked.plus(self.timing.renew))
    }

    /// Until when the leader may act; `None` for who does not lead.
    pub fn fence_at(&self) -> Option<Duration> {
        self.asked.map(|asked| asked.plus(self.timing.fence()))
    }

    /// Who holds the lease, as far as we know.
    pub fn holder(&self) -> Option<&str> {
        let (record, _) = self.seen.as_ref()?;
        record.holder.as_deref()
    }

    /// A record that somebody has deleted tells its holder nothing, so it is waited for all the same.
    fn observe_nothing(&mut self, now: Duration) -> Verdict {
        self.asked = None;
        let just_now = !std::mem::replace(&mut self.missing, true);
        match &mut self.seen {
            None => return Verdict::Acquire,
            Some((record, _)) if record.holder.is_none() => return Verdict::Acquire,
            // It may have been renewed until the moment that it was deleted.
            Some((_, since)) if just_now => *since = now,
            Some(_) => {}
        }
        self.verdict_by_time(now)
    }

    fn verdict_by_time(&self, now: Duration) -> Verdict {
        let Some((record, since)) = &self.seen else {
            return Verdict::Acquire;
        };
        let until = since.plus(record.lease.unwrap_or(self.timing.lease));
        if now >= until {
            Verdict::Acquire
        } else {
            Verdict::Wait { until }
        }
    }
}
