//! The node: follows pods and what they mount, and gives every pod a worker.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::NODE_NAME;
use super::dirs::{Dirs, names_a_directory};
use super::dns::SERVICE_NAME;
use super::host::HostPaths;
use super::payload::references;
use super::pooler::Poolers;
use super::process::{self, PoolerProcess};
use super::records::{Birth, Record};
use super::worker::{Wake, Worker};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::cluster::Reporter;
use crate::local::addresses::Addresses;
use crate::local::informer::{Informer, key_of};
use crate::names::ObjectRef;

/// What all workers share.
pub struct Node {
    /// The API.
    pub cluster: Cluster,
    /// Events.
    pub reporter: Reporter,
    /// Time.
    pub clock: Clock,
    /// The copy of all pods.
    pub pods: Arc<Informer<Pod>>,
    /// The programs that pods run.
    pub poolers: Poolers,
    /// Directories.
    pub dirs: Dirs,
    /// Loopback addresses.
    pub addresses: Addresses,
    /// The directories of the machine that pods may name.
    pub host_paths: HostPaths,
    /// The program that confines poolers, if there is one.
    pub pod_init: Option<PathBuf>,
}

/// The copies of what the files of pods are made of.
pub struct Mounted<'a> {
    /// Secrets.
    pub secrets: &'a Informer<Secret>,
    /// `ConfigMap`s.
    pub config_maps: &'a Informer<ConfigMap>,
    /// Services, whose addresses go into the ini.
    pub services: &'a Informer<Service>,
    /// Their endpoints.
    pub slices: &'a Informer<EndpointSlice>,
}

/// What a pod mounts, and how to wake its worker.
struct Hosted {
    namespace: String,
    secrets: Vec<String>,
    config_maps: Vec<String>,
    wake: Arc<Wake>,
}

/// The pods that have a worker, by uid.
#[derive(Clone, Default)]
struct Roster(Arc<Mutex<HashMap<String, Hosted>>>);

/// The running node.
pub struct Runner {
    node: Arc<Node>,
    roster: Roster,
    arrivals: mpsc::UnboundedReceiver<Arc<Pod>>,
}

// === impl Runner ===

impl Runner {
    /// Subscribes to pods and to what they mount; to be called before the informers run.
    pub fn new(node: Node, mounted: &Mounted<'_>) -> Self {
        let roster = Roster::default();
        // Bounded by the number of pods: each uid is sent once.
        let (sender, arrivals) = mpsc::unbounded_channel();
        let known = roster.clone();
        node.pods.on_change(move |change| {
            let (Some(newest), alive) = (change.newest(), change.after.is_some()) else {
                return;
            };
            if known.wake_or_admit(newest, alive) {
                let _ = sender.send(newest.clone());
            }
            // A pod that was removed and made again between two looks has another uid.
            if let Some(before) = change.before.filter(|b| b.uid() != newest.uid()) {
                known.wake_or_admit(before, false);
            }
        });
        let known = roster.clone();
        mounted.secrets.on_change(move |change| {
            let same =
                matches!((change.before, change.after), (Some(a), Some(b)) if a.data == b.data);
            if let Some(newest) = change.newest().filter(|_| !same) {
                known.wake_mounting(&key_of(&**newest), |hosted| &hosted.secrets);
            }
        });
        let known = roster.clone();
        mounted.config_maps.on_change(move |change| {
            let same = matches!((change.before, change.after), (Some(a), Some(b)) if a.data == b.data && a.binary_data == b.binary_data);
            if let Some(newest) = change.newest().filter(|_| !same) {
                known.wake_mounting(&key_of(&**newest), |hosted| &hosted.config_maps);
            }
        });
        let known = roster.clone();
        mounted.services.on_change(move |change| {
            let same =
                matches!((change.before, change.after), (Some(a), Some(b)) if a.spec == b.spec);
            if let Some(newest) = change.newest().filter(|_| !same) {
                known.wake_naming(&key_of(&**newest));
            }
        });
        let known = roster.clone();
        mounted.slices.on_change(move |change| {
            let same = matches!((change.before, change.after), (Some(a), Some(b)) if a.endpoints == b.endpoints);
            let Some(newest) = change.newest().filter(|_| !same) else {
                return;
            };
            if let Some(service) = newest.labels().get(SERVICE_NAME) {
                let namespace = newest.namespace().unwrap_or_default();
                known.wake_naming(&ObjectRef::new(namespace, &**service));
            }
        });
        Self {
            node: Arc::new(node),
            roster,
            arrivals,
        }
    }

    /// Runs pods until `stop`; then ends every process and removes the runtime directory.
    pub async fn run(mut self, stop: CancellationToken) {
        self.node.pods.wait_synced().await;
        let mut found = self.clean_up();
        let mut workers: JoinSet<String> = JoinSet::new();
        loop {
            tokio::select! {
                Some(pod) = self.arrivals.recv() => {
                    let uid = pod.uid().unwrap_or_default();
                    let wake = self.roster.wake_of(&uid).unwrap_or_default();
                    let worker = Worker::new(self.node.clone(), wake, pod, found.remove(&uid));
                    let stop = stop.clone();
                    workers.spawn(async move {
                        worker.run(stop).await;
                        uid
                    });
                }
                Some(done) = workers.join_next() => match done {
                    Ok(uid) => self.roster.forget(&uid),
                    Err(error) => tracing::error!(%error, "a pod's worker panicked"),
                },
                () = stop.cancelled() => break,
            }
        }
        while workers.join_next().await.is_some() {}
        if let Err(error) = self.node.dirs.remove() {
            tracing::warn!(%error, "runtime directory not removed");
        }
    }

    /// Ends processes and removes directories of pods that are gone; returns the processes that
    /// still have a pod, by uid.
    fn clean_up(&self) -> HashMap<String, Birth> {
        let dirs = &self.node.dirs;
        let pods = self.node.pods.all();
        let uids: Vec<String> = pods.iter().filter_map(|pod| pod.uid()).collect();
        let mut keep = HashMap::new();
        for uid in dirs.records().uids() {
            match dirs.records().read(&uid) {
                Some(Record::Running(birth)) if uids.contains(&uid) => {
                    keep.insert(uid, birth);
                    continue;
                }
                Some(Record::Running(birth)) => end_orphan(&birth),
                Some(Record::Starting) => self.end_unrecorded(&uid),
                None => {}
            }
            if let Err(error) = dirs.records().forget(&uid) {
                tracing::warn!(%error, "record of a former process not removed");
            }
        }
        if let Err(error) = self.remove_strangers(&uids) {
            tracing::warn!(%error, "directories of former pods not removed");
        }
        keep
    }

    /// Ends what was started in the instant in which its platform died: it runs as the pod's user,
    /// on the pod's ini, and was not recorded.
    fn end_unrecorded(&self, uid: &str) {
        let dirs = &self.node.dirs;
        let ini = dirs.pod(uid).ini;
        let user = match dirs.identity(uid) {
            Some(identity) => identity.uid,
            None => rustix::process::geteuid().as_raw(),
        };
        for found in process::find_running(dirs.runtime()) {
            if found.ini == ini && process::user_of(found.pid) == Some(user) {
                tracing::info!(pid = found.pid, "pooler without a record ended");
                if let Err(error) = process::kill(&found) {
                    tracing::warn!(pid = found.pid, %error, "pooler without a record not ended");
                }
            }
        }
    }

    fn remove_strangers(&self, uids: &[String]) -> std::io::Result<()> {
        let dirs = &self.node.dirs;
        for name in dirs.pods()? {
            if uids.contains(&name) {
                continue;
            }
            if let Some(identity) = dirs.identity(&name) {
                process::kill_all_of(identity.uid);
            }
            dirs.remove_pod(&name)?;
        }
        Ok(())
    }
}

fn end_orphan(birth: &Birth) {
    match PoolerProcess::adopt(birth).and_then(|process| process.signal(Signal::KILL)) {
        Ok(()) => tracing::info!(pid = birth.pid, "pooler without a pod ended"),
        Err(error) => tracing::debug!(pid = birth.pid, %error, "pooler without a pod has ended"),
    }
}

// === impl Roster ===

impl Roster {
    /// Wakes the worker of `pod`; true if it has none and is to get one.
    fn wake_or_admit(&self, pod: &Pod, alive: bool) -> bool {
        let Some(uid) = pod.uid() else { return false };
        let mut hosted = self.lock();
        if let Some(known) = hosted.get(&uid) {
            known.wake.pod();
            return false;
        }
        let spec = pod.spec.as_ref();
        let node = spec.and_then(|s| s.node_name.as_deref());
        let ours = node.is_none_or(|name| name == NODE_NAME);
        if !alive || !ours {
            return false;
        }
        if !names_a_directory(&uid) {
            tracing::warn!(uid, "pod not run: its uid is not a name for a directory");
            return false;
        }
        let volumes = spec.and_then(|s| s.volumes.clone()).unwrap_or_default();
        let (secrets, config_maps) = references(&volumes);
        let entry = Hosted {
            namespace: pod.namespace().unwrap_or_default(),
            secrets,
            config_maps,
            wake: Arc::default(),
        };
        hosted.insert(uid, entry);
        true
    }

    fn wake_mounting(&self, changed: &ObjectRef, names: impl Fn(&Hosted) -> &Vec<String>) {
        for hosted in self.lock().values() {
            if hosted.namespace == changed.namespace && names(hosted).contains(&changed.name) {
                hosted.wake.files();
            }
        }
    }

    fn wake_naming(&self, service: &ObjectRef) {
        for hosted in self.lock().values() {
            hosted.wake.service(service);
        }
    }

    fn wake_of(&self, uid: &str) -> Option<Arc<Wake>> {
        self.lock().get(uid).map(|hosted| hosted.wake.clone())
    }

    fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Hosted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
