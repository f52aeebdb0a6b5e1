//! A PostgreSQL to throw away: for the demo and for tests.
//!
//! `initdb` and `postgres` run in a directory of their own, under an ordinary user (both refuse
//! root), on a loopback port that was free, without syncing to disk. When the value is dropped, or
//! [`ThrowAwayPostgres::stop`] is called, processes and files are gone.

use std::fs::{self, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::User;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use thiserror::Error;
use tokio::sync::Mutex;

use crate::fence::Fence;
use crate::instants::Shift;
use crate::pgbouncer::login;
use crate::pgbouncer::session::{Row, SessionError, Target};
use crate::redacted::Redacted;

/// For the server to answer its first query; it takes a second or two on two busy cores.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at a server that starts.
const START_POLL: Duration = Duration::from_millis(50);
/// For the server to end before it is killed; without syncing it takes milliseconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Somebody else may take the free port between our look and the server's start.
const START_ATTEMPTS: u32 = 3;
/// For one statement of [`ThrowAwayPostgres::execute`].
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Users that the server may run under when we are root, in order of preference.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// How PostgreSQL checks passwords; also how it stores them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerAuth {
    /// Everybody is let in.
    Trust,
    /// md5.
    Md5,
    /// SCRAM-SHA-256.
    Scram,
}

impl ServerAuth {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Md5 => "md5",
            Self::Scram => "scram-sha-256",
        }
    }
}

/// What to start.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// A loopback address; the port is chosen among the free ones.
    pub address: IpAddr,
    /// How passwords are checked.
    pub auth: ServerAuth,
    /// Name of the superuser.
    pub superuser: String,
    /// Its password.
    pub password: Redacted<String>,
    /// Where the directory is made. The user of the server must be able to reach it.
    pub parent: PathBuf,
}

impl PostgresOptions {
    /// SCRAM on 127.0.0.1, superuser `postgres`, in the system's directory for temporary files.
    pub fn new(password: impl Into<String>) -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            auth: ServerAuth::Scram,
            superuser: "postgres".to_owned(),
            password: Redacted::new(password.into()),
            parent: std::env::temp_dir(),
        }
    }
}

/// Why there is no PostgreSQL.
#[derive(Debug, Error)]
pub enum PostgresError {
    /// The programs are not installed.
    #[error(
        "there is no `{program}` on this machine; install PostgreSQL's server (Debian and Ubuntu: \
         apt-get install postgresql; Fedora: dnf install postgresql-server)"
    )]
    Missing {
        /// What was looked for.
        program: &'static str,
    },
    /// Root cannot run it, and there is nobody else.
    #[error("PostgreSQL does not run as root, and there is no user postgres or nobody here")]
    NoUser,
    /// A file or process could not be made.
    #[error("cannot {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("`{program}` failed: {output}")]
    Failed {
        /// Which.
        program: &'static str,
        /// The end of what it wrote.
        output: String,
    },
    /// It runs and does not answer.
    #[error("PostgreSQL did not answer within {START_TIMEOUT:?}")]
    NotReady(#[source] SessionError),
}

/// A running PostgreSQL that goes with its value.
#[derive(Debug)]
pub struct ThrowAwayPostgres {
    // Held for its end; declared before the directory, which goes last.
    process: Mutex<Process>,
    address: SocketAddr,
    superuser: String,
    password: Redacted<String>,
    directory: TempDir,
}

impl ThrowAwayPostgres {
    /// Makes a database cluster, starts it, and returns when it answers queries.
    pub async fn start(options: &PostgresOptions) -> Result<Self, PostgresError> {
        let owner = owner()?;
        let directory = directory(&options.parent, owner)?;
        initialise(options, directory.path(), owner).await?;
        let mut attempt = 1;
        loop {
            let address = free_port(options.address)?;
            let mut process = Process(spawn(directory.path(), address, owner)?);
            match ready(&mut process, options, address, directory.path()).await {
                Ok(()) => {
                    return Ok(Self {
                        process: Mutex::new(process),
                        address,
                        superuser: options.superuser.clone(),
                        password: options.password.clone(),
                        directory,
                    });
                }
                Err(PostgresError::Failed { output, .. })
                    if attempt < START_ATTEMPTS && output.contains("could not bind") => {}
                Err(error) => return Err(error),
            }
            attempt += 1;
        }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The superuser's name.
    pub fn superuser(&self) -> &str {
        &self.superuser
    }

    /// The superuser's password.
    pub const fn password(&self) -> &Redacted<String> {
        &self.password
    }

    /// Its directory, with `log` in it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Stops it as `pg_ctl restart` does, and starts it again at the same address after `away`.
    /// What was committed is there again.
    pub async fn restart(&self, away: Duration) -> Result<(), PostgresError> {
        let mut process = self.process.lock().await;
        let _may_have_ended = kill_process(Pid::from_child(&process.0), Signal::INT);
        let deadline = Instant::now().plus(STOP_TIMEOUT);
        while matches!(process.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            tokio::time::sleep(START_POLL).await;
        }
        tokio::time::sleep(away).await;
        let directory = self.directory.path();
        *process = Process(spawn(directory, self.address, owner()?)?);
        let options = PostgresOptions {
            superuser: self.superuser.clone(),
            ..PostgresOptions::new(self.password.expose().clone())
        };
        ready(&mut process, &options, self.address, directory).await
    }

    /// Runs statements as the superuser and returns the rows.
    pub async fn execute(&self, database: &str, sql: &str) -> Result<Vec<Row>, SessionError> {
        let target = target(self.address, &self.superuser, &self.password);
        login::query(&target, database, sql).await
    }

    /// Stops it and removes its files; what dropping does, at a moment of one's choosing.
    pub fn stop(self) {
        drop(self);
    }
}

/// A postmaster that ends with its value.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    /// An immediate shutdown: the data is thrown away with it. Only the postmaster itself removes
    /// its shared memory, so it is killed as the last resort only.
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(None)) {
            // Its number may be somebody else's by now.
            return;
        }
        let _may_have_ended = kill_process(Pid::from_child(&self.0), Signal::QUIT);
        let deadline = Instant::now().plus(STOP_TIMEOUT);
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ended = self.0.kill();
                let _reaped = self.0.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Under whom to run: nobody else when we are an ordinary user ourselves.
fn owner() -> Result<Option<(u32, u32)>, PostgresError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let found = USERS
        .iter()
        .find_map(|name| User::from_name(name).ok().flatten());
    let user = found.ok_or(PostgresError::NoUser)?;
    Ok(Some((user.uid.as_raw(), user.gid.as_raw())))
}

fn failed_to(doing: &'static str) -> impl FnOnce(io::Error) -> PostgresError {
    move |source| PostgresError::Io { doing, source }
}

/// Makes the directory, closed to everybody but the server's user.
fn directory(parent: &Path, owner: Option<(u32, u32)>) -> Result<TempDir, PostgresError> {
    let directory = tempfile::Builder::new()
        .prefix("bouncert-postgres-")
        .tempdir_in(parent)
        .map_err(failed_to("make a directory for PostgreSQL"))?;
    if let Some((uid, gid)) = owner {
        chown(directory.path(), Some(uid), Some(gid))
            .map_err(failed_to("give PostgreSQL its directory"))?;
    }
    Ok(directory)
}

/// `initdb`, and an HBA file that lets in all of loopback: addresses other than 127.0.0.1 are used.
async fn initialise(
    options: &PostgresOptions,
    directory: &Path,
    owner: Option<(u32, u32)>,
) -> Result<(), PostgresError> {
    let secret = directory.join("password");
    fs::write(&secret, options.password.expose())
        .and_then(|()| match owner {
            Some((uid, gid)) => chown(&secret, Some(uid), Some(gid)),
            None => Ok(()),
        })
        .and_then(|()| fs::set_permissions(&secret, Permissions::from_mode(0o600)))
        .map_err(failed_to("hand PostgreSQL its password"))?;
    let auth = options.auth.as_str();
    let mut initdb = command("initdb", owner)?;
    initdb
        .current_dir(directory)
        .args(["--no-sync", "--no-instructions", "--encoding=UTF8"])
        .args(["--no-locale", "--auth", auth, "--username"])
        .arg(&options.superuser)
        .arg("--pwfile")
        .arg(&secret)
        .arg("--pgdata")
        .arg(directory.join("data"));
    let output = tokio::process::Command::from(initdb)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(failed_to("run initdb"))?;
    fs::remove_file(&secret).map_err(failed_to("remove the password file"))?;
    if !output.status.success() {
        return Err(PostgresError::Failed {
            program: "initdb",
            output: tail(&String::from_utf8_lossy(&output.stderr)),
        });
    }
    let hba = format!("host all all 127.0.0.0/8 {auth}\nhost all all ::1/128 {auth}\n");
    fs::write(directory.join("data/pg_hba.conf"), hba).map_err(failed_to("write pg_hba.conf"))
}

fn spawn(
    directory: &Path,
    address: SocketAddr,
    owner: Option<(u32, u32)>,
) -> Result<Child, PostgresError> {
    let log = fs::File::create(directory.join("log")).map_err(failed_to("make a log file"))?;
    let also = log.try_clone().map_err(failed_to("make a log file"))?;
    let mut postgres = command("postgres", owner)?;
    postgres
        .current_dir(directory)
        .arg("-D")
        .arg(directory.join("data"))
        .args(["-c", "fsync=off", "-c", "synchronous_commit=off"])
        .args(["-c", "full_page_writes=off", "-c", "max_connections=200"])
        .args([
            "-c",
            "shared_buffers=32MB",
            "-c",
            "unix_socket_directories=",
        ])
        .arg("-c")
        .arg(format!("listen_addresses={}", address.ip()))
        .arg("-c")
        .arg(format!("port={}", address.port()))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(also);
    // A terminal's ^C goes to its whole process group; this server is to end when its owner says so.
    postgres.process_group(0);
    postgres.spawn().map_err(failed_to("start postgres"))
}

/// Waits for the first answer.
async fn ready(
    process: &mut Process,
    options: &PostgresOptions,
    address: SocketAddr,
    directory: &Path,
) -> Result<(), PostgresError> {
    let target = target(address, &options.superuser, &options.password);
    let deadline = Instant::now().plus(START_TIMEOUT);
    loop {
        let ended = process.0.try_wait().map_err(failed_to("watch postgres"))?;
        if ended.is_some() {
            let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
            return Err(PostgresError::Failed {
                program: "postgres",
                output: tail(&log),
            });
        }
        match login::prove(&target, "postgres").await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(PostgresError::NotReady(error)),
            Err(_) => tokio::time::sleep(START_POLL).await,
        }
    }
}

fn target(address: SocketAddr, superuser: &str, password: &Redacted<String>) -> Target {
    Target {
        address,
        user: superuser.to_owned(),
        password: Some(password.clone()),
        tls: None,
        timeout: STATEMENT_TIMEOUT,
        fence: Fence::default(),
    }
}

fn free_port(address: IpAddr) -> Result<SocketAddr, PostgresError> {
    TcpListener::bind((address, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(failed_to("find a free port"))
}

/// One of PostgreSQL's programs, to be run as `owner`, with an environment that cannot mislead it.
fn command(program: &'static str, owner: Option<(u32, u32)>) -> Result<Command, PostgresError> {
    let path = find(program).ok_or(PostgresError::Missing { program })?;
    let mut command = Command::new(path);
    for name in ["PGDATA", "PGPORT", "PGHOST", "PGUSER", "PGOPTIONS"] {
        command.env_remove(name);
    }
    if let Some((uid, gid)) = owner {
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

/// The newest version where distributions keep several (`/usr/lib/postgresql/15/bin`), else what
/// `PATH` has.
fn find(program: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok();
    let newest = versions
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let path = entry.path().join("bin").join(program);
            path.is_file().then_some((version, path))
        })
        .max();
    let on_path = || {
        std::env::split_paths(&std::env::var_os("PATH")?)
            .map(|directory| directory.join(program))
            .find(|path| path.is_file())
    };
    newest.map(|(_, path)| path).or_else(on_path)
}

/// The last lines of what a program wrote.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(5);
    lines.get(from..).unwrap_or_default().join("; ")
}
