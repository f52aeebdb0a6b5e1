//! How a request is to be carried out: bounds, retries, strategy.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::api::annotations::{DRAIN_TIMEOUT, STRATEGY};
use crate::api::opsrequest::PgBouncerOpsRequestSpec;
use crate::duration::GoDuration;

/// Bound of a step where the request sets no `timeout`. The slowest step is one pod: drain, start,
/// image pull; an image pull of more than five minutes is a fault that a person has to see.
pub const STEP_TIMEOUT_DEFAULT: GoDuration = GoDuration::from_seconds(300);
/// How long a drain waits before open transactions are cut. Clients that come and go have left
/// within one transaction; clients that stay hold nothing between transactions, and closing them
/// then costs a reconnect. What is waited for is therefore the longest ordinary transaction, and
/// meanwhile the other clients of the pod wait too, so the bound stays well below the 120 s of
/// `query_wait_timeout`, after which PgBouncer turns them away.
pub const DRAIN_TIMEOUT_DEFAULT: GoDuration = GoDuration::from_seconds(10);
/// Most retries of a step; the pause between them doubles, so more would only wait.
pub const MAX_RETRIES_MAX: u32 = 10;

/// Longest bound that has a meaning: a request that takes longer than a day is forgotten.
const STEP_TIMEOUT_MAX: GoDuration = GoDuration::from_hours(24);
const STEP_TIMEOUT_MIN: GoDuration = GoDuration::from_seconds(1);
/// Below `query_wait_timeout` (120 s), see [`DRAIN_TIMEOUT_DEFAULT`].
const DRAIN_TIMEOUT_MAX: GoDuration = GoDuration::from_seconds(110);

const _: () = assert!(DRAIN_TIMEOUT_DEFAULT.nanoseconds() < STEP_TIMEOUT_DEFAULT.nanoseconds());
const _: () = assert!(DRAIN_TIMEOUT_MAX.nanoseconds() < STEP_TIMEOUT_DEFAULT.nanoseconds());

/// How changes reach the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Pod by pod: drain, restart, prove.
    #[default]
    RollingRestart,
}

/// How a request is to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Bound of each step.
    pub step_timeout: GoDuration,
    /// How often a failed step is tried again.
    pub max_retries: u32,
    /// How long a drain waits before open transactions are cut.
    pub drain_timeout: GoDuration,
    /// How changes reach the pods.
    pub strategy: Strategy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            step_timeout: STEP_TIMEOUT_DEFAULT,
            max_retries: 1,
            drain_timeout: DRAIN_TIMEOUT_DEFAULT,
            strategy: Strategy::default(),
        }
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
        let drain_timeout = match annotation(DRAIN_TIMEOUT) {
            Some(text) => {
                let field = "annotation bouncert.dev/drain-timeout";
                bounded(field, text, GoDuration::ZERO, DRAIN_TIMEOUT_MAX)?
            }
            None => DRAIN_TIMEOUT_DEFAULT,
        };
        let max_retries = u32::try_from(request.max_retries)
            .map_err(|_| Refusal::Retries(request.max_retries))?
            .min(MAX_RETRIES_MAX);
        let strategy = match annotation(STRATEGY).map(String::as_str) {
            // `Auto` restarts where a reload is not offered.
            None | Some("RollingRestart" | "Auto") => Strategy::RollingRestart,
            Some(other) => return Err(Refusal::Strategy(other.to_owned())),
        };
        Ok(Self {
            step_timeout,
            max_retries,
            drain_timeout,
            strategy,
        })
    }

    /// [`Self::step_timeout`] as the runtime wants it.
    pub fn step_timeout(&self) -> Duration {
        self.step_timeout.to_std().unwrap_or_default()
    }

    /// [`Self::drain_timeout`] as the runtime wants it; never beyond half a step, because the pod
    /// still has to come back within the step.
    pub fn drain_timeout(&self) -> Duration {
        let drain = self.drain_timeout.to_std().unwrap_or_default();
        drain.min(self.step_timeout() / 2)
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
