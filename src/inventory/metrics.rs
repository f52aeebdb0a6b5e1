//! The inventory's metrics. Those of the fleet are written from what is known when they are asked
//! for: what has gone shows no more, and nothing is kept twice.

use std::borrow::Cow;
use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use time::OffsetDateTime;

use super::state::{Certificate, PodView, Seen, State};
use super::{CertManagerMetrics, Inventory, certmanager};
use crate::printable::label;
use crate::telemetry::families::{gauges, seconds};

/// How looks at pods went.
#[derive(Clone, Debug, Default)]
pub(super) struct LookMetrics {
    looks: Family<Outcome, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

impl LookMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "bouncert_probes",
            "Handshakes with pods, by what was seen: tls, plaintext or nothing",
            self.looks.clone(),
        );
    }

    pub(super) fn count(&self, seen: &Seen) {
        let outcome = match seen {
            Seen::Leaf(_) => "tls",
            Seen::Plaintext => "plaintext",
            Seen::Nothing(_) => "nothing",
        };
        self.looks.get_or_create(&Outcome { outcome }).inc();
    }
}

/// The metrics of the fleet.
#[derive(Debug)]
pub(super) struct FleetCollector(pub(super) Inventory);

impl Collector for FleetCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let state = self.0.read();
        let certificates: Vec<Certificate<'_>> = state.view().certificates().collect();
        stored(&mut encoder, &certificates, self.0.clock.now())?;
        served(&mut encoder, &certificates)?;
        poolers(&mut encoder, &state)?;
        if self.0.options.cert_manager_metrics == CertManagerMetrics::Served {
            certmanager::encode(&mut encoder, &certificates, self.0.clock.now())?;
        }
        Ok(())
    }
}

type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

fn labels<'a>(certificate: &Certificate<'a>) -> Labels<'a, 3> {
    [
        ("namespace", certificate.namespace),
        ("pgbouncer", certificate.pooler),
        ("alias", certificate.alias),
    ]
}

/// What is stored.
fn stored(
    encoder: &mut DescriptorEncoder<'_>,
    certificates: &[Certificate<'_>],
    now: OffsetDateTime,
) -> Result<(), Error> {
    let all = || certificates.iter();
    let each = |value: fn(&Certificate<'_>) -> Option<i64>| {
        all().filter_map(move |one| Some((labels(one), value(one)?)))
    };
    gauges(
        encoder,
        "bouncert_certificate_info",
        "A certificate that is wanted, where it is stored and who shall sign it: always 1",
        all().map(|one| (described(one), 1_i64)),
    )?;
    gauges(
        encoder,
        "bouncert_certificate_ready",
        "Whether the certificate is stored and within its life: 1 if so",
        all().map(|one| (labels(one), i64::from(one.is_valid(now)))),
    )?;
    gauges(
        encoder,
        "bouncert_certificate_not_before_timestamp_seconds",
        "The first instant of the stored certificate's life",
        each(|one| one.not_before.map(seconds)),
    )?;
    gauges(
        encoder,
        "bouncert_certificate_not_after_timestamp_seconds",
        "The last instant of the stored certificate's life",
        each(|one| one.not_after.map(seconds)),
    )?;
    gauges(
        encoder,
        "bouncert_certificate_renewal_timestamp_seconds",
        "When the stored certificate is due for renewal",
        each(|one| one.renews_at.map(seconds)),
    )?;
    gauges(
        encoder,
        "bouncert_certificate_revision",
        "Number of the stored revision; absent for what somebody else has stored",
        each(|one| one.revision.map(i64::from)),
    )
}

fn described<'a>(one: &Certificate<'a>) -> [(&'static str, Cow<'a, str>); 6] {
    [
        ("namespace", one.namespace.into()),
        ("pgbouncer", one.pooler.into()),
        ("alias", one.alias.into()),
        ("secret", one.secret.into()),
        ("issuer_kind", label(&one.asked.issuer.kind).into()),
        ("issuer_name", label(&one.asked.issuer.name).into()),
    ]
}

/// What each pod serves.
fn served(
    encoder: &mut DescriptorEncoder<'_>,
    certificates: &[Certificate<'_>],
) -> Result<(), Error> {
    let each = |value: fn(&PodView<'_>) -> Option<i64>| {
        certificates.iter().flat_map(move |one| {
            let pods = one.served.iter();
            pods.filter_map(move |pod| Some((served_labels(one, pod), value(pod)?)))
        })
    };
    gauges(
        encoder,
        "bouncert_served_certificate_matches",
        "Whether a pod serves what is stored: 1 if so, 0 for another certificate or none",
        each(|pod| pod.matches.map(i64::from)),
    )?;
    gauges(
        encoder,
        "bouncert_served_certificate_not_before_timestamp_seconds",
        "The first instant of the life of the certificate that a pod serves",
        each(|pod| pod.not_before.map(seconds)),
    )?;
    gauges(
        encoder,
        "bouncert_served_certificate_not_after_timestamp_seconds",
        "The last instant of the life of the certificate that a pod serves",
        each(|pod| pod.not_after.map(seconds)),
    )?;
    gauges(
        encoder,
        "bouncert_probe_success",
        "Whether the last handshake with a pod showed what it serves: 1 if so",
        each(|pod| pod.seen_at.map(|_| i64::from(pod.is_seen()))),
    )?;
    gauges(
        encoder,
        "bouncert_probe_timestamp_seconds",
        "When a pod was last looked at",
        each(|pod| pod.seen_at.map(seconds)),
    )
}

fn served_labels<'a>(one: &Certificate<'a>, pod: &PodView<'a>) -> Labels<'a, 4> {
    [
        ("namespace", one.namespace),
        ("pgbouncer", one.pooler),
        ("alias", one.alias),
        ("pod", pod.pod),
    ]
}

/// PgBouncers and their requests.
fn poolers(encoder: &mut DescriptorEncoder<'_>, state: &State) -> Result<(), Error> {
    let view = state.view();
    let rows: Vec<_> = view
        .poolers()
        .map(|(at, pooler)| {
            let labels: Labels<'_, 2> = [("namespace", &at.namespace), ("pgbouncer", &at.name)];
            (labels, pooler, view.past(at))
        })
        .collect();
    gauges(
        encoder,
        "bouncert_pgbouncer_ready",
        "Whether a PgBouncer is Ready: 1 if so",
        rows.iter()
            .map(|(labels, pooler, _)| (*labels, i64::from(pooler.is_ready))),
    )?;
    gauges(
        encoder,
        "bouncert_pgbouncer_paused_timestamp_seconds",
        "Since when a PgBouncer is paused; absent while it is not",
        rows.iter()
            .filter_map(|(labels, pooler, _)| Some((*labels, seconds(pooler.paused_since?)))),
    )?;
    gauges(
        encoder,
        "bouncert_pgbouncer_last_success_timestamp_seconds",
        "When a request for a PgBouncer last succeeded, of those that are still there",
        rows.iter()
            .filter_map(|(labels, _, past)| Some((*labels, seconds(past.last_success?)))),
    )?;
    gauges(
        encoder,
        "bouncert_pgbouncer_last_failure_timestamp_seconds",
        "When a request for a PgBouncer last failed, of those that are still there",
        rows.iter()
            .filter_map(|(labels, _, past)| Some((*labels, seconds(past.last_failure?.at)))),
    )?;
    gauges(
        encoder,
        "bouncert_pgbouncer_request_timestamp_seconds",
        "When the request began that is being carried out; absent while there is none",
        rows.iter()
            .filter_map(|(labels, _, past)| Some((*labels, seconds(past.progressing_since?)))),
    )?;
    gauges(
        encoder,
        "bouncert_pgbouncer_undo_failed_requests",
        "Requests, of those that are still there, that could not be undone",
        rows.iter()
            .map(|(labels, _, past)| (*labels, i64::from(past.undo_failed))),
    )?;
    gauges(
        encoder,
        "bouncert_requests",
        "Requests that there are, by type and phase; no phase before anybody has looked",
        state
            .request_counts()
            .into_iter()
            .map(|((type_, phase), count)| {
                let labels: Labels<'_, 2> = [("type", type_), ("phase", phase)];
                (labels, count)
            }),
    )
}
