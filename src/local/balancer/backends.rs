//! Which addresses a Service's port leads to: a pure function of the port and of the slices.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Ready, not terminating endpoints of `port`, sorted, each once.
pub fn backends(port: &ServicePort, slices: &[Arc<EndpointSlice>]) -> Vec<SocketAddr> {
    let name = port.name.as_deref().unwrap_or_default();
    let mut found: Vec<SocketAddr> = slices
        .iter()
        .filter_map(|slice| Some((slice, number(slice, name)?)))
        .flat_map(|(slice, number)| {
            let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
                let conditions = endpoint.conditions.as_ref();
                // A condition that is not given counts as good.
                conditions.and_then(|c| c.ready).unwrap_or(true)
                    && !conditions.and_then(|c| c.terminating).unwrap_or(false)
            });
            ready
                .filter_map(|endpoint| endpoint.addresses.first()?.parse::<IpAddr>().ok())
                .map(move |address| SocketAddr::new(address, number))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn number(slice: &EndpointSlice, name: &str) -> Option<u16> {
    let mut ports = slice.ports.iter().flatten();
    let port = ports.find(|p| p.name.as_deref().unwrap_or_default() == name)?;
    u16::try_from(port.port?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_ready_endpoints_of_the_named_port_are_taken() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "s"}, "addressType": "IPv4",
            "ports": [{"name": "primary", "port": 6544}, {"name": "stats", "port": 9}],
            "endpoints": [
                {"addresses": ["127.70.0.2"]},
                {"addresses": ["127.70.0.1"], "conditions": {"ready": true}},
                {"addresses": ["127.70.0.3"], "conditions": {"ready": false}},
                {"addresses": ["127.70.0.4"], "conditions": {"ready": true, "terminating": true}}
            ]
        }))
        .unwrap();
        let port: ServicePort =
            serde_json::from_value(json!({"name": "primary", "port": 5432})).unwrap();
        let found = backends(&port, &[Arc::new(slice)]);
        let wanted: Vec<SocketAddr> = ["127.70.0.1:6544", "127.70.0.2:6544"]
            .iter()
            .map(|a| a.parse().unwrap())
            .collect();
        assert_eq!(found, wanted);
    }
}
