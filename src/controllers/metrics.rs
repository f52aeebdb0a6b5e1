//! How often controllers look, how long that takes, and how often it fails.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use time::OffsetDateTime;

use crate::instants::Since;

/// Bounds of the buckets, in seconds. A look at a request lasts as long as the request.
const SECONDS: [f64; 10] = [0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0];

/// The counters of all controllers. A clone counts the same.
#[derive(Clone, Debug)]
pub struct ReconcileMetrics {
    looks: Family<Labels, Counter>,
    seconds: Family<Controller, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    controller: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controller {
    controller: &'static str,
}

/// How a scheduler keeps up: whoever runs one registers these. A clone counts the same.
#[derive(Clone, Debug)]
pub struct SchedulerMetrics {
    lag: Gauge<f64, AtomicU64>,
    pass: Histogram,
}

impl Default for SchedulerMetrics {
    fn default() -> Self {
        Self {
            lag: Gauge::default(),
            pass: Histogram::new(SECONDS),
        }
    }
}

impl SchedulerMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "bouncert_scheduler_lag_seconds",
            "How much later than it was due the last pass of the scheduler began",
            self.lag.clone(),
        );
        registry.register(
            "bouncert_scheduler_pass_duration_seconds",
            "How long a pass of the scheduler took",
            self.pass.clone(),
        );
    }

    /// A pass that was due at `due` began at `began` and took so long.
    pub fn passed(&self, due: OffsetDateTime, began: OffsetDateTime, took: Duration) {
        let lag = began.since(due).as_seconds_f64().max(0.0);
        self.lag.set(lag);
        self.pass.observe(took.as_secs_f64());
    }
}

impl Default for ReconcileMetrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        Self {
            looks: Family::default(),
            seconds: Family::new_with_constructor(histogram),
        }
    }
}

impl ReconcileMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "bouncert_reconciles",
            "Looks at objects, by controller and outcome: ok or error (tried again later)",
            self.looks.clone(),
        );
        registry.register(
            "bouncert_reconcile_duration_seconds",
            "How long looks took; one at a request lasts as long as the request",
            self.seconds.clone(),
        );
    }

    /// Counts a look.
    pub fn count<T, E>(&self, controller: &'static str, look: &Result<T, E>, took: Duration) {
        let outcome = if look.is_ok() { "ok" } else { "error" };
        let labels = Labels {
            controller,
            outcome,
        };
        self.looks.get_or_create(&labels).inc();
        let seconds = self.seconds.get_or_create(&Controller { controller });
        seconds.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_pass_that_begins_late_shows_by_how_much_and_one_that_is_early_shows_none() {
        let metrics = SchedulerMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let shown = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            text
        };
        let due = datetime!(2031-04-05 06:07:08 UTC);
        let late = due + time::Duration::milliseconds(2_500);
        metrics.passed(due, late, Duration::from_millis(40));
        assert!(
            shown().contains("bouncert_scheduler_lag_seconds 2.5\n"),
            "{}",
            shown()
        );
        metrics.passed(late, due, Duration::from_millis(40));
        assert!(
            shown().contains("bouncert_scheduler_lag_seconds 0.0\n"),
            "{}",
            shown()
        );
        assert!(shown().contains("bouncert_scheduler_pass_duration_seconds_count 2\n"));
    }
}
