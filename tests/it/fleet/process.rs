//! A daemon as a process, seen as Prometheus and the kernel see it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// Nothing new for this long is quiet: requests to the API server in as many seconds.
const QUIET: Duration = Duration::from_secs(3);
/// Renewing the Lease, and a watch that ends by itself.
const QUIET_REQUESTS: f64 = 5.0;

/// A daemon, as a process.
pub(crate) struct Daemon {
    child: Child,
    admin: SocketAddr,
    began: Instant,
    _reading: JoinSet<()>,
}

/// What a daemon's `/metrics` says: sums over labels that begin so.
pub(crate) struct Metrics(String);

impl Daemon {
    /// Starts one, and waits until it shows metrics.
    pub(crate) async fn start(kubeconfig: &Path) -> Self {
        Self::start_with(kubeconfig, &[], drop).await
    }

    /// The same with arguments of the caller's, who is given each line of its log.
    pub(crate) async fn start_with(
        kubeconfig: &Path,
        more: &[&str],
        log: impl Fn(String) + Send + 'static,
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bouncert"));
        command
            .args(["run", "--admin-listen", "127.0.0.1:0", "--kubeconfig"])
            .arg(kubeconfig)
            .args(more)
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let began = Instant::now();
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let admin = loop {
            let line = lines.next_line().await.unwrap();
            let line = line.unwrap_or_else(|| panic!("the daemon ended: {said}"));
            said.push_str(&line);
            let address = line
                .split_once("metrics at http://")
                .and_then(|(_, rest)| rest.split_once("/metrics"));
            if let Some((address, _)) = address {
                break address.parse().unwrap();
            }
        };
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            log(said);
            while let Ok(Some(line)) = lines.next_line().await {
                log(line);
            }
        });
        Self {
            child,
            admin,
            began,
            _reading: reading,
        }
    }

    /// Since its start.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// What it shows.
    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics(self.page("/metrics").await)
    }

    /// A page of its admin server.
    pub(crate) async fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.admin);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// Waits until it has looked at `size` PgBouncers and asks nothing any more; how long it took from
    /// its start.
    pub(crate) async fn quiet(&self, size: usize, bound: Duration) -> Duration {
        let mut since = (self.began, 0.0);
        loop {
            let metrics = self.metrics().await;
            let asked = metrics.requests();
            if asked - since.1 > QUIET_REQUESTS || !metrics.has_looked_at(size) {
                since = (Instant::now(), asked);
            }
            if since.0.elapsed() >= QUIET {
                return since.0 - self.began;
            }
            assert!(
                self.age() < bound,
                "not quiet within {bound:?}: {asked} requests"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until it has made as many looks as there are PgBouncers since `before`.
    pub(crate) async fn looked(&self, before: &Metrics, size: usize, bound: Duration) {
        let (began, wanted) = (Instant::now(), before.looks() + count(size));
        loop {
            let made = self.metrics().await.looks();
            if made >= wanted {
                return;
            }
            assert!(began.elapsed() < bound, "{made} looks within {bound:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Its resident set, and the largest that it ever was, in MiB.
    pub(crate) fn memory(&self) -> (f64, f64) {
        let path = format!("/proc/{}/status", self.child.id().unwrap());
        let status = std::fs::read_to_string(path).unwrap();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.unwrap().split_whitespace().next().unwrap();
            number.parse::<f64>().unwrap()
        };
        (kib("VmRSS:") / 1024.0, kib("VmHWM:") / 1024.0)
    }

    /// Holds it up, or lets it go on.
    pub(crate) fn hold_up(&self, held: bool) {
        self.signal(if held { Signal::STOP } else { Signal::CONT });
    }

    /// Ends it as a rolling update does: it gives its Lease back.
    pub(crate) async fn stop(mut self) {
        self.signal(Signal::TERM);
        assert!(self.child.wait().await.unwrap().success());
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        kill_process(pid.and_then(Pid::from_raw).unwrap(), signal).unwrap();
    }
}

impl Metrics {
    /// The sum of all series that begin so.
    pub(crate) fn sum(&self, series: &str) -> f64 {
        let lines = self.0.lines().filter(|line| line.starts_with(series));
        lines
            .map(|line| {
                let (_, value) = line.rsplit_once(' ').unwrap();
                value.parse::<f64>().unwrap()
            })
            .sum()
    }

    /// Requests to the API server.
    pub(crate) fn requests(&self) -> f64 {
        self.sum("bouncert_api_requests_total")
    }

    /// Looks of the provisioner.
    pub(crate) fn looks(&self) -> f64 {
        self.sum("bouncert_reconciles_total{controller=\"pgbouncers\"")
    }

    fn has_looked_at(&self, size: usize) -> bool {
        self.looks() >= count(size)
    }
}

/// As metrics count.
pub(crate) fn count(size: usize) -> f64 {
    f64::from(u32::try_from(size).unwrap())
}
