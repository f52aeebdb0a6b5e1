//! What asking issuers for certificates came to, counted.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::IssueOutcome;
use crate::api::IssuerRef;
use crate::instants::Since;
use crate::printable::label;

/// Series that are shown at the most. Names come from specifications, and each is kept for as long as
/// it is shown.
const SERIES_MAX: usize = 1_000;
/// A series that was not counted for so long is forgotten: its issuer or namespace has gone.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(7 * 86_400);

/// The counters of issuance. A clone counts the same.
#[derive(Clone, Default)]
pub struct IssuanceMetrics {
    asked: Family<Labels, Counter>,
    /// When each series was counted last.
    counted: Arc<Mutex<HashMap<Labels, Instant>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    namespace: String,
    issuer_kind: String,
    issuer_name: String,
    outcome: &'static str,
}

impl IssuanceMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "bouncert_issuances",
            "Times that a certificate was asked for, by issuer and answer: issued, pending (asked \
             again later), denied or failed; namespace is the PgBouncer's",
            self.asked.clone(),
        );
    }

    /// Counts an answer. Who finds a certificate that was issued before a crash counts it again.
    pub fn count(&self, namespace: String, issuer: &IssuerRef, outcome: &IssueOutcome) {
        self.count_at(namespace, issuer, outcome, Instant::now());
    }

    fn count_at(
        &self,
        namespace: String,
        issuer: &IssuerRef,
        outcome: &IssueOutcome,
        now: Instant,
    ) {
        let outcome = match outcome {
            IssueOutcome::Issued(_) => "issued",
            IssueOutcome::Pending { .. } => "pending",
            IssueOutcome::Denied { .. } => "denied",
            IssueOutcome::Failed(_) => "failed",
        };
        let labels = Labels {
            namespace,
            issuer_kind: label(&issuer.kind),
            issuer_name: label(&issuer.name),
            outcome,
        };
        self.forget(&labels, now);
        self.asked.get_or_create(&labels).inc();
    }

    /// Notes that a series is counted now, and forgets those that are too old or too many.
    fn forget(&self, labels: &Labels, now: Instant) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.insert(labels.clone(), now);
        let mut gone: Vec<Labels> = Vec::new();
        let is_old = |at: &Instant| now.since(*at) > FORGOTTEN_AFTER;
        gone.extend(
            counted
                .iter()
                .filter(|(_, at)| is_old(at))
                .map(|(labels, _)| labels.clone()),
        );
        if counted.len().saturating_sub(gone.len()) > SERIES_MAX {
            let others = counted.iter().filter(|(other, _)| *other != labels);
            gone.extend(
                others
                    .min_by_key(|(_, at)| **at)
                    .map(|(labels, _)| labels.clone()),
            );
        }
        for labels in gone {
            counted.remove(&labels);
            self.asked.remove(&labels);
        }
    }
}

impl fmt::Debug for IssuanceMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IssuanceMetrics")
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::instants::Shift;

    fn count(metrics: &IssuanceMetrics, issuer: &str, now: Instant) {
        let issuer = IssuerRef {
            api_group: None,
            kind: "Issuer".to_owned(),
            name: issuer.to_owned(),
        };
        let denied = IssueOutcome::Denied {
            reason: String::new(),
        };
        metrics.count_at("shop".to_owned(), &issuer, &denied, now);
    }

    fn shown(metrics: &IssuanceMetrics) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        metrics.register(&mut registry);
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn series_are_bounded_in_number_and_length_and_are_forgotten() {
        let (metrics, mut now) = (IssuanceMetrics::default(), Instant::now());
        for n in 0..60 {
            count(&metrics, &format!("{n}{}", "x".repeat(200_000)), now);
        }
        assert!(shown(&metrics).len() < 40_000);
        for n in 0..SERIES_MAX * 2 {
            now = now.plus(Duration::from_millis(1));
            count(&metrics, &format!("issuer-{n}"), now);
        }
        let text = shown(&metrics);
        assert!(
            text.lines().count() <= SERIES_MAX + 3,
            "{}",
            text.lines().count()
        );
        assert!(text.contains("issuer-1999") && !text.contains("\"issuer-0\""));
        now = now.plus(FORGOTTEN_AFTER).plus(Duration::from_secs(1));
        count(&metrics, "notary", now);
        let text = shown(&metrics);
        assert_eq!(text.matches("issuer_name=").count(), 1, "{text}");
    }
}
