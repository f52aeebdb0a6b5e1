//! Issuers that do not sign: given up in time, with nothing changed.

use std::time::{Duration, Instant};

use bouncert::api::CertificateRequest;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::platform::{POOLER, leaf, served};
use crate::stage::{Stage, request};

/// A twentieth of the five minutes for which the certificate is asked.
const PATIENCE: Duration = Duration::from_secs(15);
/// Undoing included, on a machine with other work to do; the step's own bound is minutes.
const BOUND: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_issuer_that_does_not_sign_is_given_up_after_a_twentieth_of_the_life() {
    let stage = Stage::start().await;
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage.example("issuer").await;
    stage.example("pgbouncer-ssl").await;
    stage.ready(POOLER).await;
    let before = leaf(&stage).await.unwrap();

    let absent = json!({ "kind": "Issuer", "name": "absent" });
    let said = given_up(&stage, "absent", absent).await;
    assert!(said.contains("absent"), "names who is waited for: {said}");

    // One behind a CertificateRequest that nobody answers.
    let far = json!({ "apiGroup": "issuers.example.org", "kind": "Beacon", "name": "lighthouse" });
    let said = given_up(&stage, "far", far).await;
    assert!(said.contains("CertificateRequest demo/"), "{said}");
    let left = stage.api::<CertificateRequest>();
    let left = left.list(&ListParams::default()).await.unwrap().items;
    assert!(left.is_empty(), "{left:?}");

    assert_eq!(leaf(&stage).await.unwrap().fingerprint, before.fingerprint);
    assert_eq!(served(&stage).await, Some(before.fingerprint));
    let secrets = stage.api::<Secret>().list(&ListParams::default()).await;
    let keys: Vec<_> = secrets
        .unwrap()
        .items
        .into_iter()
        .filter_map(|secret| secret.metadata.name)
        .filter(|name| name.ends_with("-key") || name.ends_with("client-cert-r2"))
        .collect();
    assert!(keys.is_empty(), "{keys:?}");
    stage.stop().await;
}

/// Asks for a client's certificate that lives for five minutes; what the request says when it has failed.
async fn given_up(stage: &Stage, name: &str, issuer: Value) -> String {
    let tls = json!({ "certificates": [{
        "alias": "client", "duration": "5m", "renewBefore": "2m", "issuerRef": issuer,
    }]});
    let asked = Instant::now();
    stage.create(request(name, POOLER, tls)).await;
    let said = stage.failed(name).await;
    let took = asked.elapsed();
    assert!(said.contains("was not issued within"), "{said}");
    assert!(took >= PATIENCE && took < BOUND, "{took:?}");
    said
}
