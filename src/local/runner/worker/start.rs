//! Bringing a pod's process up: address, files, process, probe; or taking over one that runs.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::super::RETRY_MISSING;
use super::super::dirs::Home;
use super::super::gather::{GatherError, Task};
use super::super::pod::{Material, Process};
use super::super::probe::{self, Readiness};
use super::super::process::{Launch, PoolerProcess};
use super::super::records::Birth;
use super::super::status::CONTAINER;
use super::Worker;
use crate::causes::chain;
use crate::cluster::EventKind;
use crate::instants::{Shift, signed};
use crate::retry::BACKOFF_FIRST;

// === impl Worker ===

impl Worker {
    pub(super) fn adopt(&mut self, recorded: &Birth) {
        let pid = recorded.pid;
        let text = |home: Home| home.root.read("pgbouncer.ini", u64::MAX);
        let ini = self.node.dirs.home(&self.uid).and_then(text);
        let ini = String::from_utf8(ini.unwrap_or_default()).unwrap_or_default();
        let address = ini
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("listen_addr = ")?.parse().ok());
        match (PoolerProcess::adopt(recorded), address) {
            (Ok(process), Some(address)) => {
                self.node.addresses.claim(address, &self.uid);
                self.address = Some(address);
                self.process = Some(process);
                self.phase = Process::Running;
                self.starts = 1;
                self.begin_probing();
                self.wake.files();
                tracing::info!(pod = %self.key, pid, "pooler adopted");
            }
            (Ok(process), None) => {
                // Nothing can be done with it, and it holds the address of the next one.
                let ended = process.signal(Signal::KILL);
                tracing::warn!(pod = %self.key, pid, error = ?ended.err(), "pooler without an ini ended");
            }
            (Err(error), _) => tracing::debug!(pod = %self.key, pid, %error, "pooler has ended"),
        }
    }

    pub(super) async fn prepare(&mut self, now: OffsetDateTime) {
        match self.try_prepare().await {
            Ok(()) => self.material = Material::Ready,
            Err(trouble) => {
                if self.waiting != (trouble.reason, trouble.message.clone()) {
                    self.events
                        .push((EventKind::Warning, trouble.event, trouble.message.clone()));
                }
                self.waiting = (trouble.reason, trouble.message);
                self.material = Material::Missing {
                    retry_at: now.plus(signed(trouble.retry_in)),
                };
            }
        }
    }

    async fn try_prepare(&mut self) -> Result<(), Trouble> {
        let address = self.choose_address()?;
        self.address = Some(address);
        let home = self.home().map_err(Trouble::from)?;
        let written = self.task(&home, address).write().await;
        let written = written.map_err(Trouble::from)?;
        self.resolved = written.resolved;
        self.reach = written.reach;
        self.wake.watch(&self.resolved.services);
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

    fn home(&self) -> Result<Home, GatherError> {
        self.node.dirs.home(&self.uid).map_err(GatherError::Write)
    }

    fn task<'a>(&'a self, home: &'a Home, address: Ipv4Addr) -> Task<'a> {
        Task {
            cluster: &self.node.cluster,
            pod: &self.pod,
            home,
            host_paths: &self.node.host_paths,
            address,
        }
    }

    /// Brings the files of a running process into step. The process is told nothing, with one
    /// exception: where only addresses moved it is made to read its ini again, as it would have
    /// asked DNS again in a cluster.
    pub(super) async fn sync_files(&mut self) {
        let Some(address) = self.address.filter(|_| self.phase == Process::Running) else {
            self.material = Material::Stale;
            return;
        };
        let written = match self.home() {
            Ok(home) => self.task(&home, address).write().await,
            Err(error) => Err(error),
        };
        match written {
            Ok(written) => {
                let known = std::mem::replace(&mut self.resolved, written.resolved);
                self.wake.watch(&self.resolved.services);
                let moved = known.addresses != self.resolved.addresses;
                tracing::debug!(
                    pod = %self.key, volumes = written.volumes, ini = written.ini, moved, "files synced"
                );
                if moved && written.ini && !written.volumes {
                    self.signal(Signal::HUP);
                }
            }
            Err(error) => {
                let trouble = Trouble::from(error);
                if self.waiting.1 != trouble.message {
                    self.waiting.1.clone_from(&trouble.message);
                    self.events
                        .push((EventKind::Warning, trouble.event, trouble.message));
                }
            }
        }
    }

    pub(super) fn start(&mut self, now: OffsetDateTime) {
        let node = Arc::clone(&self.node);
        let pooler = match node.poolers.of_image(self.image()) {
            Ok(pooler) => pooler,
            Err(error) => return self.not_started("ErrImageNeverPull", error.to_string(), now),
        };
        let program = &pooler.path;
        let started = node.dirs.home(&self.uid).and_then(|home| {
            PoolerProcess::start(&Launch {
                program,
                init: node.pod_init.as_deref(),
                home: &home,
                reach: &self.reach,
                uid: &self.uid,
                records: node.dirs.records(),
            })
        });
        match started {
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
                self.not_started("RunContainerError", message, now);
            }
        }
    }

    fn not_started(&mut self, reason: &'static str, message: String, now: OffsetDateTime) {
        if self.waiting.1 != message {
            self.events
                .push((EventKind::Warning, "Failed", message.clone()));
        }
        self.waiting = (reason, message);
        self.material = Material::Missing {
            retry_at: now.plus(signed(RETRY_MISSING)),
        };
    }

    pub(super) fn image(&self) -> &str {
        let containers = self.pod.spec.iter().flat_map(|s| &s.containers);
        let pooler = containers.into_iter().find(|c| c.name == CONTAINER);
        pooler
            .and_then(|container| container.image.as_deref())
            .unwrap_or_default()
    }

    pub(super) fn begin_probing(&mut self) {
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
}

/// Why a pod cannot start now.
struct Trouble {
    reason: &'static str,
    event: &'static str,
    message: String,
    retry_in: Duration,
}

impl From<GatherError> for Trouble {
    fn from(error: GatherError) -> Self {
        let (reason, event, retry_in) = match &error {
            GatherError::NoContainer => ("InvalidPod", "Failed", RETRY_MISSING),
            GatherError::Volume(_) | GatherError::HostPath { .. } | GatherError::NoIni { .. } => {
                ("CreateContainerConfigError", "FailedMount", RETRY_MISSING)
            }
            GatherError::NoAddressYet { .. } | GatherError::Api(_) => {
                ("ContainerCreating", "Waiting", BACKOFF_FIRST)
            }
            GatherError::Write(_) => ("CreateContainerError", "FailedMount", RETRY_MISSING),
        };
        let message = chain(&error);
        Self {
            reason,
            event,
            message,
            retry_in,
        }
    }
}
