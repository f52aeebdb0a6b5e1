//! The endpoints of a Service: a pure function of the Service and of the pods of its namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt as _;

use super::plan::finished;
use super::selector::selected;
use crate::api::pod::is_ready;
use crate::local::runner::dns::SERVICE_NAME;
use crate::local::runner::probe;

/// Label of the slices that this controller writes; others belong to people.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Its value.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";

/// The slices that `service` should have: one for all pods whose ports have the same numbers, and
/// one without endpoints if there is no pod.
pub fn slices(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSlice> {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let not_ready_too = spec.publish_not_ready_addresses == Some(true);
    let mut groups: BTreeMap<Vec<Option<u16>>, Vec<Endpoint>> = BTreeMap::new();
    let chosen = pods
        .iter()
        .filter(|pod| selected(spec.selector.as_ref(), Some(pod.labels())) && !finished(pod));
    for pod in chosen {
        if let Some(endpoint) = endpoint(service, pod, not_ready_too) {
            let numbers = ports.iter().map(|port| number(port, pod)).collect();
            groups.entry(numbers).or_default().push(endpoint);
        }
    }
    if groups.is_empty() {
        groups.insert(Vec::new(), Vec::new());
    }
    let groups = groups.into_iter().enumerate();
    groups
        .map(|(n, (numbers, endpoints))| {
            let resolved = ports.iter().zip(numbers);
            EndpointSlice {
                metadata: metadata(service, n),
                address_type: "IPv4".to_owned(),
                endpoints: Some(endpoints),
                ports: Some(
                    resolved
                        .filter_map(|(port, number)| Some(port_of(port, number?)))
                        .collect(),
                ),
            }
        })
        .collect()
}

fn port_of(port: &ServicePort, number: u16) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(i32::from(number)),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(service: &Service, pod: &Pod, not_ready_too: bool) -> Option<Endpoint> {
    let address = pod.status.as_ref()?.pod_ip.clone()?;
    let spec = pod.spec.as_ref()?;
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let serving = is_ready(pod) || not_ready_too;
    let governed = spec.subdomain.as_deref() == Some(&*service.name_any());
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(serving && !terminating),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: spec.hostname.clone().filter(|_| governed),
        node_name: spec.node_name.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            name: Some(pod.name_any()),
            namespace: pod.namespace(),
            uid: pod.uid(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    })
}

/// The number of a Service's port in a pod.
fn number(port: &ServicePort, pod: &Pod) -> Option<u16> {
    let Some(target) = &port.target_port else {
        return u16::try_from(port.port).ok();
    };
    let containers = &pod.spec.as_ref()?.containers;
    containers
        .iter()
        .find_map(|container| probe::resolve(container, target))
}

fn metadata(service: &Service, n: usize) -> ObjectMeta {
    let name = service.name_any();
    let uid = service.uid().unwrap_or_default();
    let hash = crate::local::hash::short(format!("{uid}/{n}").as_bytes(), 3);
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let headless = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None");
    if headless {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    ObjectMeta {
        name: Some(crate::names::name_with_suffix(&name, &hash)),
        namespace: service.namespace(),
        labels: Some(labels),
        owner_references: Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            name,
            uid,
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(extra: &Value) -> Service {
        let mut spec = json!({
            "selector": {"app": "till"},
            "ports": [{"name": "primary", "port": 5432, "targetPort": "db"}]
        });
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        serde_json::from_value(json!({
            "metadata": {"name": "till", "namespace": "shop", "uid": "s"}, "spec": spec
        }))
        .unwrap()
    }

    fn pod(ready: bool, port: i32, metadata: &Value) -> Arc<Pod> {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "till-0", "namespace": "shop", "labels": {"app": "till"}},
            "spec": {"hostname": "till-0", "subdomain": "till",
                "containers": [{"name": "pgbouncer", "ports": [{"name": "db", "containerPort": port}]}]},
            "status": {"podIP": "127.70.0.9",
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}
        }))
        .unwrap();
        if let Some(at) = metadata["deletionTimestamp"].as_str() {
            pod.metadata.deletion_timestamp = serde_json::from_value(json!(at)).unwrap();
        }
        Arc::new(pod)
    }

    fn conditions(slices: &[EndpointSlice]) -> EndpointConditions {
        let endpoint = &slices[0].endpoints.as_ref().unwrap()[0];
        endpoint.conditions.clone().unwrap()
    }

    #[test]
    fn a_ready_pod_is_an_endpoint_on_its_named_port() {
        let found = slices(&service(&json!({})), &[pod(true, 6544, &json!({}))]);
        assert_eq!(found.len(), 1);
        let port = &found[0].ports.as_ref().unwrap()[0];
        assert_eq!(
            (port.port, port.name.as_deref()),
            (Some(6544), Some("primary"))
        );
        assert_eq!(conditions(&found).ready, Some(true));
        let endpoint = &found[0].endpoints.as_ref().unwrap()[0];
        assert_eq!(endpoint.hostname.as_deref(), Some("till-0"));
        assert_eq!(found[0].labels()[SERVICE_NAME], "till");
    }

    #[test]
    fn a_terminating_pod_serves_but_is_not_ready() {
        let going = pod(
            true,
            6544,
            &json!({"deletionTimestamp": "2031-05-04T12:00:00Z"}),
        );
        let found = conditions(&slices(&service(&json!({})), &[going]));
        assert_eq!(
            (found.ready, found.serving, found.terminating),
            (Some(false), Some(true), Some(true))
        );
    }

    #[test]
    fn unready_addresses_are_published_where_the_service_asks_for_it() {
        let pods = [pod(false, 6544, &json!({}))];
        assert_eq!(
            conditions(&slices(&service(&json!({})), &pods)).ready,
            Some(false)
        );
        let governing = service(&json!({"publishNotReadyAddresses": true}));
        assert_eq!(conditions(&slices(&governing, &pods)).ready, Some(true));
    }

    #[test]
    fn pods_whose_port_differs_get_a_slice_of_their_own() {
        let pods = [pod(true, 6544, &json!({})), pod(true, 6545, &json!({}))];
        let found = slices(&service(&json!({})), &pods);
        assert_eq!(found.len(), 2);
        assert_ne!(found[0].name_any(), found[1].name_any());
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        let found = slices(
            &service(&json!({"selector": {"app": "other"}})),
            &[pod(true, 1, &json!({}))],
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].endpoints.as_ref().map(Vec::len), Some(0));
    }
}
