//! A PgBouncer object becomes the objects it stands for: against the embedded API server alone, and
//! with real poolers.

mod brought;
mod exchanged;
mod foreign;
mod grants;
mod mended;
mod objects;
mod poolers;
mod squatters;
mod users;

use std::fmt::Debug;
use std::time::Duration as Wait;

use bouncert::api::{PgBouncer, crds};
use bouncert::cluster::Cluster;
use bouncert::daemon::NAMESPACE_DEFAULT;
use bouncert::names::Area;
use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::CaProfile;
use bouncert::provisioner::Copies;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, ListParams, PostParams};
use kube::runtime::{reflector, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

/// Where everything of these tests lives; the backend is elsewhere.
const NAMESPACE: &str = "shop";
const BACKEND_NAMESPACE: &str = "vault";
const SOON: Wait = Wait::from_secs(20);

/// All definitions that the daemon works with.
fn definitions() -> Vec<Value> {
    crds::own()
        .iter()
        .chain(&crds::borrowed())
        .map(|crd| serde_json::to_value(crd).unwrap())
        .collect()
}

/// Creates an object of whatever kind it says it is.
async fn create(client: &Client, object: Value) {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (group, version) = text("/apiVersion")
        .split_once('/')
        .unwrap_or_else(|| ("", text("/apiVersion")));
    let kind = kube::api::GroupVersionKind::gvk(group, version, text("/kind"));
    let resource = kube::api::ApiResource::from_gvk(&kind);
    let namespace = text("/metadata/namespace");
    let api: Api<kube::api::DynamicObject> = if namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, &resource)
    };
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// Namespaces, version, and a PostgreSQL that nobody runs.
async fn furnish(client: &Client) {
    let granted = json!({ "bouncert.dev/allowed-namespaces": NAMESPACE });
    for (name, annotations) in [
        (NAMESPACE, Value::Null),
        (NAMESPACE_DEFAULT, Value::Null),
        (BACKEND_NAMESPACE, granted),
    ] {
        let meta = json!({ "name": name, "annotations": annotations });
        let namespace: Namespace = serde_json::from_value(json!({ "metadata": meta })).unwrap();
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
    }
    create(client, version("1.18.0", false)).await;
    create(
        client,
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "books-auth", "namespace": BACKEND_NAMESPACE },
            "stringData": { "username": "postgres", "password": "sword\"fish" },
        }),
    )
    .await;
}

fn version(name: &str, is_deprecated: bool) -> Value {
    json!({
        "apiVersion": "catalog.kubedb.com/v1alpha1", "kind": "PgBouncerVersion",
        "metadata": { "name": name },
        "spec": {
            "version": name,
            "deprecated": is_deprecated,
            "pgBouncer": { "image": format!("example.org/pgbouncer:{name}") },
            "exporter": { "image": "example.org/exporter:7" },
        },
    })
}

async fn backend(client: &Client) {
    create(
        client,
        json!({
            "apiVersion": "appcatalog.appscode.com/v1alpha1", "kind": "AppBinding",
            "metadata": { "name": "books", "namespace": BACKEND_NAMESPACE },
            "spec": {
                "type": "kubedb.com/postgres",
                "clientConfig": { "url": "postgresql://127.0.0.1:1/postgres" },
                "secret": { "name": "books-auth" },
            },
        }),
    )
    .await;
}

#[expect(clippy::needless_pass_by_value, reason = "json! at the call")]
fn bouncer(name: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "kubedb.com/v1", "kind": "PgBouncer",
        "metadata": { "name": name, "namespace": NAMESPACE, "labels": { "team": "ledger" } },
        "spec": {
            "version": "1.18.0",
            "database": {
                "databaseName": "ledger",
                "databaseRef": { "name": "books", "namespace": BACKEND_NAMESPACE },
            },
        },
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

/// An Issuer with a CA of its own.
async fn issuer(client: &Client, name: &str) {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let pem = key.to_pem(KeyEncoding::Pkcs8).expose().clone();
    let profile = CaProfile::new(name, Duration::days(365));
    let now = bouncert::clock::Clock::System.now();
    let serial = Serial::from_random([9; 20]);
    let ca = CertificateAuthority::self_signed(&profile, key, serial, now - HOUR).unwrap();
    create(
        client,
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": { "name": format!("{name}-ca"), "namespace": NAMESPACE },
            "stringData": { "tls.crt": ca.certificate_pem(), "tls.key": pem },
        }),
    )
    .await;
    create(
        client,
        json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Issuer",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": { "ca": { "secretName": format!("{name}-ca") } },
        }),
    )
    .await;
}

const HOUR: Duration = Duration::hours(1);

/// Reads an object.
async fn get<K>(client: &Client, name: &str) -> Option<K>
where
    K: bouncert::cluster::Namespaced,
{
    let at = bouncert::names::ObjectRef::new(NAMESPACE, name);
    Cluster::new(client.clone()).get(&at).await.unwrap()
}

/// One value of a Secret, as text.
async fn secret_value(client: &Client, name: &str, key: &str) -> String {
    let secret: Secret = get(client, name)
        .await
        .unwrap_or_else(|| panic!("no Secret {name}"));
    String::from_utf8(secret.data.unwrap()[key].0.clone()).unwrap()
}

/// Type, status and reason of all conditions.
fn conditions(bouncer: &PgBouncer) -> Vec<String> {
    let status = bouncer.status.clone().unwrap_or_default();
    let shown = status.conditions.iter();
    shown
        .map(|it| format!("{}={} {}: {}", it.type_, it.status, it.reason, it.message))
        .collect()
}

/// Not the epoch, so that a date that is left out shows.
const NOW: OffsetDateTime = time::macros::datetime!(2031-05-06 07:08 UTC);

/// What watches would have told of PgBouncers and pods.
async fn copies(client: &Client) -> Copies {
    let (store, mut writer) = reflector::store();
    for event in listed(client).await {
        writer.apply_watcher_event(&event);
    }
    let copies = Copies::new(store, &Area::Everywhere);
    let mut hear = copies.pods();
    for event in listed(client).await {
        hear(&event);
    }
    copies
}

/// What a watch tells of all objects of a kind, first.
async fn listed<K>(client: &Client) -> Vec<watcher::Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + 'static,
{
    let api = Api::<K>::all(client.clone());
    let all = api.list(&ListParams::default()).await.unwrap().items;
    [watcher::Event::Init]
        .into_iter()
        .chain(all.into_iter().map(watcher::Event::InitApply))
        .chain([watcher::Event::InitDone])
        .collect()
}
