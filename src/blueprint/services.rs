//! The Services of a PgBouncer (docs/kubedb-compatibility.md, "Services and ports"): governing,
//! primary, and the exporter's.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::ResourceExt;

use super::inputs::Inputs;
use super::labels::{self, Map};
use super::service_templates::{
    IP_FAMILY_POLICY, PRIMARY, Port, Template, base_ports, service_spec,
};
use super::{exporter, metadata, names};

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
        &selector,
        &PRIMARY,
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
        &selector,
        &port,
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
    selector: &Map,
    port: &Port,
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
