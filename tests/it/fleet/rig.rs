//! A fleet to measure the daemon with: a real API server and a real daemon, each a process or a task
//! of its own, and pods that are nothing but a listener that shakes hands with the Secret's
//! certificate.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bouncert::api::annotations::ALLOWED_NAMESPACES;
use bouncert::api::common::Phase;
use bouncert::api::{AppBinding, ClusterIssuer, PgBouncer, PgBouncerVersion, crds};
use bouncert::clock::Clock;
use bouncert::local::apiserver::serve::ServeOptions;
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::install;
use bouncert::local::store::{Key, Store};
use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::CaProfile;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::process::Daemon;

/// PgBouncers in one namespace.
const PER_NAMESPACE: usize = 100;
/// Where pods listen; each has an address of its own.
const PORT: u16 = 6432;
/// Calls at the same time, when the fleet is made.
const AT_ONCE: usize = 32;
/// The API server and what is in it.
pub(crate) struct Rig {
    size: usize,
    client: Client,
    _directory: TempDir,
    kubeconfig: PathBuf,
    running: JoinSet<()>,
}

impl Rig {
    /// An API server with `size` PgBouncers in it, which nobody has looked at.
    pub(crate) async fn start(size: usize) -> Self {
        let directory = TempDir::with_prefix("bouncert-fleet-").unwrap();
        let store = Store::in_memory().unwrap();
        let server = ApiServer::new(store, Options::default()).unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        let serve = ServeOptions {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            dir: directory.path().to_owned(),
            kubeconfig: kubeconfig.clone(),
            faults: None,
        };
        let listening = server.listen(&serve).await.unwrap();
        let mut running = JoinSet::new();
        running.spawn(listening.run(CancellationToken::new()));
        let client = server.client();
        // Without PetSets, pods are made by StatefulSets.
        let mut all = crds::own();
        all.extend(crds::borrowed());
        all.retain(|crd| crd.spec.names.kind != "PetSet");
        for crd in all {
            let crd = serde_json::to_value(crd).unwrap();
            install::definition(&client, crd).await.unwrap();
        }
        running.spawn(simulate(server, client.clone(), FLEET));
        let rig = Self {
            size,
            client,
            _directory: directory,
            kubeconfig,
            running,
        };
        rig.furnish().await;
        rig.populate().await;
        rig
    }

    /// What PgBouncers refer to.
    async fn furnish(&self) {
        for name in ["cert-manager", "demo"] {
            self.namespace(name).await;
        }
        let version = json!({
            "apiVersion": "catalog.kubedb.com/v1alpha1", "kind": "PgBouncerVersion",
            "metadata": { "name": "1.24.0" },
            "spec": {
                "version": "1.24.0", "pgBouncer": { "image": "registry.example/pgbouncer:1.24.0" },
                "exporter": { "image": "registry.example/pgbouncer-exporter:1" },
            },
        });
        let versions = Api::<PgBouncerVersion>::all(self.client.clone());
        create(&versions, version).await;
        let (crt, key) = authority();
        let ca = json!({
            "metadata": { "name": "fleet-ca" }, "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": crt, "tls.key": key },
        });
        create(&self.api::<Secret>("cert-manager"), ca).await;
        let issuer = json!({
            "apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer",
            "metadata": { "name": "fleet" }, "spec": { "ca": { "secretName": "fleet-ca" } },
        });
        create(&Api::<ClusterIssuer>::all(self.client.clone()), issuer).await;
        let credentials = json!({
            "metadata": { "name": "ha-postgres-auth" }, "type": "kubernetes.io/basic-auth",
            "stringData": { "username": "postgres", "password": "swordfish" },
        });
        create(&self.api::<Secret>("demo"), credentials).await;
        let binding = json!({
            "apiVersion": "appcatalog.appscode.com/v1alpha1", "kind": "AppBinding",
            "metadata": { "name": "ha-postgres", "annotations": { ALLOWED_NAMESPACES: "*" } },
            "spec": {
                "type": "kubedb.com/postgres",
                "clientConfig": { "service": {
                    "scheme": "postgresql", "name": "ha-postgres", "port": 5432, "path": "/",
                    "query": "sslmode=disable",
                }},
                "secret": { "kind": "Secret", "name": "ha-postgres-auth" },
            },
        });
        create(&self.api::<AppBinding>("demo"), binding).await;
    }

    async fn populate(&self) {
        for n in 0..self.size.div_ceil(PER_NAMESPACE) {
            self.namespace(&format!("team-{n}")).await;
        }
        stream::iter(0..self.size)
            .for_each_concurrent(AT_ONCE, |n| async move {
                let namespace = format!("team-{}", n / PER_NAMESPACE);
                let bouncers = self.api::<PgBouncer>(&namespace);
                create(&bouncers, pooler(&format!("pooler-{n}"))).await;
            })
            .await;
    }

    /// Makes one PgBouncer more, in the first namespace; how long it takes until it is ready.
    pub(crate) async fn one_more(&self, name: &str, bound: Duration) -> Duration {
        let bouncers = self.api::<PgBouncer>("team-0");
        let began = Instant::now();
        create(&bouncers, pooler(name)).await;
        loop {
            let bouncer = bouncers.get(name).await.unwrap();
            if is_ready(&bouncer) {
                return began.elapsed();
            }
            let status = bouncer.status;
            assert!(began.elapsed() < bound, "not within {bound:?}: {status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts a daemon.
    pub(crate) async fn daemon(&self) -> Daemon {
        Daemon::start(&self.kubeconfig).await
    }

    /// Waits until so many PgBouncers are ready.
    pub(crate) async fn ready(&self, wanted: usize, bound: Duration) {
        let began = Instant::now();
        loop {
            let asked = Instant::now();
            let (ready, others) = self.parted().await;
            if ready.len() >= wanted {
                return;
            }
            assert!(
                began.elapsed() < bound,
                "{} ready within {bound:?}: {:?}",
                ready.len(),
                others.iter().find_map(|one| one.status.as_ref())
            );
            // A list of thousands is work for the server that is measured.
            let pause = (asked.elapsed() * 10).max(Duration::from_millis(100));
            tokio::time::sleep(pause).await;
        }
    }

    /// How many PgBouncers are ready.
    pub(crate) async fn count_ready(&self) -> usize {
        self.parted().await.0.len()
    }

    /// The PgBouncers that are ready, and those that are not.
    async fn parted(&self) -> (Vec<PgBouncer>, Vec<PgBouncer>) {
        let bouncers = Api::<PgBouncer>::all(self.client.clone());
        let all = bouncers.list(&ListParams::default()).await.unwrap();
        all.into_iter().partition(is_ready)
    }

    /// Touches every pod, as a kubelet does that writes its status: nothing is to be done about it.
    pub(crate) async fn touch_pods(&self, round: usize) {
        let touched =
            json!({ "metadata": { "annotations": { "fleet/touched": round.to_string() } } });
        let touched = &touched;
        stream::iter(0..self.size)
            .for_each_concurrent(AT_ONCE, |n| async move {
                let pods = self.api::<Pod>(&format!("team-{}", n / PER_NAMESPACE));
                let (name, params) = (format!("pooler-{n}-0"), PatchParams::default());
                pods.patch(&name, &params, &Patch::Merge(touched))
                    .await
                    .unwrap();
            })
            .await;
    }

    async fn namespace(&self, name: &str) {
        let namespace = json!({ "metadata": { "name": name } });
        create(&Api::<Namespace>::all(self.client.clone()), namespace).await;
    }

    /// The objects of a kind in a namespace.
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Ends everything.
    pub(crate) async fn stop(mut self) {
        self.running.shutdown().await;
    }
}

/// One PgBouncer of the fleet.
pub(crate) fn pooler(name: &str) -> Value {
    json!({
        "apiVersion": "kubedb.com/v1", "kind": "PgBouncer",
        "metadata": { "name": name },
        "spec": {
            "version": "1.24.0", "replicas": 1, "sslMode": "verify-full",
            "database": {
                "databaseName": "postgres",
                "databaseRef": { "name": "ha-postgres", "namespace": "demo" },
            },
            "connectionPool": { "port": PORT, "poolMode": "transaction" },
            "tls": { "issuerRef": {
                "apiGroup": "cert-manager.io", "kind": "ClusterIssuer", "name": "fleet",
            }},
        },
    })
}

pub(crate) fn is_ready(bouncer: &PgBouncer) -> bool {
    let status = bouncer.status.as_ref();
    status.and_then(|status| status.phase) == Some(Phase::Ready)
}

async fn create<K>(api: &Api<K>, object: Value)
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let object: K = serde_json::from_value(object).unwrap();
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        made => drop(made.unwrap()),
    }
}

pub(crate) fn authority() -> (String, String) {
    let serial = Serial::from_random([7; 20]);
    let profile = CaProfile::new("fleet", time::Duration::days(3_650));
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let pem = key.to_pem(KeyEncoding::Pkcs8);
    let now = Clock::System.now();
    let authority = CertificateAuthority::self_signed(&profile, key, serial, now).unwrap();
    (authority.certificate_pem(), pem.expose().clone())
}

// === pods ===

/// Which pods are played, and where they listen: in 127.N.0.0/16.
#[derive(Clone, Copy)]
pub(crate) struct Scene {
    /// The namespace; all of them if `None`.
    pub(crate) namespace: Option<&'static str>,
    /// The second octet of their addresses.
    pub(crate) net: u8,
}

const FLEET: Scene = Scene {
    namespace: None,
    net: 80,
};

/// Plays the controller of `StatefulSet`s, the scheduler and the kubelet.
pub(crate) async fn simulate(server: ApiServer, client: Client, scene: Scene) {
    let mut pods = JoinSet::new();
    let sets = match scene.namespace {
        Some(namespace) => Api::<StatefulSet>::namespaced(client.clone(), namespace),
        None => Api::<StatefulSet>::all(client.clone()),
    };
    let events = watcher(sets, watcher::Config::default()).default_backoff();
    let mut sets = events.applied_objects().boxed();
    let mut known = BTreeMap::new();
    while let Some(set) = sets.try_next().await.unwrap_or_default() {
        let next = known.len();
        let at = (set.namespace().unwrap(), set.name_any());
        if known.insert(at, next).is_none() {
            let (server, client) = (server.clone(), client.clone());
            pods.spawn(pod(server, client, set, (scene.net, next)));
        }
    }
}

/// One pod, until the end.
async fn pod(server: ApiServer, client: Client, set: StatefulSet, (net, n): (u8, usize)) {
    let [high, low] = [n / 250, n % 250].map(|part| u8::try_from(part).unwrap());
    let ip = Ipv4Addr::new(127, net, high, low + 1);
    let listener = TcpListener::bind((ip, PORT)).await.unwrap();
    let namespace = set.namespace().unwrap();
    let pods = Api::<Pod>::namespaced(client, &namespace);
    let name = format!("{}-0", set.name_any());
    let template = set.spec.template.clone();
    let metadata = template.metadata.unwrap_or_default();
    let made = json!({
        "metadata": {
            "name": name, "labels": metadata.labels, "annotations": metadata.annotations,
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "StatefulSet", "name": set.name_any(),
                "uid": set.uid(), "controller": true,
            }],
        },
        "spec": template.spec,
    });
    create(&pods, made).await;
    let now = bouncert::api::common::rfc3339_seconds(Clock::System.now());
    let status = json!({ "status": {
        "phase": "Running", "podIP": ip.to_string(), "podIPs": [{ "ip": ip.to_string() }],
        "startTime": now,
        "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": now }],
    }});
    let params = PatchParams::default();
    pods.patch_status(&name, &params, &Patch::Merge(&status))
        .await
        .unwrap();
    let secret = Key {
        group: String::new(),
        resource: "secrets".to_owned(),
        namespace,
        name: format!("{}-server-cert", set.name_any()),
    };
    let mut kept: Option<(Value, Arc<ServerConfig>)> = None;
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let Some(stored) = server.store().get(&secret) else {
            continue;
        };
        let version = stored["metadata"]["resourceVersion"].clone();
        if kept.as_ref().is_none_or(|(of, _)| *of != version) {
            kept = Some((version, Arc::new(tls(&stored))));
        }
        let config = Arc::clone(&kept.as_ref().unwrap().1);
        // Whoever looks is gone before the goodbye.
        let _ended = shake_hands(stream, config).await;
    }
}

/// What a pooler shows to a client that asks for TLS and then leaves.
async fn shake_hands(mut stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
    let mut request = [0; 8];
    stream.read_exact(&mut request).await?;
    stream.write_all(b"S").await?;
    let mut stream = TlsAcceptor::from(config).accept(stream).await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    Ok(())
}

fn tls(secret: &Value) -> ServerConfig {
    use base64::Engine;
    let part = |key: &str| {
        let text = secret["data"][key].as_str().unwrap();
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .unwrap()
    };
    let chain = CertificateDer::pem_slice_iter(&part("tls.crt"))
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(&part("tls.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap()
}
