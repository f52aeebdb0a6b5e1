//! How often controllers look, how long that takes, and how often it fails.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

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
