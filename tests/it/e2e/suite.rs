//! One pooler from creation to deletion, on a cluster that a kubeconfig names.
//!
//! Bouncert has to run there, with its CRDs and cert-manager's (`bouncert crds --with-cert-manager`
//! brings stand-ins). This has to run where pods can be reached: in the cluster, or on a node. It
//! keeps to a namespace of its own, which it deletes when all went well.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bouncert::api::{PgBouncer, PgBouncerOpsRequest, PgBouncerVersion, Phase, RequestPhase};
use bouncert::clock::Clock;
use bouncert::names::Fingerprint;
use bouncert::pgbouncer::probe::probe;
use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::facts::read_chain;
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::CaProfile;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{eventually, write_private};

/// Longest wait for one thing: a kubelet takes a minute to see a Secret, and images are pulled.
const LONG: Duration = Duration::from_secs(600);
/// Pods of the pooler.
const REPLICAS: usize = 2;

/// Where to run, and with what.
pub(super) struct Settings {
    /// Names the cluster.
    pub(super) kubeconfig: PathBuf,
    /// The pooler's image; that of the catalog if none.
    pub(super) image: Option<String>,
    /// The pooler's version.
    pub(super) version: String,
    /// A PostgreSQL that pods can reach.
    pub(super) postgres: SocketAddr,
    /// Password of its user `postgres`.
    pub(super) password: String,
}

impl Settings {
    /// From `E2E_KUBECONFIG`, `E2E_PGBOUNCER_IMAGE`, `E2E_PGBOUNCER_VERSION`, `E2E_POSTGRES` and
    /// `E2E_POSTGRES_PASSWORD`; `None` if no kubeconfig is given.
    pub(super) fn from_environment() -> Option<Self> {
        let said = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let needed = |name: &str| said(name).unwrap_or_else(|| panic!("{name} is not set"));
        Some(Self {
            kubeconfig: said("E2E_KUBECONFIG")?.into(),
            image: said("E2E_PGBOUNCER_IMAGE"),
            version: said("E2E_PGBOUNCER_VERSION").unwrap_or_else(|| "1.18.0".to_owned()),
            postgres: needed("E2E_POSTGRES")
                .parse()
                .expect("E2E_POSTGRES is ADDRESS:PORT"),
            password: needed("E2E_POSTGRES_PASSWORD"),
        })
    }
}

struct Scene<'a> {
    client: Client,
    namespace: String,
    settings: &'a Settings,
}

/// Runs everything.
pub(super) async fn run(settings: &Settings) {
    let kubeconfig = Kubeconfig::read_from(&settings.kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .unwrap();
    let scene = Scene {
        client: Client::try_from(config).unwrap(),
        namespace: format!("bouncert-e2e-{}", std::process::id()),
        settings,
    };
    scene.furnish().await;
    scene.create_pooler().await;
    scene.serves(None).await;

    let issuer = |name: &str| json!({"issuerRef": {"kind": "Issuer", "name": name}});
    let mut add = issuer("one");
    add["sslMode"] = json!("require");
    let mut seen = Vec::new();
    let changes = [
        ("add-tls", add),
        ("rotate", json!({"rotateCertificates": true})),
        ("change-issuer", issuer("other")),
    ];
    for (name, tls) in changes {
        scene.change(name, tls).await;
        let leaf = scene.published().await;
        scene.serves(Some(leaf)).await;
        assert!(!seen.contains(&leaf), "{name} served what was there before");
        seen.push(leaf);
        scene.log_in("sslmode=verify-ca").await;
    }
    scene.change("remove-tls", json!({"remove": true})).await;
    scene.serves(None).await;
    scene.log_in("sslmode=disable").await;
    scene.delete().await;
}

impl Scene<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn create(&self, object: Value) {
        let name = object["metadata"]["name"].clone();
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let kind = GroupVersionKind::try_from(object.types.clone().unwrap()).unwrap();
        let (resource, known) = pinned_kind(&self.client, &kind).await.unwrap();
        let api: Api<DynamicObject> = if known.scope == Scope::Cluster {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
        };
        api.create(&PostParams::default(), &object)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// What a pooler needs around it.
    async fn furnish(&self) {
        let namespace = &self.namespace;
        self.create(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace},
        }))
        .await;
        let image = self.settings.image.clone();
        let image =
            image.unwrap_or_else(|| format!("ghcr.io/kubedb/pgbouncer:{}", self.settings.version));
        self.create(json!({
            "apiVersion": "catalog.kubedb.com/v1alpha1", "kind": "PgBouncerVersion",
            "metadata": {"name": namespace},
            "spec": {
                "version": self.settings.version, "pgBouncer": {"image": image},
                "exporter": {"image": "ghcr.io/kubedb/pgbouncer_exporter:v0.1.1"},
                "securityContext": {"runAsUser": 70},
            },
        }))
        .await;
        for issuer in ["one", "other"] {
            self.issuer(issuer).await;
        }
        self.postgres().await;
    }

    async fn issuer(&self, name: &str) {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let pem = key.to_pem(KeyEncoding::Pkcs8).expose().clone();
        let profile = CaProfile::new(name, time::Duration::days(365));
        let serial = Serial::from_random([9; 20]);
        let ca = CertificateAuthority::self_signed(&profile, key, serial, Clock::System.now());
        self.create(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": format!("ca-{name}")},
            "stringData": {"tls.crt": ca.unwrap().certificate_pem(), "tls.key": pem},
        }))
        .await;
        self.create(json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": name},
            "spec": {"ca": {"secretName": format!("ca-{name}")}},
        }))
        .await;
    }

    /// Makes the PostgreSQL known to the cluster.
    async fn postgres(&self) {
        let address = self.settings.postgres;
        let port = address.port();
        self.create(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "postgres"},
            "spec": {"clusterIP": "None", "ports": [{"name": "primary", "port": port}]},
        }))
        .await;
        self.create(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "postgres", "labels": {"kubernetes.io/service-name": "postgres"}},
            "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": [{"addresses": [address.ip()], "conditions": {"ready": true}}],
            "ports": [{"name": "primary", "port": port, "protocol": "TCP"}],
        }))
        .await;
        self.create(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "postgres-auth"},
            "stringData": {"username": "postgres", "password": self.settings.password},
        }))
        .await;
        self.create(json!({
            "apiVersion": "appcatalog.appscode.com/v1alpha1", "kind": "AppBinding",
            "metadata": {"name": "postgres"},
            "spec": {
                "type": "kubedb.com/postgres",
                "clientConfig": {"service": {
                    "scheme": "postgresql", "name": "postgres", "port": port,
                }},
                "secret": {"kind": "Secret", "name": "postgres-auth"},
            },
        }))
        .await;
    }

    async fn create_pooler(&self) {
        self.create(json!({
            "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "metadata": {"name": "pooler"},
            "spec": {
                "version": self.namespace, "replicas": REPLICAS,
                "database": {
                    "databaseName": "postgres", "syncUsers": true,
                    "databaseRef": {"name": "postgres", "namespace": self.namespace},
                },
                "connectionPool": {
                    "poolMode": "transaction", "maxDBConnections": 10, "maxUserConnections": 10,
                },
                "deletionPolicy": "WipeOut",
            },
        }))
        .await;
        self.until::<PgBouncer>("pooler", |bouncer| {
            bouncer.status.as_ref().and_then(|status| status.phase) == Some(Phase::Ready)
        })
        .await;
    }

    /// Carries a request through.
    async fn change(&self, name: &str, tls: Value) {
        self.create(json!({
            "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PgBouncerOpsRequest",
            "metadata": {"name": name},
            "spec": {"type": "ReconfigureTLS", "databaseRef": {"name": "pooler"}, "tls": tls},
        }))
        .await;
        let phase =
            |request: &PgBouncerOpsRequest| request.status.as_ref().and_then(|status| status.phase);
        let ended = self.until::<PgBouncerOpsRequest>(name, |request| {
            phase(request).is_some_and(RequestPhase::is_terminal)
        });
        let ended = ended.await;
        let status = &ended.status;
        assert_eq!(
            phase(&ended),
            Some(RequestPhase::Successful),
            "{name}: {status:#?}"
        );
    }

    async fn until<K>(&self, name: &str, there: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned,
    {
        let api = self.api::<K>();
        eventually(LONG, async || {
            let found = api.get(name).await.map_err(|error| format!("{error}"))?;
            if there(&found) {
                Ok(found)
            } else {
                Err(format!("{found:?}"))
            }
        })
        .await
    }

    async fn text(&self, secret: &str, key: &str) -> String {
        let secret: Secret = self.api().get(secret).await.unwrap();
        String::from_utf8(secret.data.unwrap()[key].0.clone()).unwrap()
    }

    /// The server's certificate as users find it.
    async fn published(&self) -> Fingerprint {
        let chain = self.text("pooler-server-cert", "tls.crt").await;
        read_chain(&chain).unwrap().remove(0).fingerprint
    }

    async fn addresses(&self) -> Vec<SocketAddr> {
        let pods = self.api::<Pod>();
        let labels = ListParams::default().labels("app.kubernetes.io/instance=pooler");
        let pods = pods.list(&labels).await.unwrap();
        let address = |pod: &Pod| {
            let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
            Some(SocketAddr::new(ip, 5432))
        };
        pods.iter().filter_map(address).collect()
    }

    /// Every pod serves that certificate, or none.
    async fn serves(&self, wanted: Option<Fingerprint>) {
        eventually(LONG, async || {
            let mut served = Vec::new();
            for address in self.addresses().await {
                let seen = probe(address, None, Duration::from_secs(5)).await;
                served.push(
                    seen.map(|served| served.fingerprint())
                        .map_err(|e| e.to_string()),
                );
            }
            if served == vec![Ok(wanted); REPLICAS] {
                Ok(())
            } else {
                Err(served)
            }
        })
        .await;
    }

    /// A query through a pod, as a user does it.
    async fn log_in(&self, options: &str) {
        let folder = TempDir::new().unwrap();
        let mut options = options.to_owned();
        if options != "sslmode=disable" {
            for (word, key) in [
                ("sslrootcert", "ca.crt"),
                ("sslcert", "tls.crt"),
                ("sslkey", "tls.key"),
            ] {
                let path = folder.path().join(key);
                write_private(&path, &self.text("pooler-client-cert", key).await);
                options = format!("{options} {word}={}", path.display());
            }
        }
        let address = self.addresses().await[0];
        let (ip, port) = (address.ip(), address.port());
        let place = format!("host=pooler hostaddr={ip} port={port} user=postgres dbname=postgres");
        let output = tokio::process::Command::new("psql")
            .args([
                "-X",
                "-At",
                "-c",
                "SELECT 40 + 2",
                &format!("{place} {options}"),
            ])
            .env("PGPASSWORD", &self.settings.password)
            .output()
            .await
            .expect("psql is installed");
        let (said, complaint) = (output.stdout, String::from_utf8_lossy(&output.stderr));
        assert_eq!(
            String::from_utf8_lossy(&said).trim(),
            "42",
            "{options}: {complaint}"
        );
    }

    /// The pooler goes with all that was made for it, and the namespace after it.
    async fn delete(&self) {
        let params = DeleteParams::default();
        self.api::<PgBouncer>()
            .delete("pooler", &params)
            .await
            .unwrap();
        let labels = ListParams::default().labels("app.kubernetes.io/instance=pooler");
        eventually(LONG, async || {
            let pods = self.api::<Pod>().list(&labels).await.unwrap();
            let secrets = self.api::<Secret>().list(&labels).await.unwrap();
            let left: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
            let kept: Vec<String> = secrets.iter().map(ResourceExt::name_any).collect();
            if left.is_empty() && kept.is_empty() {
                Ok(())
            } else {
                Err((left, kept))
            }
        })
        .await;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(&self.namespace, &params).await.unwrap();
        let versions: Api<PgBouncerVersion> = Api::all(self.client.clone());
        versions.delete(&self.namespace, &params).await.unwrap();
    }
}
