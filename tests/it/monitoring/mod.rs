//! What people know before it hurts: metrics, alerts, runbooks, dashboard, and a real Prometheus.

mod events;
mod files;
mod prometheus;
mod seen;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::stage::repository_file;

/// Runs promtool; what it says, and whether it is content.
fn promtool(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("promtool")
        .args(arguments)
        .output()
        .expect("promtool is installed");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(text)
    }
}

/// A file of the repository, as text.
fn text_of(path: &str) -> String {
    fs::read_to_string(repository_file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The metrics that there are, as `docs/metrics.md` lists them; that list is made from what
/// registers. A histogram is three.
fn documented() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let document = text_of("docs/metrics.md");
    for row in document.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (name, rest) = row.split_once('`').unwrap();
        if rest.starts_with(" | histogram |") {
            names.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        } else {
            names.insert(name.to_owned());
        }
    }
    assert!(names.len() > 30, "{names:?}");
    names
}

/// The metrics of ours that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("bouncert_") || word.starts_with("certmanager_"))
        .map(str::to_owned)
        .collect()
}
