//! A whole Bouncert for one test: PostgreSQL, the local platform, the daemon, and a user's hands.
//!
//! Everything is what a newcomer runs; the tests see it through the API, `psql` and handshakes.

mod look;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bouncert::api::{PgBouncerOpsRequest, crds};
use bouncert::daemon::{self, DaemonOptions, NAMESPACE_DEFAULT};
use bouncert::local::apiserver::ApiServer;
use bouncert::local::platform::{Platform, PlatformOptions};
use bouncert::local::postgres::{PostgresOptions, ThrowAwayPostgres};
use bouncert::local::runner::process::{Found, find_running};
use bouncert::ops::journal_name;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The tutorial's namespace.
pub(crate) const NS: &str = "demo";
/// Longest that anything here should take on two busy cores.
pub(crate) const LONG: Duration = Duration::from_secs(90);
/// The password of the throw-away PostgreSQL.
pub(crate) const PASSWORD: &str = "swordfish";

/// Everything that runs.
pub(crate) struct Stage {
    pub(crate) client: Client,
    /// The API server itself, where the stage runs it.
    pub(crate) server: Option<ApiServer>,
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
        Self::with_platform(|_| {}).await
    }

    /// The same on a server that sends no lists as streams.
    pub(crate) async fn without_watch_list() -> Self {
        Self::with_platform(|options| options.without_watch_list = true).await
    }

    async fn with_platform(change: fn(&mut PlatformOptions)) -> Self {
        let directory = TempDir::with_prefix("bouncert-it-").unwrap();
        let mut options = PlatformOptions::new(directory.path().join("data"));
        change(&mut options);
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
        let mut stage = Self::around(client, directory, runtime).await;
        (stage.platform, stage.stop_platform) = (running, stop_platform);
        stage.server = Some(server);
        stage.catalog().await;
        stage.furnish().await;
        stage
    }

    /// The stage around a platform and a daemon that somebody else runs.
    pub(crate) async fn around(client: Client, directory: TempDir, runtime: PathBuf) -> Self {
        Self {
            daemon_client: client.clone(),
            client,
            server: None,
            postgres: ThrowAwayPostgres::start(&PostgresOptions::new(PASSWORD))
                .await
                .unwrap(),
            directory,
            runtime,
            daemon: JoinSet::new(),
            stop_daemon: CancellationToken::new(),
            platform: JoinSet::new(),
            stop_platform: CancellationToken::new(),
        }
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

    /// Kills the pooler that listens at a pod's address, as the kernel would.
    pub(crate) fn kill_pooler(&self, pod: SocketAddr) {
        bouncert::local::runner::process::kill(&self.pooler(pod)).unwrap();
    }

    /// Puts another certificate under the pooler at a pod's address and has it loaded, as somebody
    /// with a shell in the pod could.
    pub(crate) fn lead_astray(&self, pod: SocketAddr, (crt, key): (&str, &str)) {
        let pooler = self.pooler(pod);
        let ini = std::fs::read_to_string(&pooler.ini).unwrap();
        for (setting, text) in [("client_tls_cert_file", crt), ("client_tls_key_file", key)] {
            let value = ini.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                (name.trim() == setting).then(|| value.trim())
            });
            std::fs::write(value.expect(setting), text).unwrap();
        }
        let mut kill = std::process::Command::new("kill");
        let kill = kill.args(["-HUP", &pooler.pid.to_string()]).status();
        assert!(kill.unwrap().success());
    }

    fn pooler(&self, pod: SocketAddr) -> Found {
        let ip = pod.ip().to_string();
        let of_pod = find_running(&self.runtime).into_iter().find(|found| {
            let ini = std::fs::read_to_string(&found.ini).unwrap_or_default();
            ini.lines().any(|line| line.ends_with(&ip))
        });
        of_pod.expect("a pooler of that address")
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

    async fn catalog(&self) {
        for version in ["1.17.0", "1.18.0", "1.23.1", "1.24.0"] {
            self.apply(&repository_file(&format!("deploy/catalog/{version}.yaml")))
                .await;
        }
    }

    /// Namespaces, and the PostgreSQL as `ha-postgres`.
    pub(crate) async fn furnish(&self) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for name in [NS, "cert-manager", NAMESPACE_DEFAULT] {
            // A platform that runs as a process has made the daemon's.
            if namespaces.get_opt(name).await.unwrap().is_none() {
                let namespace = serde_json::from_value(json!({"metadata": {"name": name}}));
                namespaces
                    .create(&PostParams::default(), &namespace.unwrap())
                    .await
                    .unwrap();
            }
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
}

impl Stage {
    /// Plan and journal of a request, wherever its daemon keeps them.
    pub(crate) async fn journal(&self, request: &str) -> Option<ConfigMap> {
        let request: PgBouncerOpsRequest = self.get(request).await?;
        let name = journal_name(&request.uid().unwrap());
        let named = ListParams::default().fields(&format!("metadata.name={name}"));
        let maps: Api<ConfigMap> = Api::all(self.client.clone());
        maps.list(&named).await.unwrap().items.pop()
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
