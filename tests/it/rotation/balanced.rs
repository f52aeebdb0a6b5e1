//! A load balancer gives the Service an address, long after the certificate was made.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use bouncert::api::PgBouncer;

use super::platform::{MINUTE, POOLER, leaf, opened, requests, served};
use crate::stage::LONG;
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_certificate_gets_the_addresses_that_a_load_balancer_gives_later() {
    let stage = opened().await;

    let templates = json!({ "spec": { "serviceTemplates": [{
        "alias": "primary", "spec": { "type": "LoadBalancer" },
    }]}});
    let (params, merge) = (PatchParams::default(), Patch::Merge(&templates));
    let bouncers = stage.api::<PgBouncer>();
    bouncers.patch(POOLER, &params, &merge).await.unwrap();
    let services = stage.api::<Service>();
    eventually(MINUTE, async || {
        let type_ = services.get(POOLER).await.unwrap().spec.unwrap().type_;
        match type_.as_deref() {
            Some("LoadBalancer") => Ok(()),
            _ => Err(type_),
        }
    })
    .await;
    assert!(requests(&stage).await.is_empty());

    // What a cloud's controller does.
    let given = json!({ "status": { "loadBalancer": { "ingress": [
        { "hostname": "pool.example.org" }, { "ip": "203.0.113.7" }, { "ip": "2001:db8::7" },
    ]}}});
    let merge = Patch::Merge(&given);
    services
        .patch_status(POOLER, &params, &merge)
        .await
        .unwrap();
    let request = eventually(LONG, async || {
        requests(&stage).await.pop().ok_or("no request yet")
    })
    .await;
    stage.successful(&request.name_any()).await;
    let leaf = leaf(&stage).await.unwrap();
    assert!(leaf.dns_names.iter().any(|name| name == "pool.example.org"));
    for address in ["203.0.113.7", "2001:db8::7"] {
        let address: IpAddr = address.parse().unwrap();
        assert!(leaf.ip_addresses.contains(&address), "{leaf:?}");
    }
    assert_eq!(served(&stage).await, Some(leaf.fingerprint));

    // Once is enough.
    stage.ready(POOLER).await;
    assert_eq!(requests(&stage).await.len(), 1);
    stage.stop().await;
}
