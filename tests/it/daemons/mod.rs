//! Daemons as processes of their own, beside a platform that has none: one leads, the others stand
//! by, and they are killed and frozen.

mod crash;
mod leadership;
pub(crate) mod orphans;
mod removal;

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use bouncert::api::PgBouncer;
use bouncert::api::common::Condition;
use k8s_openapi::api::coordination::v1::Lease;
use rustix::process::{Pid, Signal, kill_process};

use crate::stage::{LONG, NS, Stage};
use crate::support::eventually;

/// A Lease that is over soon.
pub(crate) const HASTY: [&str; 6] = [
    "--leader-election-lease-duration=3s",
    "--leader-election-renew-deadline=2s",
    "--leader-election-retry-period=300ms",
    "--leader-election-namespace",
    NS,
    "--leader-elect",
];
/// No Lease at all.
pub(crate) const ALONE: [&str; 1] = ["--leader-elect=false"];

/// `bouncert run` as a process.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts one; its log goes to the stage's directory.
    pub(crate) fn start(stage: &Stage, name: &str, flags: &[&str]) -> Self {
        let log = stage.directory.path().join(format!("{name}.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_bouncert"))
            .args(["run", "--log", "info,bouncert=debug", "--kubeconfig"])
            .arg(stage.directory.path().join("data/kubeconfig"))
            .args(flags)
            .env_remove("KUBECONFIG")
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it with -9.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until its log has so many lines with these words.
    pub(crate) async fn says(&self, words: &str, times: usize) {
        eventually(LONG, async || {
            let log = self.log();
            if log.matches(words).count() >= times {
                Ok(())
            } else {
                Err(log
                    .lines()
                    .rev()
                    .take(5)
                    .map(str::to_owned)
                    .collect::<Vec<_>>())
            }
        })
        .await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _may_have_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A stage without a daemon.
pub(crate) async fn stage_alone() -> Stage {
    let mut stage = Stage::start().await;
    stage.dismiss_daemon().await;
    stage
}

/// Who holds the Lease, if anybody does.
pub(crate) async fn holder(stage: &Stage) -> Option<String> {
    let lease: Option<Lease> = stage.get("bouncert").await;
    let holder = lease?.spec?.holder_identity?;
    Some(holder).filter(|holder| !holder.is_empty())
}

/// Waits until somebody other than `former` holds the Lease.
pub(crate) async fn next_holder(stage: &Stage, former: Option<&str>) -> String {
    eventually(LONG, async || match holder(stage).await {
        Some(holder) if Some(holder.as_str()) != former => Ok(holder),
        other => Err(other),
    })
    .await
}

/// Type, status and reason of conditions, in order.
pub(crate) fn outline(conditions: &[Condition]) -> Vec<(String, String, String)> {
    let mut all: Vec<_> = conditions
        .iter()
        .map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone()))
        .collect();
    all.sort();
    all
}

/// The outline of a PgBouncer's conditions.
pub(crate) async fn conditions(stage: &Stage, name: &str) -> Vec<(String, String, String)> {
    let bouncer: PgBouncer = stage.bouncer(name).await;
    outline(&bouncer.status.unwrap_or_default().conditions)
}
