//! What asking issuers for certificates came to, counted.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::IssueOutcome;
use crate::api::IssuerRef;
use crate::printable::label;

/// The counters of issuance. A clone counts the same.
#[derive(Clone, Debug, Default)]
pub struct IssuanceMetrics {
    asked: Family<Labels, Counter>,
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
        self.asked.get_or_create(&labels).inc();
    }
}
