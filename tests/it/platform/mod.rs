//! The local platform with real poolers.

mod confined;
mod hostile;
mod pods;
mod survival;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bouncert::local::platform::{Platform, PlatformOptions};
use bouncert::local::runner::process::find_running;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_postgres::{NoTls, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;

use crate::support::eventually;

const NS: &str = "default";
const SOON: Duration = Duration::from_secs(15);
const INI: &str = "[databases]\nnowhere = host=127.0.0.1 port=1\n[pgbouncer]\nlisten_addr = *\nlisten_port = 5432\nauth_type = trust\nauth_file = /etc/config/userlist\nadmin_users = keeper\nlogfile = /tmp/pgbouncer.log\npidfile = /tmp/pgbouncer.pid\n";

/// A running platform over a directory of its own.
struct Rig {
    client: Client,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    runtime: PathBuf,
}

impl Drop for Rig {
    /// A test that failed leaves no pooler behind.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for found in find_running(&self.runtime) {
                kill(found.pid);
            }
            drop(std::fs::remove_dir_all(&self.runtime));
        }
    }
}

impl Rig {
    async fn start(data: &TempDir) -> Self {
        // Clients of a platform that vanished let go of its store a moment later.
        let platform = eventually(SOON, async || {
            let options = PlatformOptions::new(data.path().join("data"));
            Platform::start(options)
                .await
                .map_err(|error| format!("{error:?}"))
        })
        .await;
        Self::around(platform)
    }

    /// Runs a platform that was started with options of the test's own.
    fn around(platform: Platform) -> Self {
        let client = platform.client();
        let runtime = platform.runtime_dir().to_owned();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(platform.run(stop.clone()));
        Self {
            client,
            tasks,
            stop,
            runtime,
        }
    }

    /// Stops the platform cleanly.
    async fn stop(mut self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.tasks.join_next())
            .await
            .expect("the platform stops in time");
    }

    /// Ends it as SIGKILL would: nothing is tidied up.
    async fn vanish(mut self) {
        self.tasks.shutdown().await;
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NS)
    }

    async fn create<K>(&self, object: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + serde::Serialize,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api()
            .create(&PostParams::default(), &object)
            .await
            .unwrap()
    }

    async fn secret(&self, userlist: &str) {
        self.create::<Secret>(json!({
            "metadata": {"name": "till-ini"},
            "stringData": {"pgbouncer.ini": INI, "userlist": userlist}
        }))
        .await;
    }

    /// A StatefulSet of poolers, its Service and its Secret.
    async fn till(&self, replicas: i32) {
        self.secret("\"keeper\" \"\"\n").await;
        self.create::<Service>(json!({
            "metadata": {"name": "till"},
            "spec": {"selector": {"app": "till", "in-service": "yes"},
                "ports": [{"name": "primary", "port": 5432, "targetPort": "db"}]}
        }))
        .await;
        self.create::<StatefulSet>(json!({
            "metadata": {"name": "till"},
            "spec": {
                "replicas": replicas, "serviceName": "till-pods", "podManagementPolicy": "Parallel",
                "updateStrategy": {"type": "OnDelete"},
                "selector": {"matchLabels": {"app": "till"}},
                "template": template()
            }
        }))
        .await;
    }

    async fn ready_pod(&self, name: &str) -> Pod {
        eventually(SOON, async || {
            let pod = self.api::<Pod>().get_opt(name).await.unwrap();
            let status = pod.as_ref().and_then(|p| p.status.clone());
            pod.filter(|p| condition(p, "Ready") && p.metadata.deletion_timestamp.is_none())
                .ok_or(status)
        })
        .await
    }

    async fn address(&self, service: &str) -> SocketAddr {
        let ip = eventually(SOON, async || {
            let service = self.api::<Service>().get(service).await.unwrap();
            service
                .spec
                .and_then(|s| s.cluster_ip)
                .filter(|ip| !ip.is_empty())
                .ok_or("no address")
        })
        .await;
        format!("{ip}:5432").parse().unwrap()
    }

    async fn ready_endpoints(&self, service: &str) -> Vec<String> {
        let label = format!("kubernetes.io/service-name={service}");
        let slices = self
            .api::<EndpointSlice>()
            .list(&ListParams::default().labels(&label))
            .await
            .unwrap();
        let endpoints = slices
            .items
            .into_iter()
            .filter_map(|s| s.endpoints)
            .flatten();
        let mut ready: Vec<String> = endpoints
            .filter(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true))
            .filter_map(|e| e.target_ref.and_then(|r| r.name))
            .collect();
        ready.sort();
        ready
    }

    async fn events(&self) -> Vec<(String, String)> {
        let events = self
            .api::<Event>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let told = |e: Event| (e.reason.unwrap_or_default(), e.message.unwrap_or_default());
        events.items.into_iter().map(told).collect()
    }
}

fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": "till", "in-service": "yes"}},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "pgbouncer", "image": "somewhere/pgbouncer:1.18.0",
                "ports": [{"name": "db", "containerPort": 5432}],
                "readinessProbe": {"tcpSocket": {"port": "db"}},
                "volumeMounts": [{"name": "till-ini", "mountPath": "/etc/config"}]
            }],
            "volumes": [{"name": "till-ini", "secret": {"secretName": "till-ini", "defaultMode": 0o640}}]
        }
    })
}

fn condition(pod: &Pod, name: &str) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|c| c.type_ == name && c.status == "True")
}

fn pod_address(pod: &Pod) -> SocketAddr {
    let ip = pod.status.as_ref().and_then(|s| s.pod_ip.clone()).unwrap();
    format!("{ip}:5432").parse().unwrap()
}

fn process_id(pod: &Pod) -> i32 {
    let status = pod.status.as_ref().unwrap();
    let id = status.container_statuses.as_ref().unwrap()[0]
        .container_id
        .clone()
        .unwrap();
    id.strip_prefix("local://").unwrap().parse().unwrap()
}

fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref().unwrap();
    status.container_statuses.as_ref().unwrap()[0].restart_count
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn runs(pid: i32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    !line.is_empty()
}

/// An admin console.
async fn console(address: SocketAddr, tasks: &mut JoinSet<()>) -> tokio_postgres::Client {
    let config = format!(
        "host={} port={} user=keeper dbname=pgbouncer",
        address.ip(),
        address.port()
    );
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tasks.spawn(async move { drop(connection.await) });
    client
}

/// The address on which the pooler behind a console listens.
async fn listens_on(console: &tokio_postgres::Client) -> Result<String, tokio_postgres::Error> {
    let rows = console.simple_query("SHOW CONFIG").await?;
    let value = rows.iter().find_map(|row| match row {
        SimpleQueryMessage::Row(row) if row.get(0) == Some("listen_addr") => row.get(1),
        _ => None,
    });
    Ok(value.unwrap_or_default().to_owned())
}

/// The directory of a pod's volumes, as its process sees it.
fn volumes(pid: i32) -> PathBuf {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let ini = line.split(|b| *b == 0).nth(1).unwrap();
    let ini = Path::new(std::str::from_utf8(ini).unwrap());
    ini.parent().unwrap().join("volumes")
}
