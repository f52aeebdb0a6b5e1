//! What cluster DNS would answer for the names in `[databases]`.
//!
//! ```text
//!   <service>[.<namespace>[.svc[.cluster.local]]]            cluster address, or for a headless
//!                                                            Service its first ready endpoint
//!   <hostname>.<service>.<namespace>.svc[.cluster.local]     that endpoint of a headless Service
//! ```
//!
//! A Service of type `ExternalName` answers with its target. A name that is none of these is not
//! ours and stays as it is.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Label of a slice that names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A name that may belong to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// Host name of one endpoint, if the name has one.
    pub hostname: Option<String>,
    /// Service.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
}

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An address, or another name (`ExternalName`).
    Is(String),
    /// The Service exists but has no address yet.
    NotYet,
    /// A headless Service without a ready endpoint.
    Nobody,
}

/// Reads `host` as a pod of `namespace` would; answers all readings, most specific first.
pub fn names(host: &str, namespace: &str) -> Vec<Name> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let full = host.strip_suffix(".cluster.local").unwrap_or(&host);
    let qualified = full.strip_suffix(".svc");
    let parts: Vec<&str> = qualified.unwrap_or(full).split('.').collect();
    let name = |hostname: Option<&str>, service: &str, namespace: &str| Name {
        hostname: hostname.map(str::to_owned),
        service: service.to_owned(),
        namespace: namespace.to_owned(),
    };
    match (parts.as_slice(), qualified.is_some()) {
        ([service], false) => vec![name(None, service, namespace)],
        ([service, ns], _) => vec![name(None, service, ns)],
        ([hostname, service, ns], true) => vec![name(Some(hostname), service, ns)],
        _ => Vec::new(),
    }
}

/// What `name` means, given its Service and the slices of that Service.
pub fn answer(name: &Name, service: &Service, slices: &[EndpointSlice]) -> Answer {
    let spec = service.spec.as_ref();
    if let Some(target) = spec.and_then(|s| s.external_name.as_ref())
        && spec.and_then(|s| s.type_.as_deref()) == Some("ExternalName")
    {
        return Answer::Is(target.clone());
    }
    let address = spec.and_then(|s| s.cluster_ip.as_deref()).unwrap_or("");
    match (address, &name.hostname) {
        ("None", hostname) => {
            endpoint(hostname.as_deref(), slices).map_or(Answer::Nobody, Answer::Is)
        }
        ("", _) => Answer::NotYet,
        (address, _) => Answer::Is(address.to_owned()),
    }
}

fn endpoint(hostname: Option<&str>, slices: &[EndpointSlice]) -> Option<String> {
    let mut ready: Vec<&String> = slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten())
        .filter(|e| {
            let conditions = e.conditions.as_ref();
            conditions.and_then(|c| c.ready).unwrap_or(true)
        })
        .filter(|e| hostname.is_none_or(|h| e.hostname.as_deref() == Some(h)))
        .filter_map(|e| e.addresses.first())
        .collect();
    ready.sort();
    ready.first().map(|address| (*address).clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(host: &str) -> Name {
        names(host, "till").remove(0)
    }

    fn service(spec: &serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "ledger"}, "spec": spec})).unwrap()
    }

    #[test]
    fn every_form_of_a_service_name_is_understood() {
        for host in [
            "ledger.stock",
            "ledger.stock.svc",
            "ledger.stock.svc.cluster.local",
        ] {
            let found = name(host);
            assert_eq!(
                (found.service.as_str(), found.namespace.as_str()),
                ("ledger", "stock")
            );
        }
        assert_eq!(name("ledger").namespace, "till");
        let pod = name("ledger-0.ledger-pods.stock.svc");
        assert_eq!(pod.hostname.as_deref(), Some("ledger-0"));
        assert!(names("db.eu.example.com", "till").is_empty());
    }

    #[test]
    fn a_headless_service_answers_with_its_first_ready_endpoint() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"name": "m"}, "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["127.9.9.3"], "conditions": {"ready": false}},
                {"addresses": ["127.9.9.5"]},
                {"addresses": ["127.9.9.4"], "hostname": "ledger-1"}
            ]
        }))
        .unwrap();
        let headless = service(&json!({"clusterIP": "None"}));
        let slices = [slice];
        assert_eq!(
            answer(&name("ledger"), &headless, &slices),
            Answer::Is("127.9.9.4".into())
        );
        let gone = name("ledger-7.ledger.till.svc");
        assert_eq!(answer(&gone, &headless, &slices), Answer::Nobody);
    }

    #[test]
    fn cluster_addresses_and_external_names_are_passed_on() {
        let cluster = service(&json!({"clusterIP": "127.80.1.2"}));
        assert_eq!(
            answer(&name("ledger"), &cluster, &[]),
            Answer::Is("127.80.1.2".into())
        );
        let external = service(&json!({"type": "ExternalName", "externalName": "db.example.com"}));
        assert_eq!(
            answer(&name("ledger"), &external, &[]),
            Answer::Is("db.example.com".into())
        );
        assert_eq!(
            answer(&name("ledger"), &service(&json!({})), &[]),
            Answer::NotYet
        );
    }
}
