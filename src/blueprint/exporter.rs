//! The metrics exporter beside the pooler, only where `spec.monitor` asks for it
//! (docs/kubedb-compatibility.md, "Metrics exporter").

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::certificates::is_wanted;
use super::inputs::Inputs;
use super::labels::Map;
use super::merge::{list, overlay, overlay_by_name};
use super::{config, names};
use crate::api::PgBouncer;
use crate::names::Alias;

/// The exporter's port by default.
pub(super) const PORT_DEFAULT: i32 = 56790;

/// `spec.monitor`, as far as it shapes objects.
pub(super) struct Monitor {
    agent: String,
    pub(super) port: i32,
    exporter: serde_json::Map<String, Value>,
}

/// The monitoring that is asked for.
pub(super) fn monitor(bouncer: &PgBouncer) -> Option<Monitor> {
    let monitor = bouncer.spec.monitor.as_ref()?;
    let exporter = monitor
        .pointer("/prometheus/exporter")
        .and_then(Value::as_object)
        .cloned();
    let port = monitor
        .pointer("/prometheus/exporter/port")
        .and_then(Value::as_i64);
    Some(Monitor {
        agent: monitor
            .get("agent")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        port: port
            .and_then(|port| i32::try_from(port).ok())
            .unwrap_or(PORT_DEFAULT),
        exporter: exporter.unwrap_or_default(),
    })
}

// === impl Monitor ===

impl Monitor {
    /// What tells the agent where to look.
    pub(super) fn annotations(&self) -> Map {
        let mut annotations = Map::new();
        annotations.insert(
            "monitoring.appscode.com/agent".to_owned(),
            self.agent.clone(),
        );
        if self.agent == "prometheus.io/builtin" {
            for (key, value) in [
                ("scrape", "true".to_owned()),
                ("path", "/metrics".to_owned()),
                ("port", self.port.to_string()),
                ("scheme", "http".to_owned()),
            ] {
                annotations.insert(format!("prometheus.io/{key}"), value);
            }
        }
        annotations
    }
}

/// The exporter's container.
pub(super) fn container(inputs: &Inputs) -> Option<Value> {
    let monitor = monitor(&inputs.bouncer)?;
    let mut args = vec![json!(format!("--web.listen-address=:{}", monitor.port))];
    args.extend(list(&monitor.exporter, "args"));
    let auth = names::auth_secret(&inputs.bouncer);
    let mut env = vec![
        json!({ "name": "DATA_SOURCE_NAME", "value": data_source(inputs) }),
        json!({ "name": "PGPASSWORD",
                "valueFrom": { "secretKeyRef": { "name": auth, "key": "password" } } }),
    ];
    overlay_by_name(&mut env, &list(&monitor.exporter, "env"));
    let user = inputs.program.run_as_user;
    let mut security = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "runAsGroup": user,
        "runAsNonRoot": true,
        "runAsUser": user,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    if let Some(given) = monitor.exporter.get("securityContext") {
        overlay(&mut security, given);
    }
    let mut container = json!({
        "name": names::EXPORTER_CONTAINER,
        "image": inputs.program.exporter_image,
        "args": args,
        "env": env,
        "ports": [{ "name": "metrics", "containerPort": monitor.port, "protocol": "TCP" }],
        "securityContext": security,
    });
    if let Some(resources) = monitor.exporter.get("resources") {
        container["resources"] = resources.clone();
    }
    if is_wanted(&inputs.bouncer, Alias::MetricsExporter) {
        let secret = names::certificate_secret(&inputs.bouncer, Alias::MetricsExporter);
        container["volumeMounts"] = json!([{
            "name": names::volume(&secret),
            "mountPath": names::tls_dir(Alias::MetricsExporter),
            "readOnly": true,
        }]);
    }
    Some(container)
}

/// How the exporter reaches the console. The password comes from its environment.
fn data_source(inputs: &Inputs) -> String {
    let port = config::port(&inputs.bouncer);
    let user = percent_encoded(&inputs.admin.username);
    let tls = if config::serves_tls(&inputs.bouncer)
        && is_wanted(&inputs.bouncer, Alias::MetricsExporter)
    {
        let dir = names::tls_dir(Alias::MetricsExporter);
        format!(
            "sslmode=verify-full&sslrootcert={dir}/ca.crt&sslcert={dir}/tls.crt&sslkey={dir}/tls.key"
        )
    } else {
        "sslmode=disable".to_owned()
    };
    format!("postgres://{user}:@localhost:{port}/pgbouncer?{tls}")
}

/// A name as part of a URL. The result holds no `$` either, which the kubelet would expand.
fn percent_encoded(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::percent_encoded;

    #[test]
    fn a_name_in_a_url_is_only_a_name() {
        assert_eq!(percent_encoded("pgbouncer"), "pgbouncer");
        assert_eq!(
            percent_encoded("a@b/c?d=$(PGPASSWORD)ü"),
            "a%40b%2Fc%3Fd%3D%24%28PGPASSWORD%29%C3%BC"
        );
    }
}
