//! Issuers and policies through the whole product: what a request makes of them.

use bouncert::daemon::DaemonOptions;
use bouncert::pki::facts::read_chain;
use bouncert::policy::Policies;
use serde_json::json;

use crate::stage::{Stage, repository_file};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn certificates_that_sign_themselves_are_trusted_on_both_sides_and_rotate() {
    let stage = Stage::start().await;
    stage
        .create(json!({
            "apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer",
            "metadata": {"name": "everybody"}, "spec": {"selfSigned": {}},
        }))
        .await;
    stage.example("pb").await;
    stage.ready("pb").await;
    let add = json!({
        "issuerRef": {"kind": "ClusterIssuer", "name": "everybody"}, "sslMode": "verify-full",
    });
    stage.request("trust-ourselves", add).await;
    stage.successful("trust-ourselves").await;
    let first = stage.client_files("pb-client-cert").await;
    let login = format!("sslmode=verify-full {first}");
    assert_eq!(stage.psql("pb", &login).await.unwrap(), "42");

    stage
        .request("trust-anew", json!({"rotateCertificates": true}))
        .await;
    stage.successful("trust-anew").await;
    let second = stage.client_files("pb-client-cert").await;
    let login = format!("sslmode=verify-full {second}");
    assert_eq!(stage.psql("pb", &login).await.unwrap(), "42");
    // Whoever has the new trust and still the former certificate is let in as well (I6).
    let trust = second.split(' ').next().unwrap();
    let former: Vec<_> = first.split(' ').skip(1).collect();
    let login = format!("sslmode=verify-full {trust} {}", former.join(" "));
    assert_eq!(stage.psql("pb", &login).await.unwrap(), "42");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_policy_forbids_ends_failed_with_every_violation_and_changes_nothing() {
    let mut stage = Stage::start().await;
    stage.kill_daemon().await;
    let strict = std::fs::read_to_string(repository_file("policies/strict.yaml")).unwrap();
    stage.start_daemon_with(DaemonOptions {
        policies: Policies::parse(&strict).unwrap(),
        ..DaemonOptions::default()
    });
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage.example("pb-issuer").await;
    stage.example("pb").await;
    stage.ready("pb").await;
    let issuer = json!({"kind": "Issuer", "name": "pb-issuer"});
    let greedy = json!({
        "issuerRef": issuer,
        "certificates": [{
            "alias": "server", "duration": "8760h", "dnsNames": ["till.example.org"],
            "ipAddresses": ["192.0.2.7"],
        }],
    });
    stage.request("greedy", greedy).await;
    let message = stage.failed("greedy").await;
    for word in ["8760h", "till.example.org", "192.0.2.7"] {
        assert!(message.contains(word), "{word} is not told: {message}");
    }
    assert_eq!(stage.bouncer("pb").await.spec.tls, None);

    let month = |alias: &str| json!({"alias": alias, "duration": "720h"});
    let modest = json!({
        "issuerRef": issuer, "sslMode": "require",
        "certificates": [month("server"), month("client"), month("metrics-exporter")],
    });
    stage.request("modest", modest).await;
    stage.successful("modest").await;
    let leaf = read_chain(&stage.secret("pb-server-cert", "tls.crt").await).unwrap();
    assert_eq!((leaf[0].not_after - leaf[0].not_before).whole_days(), 30);
    stage.stop().await;
}
