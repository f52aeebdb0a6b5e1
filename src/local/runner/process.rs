//! One pooler process: start, find again, signal, wait for its end.
//!
//! The process writes its log straight to a file and leads its own process group, so it survives
//! the daemon. A daemon that starts anew finds the processes of its pods by its own records
//! ([`super::records`]) and follows them by process descriptor. A command line proves nothing.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};

use super::confine::{Confinement, Reach};
use super::dirs::Home;
use super::records::{Birth, Record, Records};

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

/// What is started, and for which pod.
pub struct Launch<'a> {
    /// The pooler's program.
    pub program: &'a Path,
    /// The program that confines the pooler (see [`super::confine`]); without it nothing does.
    pub init: Option<&'a Path>,
    /// The pod's directory and user.
    pub home: &'a Home,
    /// The files that the pooler may reach besides.
    pub reach: &'a Reach,
    /// The pod's uid.
    pub uid: &'a str,
    /// Where its process is noted.
    pub records: &'a Records,
}

/// A process found in the process table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Process id.
    pub pid: i32,
    /// The ini it was started with.
    pub ini: PathBuf,
}

// === impl Launch ===

impl Launch<'_> {
    fn command(&self, program: &Path) -> io::Result<Command> {
        let (ini, identity) = (&self.home.paths.ini, self.home.identity);
        let Some(init) = self.init else {
            let mut command = Command::new(program);
            command.arg(ini);
            if let Some(identity) = identity {
                command.uid(identity.uid).gid(identity.gid);
            }
            return Ok(command);
        };
        let mut reach = self.reach.clone();
        reach.read.push(self.home.paths.root.clone());
        reach.write.push(self.home.paths.run.clone());
        let confinement = Confinement::new(program, ini, identity, &reach);
        let mut command = Command::new(init);
        command.args(confinement.arguments()?);
        Ok(command)
    }
}

// === impl PoolerProcess ===

impl PoolerProcess {
    /// Starts the program on the translated ini of a pod, and notes which process it is.
    pub fn start(launch: &Launch<'_>) -> io::Result<Self> {
        let Launch {
            program,
            home,
            uid,
            records,
            ..
        } = *launch;
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&home.paths.log)?;
        // A process id from before a crash may by now belong to a stranger, and the pooler would
        // refuse to start for its sake.
        home.root.enter("run")?.remove("pgbouncer.pid")?;
        let run = &home.paths.run;
        let mut command = launch.command(program)?;
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", run)
            .env("TMPDIR", run)
            .env("TZ", "UTC")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(false);
        records.write(uid, &Record::Starting)?;
        let child = command.spawn()?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .ok_or_else(|| io::Error::other("the process has no id"))?;
        let process = Self {
            pid,
            fd: descriptor(pid)?,
            child: Some(child),
        };
        let noted = Birth::of(pid)
            .ok_or_else(|| io::Error::other("the process is not in the process table"))
            .and_then(|birth| records.write(uid, &Record::Running(birth)));
        if let Err(error) = noted {
            process.signal(Signal::KILL)?;
            return Err(error);
        }
        Ok(process)
    }

    /// Takes over the process that an earlier daemon has recorded.
    pub fn adopt(recorded: &Birth) -> io::Result<Self> {
        let fd = descriptor(recorded.pid)?;
        // The descriptor comes first: the id may have changed hands since.
        if Birth::of(recorded.pid).as_ref() != Some(recorded) {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        }
        Ok(Self {
            pid: recorded.pid,
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

/// All running processes whose command line names a translated ini below `runtime`. Any process can
/// write such a command line: this is for tests, and for a process that was being started when its
/// platform died.
pub fn find_running(runtime: &Path) -> Vec<Found> {
    let found = |pid: i32| {
        let ini = ini_of(pid)?;
        ini.starts_with(runtime).then_some(Found { pid, ini })
    };
    process_ids().filter_map(found).collect()
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

/// Sends SIGKILL to a process that carries the ini.
pub fn kill(found: &Found) -> io::Result<()> {
    let pid = process_id(found.pid)?;
    let fd = pidfd_open(pid, PidfdFlags::empty())?;
    if ini_of(found.pid).as_ref() != Some(&found.ini) {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    Ok(pidfd_send_signal(fd, Signal::KILL)?)
}

/// The user of a process.
pub fn user_of(pid: i32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}")).ok().map(|m| m.uid())
}

/// Sends SIGKILL to all processes of a pod's own user, and returns their number: a pooler that was
/// taken over may have started others.
pub fn kill_all_of(uid: u32) -> usize {
    let kill = |pid: i32| -> Option<()> {
        user_of(pid).filter(|user| *user == uid)?;
        let fd = pidfd_open(process_id(pid).ok()?, PidfdFlags::empty()).ok()?;
        user_of(pid).filter(|user| *user == uid)?;
        pidfd_send_signal(fd, Signal::KILL).ok()
    };
    process_ids().filter_map(kill).count()
}

fn process_ids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
}

fn process_id(pid: i32) -> io::Result<Pid> {
    Pid::from_raw(pid).ok_or_else(|| io::Error::other("process id 0"))
}

#[expect(
    deprecated,
    reason = "an OwnedFd stays open for as long as it is registered, which is all the unsafe constructor asks"
)]
fn descriptor(pid: i32) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = pidfd_open(process_id(pid)?, PidfdFlags::NONBLOCK)?;
    AsyncFd::with_interest(fd, tokio::io::Interest::READABLE)
}

fn exit_of(status: ExitStatus) -> Exit {
    let signal = status.signal();
    Exit {
        code: status.code().or_else(|| signal.map(|s| 128 + s)),
        signal,
    }
}
