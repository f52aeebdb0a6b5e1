//! Whether a Service leads to a pod: a pure function of the pod and of the Service's
//! `EndpointSlice`s. A dual-stack Service has slices of both families, and they follow the pod
//! each in their own time: one family's clients are served only when their slice says so.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;

use crate::api::holder::controller;

/// Over which of a Service's address families (`IPv4`, `IPv6`) its clients get to a pod.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Families whose slices have the pod among those that are ready.
    over: BTreeSet<String>,
    /// Families that the Service and the pod have, and whose slices do not.
    not_over: BTreeSet<String>,
}

// === impl Reach ===

impl Reach {
    /// Reads the slices of a Service for a pod.
    pub(super) fn of(pod: &Pod, slices: &[EndpointSlice]) -> Self {
        let spoken = families(pod);
        let mut reach = Self::default();
        for slice in slices {
            let family = &slice.address_type;
            let mut endpoints = slice.endpoints.iter().flatten();
            if endpoints.any(|endpoint| is_ready_at(endpoint, pod)) {
                reach.over.insert(family.clone());
            } else if spoken.contains(&**family) && is_of_service(slice) {
                reach.not_over.insert(family.clone());
            }
        }
        // A family may have several slices; the pod is in one of them.
        reach.not_over.retain(|family| !reach.over.contains(family));
        reach
    }

    /// Whether all clients of the Service can be sent to the pod.
    pub(super) fn is_whole(&self) -> bool {
        !self.over.is_empty() && self.not_over.is_empty()
    }

    /// Whether no client of the Service is sent to the pod.
    pub(super) fn is_none(&self) -> bool {
        self.over.is_empty()
    }

    /// The families of which it is true that the pod is reached, in words; empty where the Service
    /// has one family, of which nothing has to be said.
    pub(super) fn families(&self, reached: bool) -> String {
        if self.over.len() + self.not_over.len() < 2 {
            return String::new();
        }
        let which = if reached { &self.over } else { &self.not_over };
        let which: Vec<&str> = which.iter().map(String::as_str).collect();
        format!(" over {}", which.join(" and "))
    }
}

/// The families of a pod's addresses, by their names in an `EndpointSlice`.
fn families(pod: &Pod) -> BTreeSet<&'static str> {
    let status = pod.status.as_ref();
    let all = status.and_then(|status| status.pod_ips.as_ref());
    let all = all.into_iter().flatten().map(|address| &address.ip);
    let first = status.and_then(|status| status.pod_ip.as_ref());
    all.chain(first)
        .filter_map(|address| address.parse().ok())
        .map(|address| match address {
            IpAddr::V4(_) => "IPv4",
            IpAddr::V6(_) => "IPv6",
        })
        .collect()
}

/// Whether a Service has made a slice. Clients are sent to what any slice of its label names, but only
/// its own ones follow the pods.
fn is_of_service(slice: &EndpointSlice) -> bool {
    controller(slice).is_some_and(|holder| holder.kind == "Service")
}

/// Whether an endpoint is this incarnation of the pod, and ready; a condition that is not given
/// counts as good.
fn is_ready_at(endpoint: &Endpoint, pod: &Pod) -> bool {
    let target = endpoint.target_ref.as_ref();
    let conditions = endpoint.conditions.as_ref();
    target.and_then(|target| target.uid.as_ref()) == pod.uid().as_ref()
        && conditions.and_then(|all| all.ready).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(addresses: &[&str]) -> Pod {
        let all: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip })).collect();
        serde_json::from_value(json!({
            "metadata": {"name": "till-0", "uid": "now"},
            "status": {"podIP": addresses.first(), "podIPs": all},
        }))
        .unwrap()
    }

    fn slice(family: &str, endpoints: &[(&str, Option<bool>)]) -> EndpointSlice {
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(uid, ready)| {
                json!({
                    "addresses": ["::1"], "conditions": {"ready": ready},
                    "targetRef": {"kind": "Pod", "uid": uid},
                })
            })
            .collect();
        serde_json::from_value(json!({
            "metadata": {"name": "till-x", "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": "till", "uid": "s", "controller": true,
            }]},
            "addressType": family, "endpoints": endpoints,
        }))
        .unwrap()
    }

    #[test]
    fn a_service_of_one_family_reaches_a_pod_that_is_ready_in_one_of_its_slices() {
        let pod = pod(&["10.1.0.7"]);
        let other = slice("IPv4", &[("other", Some(true))]);
        let reach = Reach::of(&pod, std::slice::from_ref(&other));
        assert!(!reach.is_whole() && reach.is_none(), "{reach:?}");
        let reach = Reach::of(&pod, &[other.clone(), slice("IPv4", &[("now", None)])]);
        assert!(reach.is_whole() && !reach.is_none(), "{reach:?}");
        assert_eq!(reach.families(true), "");
        for gone in [("now", Some(false)), ("before", Some(true))] {
            let reach = Reach::of(&pod, &[other.clone(), slice("IPv4", &[gone])]);
            assert!(!reach.is_whole() && reach.is_none(), "{gone:?} {reach:?}");
        }
    }

    #[test]
    fn a_dual_stack_service_reaches_a_pod_when_both_families_do_and_stops_when_neither_does() {
        let pod = pod(&["10.1.0.7", "fd00::7"]);
        let seen = |four, six| {
            let slices = [
                slice("IPv4", &[("now", Some(four))]),
                slice("IPv6", &[("now", Some(six))]),
            ];
            let reach = Reach::of(&pod, &slices);
            (reach.is_whole(), reach.is_none())
        };
        assert_eq!(seen(true, true), (true, false));
        assert_eq!(seen(true, false), (false, false));
        assert_eq!(seen(false, true), (false, false));
        assert_eq!(seen(false, false), (false, true));
        let half = Reach::of(
            &pod,
            &[slice("IPv4", &[("now", Some(true))]), slice("IPv6", &[])],
        );
        assert_eq!(half.families(false), " over IPv6");
        assert_eq!(half.families(true), " over IPv4");
    }

    #[test]
    fn a_family_that_the_pod_does_not_have_is_not_waited_for() {
        let slices = [slice("IPv4", &[("now", Some(true))]), slice("IPv6", &[])];
        assert!(Reach::of(&pod(&["10.1.0.7"]), &slices).is_whole());
        assert!(!Reach::of(&pod(&["10.1.0.7"]), &[]).is_whole());
    }
}
