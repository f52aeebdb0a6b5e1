//! Issuers that send a private key: refused, told, and not shown.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bouncert::api::{CertificateRequest, crds};
use bouncert::clock::Clock;
use bouncert::daemon::{self, DaemonOptions};
use bouncert::issuer::VaultNetworks;
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::csr;
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::{CaProfile, LeafProfile, LeafUsage};
use bouncert::telemetry::Monitor;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::cluster::{NS, SHOWN, create, furnish, logged, objects, secret};
use crate::support::eventually;
use crate::vault::{Holds, Vault};

/// The issuers, each with a PgBouncer of its name.
const WAYS: [(&str, Option<Holds>); 4] = [
    ("leaf", Some(Holds::KeyAfterLeaf)),
    ("chain", Some(Holds::KeyInChain)),
    ("field", Some(Holds::KeyInItsField)),
    ("request", None),
];

/// A PgBouncer whose certificates come from `issuer`, a Vault, or where there is none through a
/// `CertificateRequest`.
async fn pooler(client: &Client, name: &str, issuer: Option<Value>) {
    let (mint, auth, ini) = (
        format!("{name}-mint"),
        format!("{name}-books"),
        format!("{name}-ini"),
    );
    secret(client, &mint, &[("token", "x")]).await;
    secret(
        client,
        &auth,
        &[("username", "postgres"), ("password", "x")],
    )
    .await;
    secret(
        client,
        &ini,
        &[("pgbouncer.ini", "[pgbouncer]\nverbose = 1\n")],
    )
    .await;
    let is_elsewhere = issuer.is_none();
    let issuer = issuer.unwrap_or_else(|| json!({"selfSigned": {}}));
    for mut object in objects(name, (&mint, &auth, &ini), &issuer) {
        if is_elsewhere && object["kind"] == "PgBouncer" {
            let other = json!({
                "apiGroup": "issuers.example.org", "kind": "Lighthouse", "name": "skerries",
            });
            object["spec"]["tls"]["certificates"] =
                json!([{"alias": "server", "issuerRef": other}]);
        }
        create(client, object).await;
    }
}

/// Answers every `CertificateRequest` with a certificate and a key behind it.
async fn answer_requests(client: &Client, ca: &CertificateAuthority, key: &str) {
    let requests: Api<CertificateRequest> = Api::namespaced(client.clone(), NS);
    let asked = eventually(Duration::from_secs(60), async || {
        let found = requests.list(&ListParams::default()).await.unwrap().items;
        found.into_iter().next().ok_or("nothing is asked")
    })
    .await;
    let pem = STANDARD.decode(&asked.spec.request).unwrap();
    let request = csr::read(std::str::from_utf8(&pem).unwrap()).unwrap();
    let mut profile = LeafProfile::new(LeafUsage::Server, "request.treasury.svc");
    profile.lifetime = time::Duration::hours(1);
    let (serial, now) = (Serial::from_random([8; 20]), Clock::System.now());
    let leaf = ca.sign(&profile, &request.public_key, serial, now).unwrap();
    let condition =
        |type_: &str| json!({"type": type_, "status": "True", "reason": "Done", "message": "x"});
    let status = json!({"status": {
        "certificate": STANDARD.encode(format!("{}{key}", leaf.chain.to_pem())),
        "ca": STANDARD.encode(ca.certificate_pem()),
        "conditions": [condition("Approved"), condition("Ready")],
    }});
    let name = asked.name_any();
    requests
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
}

/// Everything that can be seen once each PgBouncer says that a key was sent.
async fn look(key: &str) -> String {
    let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
    let client = server.client();
    assert!(!crds::own().is_empty());
    furnish(&client).await;
    let mut vaults = Vec::new();
    for (name, holds) in WAYS {
        let Some(holds) = holds else {
            pooler(&client, name, None).await;
            continue;
        };
        let vault = Vault::start(time::Duration::hours(1), holds, key).await;
        pooler(&client, name, Some(vault.spec(&format!("{name}-mint")))).await;
        vaults.push(vault);
    }
    let monitor = Monitor::new(Clock::System);
    let options = DaemonOptions {
        monitor: monitor.clone(),
        vault_networks: VaultNetworks::RoutableAndLoopback,
        ..DaemonOptions::default()
    };
    let stop = CancellationToken::new();
    let mut running = tokio::task::JoinSet::new();
    running.spawn(daemon::run(client.clone(), options, stop.clone()));
    let own = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let profile = CaProfile::new("Lighthouse", time::Duration::days(30));
    let (serial, now) = (Serial::from_random([6; 20]), Clock::System.now());
    let ca = CertificateAuthority::self_signed(&profile, own, serial, now).unwrap();
    answer_requests(&client, &ca, key).await;
    let seen = eventually(Duration::from_secs(120), async || {
        let mut seen = String::new();
        for path in SHOWN
            .iter()
            .filter(|path| !path.contains("certificaterequests"))
        {
            let request = http::Request::get(*path).body(Vec::new()).unwrap();
            seen += &client.request_text(request).await.unwrap();
        }
        seen += &monitor.metrics().unwrap();
        seen += &monitor.state().unwrap_or_default();
        let poolers: Api<bouncert::api::PgBouncer> = Api::namespaced(client.clone(), NS);
        for pooler in poolers.list(&ListParams::default()).await.unwrap() {
            let told = serde_json::to_string(&pooler.status).unwrap();
            if !told.contains("the answer holds a private key") {
                return Err((pooler.name_any(), told));
            }
        }
        Ok(seen)
    })
    .await;
    // Nothing was issued, and the key is in no Secret either.
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NS);
    for kept in secrets.list(&ListParams::default()).await.unwrap() {
        let name = kept.name_any();
        assert!(
            !name.contains("server-cert-r1") || name.ends_with("-key"),
            "{name}"
        );
        for value in kept.data.iter().flat_map(|data| data.values()) {
            assert!(!String::from_utf8_lossy(&value.0).contains(key), "{name}");
        }
    }
    stop.cancel();
    while running.join_next().await.is_some() {}
    seen
}

#[test]
fn an_issuer_that_sends_a_private_key_is_refused_and_the_key_is_shown_nowhere() {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let pem = key.to_pem(KeyEncoding::Pkcs8).expose().clone();
    let (seen, log) = logged(look(&pem));
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let der = STANDARD.decode(&body).unwrap();
    let middle = |text: &str| text[text.len() / 3..][..24].to_owned();
    let hex: String = der[40..56]
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    let whole = STANDARD.encode(&pem);
    for form in [middle(&body), middle(&whole), hex] {
        assert!(!seen.contains(&form), "in an object, a metric or the state");
        assert!(!log.contains(&form), "in the log");
    }
    assert!(seen.contains("ends in sign/<role>"), "says what to do");
}
