//! What requests and their steps came to, counted. A counter per outcome; times in seconds.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::journal::{Entry, Event, FailureKind, Journal, Note};
use super::plan::Plan;
use super::steps::{of, one_of_each};
use crate::api::RequestType;
use crate::instants::Since;

/// Bounds of the buckets, in seconds: from a write to the API server to a drain at its longest.
const SECONDS: [f64; 12] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0,
];

/// The counters of the ops manager. A clone counts the same.
#[derive(Clone, Debug)]
pub struct OpsMetrics {
    requests: Family<RequestLabels, Counter>,
    steps: Family<StepLabels, Counter>,
    undos: Family<StepLabels, Counter>,
    step_seconds: Family<StepName, Histogram, fn() -> Histogram>,
    drain_seconds: Histogram,
    closed: Family<ClosedLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    r#type: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepName {
    step: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClosedLabels {
    kind: &'static str,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// It has begun.
    Begun,
    /// Done and proved.
    Successful,
    /// It failed, and all is as it was before.
    Failed,
    /// It failed, and something could not be undone.
    Stuck,
    /// It had no meaning, and changed nothing.
    Refused,
    /// A later one took its place.
    Skipped,
}

/// What becomes of requests, as labels say it.
const OUTCOMES: [&str; 6] = [
    "begun",
    "successful",
    "failed",
    "stuck",
    "refused",
    "skipped",
];

impl Default for OpsMetrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let metrics = Self {
            requests: Family::default(),
            steps: Family::default(),
            undos: Family::default(),
            step_seconds: Family::new_with_constructor(histogram),
            drain_seconds: histogram(),
            closed: Family::default(),
        };
        metrics.begin();
        metrics
    }
}

impl OpsMetrics {
    /// Shows every counter from the start: the first increase of one that was not there before is
    /// none for Prometheus.
    fn begin(&self) {
        for type_ in [RequestType::ReconfigureTLS, RequestType::Restart] {
            for outcome in OUTCOMES {
                drop(self.requests.get_or_create(&RequestLabels {
                    r#type: type_.as_str().to_owned(),
                    outcome,
                }));
            }
        }
        for step in one_of_each() {
            let step = of(&step).label();
            for outcome in [
                "succeeded",
                "transient",
                "permanent",
                "timed_out",
                "aborted",
            ] {
                drop(self.steps.get_or_create(&StepLabels { step, outcome }));
            }
            for outcome in ["undone", "failed"] {
                drop(self.undos.get_or_create(&StepLabels { step, outcome }));
            }
            drop(self.step_seconds.get_or_create(&StepName { step }));
        }
        self.note(&Note::default());
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "bouncert_request_outcomes",
            "What became of requests: begun, successful, failed, stuck, refused or skipped",
            self.requests.clone(),
        );
        registry.register(
            "bouncert_step_outcomes",
            "How steps of requests ended: succeeded, transient, permanent, timed_out or aborted",
            self.steps.clone(),
        );
        registry.register(
            "bouncert_undo_outcomes",
            "How undoing a step ended: undone or failed",
            self.undos.clone(),
        );
        registry.register(
            "bouncert_step_duration_seconds",
            "How long a step took, whatever came of it",
            self.step_seconds.clone(),
        );
        registry.register(
            "bouncert_drain_duration_seconds",
            "How long it took until a pod had no client left",
            self.drain_seconds.clone(),
        );
        registry.register(
            "bouncert_connections_closed",
            "Client connections that were closed to change a certificate: between_transactions or \
             in_transaction",
            self.closed.clone(),
        );
    }

    /// Counts what became of a request.
    pub fn request(&self, type_: &str, outcome: RequestOutcome) {
        let outcome = match outcome {
            RequestOutcome::Begun => "begun",
            RequestOutcome::Successful => "successful",
            RequestOutcome::Failed => "failed",
            RequestOutcome::Stuck => "stuck",
            RequestOutcome::Refused => "refused",
            RequestOutcome::Skipped => "skipped",
        };
        let labels = RequestLabels {
            r#type: type_.to_owned(),
            outcome,
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts a line of the journal; it is the last one.
    pub fn line(&self, plan: &Plan, journal: &Journal, entry: &Entry) {
        let Some(step) = plan.steps.get(entry.step).map(|step| of(step).label()) else {
            return;
        };
        let (family, outcome) = match &entry.event {
            Event::Started | Event::UndoStarted => return,
            Event::Succeeded(note) => {
                self.note(note);
                (&self.steps, "succeeded")
            }
            Event::Failed(failure) => (&self.steps, failed(failure.kind)),
            Event::Undone => (&self.undos, "undone"),
            Event::UndoFailed(_) => (&self.undos, "failed"),
        };
        family.get_or_create(&StepLabels { step, outcome }).inc();
        if matches!(entry.event, Event::Succeeded(_) | Event::Failed(_)) {
            let mut lines = journal.entries().iter().rev();
            let began = lines.find(|line| line.step == entry.step && line.event == Event::Started);
            if let Some(began) = began {
                let seconds = entry.at.since(began.at).as_seconds_f64().max(0.0);
                let histogram = self.step_seconds.get_or_create(&StepName { step });
                histogram.observe(seconds);
            }
        }
    }

    fn note(&self, note: &Note) {
        let total = note.total();
        for (kind, count) in [
            ("between_transactions", total.between_transactions),
            ("in_transaction", total.in_transactions),
            ("asked_to_leave", total.asked_to_leave),
        ] {
            let labels = ClosedLabels { kind };
            self.closed.get_or_create(&labels).inc_by(u64::from(count));
        }
        for drained in note.closed.values().filter(|closed| closed.drained_ms > 0) {
            self.drain_seconds
                .observe(f64::from(drained.drained_ms) / 1_000.0);
        }
    }
}

const fn failed(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Transient => "transient",
        FailureKind::Permanent => "permanent",
        FailureKind::TimedOut => "timed_out",
        FailureKind::Aborted => "aborted",
    }
}
