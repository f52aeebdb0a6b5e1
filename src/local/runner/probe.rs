//! Readiness: what a probe asks, how often, and what its answers mean.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::instants::Shift;

/// Time between probes until the first success: a pooler listens some 20 ms after its start.
pub const EAGER_PERIOD: Duration = Duration::from_millis(40);
/// How long the runner probes that eagerly.
pub const EAGER_FOR: Duration = Duration::from_secs(5);

/// What a readiness probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing: a running process is ready.
    Nothing,
    /// A TCP connection.
    Tcp(SocketAddr),
    /// A GET that answers 200 to 399.
    Http(SocketAddr, String),
    /// Something that the local platform cannot ask; the reason.
    Unsupported(String),
}

/// Probe and its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it asks.
    pub ask: Ask,
    /// Pause after the start.
    pub initial_delay: Duration,
    /// Time between probes.
    pub period: Duration,
    /// Time for one answer.
    pub timeout: Duration,
    /// Failures in a row that make a ready container unready.
    pub failures: u32,
    /// Successes in a row that make it ready.
    pub successes: u32,
}

/// Readiness as the answers so far tell it.
#[derive(Clone, Debug)]
pub struct Readiness {
    started: Instant,
    next: Instant,
    ready: bool,
    failures: u32,
    successes: u32,
}

/// The readiness probe of `container` in a pod at `address`.
pub fn plan(container: &Container, address: Ipv4Addr) -> Plan {
    let Some(probe) = &container.readiness_probe else {
        return Plan::new(Ask::Nothing, &Probe::default());
    };
    let port_of = |port: &IntOrString| resolve(container, port);
    let at = |host: Option<&String>, port: u16| {
        let given = host.and_then(|h| h.parse::<IpAddr>().ok());
        SocketAddr::new(given.unwrap_or(IpAddr::V4(address)), port)
    };
    let ask = if let Some(tcp) = &probe.tcp_socket {
        match port_of(&tcp.port) {
            Some(port) => Ask::Tcp(at(tcp.host.as_ref(), port)),
            None => Ask::Unsupported("the probe names a port that the container lacks".into()),
        }
    } else if let Some(http) = &probe.http_get {
        match (port_of(&http.port), http.scheme.as_deref()) {
            (_, Some("HTTPS")) => Ask::Unsupported("HTTPS probes are not made here".into()),
            (Some(port), _) => {
                let path = http.path.clone().unwrap_or_else(|| "/".into());
                Ask::Http(at(http.host.as_ref(), port), path)
            }
            (None, _) => Ask::Unsupported("the probe names a port that the container lacks".into()),
        }
    } else {
        Ask::Unsupported("the local platform makes tcpSocket and httpGet probes only".into())
    };
    Plan::new(ask, probe)
}

/// The number of a port given by number or by name.
pub fn resolve(container: &Container, port: &IntOrString) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_ref() == Some(name))
            .map(|p| p.container_port)
            .or_else(|| name.parse().ok())?,
    };
    u16::try_from(number).ok().filter(|n| *n != 0)
}

/// Asks once.
pub async fn ask(plan: &Plan) -> bool {
    let answer = async {
        match &plan.ask {
            Ask::Nothing | Ask::Unsupported(_) => true,
            Ask::Tcp(address) => TcpStream::connect(address).await.is_ok(),
            Ask::Http(address, path) => http(*address, path).await.unwrap_or(false),
        }
    };
    tokio::time::timeout(plan.timeout, answer)
        .await
        .unwrap_or(false)
}

async fn http(address: SocketAddr, path: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0_u8; 12];
    stream.read_exact(&mut head).await?;
    // "HTTP/1.x NNN"
    Ok(matches!(head[9], b'2' | b'3'))
}

// === impl Plan ===

impl Plan {
    fn new(ask: Ask, probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            let given = value.and_then(|v| u64::try_from(v).ok());
            Duration::from_secs(given.filter(|v| *v > 0).unwrap_or(default))
        };
        let count = |value: Option<i32>, default: u32| {
            let given = value.and_then(|v| u32::try_from(v).ok());
            given.filter(|v| *v > 0).unwrap_or(default)
        };
        Self {
            ask,
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            failures: count(probe.failure_threshold, 3),
            successes: count(probe.success_threshold, 1),
        }
    }
}

// === impl Readiness ===

impl Readiness {
    /// A container that has just started (or was found running).
    pub fn new(plan: &Plan, started: Instant) -> Self {
        Self {
            started,
            next: started.plus(plan.initial_delay),
            ready: false,
            failures: 0,
            successes: 0,
        }
    }

    /// When to ask next.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Whether it is ready.
    pub fn ready(&self) -> bool {
        self.ready
    }

    /// Takes in an answer.
    pub fn take(&mut self, success: bool, plan: &Plan, now: Instant) {
        if success {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            self.ready |= self.successes >= plan.successes;
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            self.ready &= self.failures < plan.failures;
        }
        let eager = !self.ready && now < self.started.plus(plan.initial_delay).plus(EAGER_FOR);
        self.next = now.plus(if eager { EAGER_PERIOD } else { plan.period });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(probe: &serde_json::Value) -> Container {
        serde_json::from_value(json!({
            "name": "pgbouncer",
            "ports": [{"name": "db", "containerPort": 6544}],
            "readinessProbe": probe
        }))
        .unwrap()
    }

    #[test]
    fn a_port_may_be_named_and_an_exec_probe_says_that_it_is_not_made() {
        let address = Ipv4Addr::new(127, 70, 0, 1);
        let tcp = plan(&container(&json!({"tcpSocket": {"port": "db"}})), address);
        assert_eq!(tcp.ask, Ask::Tcp("127.70.0.1:6544".parse().unwrap()));
        let exec = plan(&container(&json!({"exec": {"command": ["true"]}})), address);
        assert!(matches!(exec.ask, Ask::Unsupported(_)));
    }

    #[test]
    fn probes_are_frequent_until_the_first_success_and_then_follow_the_period() {
        let plan = plan(
            &container(
                &json!({"tcpSocket": {"port": 1}, "periodSeconds": 7, "failureThreshold": 2}),
            ),
            Ipv4Addr::LOCALHOST,
        );
        let start = Instant::now();
        let mut readiness = Readiness::new(&plan, start);
        assert_eq!(readiness.next(), start);
        readiness.take(false, &plan, start);
        assert_eq!(readiness.next(), start + EAGER_PERIOD);
        readiness.take(true, &plan, start);
        assert!(readiness.ready());
        assert_eq!(readiness.next(), start + plan.period);
        readiness.take(false, &plan, start);
        assert!(readiness.ready(), "one failure is not enough");
        readiness.take(false, &plan, start);
        assert!(!readiness.ready());
    }

    #[test]
    fn a_container_that_never_answers_is_probed_less_often_in_the_end() {
        let plan = plan(
            &container(&json!({"tcpSocket": {"port": 1}})),
            Ipv4Addr::LOCALHOST,
        );
        let start = Instant::now();
        let mut readiness = Readiness::new(&plan, start);
        readiness.take(false, &plan, start + EAGER_FOR);
        assert_eq!(readiness.next(), start + EAGER_FOR + plan.period);
    }
}
