//! The faults, done.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::daemon::Daemon;
use super::judge::Window;
use super::script::{Cue, Fault, Faults};
use super::watch::{Invariants, is_labelled, labels};
use crate::cli::output::Progress;
use crate::cli::scene::cast::{NAMESPACE, named};
use crate::cli::scene::stage::Stage;
use crate::cluster::Cluster;
use crate::instants::{Scale, Shift};
use crate::local::apiserver::faults::{Fault as ApiFault, Faults as ApiFaults};
use crate::local::store::Room;

/// An hour, in seconds.
const HOUR_S: i64 = 3_600;
/// How long a pod that is drained is waited for.
const DRAIN_WAIT: Duration = Duration::from_secs(10);
/// How often is looked for one. A drain takes a second.
const OFTEN: Duration = Duration::from_millis(20);
/// For a deleted pod to be gone.
const GONE_WAIT: Duration = Duration::from_secs(60);
/// The Secrets of the issuers.
const CA_SECRETS: [&str; 2] = ["pgbouncer-ca", "pgbouncer-new-ca"];

/// Where faults strike.
pub(super) struct Striker<'a> {
    pub(super) stage: &'a Stage,
    pub(super) daemon: &'a Daemon,
    pub(super) api: &'a ApiFaults,
    pub(super) room: &'a Room,
    pub(super) invariants: &'a Invariants,
    pub(super) progress: &'a Progress,
    pub(super) windows: Mutex<Vec<Window>>,
}

impl Striker<'_> {
    /// Strikes until told to stop; what lasts is ended then.
    pub(super) async fn run(&self, seed: u64, stop: CancellationToken) -> anyhow::Result<()> {
        for cue in Faults::new(seed) {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(cue.after) => {}
            }
            self.strike(cue).await?;
            if let Some(ended) = self.daemon.ended().await? {
                anyhow::bail!(ended);
            }
        }
        self.daemon.set_clock(0)?;
        Ok(())
    }

    /// When which fault was at work.
    pub(super) fn windows(&self) -> Vec<Window> {
        let windows = self.windows.lock();
        windows.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn strike(&self, cue: Cue) -> anyhow::Result<()> {
        let fault = cue.fault;
        self.progress.line(&format!("fault: {}", fault.name()));
        tracing::info!(fault = fault.name(), "fault");
        let number = self.open(fault);
        match fault {
            Fault::DaemonKilled => {
                self.daemon.kill().await?;
                sleep(cue.lasts.part(2)).await;
                self.daemon.revive().await?;
            }
            Fault::PoolerKilled => {
                let pods = self.pods().await?;
                if let Some(pod) = pick(&pods, cue.luck) {
                    self.kill(pod);
                }
            }
            Fault::DrainedPoolerKilled => self.kill_drained(number).await?,
            Fault::PodDeleted => {
                let pods = self.pods().await?;
                if let Some(pod) = pick(&pods, cue.luck) {
                    self.delete(pod).await?;
                }
            }
            Fault::ApiErrors => {
                let one_in = 2 + u32::try_from(cue.luck % 4)?;
                self.api.strike(one_in, &ApiFault::ALL);
                sleep(cue.lasts.times(2)).await;
                self.api.calm();
            }
            Fault::PostgresRestarted => self.stage.postgres().restart(cue.lasts.part(2)).await?,
            Fault::IssuerBroken => self.break_issuers(cue.lasts).await?,
            Fault::DiskFull => {
                self.room.fill();
                sleep(cue.lasts).await;
                self.room.free();
            }
            Fault::ClockJump => {
                let hours = if cue.luck.is_multiple_of(2) { 1 } else { -1 };
                self.daemon.set_clock(hours * HOUR_S)?;
                sleep(cue.lasts).await;
                self.daemon.set_clock(0)?;
            }
        }
        self.close(number);
        Ok(())
    }

    fn open(&self, fault: Fault) -> usize {
        let windows = self.windows.lock();
        let mut windows = windows.unwrap_or_else(PoisonError::into_inner);
        windows.push(Window {
            fault,
            from: Instant::now(),
            until: None,
        });
        windows.len() - 1
    }

    fn close(&self, number: usize) {
        let windows = self.windows.lock();
        let mut windows = windows.unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = windows.get_mut(number) {
            window.until = Some(Instant::now());
        }
    }

    /// The time of waiting for a victim is no excuse.
    fn reopen(&self, number: usize) {
        let windows = self.windows.lock();
        let mut windows = windows.unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = windows.get_mut(number) {
            window.from = Instant::now();
        }
    }

    fn cluster(&self) -> Cluster {
        Cluster::new(self.stage.client().clone())
    }

    async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        Ok(self.cluster().list(NAMESPACE, &labels()).await?)
    }

    /// `kill -9` of the pod's process.
    fn kill(&self, pod: &Pod) {
        let id = pod.status.iter().flat_map(|s| &s.container_statuses);
        let id = id.flatten().find_map(|status| status.container_id.clone());
        let pid = id.and_then(|id| id.strip_prefix("local://")?.parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            self.invariants.hurt(&pod.name_any());
            // It may have ended in between.
            let _killed = kill_process(pid, Signal::KILL);
        }
    }

    /// Waits for a pod that is being drained, and kills it somewhere in the middle of that.
    async fn kill_drained(&self, number: usize) -> anyhow::Result<()> {
        let deadline = Instant::now().plus(DRAIN_WAIT);
        while Instant::now() < deadline {
            let pods = self.pods().await?;
            if let Some(pod) = pods.iter().find(|pod| !is_labelled(pod)) {
                self.reopen(number);
                self.kill(pod);
                return Ok(());
            }
            sleep(OFTEN).await;
        }
        self.reopen(number);
        Ok(())
    }

    /// As `kubectl delete pod` does.
    async fn delete(&self, pod: &Pod) -> anyhow::Result<()> {
        let (name, uid) = (pod.name_any(), pod.uid());
        self.invariants.hurt(&name);
        let at = named(&name);
        self.cluster().delete_read(pod).await?;
        let deadline = Instant::now().plus(GONE_WAIT);
        while Instant::now() < deadline {
            let found: Option<Pod> = self.cluster().get(&at).await?;
            if found.is_none_or(|found| found.uid() != uid) {
                return Ok(());
            }
            sleep(OFTEN).await;
        }
        anyhow::bail!("pod {name} does not go")
    }

    async fn break_issuers(&self, lasts: Duration) -> anyhow::Result<()> {
        let mut kept = Vec::new();
        for name in CA_SECRETS {
            let secret: Option<Secret> = self.cluster().get(&named(name)).await?;
            let data = secret.and_then(|secret| secret.data).unwrap_or_default();
            let broken = ByteString(b"not a key".to_vec());
            let patch = json!({ "data": { "tls.key": broken } });
            self.cluster().patch::<Secret>(&named(name), &patch).await?;
            kept.push((name, data));
        }
        sleep(lasts).await;
        for (name, data) in kept {
            let patch = json!({ "data": data });
            self.cluster().patch::<Secret>(&named(name), &patch).await?;
        }
        Ok(())
    }
}

fn pick(pods: &[Pod], luck: u64) -> Option<&Pod> {
    let count = u64::try_from(pods.len()).ok().filter(|n| *n > 0)?;
    pods.get(usize::try_from(luck % count).ok()?)
}
