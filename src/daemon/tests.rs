//! The list of all metrics, made from what registers.

use std::fmt::Write as _;
use std::path::Path;

use time::macros::datetime;

use super::Metrics;
use crate::api::IssuerRef;
use crate::clock::Clock;
use crate::inventory::tests::example;
use crate::material::IssueOutcome;
use crate::names::ObjectRef;
use crate::rotation::Snapshot;
use crate::telemetry::{Monitor, classic};

/// A daemon's metrics, each with a sample at least.
fn all() -> String {
    let clock = Clock::Fixed(datetime!(2031-04-05 06:07:08 UTC));
    let monitor = Monitor::new(clock);
    let metrics = Metrics::default();
    let issuer = IssuerRef {
        api_group: None,
        kind: "Issuer".to_owned(),
        name: "notary".to_owned(),
    };
    let denied = IssueOutcome::Denied {
        reason: String::new(),
    };
    let took = std::time::Duration::ZERO;
    metrics.api.count("GET".to_owned(), "200".to_owned());
    metrics.issuance.count("shop".to_owned(), &issuer, &denied);
    metrics
        .reconciles
        .count("requests", &Ok::<(), ()>(()), took);
    metrics.rotation.follow(|| {
        let mut snapshot = Snapshot::default();
        let at = ObjectRef::new("shop", "till");
        snapshot.held.insert(at, "window closed");
        snapshot.drifting.insert("SecretAdopted", 1);
        snapshot.counts.drift.insert("SecretAdopted", 1);
        Some(snapshot)
    });
    monitor.register(|registry| {
        metrics.register(registry);
        example().register(registry);
    });
    classic(&monitor.metrics().unwrap())
}

/// The rows of the document: name, type, labels, help.
fn rows(text: &str) -> Vec<String> {
    let mut rows = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        let help = lines[at - 1].strip_prefix(&format!("# HELP {name} "));
        let help = help.unwrap_or_else(|| panic!("{name} has no help"));
        let mut samples = lines[at + 1..]
            .iter()
            .take_while(|line| !line.starts_with('#'));
        let labelled = samples.find_map(|sample| sample.split_once('{'));
        let labels = labelled.map_or(String::new(), |(_, rest)| labels(rest));
        rows.push(format!("| `{name}` | {kind} | {labels} | {help} |"));
    }
    rows.sort();
    rows
}

fn labels(sample: &str) -> String {
    let inner = sample.split_once('}').map_or("", |(inner, _)| inner);
    let names = inner.split("\",").filter_map(|pair| pair.split_once('='));
    let names = names.map(|(name, _)| name).filter(|name| *name != "le");
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn document() -> String {
    let mut document = String::from(include_str!("metrics.md"));
    for (title, prefix) in [
        ("Bouncert", "bouncert_"),
        ("As cert-manager's", "certmanager_"),
    ] {
        let _ = write!(
            document,
            "\n## {title}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n"
        );
        for row in rows(&all())
            .iter()
            .filter(|row| row.contains(&format!("`{prefix}")))
        {
            document.push_str(row);
            document.push('\n');
        }
    }
    document
}

#[test]
fn the_golden_list_of_metrics_is_what_registers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let document = document();
    if std::env::var("GOLDEN").is_ok_and(|wish| wish == "update") {
        std::fs::write(&path, &document).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == document,
        "docs/metrics.md is out of date: run `make crds`"
    );
}

#[test]
fn every_metric_is_registered_once_and_has_a_unit_in_its_name() {
    let rows = rows(&all());
    assert!(rows.len() > 30, "{}", rows.len());
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row.split('`').nth(1).unwrap())
        .collect();
    for pair in names.windows(2) {
        assert_ne!(pair[0], pair[1]);
    }
    for row in rows
        .iter()
        .filter(|row| row.contains("timestamp") || row.contains("histogram"))
    {
        assert!(row.contains("_seconds`"), "{row}");
    }
}
