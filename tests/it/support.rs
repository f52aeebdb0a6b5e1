//! What several tests share: waiting for a level, certificates made at run time, real poolers.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use bouncert::pgbouncer::probe;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;

/// Waits until `look` returns `Ok`, and panics with the last state it saw when `bound` passes.
pub(crate) async fn eventually<T, S, F>(bound: Duration, mut look: F) -> T
where
    S: std::fmt::Debug,
    F: AsyncFnMut() -> Result<T, S>,
{
    let deadline = Instant::now() + bound;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(state) if Instant::now() >= deadline => {
                panic!("not within {bound:?}; last seen: {state:?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The user that poolers run under when the tests run as root, which pgbouncer refuses.
pub(crate) fn unprivileged() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let user = nix::unistd::User::from_name("postgres").ok().flatten();
    let user = user.expect("pgbouncer and PostgreSQL are installed");
    Some((user.uid.as_raw(), user.gid.as_raw()))
}

/// A loopback address of this test alone.
pub(crate) fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let test = 100 + NEXT.fetch_add(1, Ordering::Relaxed) % 100;
    IpAddr::V4(Ipv4Addr::new(127, test, high, low.max(1)))
}

/// A free port on that address.
pub(crate) fn free_port(address: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).expect("a free port");
    listener.local_addr().expect("its address")
}

// === certificates ===

/// A certificate and its key, in PEM.
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) der: Vec<u8>,
}

/// A CA made for one test.
pub(crate) struct TestCa {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl TestCa {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn server(&self, names: &[&str]) -> Pair {
        self.leaf(names, names[0], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// One whose life is over.
    pub(crate) fn expired_server(&self, names: &[&str]) -> Pair {
        self.made(
            names,
            names[0],
            ExtendedKeyUsagePurpose::ServerAuth,
            |params| {
                params.not_before = rcgen::date_time_ymd(2020, 1, 1);
                params.not_after = rcgen::date_time_ymd(2021, 1, 1);
            },
        )
    }

    pub(crate) fn client(&self, user: &str) -> Pair {
        self.leaf(&[], user, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn leaf(&self, names: &[&str], common_name: &str, usage: ExtendedKeyUsagePurpose) -> Pair {
        self.made(names, common_name, usage, |_| {})
    }

    fn made(
        &self,
        names: &[&str],
        common_name: &str,
        usage: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![usage];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Pair {
            cert: cert.pem(),
            key: key.serialize_pem(),
            der: cert.der().to_vec(),
        }
    }
}

// === a real pooler ===

/// A pgbouncer process with its own directory and address, killed when dropped.
pub(crate) struct Pooler {
    child: Child,
    pub(crate) address: SocketAddr,
    directory: TempDir,
}

impl Pooler {
    /// Starts pgbouncer; `settings` are lines of `[pgbouncer]` in which `{dir}` is its directory,
    /// and `databases` those of `[databases]`.
    pub(crate) async fn start(databases: &str, settings: &str, files: &[(&str, &str)]) -> Self {
        Self::start_as(&pgbouncer_program(), databases, settings, files).await
    }

    /// The same with another program.
    pub(crate) async fn start_as(
        program: &Path,
        databases: &str,
        settings: &str,
        files: &[(&str, &str)],
    ) -> Self {
        let address = free_port(own_address());
        let directory = pooler_directory();
        for (name, content) in files {
            write_owned(&directory.path().join(name), content);
        }
        let settings = settings.replace("{dir}", directory.path().to_str().unwrap());
        let ini = format!(
            "[databases]\n{databases}\n[pgbouncer]\nlisten_addr={}\nlisten_port={}\n\
             unix_socket_dir=\nserver_login_retry=1\n{settings}\n",
            address.ip(),
            address.port(),
        );
        write_owned(&directory.path().join("pgbouncer.ini"), &ini);
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = pgbouncer(program, directory.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("pgbouncer is installed");
        let pooler = Self {
            child,
            address,
            directory,
        };
        eventually(Duration::from_secs(10), async || {
            let accepted = probe::accepts(address, Duration::from_secs(1)).await;
            accepted.map_err(|error| format!("{error}; log: {}", pooler.log()))
        })
        .await;
        pooler
    }

    /// Replaces a file of its directory.
    pub(crate) fn write(&self, name: &str, content: &str) {
        write_owned(&self.directory.path().join(name), content);
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Its exit code once it has ended.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("our own child");
        status.map(|status| status.code().unwrap_or(-1))
    }

    /// Ends it as a pod's deletion does: SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our own child");
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _may_have_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A directory that the pooler's user can read.
pub(crate) fn pooler_directory() -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix("bouncert-pooler-")
        .tempdir()
        .unwrap();
    if let Some((uid, gid)) = unprivileged() {
        chown(directory.path(), Some(uid), Some(gid)).unwrap();
    }
    directory
}

/// Writes a file that only the pooler's user can read.
pub(crate) fn write_owned(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    if let Some((uid, gid)) = unprivileged() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

/// A program on the `pgbouncer.ini` of a directory, as its user.
pub(crate) fn pgbouncer(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg(directory.join("pgbouncer.ini"))
        .current_dir(directory)
        .stdin(Stdio::null());
    if let Some((uid, gid)) = unprivileged() {
        command.uid(uid).gid(gid);
    }
    command
}

/// Where the program is; `sbin` is not on everybody's path.
pub(crate) fn pgbouncer_program() -> PathBuf {
    let known = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].map(PathBuf::from);
    let found = known.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| PathBuf::from("pgbouncer"))
}

/// Writes a file that only its owner may read, as `psql` wants its keys.
pub(crate) fn write_private(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The seal that tests share where no daemon has made one.
pub(crate) fn seal() -> bouncert::seal::Seal {
    bouncert::seal::Seal::new(&[0x5e; bouncert::seal::KEY_LEN]).unwrap()
}
