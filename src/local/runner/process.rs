//! One pooler process: start, find again, signal, wait for its end.
//!
//! The process writes its log straight to a file and leads its own process group, so it survives
//! the daemon. A daemon that starts anew finds the processes of its pods by the path of their
//! translated ini, which no other process carries, and follows them by process descriptor.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};

use super::dirs::PodDirs;
use super::identity::Identity;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, as a shell would show it (128 + signal); `None` where the process was not our
    /// child and the system tells us only that it is gone.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// A running pooler.
#[derive(Debug)]
pub struct PoolerProcess {
    pid: i32,
    fd: AsyncFd<OwnedFd>,
    child: Option<Child>,
}

/// A process found in the process table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Process id.
    pub pid: i32,
    /// The ini it was started with.
    pub ini: PathBuf,
}

// === impl PoolerProcess ===

impl PoolerProcess {
    /// Starts `program` on the pod's translated ini.
    pub fn start(program: &Path, dirs: &PodDirs, identity: Option<Identity>) -> io::Result<Self> {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&dirs.log)?;
        // A process id from before a crash may by now belong to a stranger, and the pooler would
        // refuse to start for its sake.
        let _ = fs::remove_file(dirs.run.join("pgbouncer.pid"));
        let mut command = Command::new(program);
        command
            .arg(&dirs.ini)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &dirs.run)
            .env("TZ", "UTC")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(false);
        if let Some(identity) = identity {
            command.uid(identity.uid).gid(identity.gid);
        }
        let child = command.spawn()?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .ok_or_else(|| io::Error::other("the process has no id"))?;
        Ok(Self {
            pid,
            fd: descriptor(pid)?,
            child: Some(child),
        })
    }

    /// Takes over a process that an earlier daemon started.
    pub fn adopt(found: &Found) -> io::Result<Self> {
        let fd = descriptor(found.pid)?;
        // Between the look at the process table and the descriptor the id may have changed hands.
        if ini_of(found.pid).as_ref() != Some(&found.ini) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        Ok(Self {
            pid: found.pid,
            fd,
            child: None,
        })
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends `signal`; a process that is gone already is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.fd.get_ref(), signal) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the end. May be dropped and called again.
    pub async fn wait(&mut self) -> Exit {
        if let Some(child) = &mut self.child {
            return child.wait().await.map_or(UNKNOWN, exit_of);
        }
        // A process descriptor becomes readable when the process ends.
        let _ = self.fd.readable().await;
        UNKNOWN
    }
}

const UNKNOWN: Exit = Exit {
    code: None,
    signal: None,
};

/// All running processes whose translated ini lies below `runtime`.
pub fn find_running(runtime: &Path) -> Vec<Found> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| {
            let ini = ini_of(pid)?;
            ini.starts_with(runtime).then_some(Found { pid, ini })
        })
        .collect()
}

/// The ini named by the command line of a living pgbouncer.
fn ini_of(pid: i32) -> Option<PathBuf> {
    // The command line of a zombie is empty. A wrapper or a loader may come before the program.
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|b| *b == 0).filter(|w| !w.is_empty()).rev();
    let ini = std::str::from_utf8(words.next()?).ok()?;
    let program = std::str::from_utf8(words.next()?).ok()?;
    (program.ends_with("pgbouncer") && ini.ends_with("/pgbouncer.ini")).then(|| PathBuf::from(ini))
}

/// Sends SIGKILL to a process that no pod owns.
pub fn kill(found: &Found) -> io::Result<()> {
    let process = PoolerProcess::adopt(found)?;
    process.signal(Signal::KILL)
}

#[expect(
    deprecated,
    reason = "an OwnedFd stays open for as long as it is registered, which is all the unsafe constructor asks"
)]
fn descriptor(pid: i32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("process id 0"))?;
    let fd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
    AsyncFd::with_interest(fd, tokio::io::Interest::READABLE)
}

fn exit_of(status: ExitStatus) -> Exit {
    let signal = status.signal();
    Exit {
        code: status.code().or_else(|| signal.map(|s| 128 + s)),
        signal,
    }
}
