//! Where it happens: an API server that enforces Roles, the daemon as a process, a neighbour whose pods
//! are played, and an application of the tenant's own namespace.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bouncert::api::{PgBouncer, crds};
use bouncert::local::apiserver::access::User;
use bouncert::local::apiserver::serve::ServeOptions;
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::install;
use bouncert::local::store::Store;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::objects::Write;
use super::{NEIGHBOUR, TENANT};
use crate::fleet::process::Daemon;
use crate::fleet::rig::{Scene, authority, is_ready, pooler, simulate};
use crate::install::chart;
use crate::support::eventually;

/// Begin of the names of PgBouncers that the neighbour makes to see how long it takes.
const PROBES: [&str; 3] = ["calm", "fresh", "last"];
/// Kinds of the tenant's application, which has names that Bouncert derives from others.
const APPLICATION: [(&str, &str, &str); 7] = [
    ("v1", "Service", "web-stats"),
    ("v1", "Service", "web"),
    ("policy/v1", "PodDisruptionBudget", "web"),
    ("v1", "Secret", "web-backend"),
    ("v1", "ServiceAccount", "web"),
    ("v1", "ConfigMap", "web-journal"),
    ("v1", "Pod", "web-0"),
];
/// Kinds whose objects are compared.
const COMPARED: [(&str, &str); 9] = [
    ("v1", "Secret"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("v1", "ConfigMap"),
    ("v1", "Pod"),
    ("apps/v1", "StatefulSet"),
    ("policy/v1", "PodDisruptionBudget"),
    ("kubedb.com/v1", "PgBouncer"),
    ("appcatalog.appscode.com/v1alpha1", "AppBinding"),
];
/// Where the tenant's rights end: everything of one namespace but Roles.
const TENANT_RULES: &str = r#"[
    {"apiGroups": [""], "verbs": ["*"], "resources":
        ["secrets", "configmaps", "services", "serviceaccounts", "pods", "events"]},
    {"apiGroups": ["apps", "policy", "discovery.k8s.io", "coordination.k8s.io", "kubedb.com",
        "ops.kubedb.com", "appcatalog.appscode.com", "cert-manager.io"], "verbs": ["*"], "resources":
        ["statefulsets", "poddisruptionbudgets", "endpointslices", "leases", "pgbouncers",
        "pgbouncers/status", "pgbounceropsrequests", "pgbounceropsrequests/status", "appbindings",
        "issuers", "certificaterequests", "certificaterequests/status"]}
]"#;

pub(super) struct Ground {
    admin: Client,
    tenant: Client,
    daemon: Daemon,
    /// The daemon's log so far.
    log: Arc<Mutex<Vec<String>>>,
    begun: AtomicUsize,
    _directory: TempDir,
    running: JoinSet<()>,
}

impl Ground {
    /// Starts everything, and waits until the neighbour's first PgBouncer is Ready.
    pub(super) async fn start() -> Self {
        let directory = TempDir::with_prefix("bouncert-hostile-").unwrap();
        let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
        let serve = ServeOptions {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            dir: directory.path().to_owned(),
            kubeconfig: directory.path().join("kubeconfig"),
            faults: None,
        };
        let listening = server.listen(&serve).await.unwrap();
        let mut running = JoinSet::new();
        running.spawn(listening.run(CancellationToken::new()));
        let admin = server.client();
        let mut definitions = crds::own();
        definitions.extend(crds::borrowed());
        definitions.retain(|crd| crd.spec.names.kind != "PetSet");
        for crd in definitions {
            let crd = serde_json::to_value(crd).unwrap();
            install::definition(&admin, crd).await.unwrap();
        }
        let scene = Scene {
            namespace: Some(NEIGHBOUR),
            net: 81,
        };
        running.spawn(simulate(server.clone(), admin.clone(), scene));
        furnish(&admin).await;
        let kubeconfig = kubeconfig_of_the_daemon(&admin, serve.kubeconfig).await;
        let tenant = User {
            name: "mallory".to_owned(),
            groups: vec!["system:authenticated".to_owned()],
        };
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        let ground = Self {
            tenant: server.client_as(&tenant),
            daemon: Daemon::start_with(
                &kubeconfig,
                &["--leader-election-namespace", chart::NAMESPACE],
                move |line| kept.lock().unwrap().push(line),
            )
            .await,
            log,
            admin,
            begun: AtomicUsize::new(0),
            _directory: directory,
            running,
        };
        ground
            .neighbour_begins("ledger", Duration::from_secs(120))
            .await;
        ground
    }

    /// The daemon.
    pub(super) const fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    /// Names and UIDs of the neighbour's PgBouncers, which a tenant may have heard of.
    pub(super) async fn owners(&self) -> Vec<(String, String)> {
        let bouncers = Api::<PgBouncer>::namespaced(self.admin.clone(), NEIGHBOUR);
        let all = bouncers.list(&ListParams::default()).await.unwrap();
        all.into_iter()
            .map(|one| (one.name_any(), one.uid().unwrap()))
            .collect()
    }

    /// Does something as the tenant; whether the API server has let it pass.
    pub(super) async fn write(&self, write: Write) -> bool {
        let (Write::Apply(object) | Write::Delete(object)) = &write;
        let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
        if APPLICATION
            .iter()
            .any(|(_, of, named)| (*of, *named) == (kind, name))
        {
            return false;
        }
        let api = api(
            &self.tenant,
            text(object, "/apiVersion"),
            kind,
            Some(TENANT),
        );
        let done = match &write {
            Write::Apply(object) => {
                let params = PatchParams::apply("mallory").force();
                api.patch(name, &params, &Patch::Apply(object))
                    .await
                    .map(drop)
            }
            Write::Delete(_) => api.delete(name, &DeleteParams::default()).await.map(drop),
        };
        match done {
            Ok(()) => true,
            Err(kube::Error::Api(status)) if status.code < 500 => false,
            Err(error) => panic!("{kind} {name}: {error}\n{object}"),
        }
    }

    /// The neighbour makes a PgBouncer; how long it takes until it is Ready.
    pub(super) async fn neighbour_begins(&self, name: &str, bound: Duration) -> Duration {
        let name = match self.begun.fetch_add(1, Ordering::Relaxed) {
            0 => name.to_owned(),
            number => format!("{name}-{number}"),
        };
        let mut object = pooler(&name);
        object["spec"]["database"]["databaseRef"]["namespace"] = json!(NEIGHBOUR);
        object["spec"]["tls"]["issuerRef"] = json!({
            "apiGroup": "cert-manager.io", "kind": "Issuer", "name": "neighbour",
        });
        let began = Instant::now();
        create(&self.admin, Some(NEIGHBOUR), &object).await;
        let bouncers = Api::<PgBouncer>::namespaced(self.admin.clone(), NEIGHBOUR);
        eventually(bound, async || {
            let bouncer = bouncers.get(&name).await.unwrap();
            let said = || {
                let lines = self.log.lock().unwrap();
                let last: Vec<String> = lines.iter().rev().take(20).cloned().collect();
                (bouncer.status.clone(), last)
            };
            is_ready(&bouncer).then_some(()).ok_or_else(said)
        })
        .await;
        began.elapsed()
    }

    /// Whatever must stay as it is, by kind, namespace and name.
    pub(super) async fn precious(&self) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        for namespace in [NEIGHBOUR, TENANT, "cert-manager", chart::NAMESPACE] {
            for (version, kind) in COMPARED {
                let api = api(&self.admin, version, kind, Some(namespace));
                for object in api.list(&ListParams::default()).await.unwrap() {
                    let name = object.name_any();
                    if is_precious(namespace, kind, &name) {
                        let at = format!("{kind} {namespace}/{name}");
                        all.insert(at, essence(&object));
                    }
                }
            }
        }
        all
    }

    /// Everything that the daemon has told anybody: log, metrics, state, events, statuses, journals.
    pub(super) async fn said(&self) -> Vec<String> {
        let mut all = self.log.lock().unwrap().clone();
        for page in ["/metrics", "/state.json"] {
            all.push(self.daemon.page(page).await);
        }
        for (version, kind) in [
            ("v1", "Event"),
            ("v1", "ConfigMap"),
            ("kubedb.com/v1", "PgBouncer"),
            ("ops.kubedb.com/v1alpha1", "PgBouncerOpsRequest"),
            ("cert-manager.io/v1", "Issuer"),
        ] {
            let api = api(&self.admin, version, kind, None);
            for object in api.list(&ListParams::default()).await.unwrap() {
                all.push(serde_json::to_string(&object).unwrap());
            }
        }
        all
    }

    /// Ends everything; the daemon ends in order.
    pub(super) async fn stop(self) {
        let Self {
            daemon,
            mut running,
            ..
        } = self;
        daemon.stop().await;
        running.shutdown().await;
    }
}

/// What the neighbour, the tenant's application and the daemon need.
async fn furnish(admin: &Client) {
    for name in [TENANT, NEIGHBOUR, "cert-manager", chart::NAMESPACE] {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        create(admin, None, &namespace).await;
    }
    let rights = [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
    ];
    for object in chart::objects(&json!({})) {
        if rights.contains(&object["kind"].as_str().unwrap()) {
            create(admin, object["metadata"]["namespace"].as_str(), &object).await;
        }
    }
    tenant(admin).await;
    let version = json!({
        "apiVersion": "catalog.kubedb.com/v1alpha1", "kind": "PgBouncerVersion",
        "metadata": {"name": "1.24.0"},
        "spec": {
            "version": "1.24.0", "pgBouncer": {"image": "registry.example/pgbouncer:1.24.0"},
            "exporter": {"image": "registry.example/pgbouncer-exporter:1"},
        },
    });
    create(admin, None, &version).await;
    let (crt, key) = authority();
    for object in [
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "neighbour-ca"}, "stringData": {"tls.crt": crt, "tls.key": key},
        }),
        json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "neighbour"},
            "spec": {"ca": {"secretName": "neighbour-ca"}},
        }),
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ha-postgres-auth"},
            "stringData": {"username": "postgres", "password": "swordfish"},
        }),
        json!({
            "apiVersion": "appcatalog.appscode.com/v1alpha1", "kind": "AppBinding",
            "metadata": {"name": "ha-postgres"},
            "spec": {
                "type": "kubedb.com/postgres", "secret": {"name": "ha-postgres-auth"},
                "clientConfig": {"service": {
                    "scheme": "postgresql", "name": "ha-postgres", "port": 5432,
                }},
            },
        }),
    ] {
        create(admin, Some(NEIGHBOUR), &object).await;
    }
}

/// The tenant's rights, and the application beside them.
async fn tenant(admin: &Client) {
    let rules: Value = serde_json::from_str(TENANT_RULES).unwrap();
    for object in [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "tenant"}, "rules": rules,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "tenant"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "tenant",
            },
            "subjects": [{
                "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "mallory",
            }],
        }),
    ] {
        create(admin, Some(TENANT), &object).await;
    }
    for (version, kind, name) in APPLICATION {
        let mut object = json!({
            "apiVersion": version, "kind": kind,
            "metadata": {"name": name, "labels": {"app": "shop"}},
        });
        match kind {
            "Service" => {
                object["spec"] = json!({"ports": [{"port": 80}], "selector": {"app": "shop"}});
            }
            "PodDisruptionBudget" => {
                object["spec"] = json!({
                    "maxUnavailable": 1, "selector": {"matchLabels": {"app": "shop"}},
                });
            }
            "Pod" => {
                object["spec"] =
                    json!({"containers": [{"name": "shop", "image": "none.invalid/shop"}]});
            }
            "Secret" => object["stringData"] = json!({"colour": "blue"}),
            _ => {}
        }
        create(admin, Some(TENANT), &object).await;
    }
}

/// A kubeconfig with a token of the ServiceAccount that the chart makes.
async fn kubeconfig_of_the_daemon(admin: &Client, of_admin: PathBuf) -> PathBuf {
    let accounts = Api::<ServiceAccount>::namespaced(admin.clone(), chart::NAMESPACE);
    let wish = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(Vec::new()),
            expiration_seconds: Some(24 * 3_600),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let params = PostParams::default();
    let answer = accounts
        .create_token_request(chart::RELEASE, &params, &wish)
        .await
        .unwrap();
    let token = answer.status.unwrap().token;
    let text = std::fs::read_to_string(&of_admin).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    config["users"][0]["user"] = json!({"token": token});
    config["contexts"][0]["context"]["namespace"] = json!(chart::NAMESPACE);
    let path = of_admin.with_file_name("daemon.kubeconfig");
    crate::support::write_private(&path, &serde_json::to_string(&config).unwrap());
    path
}

fn is_precious(namespace: &str, kind: &str, name: &str) -> bool {
    if namespace == TENANT {
        return APPLICATION
            .iter()
            .any(|(_, of, named)| (*of, *named) == (kind, name));
    }
    // Journals and leases of the daemon's own come and go.
    let of_daemon = namespace == chart::NAMESPACE && kind == "ConfigMap";
    !of_daemon && !PROBES.iter().any(|probe| name.starts_with(probe))
}

/// An object without what changes by itself.
fn essence(object: &DynamicObject) -> Value {
    let mut essence = serde_json::to_value(object).unwrap();
    if let Some(fields) = essence.as_object_mut() {
        fields.remove("status");
    }
    let is_bouncer = object
        .types
        .as_ref()
        .is_some_and(|types| types.kind == "PgBouncer");
    if let Some(metadata) = essence["metadata"].as_object_mut() {
        metadata.remove("managedFields");
        // A status that says the same again is a new version of the object.
        let changes_by_itself = is_bouncer
            || object
                .types
                .as_ref()
                .is_some_and(|types| types.kind == "Pod");
        if changes_by_itself {
            metadata.remove("resourceVersion");
        }
    }
    if is_bouncer && let Some(annotations) = essence.pointer_mut("/metadata/annotations") {
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.remove(bouncert::api::annotations::SETTLED);
        }
        if *annotations == json!({}) {
            *annotations = Value::Null;
        }
    }
    if let Some(metadata) = essence["metadata"].as_object_mut() {
        metadata.retain(|_, value| !value.is_null());
    }
    essence
}

async fn create(client: &Client, namespace: Option<&str>, object: &Value) {
    let (kind, name) = (text(object, "/kind"), text(object, "/metadata/name"));
    let api = api(client, text(object, "/apiVersion"), kind, namespace);
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        made => drop(made.unwrap_or_else(|error| panic!("{kind} {name}: {error}"))),
    }
}

fn api(client: &Client, version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let types = TypeMeta {
        api_version: version.to_owned(),
        kind: kind.to_owned(),
    };
    let kind = GroupVersionKind::try_from(types).unwrap();
    let resource = ApiResource::from_gvk(&kind);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}
