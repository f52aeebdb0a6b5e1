//! How a request is to be carried out: bounds, retries, strategy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::api::annotations::{DRAIN_TIMEOUT, MAX_UNAVAILABLE, STRATEGY};
use crate::api::opsrequest::PgBouncerOpsRequestSpec;
use crate::blueprint::{GRACE_SECONDS, disruptions};
use crate::duration::GoDuration;

/// Bound of a step where the request sets no `timeout`. The slowest step is one pod: drain, start,
/// image pull; an image pull of more than five minutes is a fault that a person has to see.
pub const STEP_TIMEOUT_DEFAULT: GoDuration = GoDuration::from_seconds(300);
/// How long a drain waits for clients to leave by themselves, where transactions or statements are
/// pooled. Clients that connect for each transaction have left by then; those that keep their
/// connection will not leave in any time worth waiting for, and lose nothing by being closed between
/// transactions. Open transactions have [`QUIESCE`] more.
pub const LEAVE_DEFAULT: GoDuration = GoDuration::from_seconds(1);
/// The same where sessions are pooled: the end of a transaction cannot be seen there, so that time is
/// all that open transactions have.
pub const LEAVE_SESSION_DEFAULT: GoDuration = GoDuration::from_seconds(10);
/// How long open transactions may take to finish once no new one is let start. The other clients of
/// the pod wait meanwhile, and PgBouncer turns them away after 120 s (`query_wait_timeout`).
pub const QUIESCE: GoDuration = GoDuration::from_seconds(30);
/// Most retries of a step; the pause between them doubles, so more would only wait.
pub const MAX_RETRIES_MAX: u32 = 10;

/// Longest bound that has a meaning: a request that takes longer than a day is forgotten.
const STEP_TIMEOUT_MAX: GoDuration = GoDuration::from_hours(24);
const STEP_TIMEOUT_MIN: GoDuration = GoDuration::from_seconds(1);

const _: () = assert!(
    LEAVE_SESSION_DEFAULT.nanoseconds() + QUIESCE.nanoseconds()
        < STEP_TIMEOUT_DEFAULT.nanoseconds() / 2
);

/// A pod that cannot be drained, because its console lets nobody in, gets no less from the kubelet.
const _: () = assert!(QUIESCE.nanoseconds() <= GRACE_SECONDS * 1_000_000_000);

/// How changes reach the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Pod by pod: drain, restart, prove.
    #[default]
    RollingRestart,
    /// Pod by pod: have the files read again, prove. Refused where that does not suffice.
    Reload,
    /// Reload where that suffices, restart elsewhere.
    Auto,
}

impl Strategy {
    /// The word that annotations use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RollingRestart => "RollingRestart",
            Self::Reload => "Reload",
            Self::Auto => "Auto",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        let mut all = [Self::RollingRestart, Self::Reload, Self::Auto].into_iter();
        all.find(|strategy| strategy.as_str() == word)
    }
}

/// How many pods may be out of service at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MaxUnavailable {
    /// So many.
    Pods(u32),
    /// That part of the replicas, rounded up as a StatefulSet's `maxUnavailable` is.
    Percent(u32),
}

/// How a request is to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Bound of each step.
    pub step_timeout: GoDuration,
    /// How often a failed step is tried again.
    pub max_retries: u32,
    /// How long a drain waits for clients to leave; `None` leaves it to the pool mode.
    pub drain_timeout: Option<GoDuration>,
    /// How changes reach the pods.
    pub strategy: Strategy,
    /// How many pods may be out of service at the same time.
    #[serde(default)]
    pub max_unavailable: MaxUnavailable,
}

/// What a pooler pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pools {
    /// Whole sessions.
    Sessions,
    /// Transactions, or single statements.
    Transactions,
}

/// How long the parts of a drain may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// For clients to leave by themselves.
    pub leave: GoDuration,
    /// For open transactions to finish after that.
    pub quiesce: GoDuration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            step_timeout: STEP_TIMEOUT_DEFAULT,
            max_retries: 1,
            drain_timeout: None,
            strategy: Strategy::default(),
            max_unavailable: MaxUnavailable::default(),
        }
    }
}

impl Default for MaxUnavailable {
    fn default() -> Self {
        Self::Pods(1)
    }
}

impl MaxUnavailable {
    /// Reads a number or a percentage; zero would let nobody go, ever.
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
        match text.strip_suffix('%') {
            Some(percent) => number(percent)
                .filter(|percent| *percent <= 100)
                .map(Self::Percent),
            None => number(text).map(Self::Pods),
        }
    }

    /// How many of so many pods are replaced at the same time: at least one, never all of several, and
    /// no more than their disruption budget lets go, which would only refuse the others.
    pub fn of(self, replicas: u32) -> u32 {
        let asked = match self {
            Self::Pods(number) => number,
            Self::Percent(percent) => {
                let whole = u64::from(replicas) * u64::from(percent);
                u32::try_from(whole.div_ceil(100)).unwrap_or(u32::MAX)
            }
        };
        let budget = disruptions(i32::try_from(replicas).unwrap_or(i32::MAX));
        asked
            .min(u32::try_from(budget).unwrap_or(1))
            .min(replicas.saturating_sub(1))
            .max(1)
    }
}

impl Settings {
    /// Reads the settings of a request. Its own annotations are stronger than the PgBouncer's.
    pub fn parse(
        request: &PgBouncerOpsRequestSpec,
        own: &BTreeMap<String, String>,
        pgbouncers: &BTreeMap<String, String>,
    ) -> Result<Self, Refusal> {
        let annotation = |key: &str| own.get(key).or_else(|| pgbouncers.get(key));
        let step_timeout = match request.timeout.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => bounded("spec.timeout", text, STEP_TIMEOUT_MIN, STEP_TIMEOUT_MAX)?,
            None => STEP_TIMEOUT_DEFAULT,
        };
        let longest = GoDuration::from_seconds(step_timeout.nanoseconds() / 2_000_000_000);
        let drain_timeout = annotation(DRAIN_TIMEOUT)
            .map(|text| {
                let field = "annotation bouncert.dev/drain-timeout";
                // A drain is part of a step, which has to restart and prove the pod as well.
                bounded(field, text, GoDuration::ZERO, longest)
            })
            .transpose()?;
        let max_retries = u32::try_from(request.max_retries)
            .map_err(|_| Refusal::Retries(request.max_retries))?
            .min(MAX_RETRIES_MAX);
        let strategy = match annotation(STRATEGY).map(String::as_str) {
            None => Strategy::default(),
            Some(word) => {
                Strategy::parse(word).ok_or_else(|| Refusal::Strategy(word.to_owned()))?
            }
        };
        let max_unavailable = match annotation(MAX_UNAVAILABLE) {
            None => MaxUnavailable::default(),
            Some(text) => MaxUnavailable::parse(text.trim())
                .ok_or_else(|| Refusal::MaxUnavailable(text.clone()))?,
        };
        Ok(Self {
            step_timeout,
            max_retries,
            drain_timeout,
            strategy,
            max_unavailable,
        })
    }

    /// How long the parts of a drain may take.
    pub fn drain(&self, pools: Pools) -> Drain {
        let default = match pools {
            Pools::Sessions => LEAVE_SESSION_DEFAULT,
            Pools::Transactions => LEAVE_DEFAULT,
        };
        let quarter = GoDuration::from_seconds(self.step_timeout.nanoseconds() / 4_000_000_000);
        Drain {
            leave: self.drain_timeout.unwrap_or_else(|| default.min(quarter)),
            quiesce: QUIESCE.min(quarter),
        }
    }
}

fn bounded(
    field: &'static str,
    text: &str,
    least: GoDuration,
    most: GoDuration,
) -> Result<GoDuration, Refusal> {
    let duration: GoDuration = text
        .parse()
        .map_err(|problem| Refusal::Duration { field, problem })?;
    if duration < least || duration > most {
        return Err(Refusal::DurationRange {
            field,
            written: text.to_owned(),
            least: least.to_string(),
            most: most.to_string(),
        });
    }
    Ok(duration)
}
