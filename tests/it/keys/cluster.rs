//! Damaged keys in every object that the daemon reads: nothing of them in its log, in other objects, in
//! metrics or in its state.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bouncert::api::crds;
use bouncert::causes::chain;
use bouncert::clock::Clock;
use bouncert::daemon::{self, DaemonOptions, NAMESPACE_DEFAULT};
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use bouncert::material::IssueOutcome;
use bouncert::names::{Alias, ObjectRef, Revision};
use bouncert::telemetry::Monitor;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use kube::{Client, Resource as _};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

use super::mutant::{Mutation, Original, mutations, originals, pair};
use crate::material::Scene;
use crate::support::eventually;

pub(crate) const NS: &str = "treasury";
/// Kinds that may show nothing of a key. Issuers hold what a user has written into their spec.
pub(crate) const SHOWN: &[&str] = &[
    "/api/v1/configmaps",
    "/api/v1/events",
    "/api/v1/services",
    "/api/v1/serviceaccounts",
    "/apis/apps.k8s.appscode.com/v1/petsets",
    "/apis/appcatalog.appscode.com/v1alpha1/appbindings",
    "/apis/cert-manager.io/v1/certificaterequests",
    "/apis/kubedb.com/v1/pgbouncers",
    "/apis/ops.kubedb.com/v1alpha1/pgbounceropsrequests",
];

/// What is said of the CA in a Secret, a login, a configuration and a Vault.
const TOLD: [&str; 4] = [
    "holds no usable CA",
    "the user name has",
    "key pgbouncer.ini",
    "caBundle",
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

/// Damaged keys, the same in every run: each kind with a blank line in it, then as they come.
fn damaged() -> Vec<(&'static Original, String)> {
    let mut runner = TestRunner::deterministic();
    let mut drawn = || mutations().new_tree(&mut runner).unwrap().current();
    let blank = [Mutation::Lines("")];
    let one = originals().iter().map(|key| (key, key.mutated(&blank)));
    let mut keys: Vec<_> = one.collect();
    for _ in 0..3 {
        let more = originals().iter().map(|key| (key, key.mutated(&drawn())));
        keys.extend(more);
    }
    keys
}

pub(crate) async fn create(client: &Client, mut object: Value) {
    let api_version = object["apiVersion"].as_str().unwrap().to_owned();
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let kind = GroupVersionKind::gvk(group, version, object["kind"].as_str().unwrap());
    let resource = ApiResource::from_gvk(&kind);
    let global = ["Namespace", "PgBouncerVersion", "CustomResourceDefinition"];
    let api: Api<DynamicObject> = if global.contains(&kind.kind.as_str()) {
        Api::all_with(client.clone(), &resource)
    } else {
        object["metadata"]["namespace"] = json!(NS);
        Api::namespaced_with(client.clone(), NS, &resource)
    };
    let name = object["metadata"]["name"].clone();
    let object = serde_json::from_value(object).unwrap();
    let made = api.create(&PostParams::default(), &object).await;
    made.unwrap_or_else(|error| panic!("{name}: {error}"));
}

pub(crate) async fn secret(client: &Client, name: &str, fields: &[(&str, &str)]) {
    let data: serde_json::Map<String, Value> = fields
        .iter()
        .map(|(key, text)| ((*key).to_owned(), json!(STANDARD.encode(text))))
        .collect();
    create(
        client,
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}),
    )
    .await;
}

pub(crate) async fn furnish(client: &Client) {
    for crd in crds::own().iter().chain(&crds::borrowed()) {
        create(client, serde_json::to_value(crd).unwrap()).await;
    }
    for name in [NS, "cert-manager", NAMESPACE_DEFAULT] {
        create(
            client,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        )
        .await;
    }
    create(
        client,
        json!({
            "apiVersion": "catalog.kubedb.com/v1alpha1", "kind": "PgBouncerVersion",
            "metadata": {"name": "1.23.1"},
            "spec": {
                "version": "1.23.1", "pgBouncer": {"image": "example.org/pgbouncer:1"},
                "exporter": {"image": "example.org/exporter:1"},
            },
        }),
    )
    .await;
    let (certificate, key) = pair();
    secret(
        client,
        "sound",
        &[("tls.crt", certificate), ("tls.key", key)],
    )
    .await;
    secret(
        client,
        "sound-auth",
        &[("username", "postgres"), ("password", "x")],
    )
    .await;
}

/// A PgBouncer `name` with what it names: an issuer, an AppBinding and a configuration, of which one
/// holds `text` where something else belongs.
async fn plant(client: &Client, name: &str, way: usize, text: &str) {
    let (certificate, key) = pair();
    let (mint, auth, ini) = (
        format!("{name}-mint"),
        format!("{name}-books"),
        format!("{name}-ini"),
    );
    let token = json!({"tokenSecretRef": {"name": mint, "key": "token"}});
    let vault = |more: Value| {
        let mut spec =
            json!({"server": "https://127.0.0.1:1", "path": "pki/sign/x", "auth": token});
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({"vault": spec})
    };
    let mut issuer = json!({"ca": {"secretName": mint}});
    let mut issuer_secret = vec![("tls.crt", certificate.as_str()), ("tls.key", key)];
    let mut login = ("postgres", "x");
    let mut configuration = "[pgbouncer]\nverbose = 1\n";
    let mut published = None;
    match way {
        0 => issuer_secret[1].1 = text,
        1 => issuer_secret[0].1 = text,
        2 => issuer_secret.push(("ca.crt", text)),
        3 => issuer_secret = vec![("tls.crt", text), ("tls.key", certificate)],
        4 => login.0 = text,
        5 => login.1 = text,
        6 => configuration = text,
        7 => published = Some([("tls.crt", text), ("tls.key", key), ("ca.crt", certificate)]),
        8 => {
            published = Some([
                ("tls.crt", certificate),
                ("tls.key", text),
                ("ca.crt", text),
            ]);
        }
        9 => issuer = vault(json!({"caBundle": STANDARD.encode(text)})),
        10 => {
            issuer = vault(json!({"caBundleSecretRef": {"name": mint, "key": "ca.crt"}}));
            issuer_secret = vec![("token", "x"), ("ca.crt", text)];
        }
        11 => {
            issuer = vault(json!({}));
            issuer_secret = vec![("token", text)];
        }
        12 => issuer = json!({"acme": {"caBundle": STANDARD.encode(text)}}),
        _ => {
            issuer = json!({"vault": {"server": "https://127.0.0.1:1", "path": "x", "auth": text}});
        }
    }
    secret(client, &mint, &issuer_secret).await;
    secret(
        client,
        &auth,
        &[("username", login.0), ("password", login.1)],
    )
    .await;
    secret(client, &ini, &[("pgbouncer.ini", configuration)]).await;
    if let Some(fields) = published {
        secret(client, &format!("{name}-server-cert"), &fields).await;
    }
    for object in objects(name, (&mint, &auth, &ini), &issuer) {
        create(client, object).await;
    }
}

/// A PgBouncer with its Issuer and its AppBinding, whose Secrets are `mint`, `auth` and `ini`.
pub(crate) fn objects(
    name: &str,
    (mint, auth, ini): (&str, &str, &str),
    issuer: &Value,
) -> [Value; 3] {
    [
        json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": mint},
            "spec": issuer,
        }),
        json!({
            "apiVersion": "appcatalog.appscode.com/v1alpha1", "kind": "AppBinding",
            "metadata": {"name": auth},
            "spec": {
                "type": "kubedb.com/postgres",
                "clientConfig": {"url": "postgresql://127.0.0.1:1/postgres"},
                "secret": {"name": auth},
            },
        }),
        json!({
            "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "metadata": {"name": name},
            "spec": {
                "version": "1.23.1", "sslMode": "verify-full",
                "database": {
                    "databaseName": "ledger", "databaseRef": {"name": auth, "namespace": NS},
                },
                "tls": {"issuerRef": {"apiGroup": "cert-manager.io", "kind": "Issuer", "name": mint}},
                "configuration": {"secretName": ini},
            },
        }),
    ]
}

/// Plants every key in some way, lets the daemon look, and answers all that can be seen afterwards.
async fn look(keys: &[(&'static Original, String)]) -> String {
    let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
    let client = server.client();
    furnish(&client).await;
    for (at, (_, text)) in keys.iter().enumerate() {
        plant(&client, &format!("pb{at}"), at % 14, text).await;
    }
    let monitor = Monitor::new(Clock::System);
    let options = DaemonOptions {
        monitor: monitor.clone(),
        ..DaemonOptions::default()
    };
    let stop = CancellationToken::new();
    let mut running = tokio::task::JoinSet::new();
    running.spawn(daemon::run(client.clone(), options, stop.clone()));
    let seen = eventually(Duration::from_secs(120), async || {
        let mut seen = String::new();
        for path in SHOWN {
            let request = http::Request::get(*path).body(Vec::new()).unwrap();
            seen += &client.request_text(request).await.unwrap();
        }
        seen += &monitor.metrics().unwrap();
        seen += &monitor.state().unwrap_or_default();
        // The trouble itself is told.
        let untold: Vec<_> = TOLD.iter().filter(|told| !seen.contains(**told)).collect();
        if untold.is_empty() {
            Ok(seen)
        } else {
            Err(untold)
        }
    })
    .await;
    stop.cancel();
    while running.join_next().await.is_some() {}
    seen
}

/// Runs `work` on a runtime of its own, and answers what it logged at `trace` besides.
pub(crate) fn logged<T>(work: impl Future<Output = T>) -> (T, String) {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let dispatch = tracing::Dispatch::new(subscriber);
    let of_threads = dispatch.clone();
    // Every thread of this runtime, and no other test's, writes into our log.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || {
            std::mem::forget(tracing::dispatcher::set_default(&of_threads));
        })
        .build()
        .unwrap();
    let _here = tracing::dispatcher::set_default(&dispatch);
    let done = runtime.block_on(work);
    drop(runtime);
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("TRACE"), "the log was kept");
    (done, log)
}

#[test]
fn no_key_shows_through_any_object_that_the_daemon_reads() {
    let keys = damaged();
    let (seen, log) = logged(look(&keys));
    for (at, (original, text)) in keys.iter().enumerate() {
        for (what, place) in [("object", &seen), ("log", &log)] {
            let shown = original.shown_in(place);
            assert_eq!(
                shown, None,
                "{} of pb{at} in an {what}:\n{text}",
                original.name
            );
        }
    }
}

/// A Secret of the PgBouncer's own, which somebody has damaged.
async fn own_secret(scene: &Scene, name: &str, fields: &[(&str, &str)]) {
    let owner = scene.owner.controller_owner_ref(&()).unwrap();
    let data: serde_json::Map<String, Value> = fields
        .iter()
        .map(|(key, text)| ((*key).to_owned(), json!(STANDARD.encode(text))))
        .collect();
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": NS, "ownerReferences": [owner]}, "data": data,
    }))
    .unwrap();
    scene.cluster.create(&secret).await.unwrap();
}

#[tokio::test]
async fn no_key_shows_in_what_is_said_of_our_own_secrets() {
    let scene = Scene::new().await;
    let (certificate, _) = pair();
    let wanted = scene.wanted(Alias::Server, "first");
    for (at, (original, text)) in damaged().iter().enumerate() {
        let (revision, next) = (2 * at + 10, 2 * at + 11);
        let mut told = String::new();
        let mut tell = |outcome: IssueOutcome| {
            // A key that is read although it is damaged is issued for: with its public half.
            if let IssueOutcome::Failed(error) = &outcome {
                let _ = writeln!(told, "{} {outcome:?}", chain(error));
            }
        };
        let number = |number: usize| Revision::new(u32::try_from(number).unwrap()).unwrap();
        let name = format!("billing-server-cert-r{revision}");
        let fields = [
            ("tls.crt", text.as_str()),
            ("tls.key", text),
            ("ca.crt", text),
        ];
        own_secret(&scene, &name, &fields).await;
        let issued = scene
            .materials
            .issue(&scene.owner, &wanted, number(revision));
        tell(issued.await);
        let key = format!("billing-server-cert-r{next}-key");
        own_secret(&scene, &key, &[("tls.key", text)]).await;
        let issued = scene.materials.issue(&scene.owner, &wanted, number(next));
        tell(issued.await);
        let contract = format!("contract-{at}");
        own_secret(
            &scene,
            &contract,
            &[("tls.crt", certificate), ("ca.crt", text)],
        )
        .await;
        let published = scene
            .materials
            .published(&scene.owner, Alias::Server, &contract);
        if let Err(error) = published.await {
            let _ = writeln!(told, "{} {error:?}", chain(&error));
        }
        let shown = original.shown_in(&told);
        assert_eq!(shown, None, "{}:\n{text}\n{told}", original.name);
        let at = ObjectRef::new(NS, &name);
        let kept: Option<Secret> = scene.cluster.get(&at).await.unwrap();
        if let Some(kept) = kept {
            scene.cluster.delete_read(&kept).await.unwrap();
        }
    }
}
