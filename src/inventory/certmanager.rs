//! The metrics that cert-manager has for its `Certificate`s, served for our certificates, so that
//! dashboards and alerts made for cert-manager show them. A certificate is called as its Secret is.

use std::fmt::Error;

use prometheus_client::encoding::DescriptorEncoder;
use time::OffsetDateTime;

use super::state::Certificate;
use crate::telemetry::families::{gauges, seconds};

/// Which instant of a certificate a metric tells.
type Instant = fn(&Certificate<'_>) -> Option<OffsetDateTime>;

type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

fn labels<'a>(one: &Certificate<'a>) -> Labels<'a, 5> {
    [
        ("name", one.secret),
        ("namespace", one.namespace),
        ("issuer_name", &one.asked.issuer.name),
        ("issuer_kind", &one.asked.issuer.kind),
        ("issuer_group", one.asked.issuer.group()),
    ]
}

pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    certificates: &[Certificate<'_>],
    now: OffsetDateTime,
) -> Result<(), Error> {
    let each = |value: Instant| {
        let all = certificates.iter();
        all.filter_map(move |one| Some((labels(one), seconds(value(one)?))))
    };
    let families: [(&str, &str, Instant); 4] = [
        (
            "certmanager_certificate_expiration_timestamp_seconds",
            "As cert-manager's: the last instant of the certificate's life",
            |one| one.not_after,
        ),
        (
            "certmanager_certificate_not_after_timestamp_seconds",
            "As cert-manager's: the last instant of the certificate's life",
            |one| one.not_after,
        ),
        (
            "certmanager_certificate_not_before_timestamp_seconds",
            "As cert-manager's: the first instant of the certificate's life",
            |one| one.not_before,
        ),
        (
            "certmanager_certificate_renewal_timestamp_seconds",
            "As cert-manager's: when the certificate is due for renewal",
            |one| one.renews_at,
        ),
    ];
    for (name, help, value) in families {
        gauges(encoder, name, help, each(value))?;
    }
    gauges(
        encoder,
        "certmanager_certificate_ready_status",
        "As cert-manager's: 1 for the condition that holds, 0 for the others",
        certificates.iter().flat_map(|one| {
            let holds = if one.is_valid(now) { "True" } else { "False" };
            ["True", "False", "Unknown"].map(|condition| {
                let [name, namespace, issuer_name, issuer_kind, issuer_group] = labels(one);
                let condition_label = ("condition", condition);
                let labels: Labels<'_, 6> = [
                    condition_label,
                    name,
                    namespace,
                    issuer_name,
                    issuer_kind,
                    issuer_group,
                ];
                (labels, i64::from(condition == holds))
            })
        }),
    )
}
