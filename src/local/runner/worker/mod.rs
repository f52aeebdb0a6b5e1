//! The life of one pod: observe, ask [`pod::decide`], act, report, wait.
//!
//! A worker belongs to one pod uid. It ends when the pod is gone, or when the platform stops; a
//! worker that is simply dropped (the daemon was killed) leaves its process running for the next
//! daemon to adopt.

mod report;
mod start;
mod stop;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::confine::Reach;
use super::dirs::PodDirs;
use super::gather::Resolved;
use super::logs;
use super::node::Node;
use super::pod::{self, Action, Material, Observed, Process, Restart, Stopping};
use super::probe::{self, Plan, Readiness};
use super::process::{Exit, PoolerProcess};
use super::records::Birth;
use super::status::{CONTAINER, Ended};
use crate::cluster::EventKind;
use crate::instants::{Shift, Since, Within};
use crate::names::ObjectRef;

/// Wakes a worker, and tells whether files may have changed.
#[derive(Default)]
pub struct Wake {
    notify: Notify,
    files: AtomicBool,
    services: Mutex<BTreeSet<ObjectRef>>,
}

/// One pod's worker.
pub struct Worker {
    node: Arc<Node>,
    wake: Arc<Wake>,
    key: ObjectRef,
    uid: String,
    dirs: PodDirs,
    pod: Arc<Pod>,
    gone: bool,
    removed: bool,
    process: Option<PoolerProcess>,
    started_at: OffsetDateTime,
    phase: Process,
    material: Material,
    waiting: (&'static str, String),
    stopping: Option<Stopping>,
    quick_exits: u32,
    restarts: u32,
    starts: u32,
    last: Option<Ended>,
    address: Option<Ipv4Addr>,
    probe: Option<(Plan, Readiness)>,
    resolved: Resolved,
    reach: Reach,
    reported: Value,
    events: Vec<(EventKind, &'static str, String)>,
}

// === impl Wake ===

impl Wake {
    /// The pod object changed.
    pub fn pod(&self) {
        self.notify.notify_one();
    }

    fn watch(&self, services: &BTreeSet<ObjectRef>) {
        let mut watched = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if *watched != *services {
            watched.clone_from(services);
            // One of them may have changed after it was read and before it was watched.
            self.files();
        }
    }

    /// A Service, or its endpoints, changed: of concern where the pod's ini names it.
    pub fn service(&self, changed: &ObjectRef) {
        let services = self.services.lock();
        if services
            .unwrap_or_else(PoisonError::into_inner)
            .contains(changed)
        {
            self.files();
        }
    }

    /// An object that the pod mounts changed.
    pub fn files(&self) {
        self.files.store(true, Ordering::Release);
        self.notify.notify_one();
    }
}

// === impl Worker ===

impl Worker {
    /// A worker for `pod`, which takes over the recorded process if it still runs.
    pub fn new(node: Arc<Node>, wake: Arc<Wake>, pod: Arc<Pod>, recorded: Option<Birth>) -> Self {
        let uid = pod.uid().unwrap_or_default();
        let before = serde_json::to_value(&pod.status).unwrap_or_default();
        let restarts = before["containerStatuses"]
            .as_array()
            .and_then(|all| all.iter().find(|c| c["name"] == CONTAINER))
            .and_then(|c| c["restartCount"].as_u64())
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0);
        let mut worker = Self {
            key: crate::local::informer::key_of(&*pod),
            dirs: node.dirs.pod(&uid),
            started_at: node.clock.now(),
            node,
            wake,
            uid,
            pod,
            gone: false,
            removed: false,
            process: None,
            phase: Process::Absent,
            material: Material::Stale,
            waiting: ("ContainerCreating", String::new()),
            stopping: None,
            quick_exits: 0,
            restarts,
            starts: 0,
            last: None,
            address: None,
            probe: None,
            resolved: Resolved::default(),
            reach: Reach::default(),
            reported: before,
            events: Vec::new(),
        };
        if let Some(recorded) = recorded {
            worker.adopt(&recorded);
        }
        worker
    }

    /// Runs the pod until it is gone or `stop` is asked for.
    pub async fn run(mut self, stop: CancellationToken) {
        self.claim().await;
        while !stop.is_cancelled() {
            self.refresh();
            if self.gone && self.removed {
                return;
            }
            if self.wake.files.swap(false, Ordering::AcqRel) {
                self.sync_files().await;
            }
            let now = self.node.clock.now();
            match pod::decide(&self.observed(), now) {
                Action::Prepare => self.prepare(now).await,
                Action::Start => self.start(now),
                Action::Terminate => self.terminate(now),
                Action::Kill => self.kill(),
                Action::Remove => self.remove(&stop).await,
                Action::Wait { until } => {
                    self.report(now).await;
                    self.wait(until, &stop).await;
                }
            }
        }
        self.shut_down().await;
    }

    fn observed(&self) -> Observed {
        let policy = self
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.restart_policy.as_deref());
        Observed {
            process: self.phase,
            material: self.material,
            stopping: self.stopping,
            quick_exits: self.quick_exits,
            restart: match policy {
                Some("Never") => Restart::Never,
                _ => Restart::Always,
            },
        }
    }

    /// Takes in the newest form of the pod.
    fn refresh(&mut self) {
        match self.node.pods.get(&self.key) {
            Some(pod) if pod.uid().as_deref() == Some(&*self.uid) => self.pod = pod,
            _ => self.gone = true,
        }
        let grace = if self.gone {
            Some(pod::FORCED_GRACE)
        } else if self.pod.metadata.deletion_timestamp.is_some() {
            let seconds = self.pod.metadata.deletion_grace_period_seconds;
            let seconds = seconds.unwrap_or(30).within(0, pod::GRACE_MAX_S);
            Some(time::Duration::seconds(seconds))
        } else {
            None
        };
        if let Some(grace) = grace {
            let stopping = self.stopping.get_or_insert(Stopping {
                grace,
                terminated_at: None,
                killed: false,
            });
            stopping.grace = stopping.grace.min(grace);
        }
    }

    /// Puts a pod that nobody has placed on this node.
    async fn claim(&mut self) {
        let spec = self.pod.spec.as_ref();
        if spec.and_then(|s| s.node_name.as_ref()).is_none() {
            let patch = json!({"spec": {"nodeName": super::NODE_NAME}});
            if let Err(error) = self.node.cluster.patch::<Pod>(&self.key, &patch).await {
                tracing::debug!(pod = %self.key, error = &error as &dyn std::error::Error, "not placed");
            }
        }
    }

    fn ended(&mut self, exit: Exit) {
        let now = self.node.clock.now();
        tracing::info!(pod = %self.key, code = exit.code, signal = exit.signal, "pooler ended");
        self.quick_exits = pod::quick_exits(self.quick_exits, now.since(self.started_at));
        self.phase = Process::Exited { at: now };
        self.material = Material::Stale;
        self.process = None;
        self.probe = None;
        self.last = Some(Ended {
            exit,
            started_at: self.started_at,
            ended_at: now,
        });
        let pause = pod::restart_pause(self.quick_exits);
        self.waiting = if pause > pod::RESTART_FIRST {
            let message = format!(
                "back-off {pause} restarting failed container={CONTAINER} pod={}",
                self.key
            );
            self.events
                .push((EventKind::Warning, "BackOff", message.clone()));
            ("CrashLoopBackOff", message)
        } else {
            ("ContainerCreating", String::new())
        };
    }

    async fn wait(&mut self, until: Option<OffsetDateTime>, stop: &CancellationToken) {
        let now = self.node.clock.now();
        let pause = until.map(|until| until.since(now).unsigned_abs());
        let due = Instant::now().plus(pause.unwrap_or(super::HOUSEKEEPING));
        let probe = self.probe.clone();
        let asked = async {
            match &probe {
                Some((plan, readiness)) => {
                    tokio::time::sleep_until(readiness.next()).await;
                    probe::ask(plan).await
                }
                None => std::future::pending().await,
            }
        };
        let exit = async {
            match &mut self.process {
                Some(process) => process.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.wake.notify.notified() => {}
            () = stop.cancelled() => {}
            exit = exit => self.ended(exit),
            answer = asked => {
                if let Some((plan, readiness)) = &mut self.probe {
                    readiness.take(answer, plan, Instant::now());
                }
            }
            () = tokio::time::sleep_until(due) => {
                if let Err(error) = logs::bound(&self.dirs.log) {
                    tracing::warn!(pod = %self.key, %error, "log not cut");
                }
            }
        }
    }
}
