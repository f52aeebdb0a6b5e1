//! The plain manifests and the chart that they come from.

use serde_json::{Value, json};

use super::chart;
use crate::cli::golden;

/// What `deploy/install.yaml` is rendered with.
fn plain() -> Value {
    json!({ "createNamespace": true })
}

#[test]
fn the_golden_manifests_are_what_the_chart_renders() {
    let mut text = "# Bouncert without Helm: rendered from deploy/helm/bouncert by `make crds`.\n\
         # The CRDs are in deploy/crds, the versions that a PgBouncer may ask for in deploy/catalog.\n"
        .to_owned();
    for document in chart::render(&plain()) {
        text.push_str("---\n");
        text.push_str(&document.replace("managed-by: Helm", "managed-by: kubectl"));
        text.push('\n');
    }
    golden(&crate::stage::repository_file("deploy/install.yaml"), &text);
}
