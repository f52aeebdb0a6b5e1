//! Alerts, runbooks and dashboard: valid, tested, and about metrics that exist.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use serde_json::Value;

use super::{documented, named, promtool, text_of};
use crate::cli::crds::golden;
use crate::stage::repository_file;

const ALERTS: &str = "deploy/prometheus/alerts.yaml";
const DASHBOARD: &str = "deploy/grafana/bouncert.json";
const TESTS: [&str; 4] = ["certificates", "served", "requests", "daemon"];

/// The alerts.
fn rules() -> Vec<Value> {
    let document: Value = serde_saphyr::from_str(&text_of(ALERTS)).unwrap();
    let rules = document["groups"][0]["rules"].as_array().unwrap().clone();
    assert!(rules.len() > 10);
    rules
}

fn word<'a>(rule: &'a Value, path: &str) -> &'a str {
    let value = rule.pointer(path).and_then(Value::as_str);
    value.unwrap_or_else(|| panic!("no {path} in {rule}"))
}

/// The queries of the dashboard.
fn queries() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(
                    fields
                        .get("expr")
                        .and_then(Value::as_str)
                        .map(str::to_owned),
                );
                fields.values().for_each(|value| collect(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(&text_of(DASHBOARD)).unwrap();
    let mut found = Vec::new();
    collect(&dashboard, &mut found);
    assert!(found.len() > 15, "{found:?}");
    found
}

/// The metrics in a text that do not exist.
fn unknown(text: &str) -> Vec<String> {
    let documented = documented();
    let named = named(text);
    named.difference(&documented).cloned().collect()
}

#[test]
fn the_alerts_are_valid_and_their_unit_tests_pass() {
    let path = repository_file(ALERTS);
    promtool(&["check", "rules", path.to_str().unwrap()]).unwrap();
    for test in TESTS {
        let path = repository_file(&format!("deploy/prometheus/tests/{test}.yaml"));
        promtool(&["test", "rules", path.to_str().unwrap()])
            .unwrap_or_else(|said| panic!("{said}"));
    }
}

#[test]
fn every_alert_is_seen_to_fire_and_not_to_fire_in_a_unit_test() {
    let mut seen = BTreeSet::new();
    for test in TESTS {
        let text = text_of(&format!("deploy/prometheus/tests/{test}.yaml"));
        let document: Value = serde_saphyr::from_str(&text).unwrap();
        for case in document["tests"].as_array().unwrap() {
            for check in case["promql_expr_test"].as_array().unwrap() {
                let alert = word(check, "/expr").split('"').nth(1).unwrap().to_owned();
                let fires = !check["exp_samples"].as_array().unwrap().is_empty();
                seen.insert((alert, fires));
            }
        }
    }
    for rule in rules() {
        for fires in [true, false] {
            let expected = (word(&rule, "/alert").to_owned(), fires);
            assert!(seen.contains(&expected), "no test of {expected:?}");
        }
    }
}

#[test]
fn a_broken_alert_is_noticed_by_its_unit_test() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tests")).unwrap();
    let broken = text_of(ALERTS).replace("undo_failed_requests > 0", "undo_failed_requests > 1");
    fs::write(folder.path().join("alerts.yaml"), broken).unwrap();
    let test = folder.path().join("tests/requests.yaml");
    fs::write(&test, text_of("deploy/prometheus/tests/requests.yaml")).unwrap();
    let said = promtool(&["test", "rules", test.to_str().unwrap()]).unwrap_err();
    assert!(said.contains("BouncertUndoFailed"), "{said}");
}

#[test]
fn every_alert_has_a_severity_a_summary_a_description_and_a_runbook_that_exists() {
    for rule in rules() {
        let alert = word(&rule, "/alert");
        assert!(["warning", "critical"].contains(&word(&rule, "/labels/severity")));
        assert!(word(&rule, "/annotations/summary").len() > 10);
        assert!(word(&rule, "/annotations/description").ends_with('.'));
        let runbook = format!("docs/runbooks/{alert}.md");
        let url = word(&rule, "/annotations/runbook_url");
        assert!(
            url.starts_with("https://") && url.ends_with(&runbook),
            "{url}"
        );
        let text = text_of(&runbook);
        for section in ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"] {
            assert!(text.contains(section), "{runbook} lacks {section}");
        }
        assert!(text.contains("```sh\n"), "{runbook} has no command");
    }
    let folder = repository_file("docs/runbooks");
    assert_eq!(fs::read_dir(folder).unwrap().count(), rules().len());
}

#[test]
fn alerts_their_tests_and_the_dashboard_name_only_metrics_that_exist() {
    assert_eq!(
        unknown("rate(bouncert_imaginary_total[5m])"),
        ["bouncert_imaginary_total"]
    );
    let mut texts = vec![text_of(ALERTS), queries().join("\n")];
    texts.extend(TESTS.map(|test| text_of(&format!("deploy/prometheus/tests/{test}.yaml"))));
    for text in texts {
        assert!(!named(&text).is_empty());
        assert_eq!(unknown(&text), Vec::<String>::new());
    }
}

#[test]
fn every_query_of_the_dashboard_is_one() {
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for (number, query) in queries().iter().enumerate() {
        // What Grafana fills in.
        let query = query
            .replace("$__rate_interval", "1m")
            .replace("$namespace", ".*");
        let query = serde_json::to_string(&query).unwrap();
        let _ = writeln!(rules, "      - {{ record: query_{number}, expr: {query} }}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), rules).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()]).unwrap();
}

#[test]
fn the_golden_prometheusrule_holds_the_same_alerts() {
    let alerts = text_of(ALERTS);
    let (_, groups) = alerts.split_once("\ngroups:\n").unwrap();
    let mut rule = String::from(
        "# The alerts of alerts.yaml for the Prometheus operator. Made by `make crds`; change them there.\n\
         apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: bouncert\n  \
         labels:\n    app.kubernetes.io/name: bouncert\nspec:\n  groups:\n",
    );
    for line in groups.lines() {
        let _ = writeln!(rule, "{}{line}", if line.is_empty() { "" } else { "  " });
    }
    golden(
        &repository_file("deploy/prometheus/prometheusrule.yaml"),
        &rule,
    );
    let operator: Value = serde_saphyr::from_str(&rule).unwrap();
    let plain: Value = serde_saphyr::from_str(&alerts).unwrap();
    assert_eq!(operator["spec"]["groups"], plain["groups"]);
}
