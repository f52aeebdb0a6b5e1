//! What the chart makes for the Prometheus operator.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::chart;
use crate::cli::golden;
use crate::stage::repository_file;

/// The alerts, which have one source.
fn alerts() -> String {
    std::fs::read_to_string(repository_file("deploy/prometheus/alerts.yaml")).unwrap()
}

/// The objects for the Prometheus operator: the monitor and the rule.
fn rendered() -> [Value; 2] {
    let labels = json!({"release": "stack"});
    let objects = chart::objects(&json!({
        "serviceMonitor": {"enabled": true, "labels": labels},
        "prometheusRule": {"enabled": true, "labels": labels},
    }));
    ["ServiceMonitor", "PrometheusRule"].map(|kind| {
        let mut of_kind = objects.iter().filter(|object| object["kind"] == kind);
        let object = of_kind.next().unwrap();
        assert_eq!(object["metadata"]["labels"]["release"], "stack", "{kind}");
        assert_eq!(
            object["metadata"]["labels"]["app.kubernetes.io/name"],
            "bouncert"
        );
        object.clone()
    })
}

#[test]
fn the_golden_template_of_the_alerts_holds_what_alerts_yaml_holds() {
    let alerts = alerts();
    let (_, groups) = alerts.split_once("\ngroups:\n").unwrap();
    let mut template = String::from(
        "{{- /* Made from deploy/prometheus/alerts.yaml by `make crds`; change the alerts there. */ -}}\n\
         {{- if .Values.prometheusRule.enabled }}\n\
         apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  \
         name: {{ .Release.Name }}\n  namespace: {{ .Release.Namespace }}\n  labels:\n    \
         {{ template \"bouncert.labels\" . }}\n    \
         {{- if .Values.prometheusRule.labels }}\n    \
         {{- toYaml .Values.prometheusRule.labels | nindent 4 }}\n    {{- end }}\n\
         spec:\n  groups:\n",
    );
    for line in groups.lines() {
        // Prometheus has templates of its own, which are none of Helm's.
        let line = line.replace("{{", "{{ \"{{\" }}");
        let _ = writeln!(
            template,
            "{}{line}",
            if line.is_empty() { "" } else { "  " }
        );
    }
    template.push_str("{{- end }}\n");
    golden(
        &chart::folder().join("templates/prometheusrule.yaml"),
        &template,
    );
    let [_, rule] = rendered();
    let plain: Value = serde_saphyr::from_str(&alerts).unwrap();
    assert_eq!(rule["spec"]["groups"], plain["groups"]);
}

#[test]
fn prometheus_asks_a_port_that_the_service_has_and_keeps_the_labels_of_poolers() {
    let [monitor, _] = rendered();
    let endpoint = &monitor["spec"]["endpoints"][0];
    assert_eq!(endpoint["honorLabels"], true);
    let objects = chart::objects(&json!({}));
    let service = objects.iter().find(|object| object["kind"] == "Service");
    let service = service.unwrap();
    let ports = service["spec"]["ports"].as_array().unwrap();
    assert!(ports.iter().any(|port| port["name"] == endpoint["port"]));
    let labels = service["metadata"]["labels"].as_object().unwrap();
    let selected = monitor["spec"]["selector"]["matchLabels"].as_object();
    assert!(
        selected
            .unwrap()
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    );
}
