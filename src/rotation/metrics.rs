//! Rotation's metrics, written from how things stand when they are asked for: what has gone, and a
//! rotator that has ended, show no more.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use super::{Counts, Snapshot};
use crate::telemetry::families::{counters, gauges};

/// Tells how things stand; `None` when nobody rotates any more.
type Source = Box<dyn Fn() -> Option<Snapshot> + Send + Sync>;

/// What rotation shows. A clone shows the same.
#[derive(Clone, Default)]
pub struct RotationMetrics {
    source: Arc<RwLock<Option<Source>>>,
}

type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

// === impl RotationMetrics ===

impl RotationMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    /// Shows from now on what `source` tells.
    pub fn follow(&self, source: impl Fn() -> Option<Snapshot> + Send + Sync + 'static) {
        let mut kept = self.source.write().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(Box::new(source));
    }
}

impl fmt::Debug for RotationMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotationMetrics").finish_non_exhaustive()
    }
}

impl Collector for RotationMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let snapshot = {
            let source = self.source.read().unwrap_or_else(PoisonError::into_inner);
            source.as_ref().and_then(|source| source())
        };
        let Some(snapshot) = snapshot else {
            return Ok(());
        };
        standing(&mut encoder, &snapshot)?;
        counted(&mut encoder, &snapshot.counts)
    }
}

/// How things stand now.
fn standing(encoder: &mut DescriptorEncoder<'_>, snapshot: &Snapshot) -> Result<(), fmt::Error> {
    let states = [("busy", snapshot.busy), ("waiting", snapshot.waiting)];
    gauges(
        encoder,
        "bouncert_rotation_pgbouncers",
        "PgBouncers with a request that waits or runs (busy), and such as may begin and wait for room within the limits (waiting)",
        states.map(|(state, count)| ([("state", state)], gauge(count))),
    )?;
    let drifting = snapshot.drifting.iter();
    gauges(
        encoder,
        "bouncert_drifting_pgbouncers",
        "PgBouncers of which something is not as it was left, by reason of the condition CertificateDrift; absent where there is none",
        drifting.map(|(reason, count)| ([("reason", *reason)], gauge(*count))),
    )?;
    let held = snapshot.held.iter();
    gauges(
        encoder,
        "bouncert_pgbouncer_rotation_held",
        "A rotation that is due and is not begun, and why: always 1; absent where none is held",
        held.map(|(at, reason)| {
            let labels: Labels<'_, 3> = [
                ("namespace", &at.namespace),
                ("pgbouncer", &at.name),
                ("reason", reason),
            ];
            (labels, 1_i64)
        }),
    )
}

/// What has happened since the rotator began.
fn counted(encoder: &mut DescriptorEncoder<'_>, counts: &Counts) -> Result<(), fmt::Error> {
    let outcomes = [
        ("created", counts.created),
        ("not_created", counts.not_created),
    ];
    counters(
        encoder,
        "bouncert_rotation_requests",
        "Requests that rotation has made: created, or not_created (tried again)",
        outcomes.map(|(outcome, count)| ([("outcome", outcome)], count)),
    )?;
    counters(
        encoder,
        "bouncert_secrets_put_back",
        "Secrets that were published again over something that could not be used",
        [([] as Labels<'_, 0>, counts.put_back)],
    )?;
    let drifts = counts.drift.iter();
    counters(
        encoder,
        "bouncert_drifts",
        "Times that something was found not to be as it was left, by reason",
        drifts.map(|(reason, count)| ([("reason", *reason)], *count)),
    )
}

/// A count as Prometheus shows it.
fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
