//! Invariant I7: no byte of a private key, nor of the seal's, outside its own Secret, whatever is logged.
//!
//! A whole life of TLS runs with logs at `trace`; then everything that came out (logs, metrics, the state,
//! and every object of the API but Secrets) is searched for the keys in the forms in which they could leak.

use std::io::Write;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bouncert::clock::Clock;
use bouncert::daemon::{DaemonOptions, NAMESPACE_DEFAULT};
use bouncert::telemetry::Monitor;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use tracing::Dispatch;
use tracing_subscriber::fmt::MakeWriter;

use crate::stage::{NS, Stage};

/// Kinds that may show nothing of a key: all that are stored but Secrets.
const SHOWN: &[&str] = &[
    "/api/v1/configmaps",
    "/api/v1/events",
    "/api/v1/pods",
    "/api/v1/services",
    "/api/v1/serviceaccounts",
    "/apis/apps.k8s.appscode.com/v1/petsets",
    "/apis/appcatalog.appscode.com/v1alpha1/appbindings",
    "/apis/cert-manager.io/v1/issuers",
    "/apis/discovery.k8s.io/v1/endpointslices",
    "/apis/kubedb.com/v1/pgbouncers",
    "/apis/ops.kubedb.com/v1alpha1/pgbounceropsrequests",
    "/apis/policy/v1/poddisruptionbudgets",
];

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The forms in which a key could show up, each cut out of its middle, where it is secret.
fn forms(pem: &str) -> Vec<String> {
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let der = STANDARD.decode(&body).unwrap();
    // A P-256 key has its 32 secret octets near the beginning, an RSA key all over.
    let secret = if der.len() < 200 {
        &der[10..26]
    } else {
        &der[der.len() / 2..][..16]
    };
    vec![
        middle(&body),
        middle(&STANDARD.encode(pem)),
        list(secret),
        hex(secret),
    ]
}

fn middle(text: &str) -> String {
    text[text.len() / 3..][..24].to_owned()
}

fn list(octets: &[u8]) -> String {
    let octets: Vec<String> = octets.iter().map(ToString::to_string).collect();
    octets.join(", ")
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The forms of the key by which the daemon seals what it makes, which is found in its Secret.
async fn seal(stage: &Stage) -> (String, Vec<String>) {
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), NAMESPACE_DEFAULT);
    let secret = secrets.get("bouncert-seal").await.unwrap();
    let key = secret.data.unwrap()["key"].0.clone();
    assert_eq!(key.len(), 32);
    let path = format!("/api/v1/namespaces/{NAMESPACE_DEFAULT}/secrets/bouncert-seal");
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    let answer = stage.client.request_text(request).await.unwrap();
    let forms = vec![
        middle(&STANDARD.encode(&key)),
        list(&key[8..24]),
        hex(&key[8..24]),
        hex(&key[8..24]).to_uppercase(),
    ];
    assert!(
        answer.contains(&forms[0]),
        "the key of the seal is not where it belongs"
    );
    ("bouncert-seal".to_owned(), forms)
}

/// The forms of every key that is stored now. That they are found where the keys may be, in the
/// Secrets, shows that looking for them means something.
async fn keys(stage: &Stage) -> Vec<(String, Vec<String>)> {
    let request = http::Request::get("/api/v1/secrets")
        .body(Vec::new())
        .unwrap();
    let answer = stage.client.request_text(request).await.unwrap();
    let secrets = stage.api::<Secret>();
    let keys = keys_of(&secrets.list(&ListParams::default()).await.unwrap().items);
    for (name, forms) in &keys {
        assert!(
            answer.contains(&forms[1]),
            "the key of {name} is not where it belongs"
        );
    }
    keys
}

fn keys_of(secrets: &[Secret]) -> Vec<(String, Vec<String>)> {
    secrets
        .iter()
        .filter_map(|secret| {
            let key = secret.data.as_ref()?.get("tls.key")?;
            let pem = String::from_utf8(key.0.clone()).unwrap();
            Some((secret.name_any(), forms(&pem)))
        })
        .collect()
}

async fn shown(stage: &Stage) -> String {
    let mut shown = String::new();
    for path in SHOWN {
        let request = http::Request::get(*path).body(Vec::new()).unwrap();
        let answer = stage.client.request_text(request).await.unwrap();
        assert!(answer.contains("\"items\""), "{path}: {answer}");
        shown.push_str(&answer);
    }
    for (pod, _) in stage.pods("pb").await {
        let path = format!("/api/v1/namespaces/{NS}/pods/{pod}/log");
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        shown.push_str(&stage.client.request_text(request).await.unwrap());
    }
    shown
}

async fn life_of_tls() -> (Vec<(String, Vec<String>)>, String) {
    let mut stage = Stage::without_daemon().await;
    let monitor = Monitor::new(Clock::System);
    stage.start_daemon_with(DaemonOptions {
        monitor: monitor.clone(),
        ..DaemonOptions::default()
    });
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage
        .openssl_ca("pgbouncer-new-ca", "/CN=pgbouncer/O=kubedb-updated")
        .await;
    stage.example("pb-issuer").await;
    stage.example("new-issuer").await;
    stage.example("pb").await;
    stage.ready("pb").await;
    let (mut found, mut text) = (Vec::new(), String::new());
    for request in ["add-tls", "rotate-tls", "change-issuer", "remove-tls"] {
        stage.example(request).await;
        stage.successful(request).await;
        found.extend(keys(&stage).await);
        text.push_str(&shown(&stage).await);
        text.push_str(&monitor.metrics().unwrap());
        text.push_str(&monitor.state().unwrap_or_default());
    }
    assert!(text.contains("bouncert_"), "metrics were kept");
    found.push(seal(&stage).await);
    stage.stop().await;
    (found, text)
}

#[test]
fn no_key_shows_in_a_log_an_object_or_an_answer() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let dispatch = Dispatch::new(subscriber);
    let of_threads = dispatch.clone();
    // Every thread of this runtime, and no other test's, writes into our log.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .on_thread_start(move || {
            std::mem::forget(tracing::dispatcher::set_default(&of_threads));
        })
        .build()
        .unwrap();
    let _here = tracing::dispatcher::set_default(&dispatch);
    let (keys, text) = runtime.block_on(life_of_tls());
    drop(runtime);
    // Three aliases, three times issued, two CAs, and the seal.
    assert!(keys.len() >= 12, "the keys were seen: {}", keys.len());
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(
        log.contains("certificate issued") && log.contains("TRACE"),
        "the log was kept"
    );
    for (secret, forms) in keys {
        for form in forms {
            assert!(!log.contains(&form), "the key of {secret} is in the log");
            assert!(!text.contains(&form), "the key of {secret} is in an object");
        }
    }
}
