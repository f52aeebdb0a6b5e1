//! The life of one pod: observe, ask [`pod::decide`], act, report, wait.
//!
//! A worker belongs to one pod uid. It ends when the pod is gone, or when the platform stops; a
//! worker that is simply dropped (the daemon was killed) leaves its process running for the next
//! daemon to adopt.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, ResourceExt as _};
use rustix::process::Signal;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dirs::PodDirs;
use super::gather::{GatherError, Task};
use super::identity::{Identity, identity};
use super::node::Node;
use super::pod::{self, Action, Material, Observed, Process, Restart, Stopping};
use super::probe::{self, Plan, Readiness};
use super::process::{Exit, Found, PoolerProcess};
use super::status::{CONTAINER, Ended, Shown, State, status};
use super::{RETRY_MISSING, STOP_GRACE, logs};
use crate::cluster::EventKind;
use crate::names::ObjectRef;

/// Wakes a worker, and tells whether files may have changed.
#[derive(Default)]
pub struct Wake {
    notify: Notify,
    files: AtomicBool,
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
    reported: Value,
    events: Vec<(EventKind, &'static str, String)>,
}

// === impl Wake ===

impl Wake {
    /// The pod object changed.
    pub fn pod(&self) {
        self.notify.notify_one();
    }

    /// An object that the pod mounts changed.
    pub fn files(&self) {
        self.files.store(true, Ordering::Release);
        self.notify.notify_one();
    }
}

// === impl Worker ===

impl Worker {
    /// A worker for `pod`, which takes over `found` if a process runs already.
    pub fn new(node: Arc<Node>, wake: Arc<Wake>, pod: Arc<Pod>, found: Option<Found>) -> Self {
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
            reported: before,
            events: Vec::new(),
        };
        if let Some(found) = found {
            worker.adopt(&found);
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
            Some(time::Duration::seconds(seconds.unwrap_or(30)))
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

    fn identity(&self) -> Option<Identity> {
        identity(self.pod.spec.as_ref()?, CONTAINER)
    }

    fn adopt(&mut self, found: &Found) {
        let ini = std::fs::read_to_string(&self.dirs.ini).unwrap_or_default();
        let address = ini
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("listen_addr = ")?.parse().ok());
        match (PoolerProcess::adopt(found), address) {
            (Ok(process), Some(address)) => {
                self.node.addresses.claim(address, &self.uid);
                self.address = Some(address);
                self.process = Some(process);
                self.phase = Process::Running;
                self.starts = 1;
                self.begin_probing();
                self.wake.files();
                tracing::info!(pod = %self.key, pid = found.pid, "pooler adopted");
            }
            (result, _) => tracing::warn!(
                pod = %self.key, pid = found.pid, error = ?result.err(), "pooler not adopted"
            ),
        }
    }

    async fn prepare(&mut self, now: OffsetDateTime) {
        match self.try_prepare().await {
            Ok(()) => self.material = Material::Ready,
            Err(trouble) => {
                if self.waiting != (trouble.reason, trouble.message.clone()) {
                    self.events
                        .push((EventKind::Warning, trouble.event, trouble.message.clone()));
                }
                self.waiting = (trouble.reason, trouble.message);
                self.material = Material::Missing {
                    retry_at: now + trouble.retry_in,
                };
            }
        }
    }

    async fn try_prepare(&mut self) -> Result<(), Trouble> {
        let address = self.choose_address()?;
        self.address = Some(address);
        self.task(address).write().await.map_err(Trouble::from)?;
        Ok(())
    }

    fn choose_address(&self) -> Result<Ipv4Addr, Trouble> {
        if let Some(address) = self.address {
            return Ok(address);
        }
        let spec = self.pod.spec.as_ref();
        let ports: Vec<u16> = spec
            .iter()
            .flat_map(|s| &s.containers)
            .filter(|c| c.name == CONTAINER)
            .flat_map(|c| c.ports.iter().flatten())
            .filter_map(|port| u16::try_from(port.container_port).ok())
            .collect();
        let name = format!("pod/{}", self.key);
        self.node
            .addresses
            .take(&self.uid, &name, &ports)
            .map_err(|error| Trouble {
                reason: "CreateContainerError",
                event: "FailedCreatePodSandBox",
                message: error.to_string(),
                retry_in: RETRY_MISSING,
            })
    }

    fn task(&self, address: Ipv4Addr) -> Task<'_> {
        Task {
            cluster: &self.node.cluster,
            pod: &self.pod,
            dirs: &self.dirs,
            identity: self.identity(),
            address,
        }
    }

    /// Brings the files of a running process into step; the process is told nothing.
    async fn sync_files(&mut self) {
        let Some(address) = self.address.filter(|_| self.phase == Process::Running) else {
            self.material = Material::Stale;
            return;
        };
        match self.task(address).write().await {
            Ok(written) if written.volumes || written.ini => {
                tracing::debug!(pod = %self.key, "volumes written");
            }
            Ok(_) => {}
            Err(error) => {
                let trouble = Trouble::from(error);
                let known = &self.waiting.1 == &trouble.message;
                if !known {
                    self.waiting.1.clone_from(&trouble.message);
                    self.events
                        .push((EventKind::Warning, trouble.event, trouble.message));
                }
            }
        }
    }

    fn start(&mut self, now: OffsetDateTime) {
        let program = &self.node.pooler.path;
        match PoolerProcess::start(program, &self.dirs, self.identity()) {
            Ok(process) => {
                tracing::info!(pod = %self.key, pid = process.pid(), "pooler started");
                if self.starts > 0 || self.last.is_some() {
                    self.restarts += 1;
                }
                self.starts += 1;
                self.process = Some(process);
                self.phase = Process::Running;
                self.started_at = now;
                self.begin_probing();
                self.events.push((
                    EventKind::Normal,
                    "Started",
                    format!("Started container {CONTAINER}"),
                ));
            }
            Err(error) => {
                let message = format!("cannot run {}: {error}", program.display());
                if self.waiting.1 != message {
                    self.events
                        .push((EventKind::Warning, "Failed", message.clone()));
                }
                self.waiting = ("RunContainerError", message);
                self.material = Material::Missing {
                    retry_at: now + RETRY_MISSING,
                };
            }
        }
    }

    fn begin_probing(&mut self) {
        let containers = self.pod.spec.iter().flat_map(|s| &s.containers);
        let container = containers.into_iter().find(|c| c.name == CONTAINER);
        let (Some(container), Some(address)) = (container, self.address) else {
            return;
        };
        let plan = probe::plan(container, address);
        if let probe::Ask::Unsupported(why) = &plan.ask
            && self.restarts == 0
        {
            let message = format!("Readiness probe not made, counted as success: {why}");
            self.events
                .push((EventKind::Warning, "ProbeUnsupported", message));
        }
        let readiness = Readiness::new(&plan, Instant::now());
        self.probe = Some((plan, readiness));
    }

    fn terminate(&mut self, now: OffsetDateTime) {
        if let Some(stopping) = &mut self.stopping {
            stopping.terminated_at = Some(now);
        }
        self.signal(Signal::TERM);
        self.events.push((
            EventKind::Normal,
            "Killing",
            format!("Stopping container {CONTAINER}"),
        ));
    }

    fn kill(&mut self) {
        let grace = self.stopping.map_or(0.0, |s| s.grace.as_seconds_f64());
        if let Some(stopping) = &mut self.stopping {
            stopping.killed = true;
        }
        self.signal(Signal::KILL);
        tracing::warn!(pod = %self.key, grace_s = grace, "pooler killed after its grace period");
        self.events.push((
            EventKind::Warning,
            "Killing",
            format!("Container {CONTAINER} exceeded its grace period of {grace} s and was ended by SIGKILL"),
        ));
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process
            && let Err(error) = process.signal(signal)
        {
            tracing::error!(pod = %self.key, pid = process.pid(), %error, "signal not sent");
        }
    }

    fn ended(&mut self, exit: Exit) {
        let now = self.node.clock.now();
        tracing::info!(pod = %self.key, code = exit.code, signal = exit.signal, "pooler ended");
        self.quick_exits = pod::quick_exits(self.quick_exits, now - self.started_at);
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
        let pause = until.map(|until| (until - now).unsigned_abs());
        let due = Instant::now() + pause.unwrap_or(super::HOUSEKEEPING);
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

    fn shown(&self) -> Shown {
        let state = match (&self.process, self.phase, &self.last) {
            (Some(process), ..) => State::Running {
                since: self.started_at,
                pid: process.pid(),
            },
            (None, Process::Exited { .. }, Some(last))
                if self.observed().restart == Restart::Never =>
            {
                State::Ended(last.clone())
            }
            _ => State::Waiting(self.waiting.0, self.waiting.1.clone()),
        };
        Shown {
            ready: self.probe.as_ref().is_some_and(|(_, r)| r.ready()),
            state,
            last: self.last.clone(),
            restarts: self.restarts,
            address: self.address,
            version: self.node.pooler.version.clone(),
        }
    }

    /// Writes status and events, if they changed.
    async fn report(&mut self, now: OffsetDateTime) {
        if self.gone || self.removed {
            return;
        }
        let status = status(&self.pod, &self.shown(), &self.reported, now);
        if status != self.reported {
            let patch = json!({"metadata": {"uid": self.uid}, "status": status});
            match self
                .node
                .cluster
                .patch_status::<Pod>(&self.key, &patch)
                .await
            {
                Ok(_) => self.reported = status,
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::debug!(pod = %self.key, error = &error as &dyn std::error::Error, "status not written");
                    self.wake.notify.notify_one();
                    tokio::time::sleep(crate::retry::BACKOFF_FIRST).await;
                }
            }
        }
        for (kind, reason, message) in std::mem::take(&mut self.events) {
            self.node
                .reporter
                .report(&*self.pod, kind, (reason, &message), now)
                .await;
        }
    }

    /// The process is gone: gives everything back and removes the object.
    async fn remove(&mut self, stop: &CancellationToken) {
        if !self.removed {
            if !self.events.is_empty() {
                self.report(self.node.clock.now()).await;
            }
            self.give_back();
        }
        if self.gone {
            self.removed = true;
            return;
        }
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let api: Api<Pod> =
            Api::namespaced(self.node.cluster.client().clone(), &self.key.namespace);
        let done = match api.delete(&self.key.name, &params).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) => matches!(status.code, 404 | 409),
            Err(error) => {
                tracing::debug!(pod = %self.key, %error, "pod not removed");
                false
            }
        };
        self.removed = done;
        // Either the copy shows soon that the pod is gone, or a finalizer holds it back.
        tokio::select! {
            () = self.wake.notify.notified() => {}
            () = stop.cancelled() => {}
            () = tokio::time::sleep(crate::retry::BACKOFF_FIRST) => {}
        }
    }

    fn give_back(&mut self) {
        for removed in [
            std::fs::remove_dir_all(&self.dirs.root),
            std::fs::remove_file(&self.dirs.log),
        ] {
            if let Err(error) = removed
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(pod = %self.key, %error, "files of the pod not removed");
            }
        }
        if let Some(address) = self.address.take() {
            self.node.addresses.release(address, &self.uid);
        }
    }

    /// Ends the process with the platform, within a bound; the pod object stays.
    async fn shut_down(&mut self) {
        let Some(process) = &mut self.process else {
            return;
        };
        for (signal, patience) in [(Signal::TERM, STOP_GRACE), (Signal::KILL, STOP_GRACE)] {
            if let Err(error) = process.signal(signal) {
                tracing::error!(pod = %self.key, %error, "signal not sent");
            }
            if tokio::time::timeout(patience, process.wait()).await.is_ok() {
                return;
            }
        }
    }
}

/// Why a pod cannot start now.
struct Trouble {
    reason: &'static str,
    event: &'static str,
    message: String,
    retry_in: std::time::Duration,
}

impl From<GatherError> for Trouble {
    fn from(error: GatherError) -> Self {
        let (reason, event, retry_in) = match &error {
            GatherError::NoContainer => ("InvalidPod", "Failed", RETRY_MISSING),
            GatherError::Volume(_) | GatherError::NoIni { .. } => {
                ("CreateContainerConfigError", "FailedMount", RETRY_MISSING)
            }
            GatherError::NoAddressYet { .. } | GatherError::Api(_) => {
                ("ContainerCreating", "Waiting", crate::retry::BACKOFF_FIRST)
            }
            GatherError::Write(_) => ("CreateContainerError", "FailedMount", RETRY_MISSING),
        };
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        Self {
            reason,
            event,
            message,
            retry_in,
        }
    }
}
