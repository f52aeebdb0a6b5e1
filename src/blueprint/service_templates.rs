//! `spec.serviceTemplates`: what users change in the Services, taken apart and checked
//! (docs/kubedb-compatibility.md, "Services and ports").

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use serde_json::{Map as JsonMap, Value, json};

use super::labels::Map;
use super::merge::{overlay, string_map};
use super::names;
use crate::api::PgBouncer;
use crate::api::pgbouncer::ServiceAlias;

/// Both families where the cluster has both, else the one it has: pods listen on all addresses.
pub(super) const IP_FAMILY_POLICY: &str = "PreferDualStack";

/// `spec.serviceTemplates`, by what they change.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceTemplates {
    pub(super) primary: Template,
    pub(super) stats: Template,
}

/// What a user changes in a Service.
#[derive(Clone, Debug, Default)]
pub(super) struct Template {
    pub(super) labels: Map,
    pub(super) annotations: Map,
    pub(super) spec: JsonMap<String, Value>,
}

/// A template that no Service can have.
#[derive(Debug, thiserror::Error)]
#[error("the template of Service alias {alias} does not make a Service")]
pub struct ServiceTemplateError {
    alias: &'static str,
    #[source]
    source: serde_json::Error,
}

/// A port of ours.
pub(super) struct Port {
    pub(super) name: &'static str,
    pub(super) number: i32,
    pub(super) target: &'static str,
}

pub(super) const PRIMARY: Port = Port {
    name: "primary",
    number: names::SERVICE_PORT,
    target: names::PORT,
};

// === impl ServiceTemplates ===

impl ServiceTemplates {
    /// Takes the templates apart; proves that each makes a Service.
    pub(super) fn parse(bouncer: &PgBouncer) -> Result<Self, ServiceTemplateError> {
        let mut templates = Self::default();
        for given in &bouncer.spec.service_templates {
            let (place, alias) = match given.alias {
                ServiceAlias::Primary => (&mut templates.primary, "primary"),
                ServiceAlias::Stats => (&mut templates.stats, "stats"),
                ServiceAlias::Standby => continue,
            };
            let metadata = given.metadata.as_ref();
            *place = Template {
                labels: string_map(metadata.and_then(|metadata| metadata.get("labels"))),
                annotations: string_map(metadata.and_then(|metadata| metadata.get("annotations"))),
                spec: given
                    .spec
                    .as_ref()
                    .and_then(Value::as_object)
                    .cloned()
                    .unwrap_or_default(),
            };
            service_spec(&Map::new(), &PRIMARY, &place.spec)
                .map_err(|source| ServiceTemplateError { alias, source })?;
        }
        Ok(templates)
    }
}

/// Our spec with the user's fields on top, except for what makes it ours: the selector, and that
/// our port leads to our container.
pub(super) fn service_spec(
    selector: &Map,
    port: &Port,
    template: &JsonMap<String, Value>,
) -> Result<ServiceSpec, serde_json::Error> {
    let mut given = template.clone();
    let ports = merge_ports(port, given.remove("ports"));
    given.remove("selector");
    let mut spec = json!({ "type": "ClusterIP", "ipFamilyPolicy": IP_FAMILY_POLICY });
    overlay(&mut spec, &Value::Object(given));
    spec["selector"] = json!(selector);
    spec["ports"] = Value::Array(ports);
    serde_json::from_value(spec)
}

pub(super) fn base_ports(port: &Port) -> Option<Vec<ServicePort>> {
    serde_json::from_value(json!([port.to_json()])).ok()
}

/// The user's ports: one of our name, or the only one without a name, changes ours; others come
/// beside it.
fn merge_ports(ours: &Port, given: Option<Value>) -> Vec<Value> {
    let given = match given {
        Some(Value::Array(given)) => given,
        _ => Vec::new(),
    };
    let is_ours = |port: &Value| {
        let name = port.get("name").and_then(Value::as_str).unwrap_or_default();
        name == ours.name || (name.is_empty() && given.len() == 1)
    };
    let mut first = ours.to_json();
    let mut others = Vec::new();
    for port in &given {
        if is_ours(port) {
            overlay(&mut first, port);
            first["name"] = json!(ours.name);
        } else {
            let mut other = json!({ "protocol": "TCP", "targetPort": ours.target });
            overlay(&mut other, port);
            others.push(other);
        }
    }
    let mut ports = vec![first];
    ports.append(&mut others);
    ports
}

impl Port {
    fn to_json(&self) -> Value {
        json!({
            "name": self.name, "port": self.number, "protocol": "TCP", "targetPort": self.target
        })
    }
}
