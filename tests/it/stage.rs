//! A whole Bouncert for one test: PostgreSQL, the local platform, the daemon, and a user's hands.
//!
//! Everything is what a newcomer runs; the tests see it through the API, `psql` and handshakes.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bouncert::api::common::find_condition;
use bouncert::api::{PgBouncer, PgBouncerOpsRequest, Phase, RequestPhase, crds};
use bouncert::daemon::{self, DaemonOptions};
use bouncert::local::apiserver::ApiServer;
use bouncert::local::platform::{Platform, PlatformOptions};
use bouncert::local::postgres::{PostgresOptions, ThrowAwayPostgres};
use bouncert::local::runner::process::find_running;
use bouncert::pgbouncer::probe::{Served, probe};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret, Service};
use kube::api::{DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::eventually;

/// The tutorial's namespace.
pub(crate) const NS: &str = "demo";
/// Longest that anything here should take on two busy cores.
pub(crate) const LONG: Duration = Duration::from_secs(90);
/// The password of the throw-away PostgreSQL.
pub(crate) const PASSWORD: &str = "swordfish";

/// Everything that runs.
pub(crate) struct Stage {
    pub(crate) client: Client,
    /// The API server itself.
    pub(crate) server: ApiServer,
    /// In whose name the daemon works.
    pub(crate) daemon_client: Client,
    pub(crate) postgres: ThrowAwayPostgres,
    pub(crate) directory: TempDir,
    runtime: PathBuf,
    daemon: JoinSet<()>,
    stop_daemon: CancellationToken,
    platform: JoinSet<()>,
    stop_platform: CancellationToken,
}

impl Stage {
    /// Starts PostgreSQL, platform and daemon, and makes the PostgreSQL known as `ha-postgres`.
    pub(crate) async fn start() -> Self {
        let mut stage = Self::without_daemon().await;
        stage.start_daemon();
        stage
    }

    /// The same without the daemon.
    pub(crate) async fn without_daemon() -> Self {
        let postgres = ThrowAwayPostgres::start(&PostgresOptions::new(PASSWORD))
            .await
            .unwrap();
        let directory = TempDir::with_prefix("bouncert-it-").unwrap();
        let mut options = PlatformOptions::new(directory.path().join("data"));
        let definitions = crds::own().into_iter().chain(crds::borrowed());
        options.definitions = definitions
            .map(|crd| serde_json::to_value(crd).unwrap())
            .collect();
        let platform = Platform::start(options).await.unwrap();
        let (client, runtime) = (platform.client(), platform.runtime_dir().to_owned());
        let server = platform.server().clone();
        let stop_platform = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(platform.run(stop_platform.clone()));
        let stage = Self {
            daemon_client: client.clone(),
            client,
            server,
            postgres,
            directory,
            runtime,
            daemon: JoinSet::new(),
            stop_daemon: CancellationToken::new(),
            platform: running,
            stop_platform,
        };
        stage.furnish().await;
        stage
    }

    /// Starts the daemon.
    pub(crate) fn start_daemon(&mut self) {
        self.start_daemon_with(DaemonOptions::default());
    }

    /// Starts the daemon with options of the test's own.
    pub(crate) fn start_daemon_with(&mut self, options: DaemonOptions) {
        self.stop_daemon = CancellationToken::new();
        let (client, stop) = (self.daemon_client.clone(), self.stop_daemon.clone());
        self.daemon.spawn(async move {
            daemon::run(client, options, stop).await.unwrap();
        });
    }

    /// Ends the daemon as a crash would: in the middle of whatever it is doing.
    pub(crate) async fn kill_daemon(&mut self) {
        self.daemon.shutdown().await;
    }

    /// Ends the daemon as an administrator would: it leaves things in order.
    pub(crate) async fn dismiss_daemon(&mut self) {
        self.stop_daemon.cancel();
        let daemon = async { while self.daemon.join_next().await.is_some() {} };
        tokio::time::timeout(LONG, daemon)
            .await
            .expect("the daemon stops");
    }

    /// Ends everything, and sees that nothing is left.
    pub(crate) async fn stop(mut self) {
        self.stop_daemon.cancel();
        let daemon = async { while self.daemon.join_next().await.is_some() {} };
        tokio::time::timeout(LONG, daemon)
            .await
            .expect("the daemon stops");
        self.stop_platform.cancel();
        let platform = async { while self.platform.join_next().await.is_some() {} };
        tokio::time::timeout(LONG, platform)
            .await
            .expect("the platform stops");
        assert_eq!(find_running(&self.runtime).len(), 0, "poolers left running");
    }

    async fn furnish(&self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for name in [NS, "cert-manager"] {
            let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
            namespaces
                .create(&PostParams::default(), &namespace)
                .await
                .unwrap();
        }
        for version in ["1.17.0", "1.18.0", "1.23.1", "1.24.0"] {
            self.apply(&repository_file(&format!("deploy/catalog/{version}.yaml")))
                .await;
        }
        let address: SocketAddr = self.postgres.address();
        let port = address.port();
        self.create(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "ha-postgres"},
            "spec": {"clusterIP": "None", "ports": [{"name": "primary", "port": port}]},
        }))
        .await;
        self.create(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "ha-postgres", "labels": {"kubernetes.io/service-name": "ha-postgres"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address.ip()], "conditions": {"ready": true}}],
            "ports": [{"name": "primary", "port": port, "protocol": "TCP"}],
        }))
        .await;
        self.create(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ha-postgres-auth"},
            "stringData": {"username": "postgres", "password": PASSWORD},
        }))
        .await;
        self.create(json!({
            "apiVersion": "appcatalog.appscode.com/v1alpha1", "kind": "AppBinding",
            "metadata": {"name": "ha-postgres"},
            "spec": {
                "type": "kubedb.com/postgres",
                "clientConfig": {"service": {
                    "scheme": "postgresql", "name": "ha-postgres", "port": port,
                }},
                "secret": {"kind": "Secret", "name": "ha-postgres-auth"},
            },
        }))
        .await;
    }

    // === a user's hands ===

    /// Creates the objects of a manifest, as `kubectl create -f` does.
    pub(crate) async fn apply(&self, path: &Path) {
        let text = std::fs::read_to_string(path).unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        for object in objects {
            self.create(object).await;
        }
    }

    /// Creates an example of the repository.
    pub(crate) async fn example(&self, name: &str) {
        self.apply(&repository_file(&format!("deploy/examples/{name}.yaml")))
            .await;
    }

    /// Creates an object; without a namespace it goes to the tutorial's.
    pub(crate) async fn create(&self, object: Value) {
        let name = object["metadata"]["name"].clone();
        self.try_create(object)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Creates an object, or says why not.
    pub(crate) async fn try_create(&self, object: Value) -> kube::Result<DynamicObject> {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let kind = GroupVersionKind::try_from(object.types.clone().unwrap()).unwrap();
        let (resource, known) = pinned_kind(&self.client, &kind).await?;
        let api: Api<DynamicObject> = if known.scope == Scope::Cluster {
            Api::all_with(self.client.clone(), &resource)
        } else {
            let namespace = object.namespace().unwrap_or_else(|| NS.to_owned());
            Api::namespaced_with(self.client.clone(), &namespace, &resource)
        };
        api.create(&PostParams::default(), &object).await
    }

    /// A Secret `<name>` with a fresh RSA CA, made by openssl as the tutorial does.
    pub(crate) async fn openssl_ca(&self, name: &str, subject: &str) {
        let (crt, key) = self.openssl_pair(name, subject);
        self.ca_secret(name, &crt, &key).await;
    }

    /// A self-signed CA certificate and its key, in PEM.
    pub(crate) fn openssl_pair(&self, name: &str, subject: &str) -> (String, String) {
        let path = |suffix: &str| self.directory.path().join(format!("{name}{suffix}"));
        let (key, crt) = (path(".key"), path(".crt"));
        let made = std::process::Command::new("openssl")
            .args([
                "req", "-x509", "-nodes", "-days", "365", "-newkey", "rsa:2048", "-subj", subject,
            ])
            .args([Path::new("-keyout"), &key, Path::new("-out"), &crt])
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        (
            std::fs::read_to_string(crt).unwrap(),
            std::fs::read_to_string(key).unwrap(),
        )
    }

    /// A Secret with a CA.
    pub(crate) async fn ca_secret(&self, name: &str, crt: &str, key: &str) {
        self.create(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "type": "kubernetes.io/tls", "stringData": {"tls.crt": crt, "tls.key": key},
        }))
        .await;
    }

    /// A ReconfigureTLS request for `pb`.
    pub(crate) async fn request(&self, name: &str, tls: Value) {
        self.create(request(name, "pb", tls)).await;
    }

    // === a user's eyes ===

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NS)
    }

    /// An object, if it is there.
    pub(crate) async fn get<K>(&self, name: &str) -> Option<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        self.api::<K>().get_opt(name).await.unwrap()
    }

    pub(crate) async fn bouncer(&self, name: &str) -> PgBouncer {
        self.get(name).await.expect("the PgBouncer is there")
    }

    /// Waits until a PgBouncer is Ready.
    pub(crate) async fn ready(&self, name: &str) -> PgBouncer {
        eventually(LONG, async || {
            let bouncer = self.bouncer(name).await;
            let phase = bouncer.status.as_ref().and_then(|status| status.phase);
            if phase == Some(Phase::Ready) {
                Ok(bouncer)
            } else {
                Err(bouncer.status)
            }
        })
        .await
    }

    /// Waits until a request has ended.
    pub(crate) async fn ended(&self, name: &str) -> PgBouncerOpsRequest {
        eventually(LONG, async || {
            let request: PgBouncerOpsRequest = self.get(name).await.expect("the request is there");
            let phase = request.status.as_ref().and_then(|status| status.phase);
            if phase.is_some_and(RequestPhase::is_terminal) {
                Ok(request)
            } else {
                Err(request.status)
            }
        })
        .await
    }

    /// Waits until a request has ended well.
    pub(crate) async fn successful(&self, name: &str) -> PgBouncerOpsRequest {
        let request = self.ended(name).await;
        let status = request.status.as_ref().unwrap();
        assert_eq!(
            status.phase,
            Some(RequestPhase::Successful),
            "{name}: {status:#?}"
        );
        let pause = self.bouncer(&request.spec.database_ref.name).await;
        let conditions = pause.status.unwrap_or_default().conditions;
        assert!(
            find_condition(&conditions, "Paused").is_none(),
            "{name}: still paused"
        );
        request
    }

    /// Waits until a request has failed; the text of its Failed condition.
    pub(crate) async fn failed(&self, name: &str) -> String {
        let request = self.ended(name).await;
        let status = request.status.as_ref().unwrap();
        assert_eq!(
            status.phase,
            Some(RequestPhase::Failed),
            "{name}: {status:#?}"
        );
        find_condition(&status.conditions, "Failed")
            .expect("a Failed condition")
            .message
            .clone()
    }

    /// One key of a Secret, as text.
    pub(crate) async fn secret(&self, name: &str, key: &str) -> String {
        let secret: Secret = self
            .get(name)
            .await
            .unwrap_or_else(|| panic!("Secret {name} is missing"));
        let data = secret.data.unwrap_or_default();
        let value = data
            .get(key)
            .unwrap_or_else(|| panic!("Secret {name} has no {key}"));
        String::from_utf8(value.0.clone()).unwrap()
    }

    /// The rendered configuration of a PgBouncer, as a table of its `[pgbouncer]` section.
    pub(crate) async fn ini(&self, name: &str) -> std::collections::BTreeMap<String, String> {
        let uid = self.bouncer(name).await.uid().unwrap();
        let text = self
            .secret(
                &format!("{name}-{}", &uid[uid.len() - 6..]),
                "pgbouncer.ini",
            )
            .await;
        let section = text
            .split("[pgbouncer]")
            .nth(1)
            .expect("a [pgbouncer] section");
        let lines = section
            .lines()
            .take_while(|line| !line.trim_start().starts_with('['));
        lines
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
            .collect()
    }

    /// Where clients reach a PgBouncer.
    pub(crate) async fn service(&self, name: &str) -> SocketAddr {
        let service: Service = self.get(name).await.expect("the Service is there");
        let ip: IpAddr = service.spec.unwrap().cluster_ip.unwrap().parse().unwrap();
        SocketAddr::new(ip, 5432)
    }

    /// The pods of a PgBouncer that are there, with their addresses.
    pub(crate) async fn pods(&self, name: &str) -> Vec<(String, SocketAddr)> {
        let labels = format!("app.kubernetes.io/instance={name}");
        let pods = self
            .api::<Pod>()
            .list(&ListParams::default().labels(&labels))
            .await
            .unwrap();
        pods.items
            .into_iter()
            .filter_map(|pod| {
                let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
                Some((pod.name_any(), SocketAddr::new(ip, 5432)))
            })
            .collect()
    }

    /// What every pod of a PgBouncer serves.
    pub(crate) async fn served(&self, name: &str) -> Vec<Served> {
        let mut served = Vec::new();
        for (_, address) in self.pods(name).await {
            served.push(probe(address, None, Duration::from_secs(5)).await.unwrap());
        }
        served
    }

    /// Runs `psql` through the Service of a PgBouncer as the tutorial's user does; what it printed,
    /// or what it complained about.
    pub(crate) async fn psql(&self, name: &str, options: &str) -> Result<String, String> {
        let address = self.service(name).await;
        let conninfo = format!(
            "host={name}.{NS}.svc hostaddr={} port={} user=postgres dbname=postgres \
             connect_timeout=20 {options}",
            address.ip(),
            address.port()
        );
        let output = tokio::process::Command::new("psql")
            .args(["-X", "-At", "-c", "SELECT 40 + 2", &conninfo])
            .env("PGPASSWORD", PASSWORD)
            .env("PGSSLCERT", "/nonexistent")
            .output()
            .await
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
        } else {
            Err(String::from_utf8(output.stderr).unwrap())
        }
    }

    /// The client material of a Secret as files; the connection options that use them.
    pub(crate) async fn client_files(&self, secret: &str) -> String {
        let directory = tempfile::tempdir_in(self.directory.path()).unwrap().keep();
        for key in ["ca.crt", "tls.crt", "tls.key"] {
            crate::support::write_private(&directory.join(key), &self.secret(secret, key).await);
        }
        let path = |name: &str| directory.join(name).display().to_string();
        format!(
            "sslrootcert={} sslcert={} sslkey={}",
            path("ca.crt"),
            path("tls.crt"),
            path("tls.key")
        )
    }
}

impl Drop for Stage {
    /// A test that failed leaves no pooler behind, but its files.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for found in find_running(&self.runtime) {
                if let Some(pid) = rustix::process::Pid::from_raw(found.pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            self.directory.disable_cleanup(true);
            eprintln!(
                "the files of this test are in {}",
                self.directory.path().display()
            );
        }
    }
}

/// A ReconfigureTLS request.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the callers' literals read better"
)]
pub(crate) fn request(name: &str, bouncer: &str, tls: Value) -> Value {
    json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PgBouncerOpsRequest",
        "metadata": {"name": name},
        "spec": {
            "type": "ReconfigureTLS", "databaseRef": {"name": bouncer}, "tls": tls,
            "apply": "Always",
        },
    })
}

/// A file of the repository.
pub(crate) fn repository_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
