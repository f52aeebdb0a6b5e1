//! The daemon as a process of its own, so that it can be killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::NamedTempFile;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// For a daemon to end when asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// The daemon, dead or alive.
pub(super) struct Daemon {
    kubeconfig: PathBuf,
    /// Seconds by which its clock is fast, as text.
    shift: PathBuf,
    log: NamedTempFile,
    child: Mutex<Option<Child>>,
}

impl Daemon {
    /// Starts one against the API of `kubeconfig`; its files are in `directory`.
    pub(super) async fn start(kubeconfig: &Path, directory: &Path) -> anyhow::Result<Self> {
        let daemon = Self {
            kubeconfig: kubeconfig.to_path_buf(),
            shift: directory.join("clock-shift"),
            log: NamedTempFile::with_prefix("bouncert-chaos-daemon-")?,
            child: Mutex::new(None),
        };
        daemon.set_clock(0)?;
        daemon.revive().await?;
        Ok(daemon)
    }

    /// Kills it; nothing is put down.
    pub(super) async fn kill(&self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.lock().await.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Starts another one, if there is none.
    pub(super) async fn revive(&self) -> anyhow::Result<()> {
        let mut child = self.child.lock().await;
        if child.is_none() {
            *child = Some(self.spawn()?);
        }
        Ok(())
    }

    /// Sets its clock: so many seconds fast.
    pub(super) fn set_clock(&self, seconds: i64) -> anyhow::Result<()> {
        Ok(std::fs::write(&self.shift, seconds.to_string())?)
    }

    /// How it ended, if it did so by itself.
    pub(super) async fn ended(&self) -> anyhow::Result<Option<String>> {
        let mut child = self.child.lock().await;
        let Some(running) = child.as_mut() else {
            return Ok(None);
        };
        Ok(running
            .try_wait()?
            .map(|status| format!("the daemon ended by itself: {status}")))
    }

    /// What it has logged.
    pub(super) fn log(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(self.log.path())?).into_owned())
    }

    /// Ends it as a service manager would, and returns its log.
    pub(super) async fn stop(self) -> anyhow::Result<NamedTempFile> {
        if let Some(mut child) = self.child.into_inner() {
            if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok())
                && let Some(pid) = rustix::process::Pid::from_raw(pid)
            {
                rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
            }
            if timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
                child.kill().await?;
                anyhow::bail!("the daemon did not stop within {STOP_TIMEOUT:?}");
            }
        }
        Ok(self.log)
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let log: File = File::options().append(true).open(self.log.path())?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["--log", "bouncert=debug,warn", "run", "--kubeconfig"])
            .arg(&self.kubeconfig)
            .arg("--clock-shift")
            .arg(&self.shift)
            // Who was killed cannot give its lease up: the next waits until it has run out.
            .args(["--leader-election-lease-duration", "3s"])
            .args(["--leader-election-renew-deadline", "2s"])
            .args(["--leader-election-retry-period", "300ms"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // A terminal's ^C goes to its whole process group; the daemon ends when we say so.
            .process_group(0)
            .kill_on_drop(true);
        Ok(command.spawn()?)
    }
}
