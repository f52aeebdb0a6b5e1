//! The Services of a PgBouncer (docs/kubedb-compatibility.md, "Services and ports"): governing,
//! primary, and the exporter's.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::ResourceExt;
use serde_json::{Map as JsonMap, Value, json};

use super::inputs::Inputs;
use super::labels::{self, Map};
use super::merge::{overlay, string_map};
use super::{exporter, metadata, names};
use crate::api::PgBouncer;
use crate::api::pgbouncer::ServiceAlias;

/// Both families where the cluster has both, else the one it has: pods listen on all addresses.
const IP_FAMILY_POLICY: &str = "PreferDualStack";

/// `spec.serviceTemplates`, by what they change.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceTemplates {
    primary: Template,
    stats: Template,
}

/// What a user changes in a Service.
#[derive(Clone, Debug, Default)]
struct Template {
    labels: Map,
    annotations: Map,
    spec: JsonMap<String, Value>,
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
struct Port {
    name: &'static str,
    number: i32,
    target: &'static str,
}

const PRIMARY: Port = Port {
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

/// The headless Service that names the pods, ready or not.
pub(super) fn governing(inputs: &Inputs) -> Service {
    let name = inputs.bouncer.name_any();
    Service {
        metadata: metadata(&inputs.bouncer, names::governing_service(&name)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            ip_family_policy: Some(IP_FAMILY_POLICY.to_owned()),
            publish_not_ready_addresses: Some(true),
            ports: base_ports(&Port {
                name: names::PORT,
                ..PRIMARY
            }),
            selector: Some(labels::selector(&name)),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The clients' Service: it leads to the pods that are in service.
pub(super) fn primary(inputs: &Inputs) -> Service {
    let name = inputs.bouncer.name_any();
    let selector = labels::serving_selector(&name);
    from_template(
        inputs,
        name,
        (&selector, &PRIMARY),
        &inputs.service_templates.primary,
    )
}

/// The exporter's Service; only with monitoring.
pub(super) fn stats(inputs: &Inputs) -> Option<Service> {
    let monitor = exporter::monitor(&inputs.bouncer)?;
    let name = inputs.bouncer.name_any();
    let port = Port {
        name: "metrics",
        number: monitor.port,
        target: "metrics",
    };
    let selector = labels::selector(&name);
    let mut service = from_template(
        inputs,
        names::stats_service(&name),
        (&selector, &port),
        &inputs.service_templates.stats,
    );
    service
        .labels_mut()
        .insert("kubedb.com/role".to_owned(), "stats".to_owned());
    service.annotations_mut().extend(monitor.annotations());
    Some(service)
}

fn from_template(
    inputs: &Inputs,
    name: String,
    (selector, port): (&Map, &Port),
    template: &Template,
) -> Service {
    let mut metadata = metadata(&inputs.bouncer, name);
    let mut labels = template.labels.clone();
    labels.extend(metadata.labels.take().unwrap_or_default());
    metadata.labels = Some(labels);
    if !template.annotations.is_empty() {
        metadata.annotations = Some(template.annotations.clone());
    }
    Service {
        metadata,
        // `parse` has proved that this template makes a Service.
        spec: service_spec(selector, port, &template.spec).ok(),
        ..Service::default()
    }
}

/// Our spec with the user's fields on top, except for what makes it ours: the selector, and that
/// our port leads to our container.
fn service_spec(
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

fn base_ports(port: &Port) -> Option<Vec<k8s_openapi::api::core::v1::ServicePort>> {
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
