//! The local platform with real poolers.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bouncert::local::datadir::DataDirError;
use bouncert::local::platform::{Platform, PlatformError, PlatformOptions};
use bouncert::local::runner::process::find_running;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
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

#[tokio::test(flavor = "multi_thread")]
async fn a_set_comes_up_and_its_service_reaches_every_pod() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    let mut tasks = JoinSet::new();
    let begun = std::time::Instant::now();
    rig.till(2).await;
    let mut wanted = Vec::new();
    for name in ["till-0", "till-1"] {
        let pod = rig.ready_pod(name).await;
        assert_eq!(pod.labels()["statefulset.kubernetes.io/pod-name"], name);
        wanted.push(pod_address(&pod).ip().to_string());
    }
    println!("ready after {:?}", begun.elapsed());
    eventually(SOON, async || {
        let ready = rig.ready_endpoints("till").await;
        (ready == ["till-0", "till-1"]).then_some(()).ok_or(ready)
    })
    .await;
    let address = rig.address("till").await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let console = console(address, &mut tasks).await;
        seen.push(listens_on(&console).await.unwrap());
    }
    seen.sort();
    wanted.sort();
    assert_eq!(seen, wanted, "in turn");
    eventually(SOON, async || {
        let set = rig.api::<StatefulSet>().get("till").await.unwrap();
        let status = set.status.unwrap_or_default();
        let done = status.ready_replicas == Some(2) && status.observed_generation.is_some();
        done.then_some(()).ok_or(status)
    })
    .await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_reaches_the_file_in_one_step() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    rig.till(1).await;
    let pid = process_id(&rig.ready_pod("till-0").await);
    let file = volumes(pid).join("till-ini/userlist");
    let patch = json!({"stringData": {"userlist": "\"keeper\" \"\"\n\"guest\" \"\"\n"}});
    rig.api::<Secret>()
        .patch("till-ini", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    eventually(SOON, async || {
        // Whoever reads through the link sees one version or the other, and never none.
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("\"keeper\" \"\"\n"), "{text:?}");
        text.contains("guest").then_some(()).ok_or(text)
    })
    .await;
    assert_eq!(
        process_id(&rig.ready_pod("till-0").await),
        pid,
        "no restart"
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_ends_gracefully_and_returns_from_the_present_template() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    rig.till(1).await;
    let before = rig.ready_pod("till-0").await;
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {"digest": "two"}}}}});
    rig.api::<StatefulSet>()
        .patch("till", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    rig.api::<Pod>()
        .delete("till-0", &DeleteParams::default())
        .await
        .unwrap();
    let after = eventually(SOON, async || {
        let pod = rig.ready_pod("till-0").await;
        (pod.uid() != before.uid())
            .then_some(pod)
            .ok_or("the old pod")
    })
    .await;
    assert_eq!(after.annotations()["digest"], "two");
    assert_eq!(
        pod_address(&after),
        pod_address(&before),
        "it keeps its address"
    );
    assert!(!runs(process_id(&before)));
    let killed = rig.events().await;
    assert!(
        !killed.iter().any(|(_, m)| m.contains("SIGKILL")),
        "{killed:?}"
    );
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_the_label_leaves_the_service_and_keeps_its_connections() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    let mut tasks = JoinSet::new();
    rig.till(2).await;
    let first = pod_address(&rig.ready_pod("till-0").await).ip().to_string();
    rig.ready_pod("till-1").await;
    let address = rig.address("till").await;
    let held = eventually(SOON, async || {
        let console = console(address, &mut tasks).await;
        let on = listens_on(&console).await.unwrap();
        if on == first { Ok(console) } else { Err(on) }
    })
    .await;
    let patch = json!({"metadata": {"labels": {"in-service": null}}});
    rig.api::<Pod>()
        .patch("till-0", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    eventually(SOON, async || {
        let ready = rig.ready_endpoints("till").await;
        (ready == ["till-1"]).then_some(()).ok_or(ready)
    })
    .await;
    eventually(SOON, async || {
        let on = listens_on(&console(address, &mut tasks).await)
            .await
            .unwrap();
        let again = listens_on(&console(address, &mut tasks).await)
            .await
            .unwrap();
        (on != first && again != first)
            .then_some(())
            .ok_or((on, again))
    })
    .await;
    assert_eq!(listens_on(&held).await.unwrap(), first);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_is_killed_starts_again_with_growing_pauses() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    rig.till(1).await;
    let first = process_id(&rig.ready_pod("till-0").await);
    kill(first);
    let again = eventually(SOON, async || {
        let pod = rig.ready_pod("till-0").await;
        (restarts(&pod) == 1).then_some(pod).ok_or("no restart")
    })
    .await;
    let container = &again
        .status
        .as_ref()
        .unwrap()
        .container_statuses
        .as_ref()
        .unwrap()[0];
    let last = container.last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.signal), (137, Some(9)));
    kill(process_id(&again));
    eventually(SOON, async || {
        let pod = rig.api::<Pod>().get("till-0").await.unwrap();
        let status = pod.status.unwrap();
        let container = status.container_statuses.unwrap().remove(0);
        let reason = container
            .state
            .and_then(|s| s.waiting)
            .and_then(|w| w.reason);
        (reason.as_deref() == Some("CrashLoopBackOff"))
            .then_some(())
            .ok_or(reason)
    })
    .await;
    assert!(!condition(
        &rig.api::<Pod>().get("till-0").await.unwrap(),
        "Ready"
    ));
    eventually(SOON, async || {
        let pod = rig.ready_pod("till-0").await;
        (restarts(&pod) == 2)
            .then_some(())
            .ok_or_else(|| restarts(&pod))
    })
    .await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poolers_outlive_a_platform_that_dies_and_are_taken_over_or_ended_by_the_next() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    rig.till(2).await;
    let kept = process_id(&rig.ready_pod("till-0").await);
    let orphan = process_id(&rig.ready_pod("till-1").await);
    let pods = rig.api::<Pod>();
    rig.vanish().await;
    assert!(runs(kept) && runs(orphan));
    // The pod goes while nobody looks.
    pods.delete("till-1", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    drop(pods);

    let rig = Rig::start(&data).await;
    eventually(SOON, async || (!runs(orphan)).then_some(()).ok_or(orphan)).await;
    eventually(SOON, async || {
        let pod = rig.ready_pod("till-1").await;
        let pid = process_id(&pod);
        (pid != orphan).then_some(()).ok_or(pid)
    })
    .await;
    let pod = rig.ready_pod("till-0").await;
    assert_eq!((process_id(&pod), restarts(&pod)), (kept, 0));
    // An adopted process is watched like a child.
    kill(kept);
    eventually(SOON, async || {
        let pod = rig.ready_pod("till-0").await;
        (process_id(&pod) != kept)
            .then_some(())
            .ok_or("still the old")
    })
    .await;
    let last = process_id(&rig.ready_pod("till-0").await);
    rig.stop().await;
    assert!(!runs(last), "a clean stop leaves nothing running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_named_and_its_arrival_starts_the_pod() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    let mut pod = json!({"metadata": {"name": "lone"}, "spec": template()["spec"]});
    pod["spec"]["securityContext"] = json!({"runAsUser": 7070, "fsGroup": 7071});
    pod["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({
            "name": "exporter", "image": "somewhere/exporter"
        }));
    rig.create::<Pod>(pod).await;
    eventually(SOON, async || {
        let pod = rig.api::<Pod>().get("lone").await.unwrap();
        let waiting = pod
            .status
            .and_then(|s| s.container_statuses)
            .and_then(|c| c[0].state.clone())
            .and_then(|s| s.waiting);
        let named = waiting.as_ref().is_some_and(|w| {
            w.reason.as_deref() == Some("CreateContainerConfigError")
                && w.message
                    .as_ref()
                    .is_some_and(|m| m.contains("\"till-ini\" not found"))
        });
        named.then_some(()).ok_or(waiting)
    })
    .await;
    rig.secret("").await;
    let pod = rig.ready_pod("lone").await;
    let process = std::fs::metadata(format!("/proc/{}", process_id(&pod))).unwrap();
    if rustix::process::geteuid().is_root() {
        assert_eq!(process.uid(), 7070, "as the security context says");
    } else {
        assert_eq!(process.uid(), rustix::process::geteuid().as_raw());
    }
    let exporter = &pod.status.unwrap().container_statuses.unwrap()[1];
    let waiting = exporter.state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("NotRunOnLocalPlatform"));
    let events = rig.events().await;
    assert!(events.iter().any(|(r, _)| r == "FailedMount"), "{events:?}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_pod_is_that_of_its_pooler() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    rig.till(1).await;
    rig.ready_pod("till-0").await;
    let whole = rig
        .api::<Pod>()
        .logs("till-0", &LogParams::default())
        .await
        .unwrap();
    assert!(whole.contains("process up"), "{whole}");
    let last = LogParams {
        tail_lines: Some(1),
        timestamps: true,
        ..LogParams::default()
    };
    let last = rig.api::<Pod>().logs("till-0", &last).await.unwrap();
    assert_eq!(last.lines().count(), 1);
    assert!(last.split(' ').next().unwrap().ends_with('Z'), "{last}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_changes_the_number_of_pods_and_the_budget_follows() {
    let data = TempDir::new().unwrap();
    let rig = Rig::start(&data).await;
    rig.till(1).await;
    rig.create::<PodDisruptionBudget>(json!({
        "metadata": {"name": "till"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "till"}}}
    }))
    .await;
    let scale = async |replicas: i32| {
        let patch = json!({"spec": {"replicas": replicas}});
        rig.api::<StatefulSet>()
            .patch("till", &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    };
    scale(3).await;
    rig.ready_pod("till-2").await;
    eventually(SOON, async || {
        let budget = rig.api::<PodDisruptionBudget>().get("till").await.unwrap();
        let status = budget.status.unwrap_or_default();
        let counts = (
            status.expected_pods,
            status.desired_healthy,
            status.disruptions_allowed,
        );
        (counts == (Some(3), Some(2), Some(1)))
            .then_some(())
            .ok_or(counts)
    })
    .await;
    scale(1).await;
    eventually(SOON, async || {
        let pods = rig.api::<Pod>().list(&ListParams::default()).await.unwrap();
        let names: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
        (names == ["till-0"]).then_some(()).ok_or(names)
    })
    .await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_platforms_cannot_share_a_directory_and_a_missing_program_is_named() {
    let data = TempDir::new().unwrap();
    let options = PlatformOptions::new(data.path().join("data"));
    let first = Platform::start(options.clone()).await.unwrap();
    let second = Platform::start(options.clone()).await.err().unwrap();
    assert!(
        matches!(second, PlatformError::DataDir(DataDirError::InUse { .. })),
        "{second}"
    );
    drop(first);
    let without = PlatformOptions {
        pgbouncer: Some("/nonexistent/pgbouncer".into()),
        ..options
    };
    let error = Platform::start(without).await.err().unwrap();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("install the package pgbouncer"), "{cause}");
}
