//! The admin server: plain HTTP, read only, for Prometheus, kubelets and people.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | OpenMetrics text; the older text format for whoever does not accept that |
//! | `/state.json` | what the daemon believes |
//! | `/livez` | 200 while the process answers |
//! | `/readyz` | 200 while the daemon does its work, else 503 |
//!
//! Connections are bounded in number, also of one address, and in time (`front`); `/livez` and `/readyz`
//! are answered when all places are taken, too. Nothing here is secret, and nothing can be changed;
//! still it listens on loopback unless it is told otherwise.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::chunks::Chunks;
use super::classic::Classic;
use super::front::{self, Bounds};
use super::listen::ListenAddress;
use super::monitor::Monitor;
use crate::printable;

const OPENMETRICS: &str = "application/openmetrics-text";

/// Why the admin server does not run.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be used.
    #[error("the admin server cannot listen on {address}: choose another --admin-listen")]
    Listen {
        /// What was asked for.
        address: ListenAddress,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
    bounds: Bounds,
}

impl AdminServer {
    /// Takes the address.
    pub async fn bind(address: ListenAddress) -> Result<Self, AdminError> {
        let unusable = |source| AdminError::Listen { address, source };
        let listener = address.bind().await.map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        let bounds = Bounds::default();
        Ok(Self {
            listener,
            address,
            bounds,
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is told to stop.
    pub async fn run(self, monitor: Monitor, stop: CancellationToken) -> Result<(), AdminError> {
        front::serve(self.listener, router(monitor), self.bounds, stop).await;
        Ok(())
    }
}

/// The routes.
pub fn router(monitor: Monitor) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/state.json", get(state))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .layer(middleware::from_fn(without_body))
        .with_state(monitor)
}

/// Refuses a request with a body: nothing here reads one.
async fn without_body(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let length = headers.get(CONTENT_LENGTH);
    if headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != "0") {
        let why = "send no body: the admin server only answers questions\n";
        return (StatusCode::PAYLOAD_TOO_LARGE, [(CONNECTION, "close")], why).into_response();
    }
    next.run(request).await
}

async fn metrics(State(monitor): State<Monitor>, headers: HeaderMap) -> Response {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let is_open = accepted.is_some_and(|accepted| accepted.contains(OPENMETRICS));
    // A fleet's metrics are megabytes; whoever waits for a certificate does not wait for them.
    let written = spawn_blocking(move || {
        let mut text = Chunks::default();
        let written = if is_open {
            monitor.write_metrics(&mut text)
        } else {
            monitor.write_metrics(&mut Classic::new(&mut text))
        };
        written.ok().map(|()| Body::from(text))
    });
    match written.await {
        Ok(Some(text)) => {
            let kind = if is_open {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            } else {
                "text/plain; version=0.0.4; charset=utf-8"
            };
            ([(CONTENT_TYPE, kind)], text).into_response()
        }
        Ok(None) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn state(State(monitor): State<Monitor>) -> Response {
    match spawn_blocking(move || monitor.state()).await {
        Ok(Some(state)) => {
            let state = printable::json(&state).into_owned();
            ([(CONTENT_TYPE, "application/json")], state).into_response()
        }
        Ok(None) => (StatusCode::SERVICE_UNAVAILABLE, "nothing is known yet\n").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn readyz(State(monitor): State<Monitor>) -> Response {
    if monitor.is_ready() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpSocket, TcpStream};
    use tower::ServiceExt as _;

    use super::*;
    use crate::clock::Clock;

    async fn ask(monitor: &Monitor, path: &str, accept: &str) -> (StatusCode, String, String) {
        let request = http::Request::get(path).header(ACCEPT, accept);
        let request = request.body(Body::empty()).unwrap();
        let answer = router(monitor.clone()).oneshot(request).await.unwrap();
        let kind = answer.headers().get(CONTENT_TYPE);
        let kind = kind.map_or("", |kind| kind.to_str().unwrap()).to_owned();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, kind, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn metrics_are_open_for_whoever_accepts_that_and_classic_for_others() {
        let monitor = Monitor::new(Clock::System);
        let open = format!("{OPENMETRICS};version=1.0.0,text/plain;q=0.5");
        let (status, kind, text) = ask(&monitor, "/metrics", &open).await;
        assert_eq!(status, StatusCode::OK);
        assert!(kind.starts_with(OPENMETRICS), "{kind}");
        assert!(text.ends_with("# EOF\n"), "{text}");
        let (_, kind, text) = ask(&monitor, "/metrics", "*/*").await;
        assert!(kind.starts_with("text/plain"), "{kind}");
        assert!(!text.contains("EOF"), "{text}");
    }

    // === the door ===

    /// A server with small bounds; it stops when the guard is dropped.
    async fn open(bounds: Bounds) -> (SocketAddr, tokio_util::sync::DropGuard) {
        let address: ListenAddress = "127.0.0.1:0".parse().unwrap();
        let mut server = AdminServer::bind(address).await.unwrap();
        server.bounds = bounds;
        let (address, stop) = (server.address(), CancellationToken::new());
        let running = server.run(Monitor::new(Clock::System), stop.clone());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(running);
        tasks.detach_all();
        (address, stop.drop_guard())
    }

    async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(to).await.unwrap()
    }

    /// What a peer is told until the server closes.
    async fn told(mut peer: TcpStream, says: &str) -> String {
        let mut answer = Vec::new();
        let _may_be_closed = peer.write_all(says.as_bytes()).await;
        let _may_be_reset = peer.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

    fn bounds() -> Bounds {
        Bounds {
            connections: 12,
            connections_of_a_peer: 8,
            spare: 4,
            head: std::time::Duration::from_millis(500),
            life: std::time::Duration::from_secs(60),
        }
    }

    #[tokio::test]
    async fn half_open_requests_are_closed_and_take_no_place_from_other_addresses() {
        let (address, _guard) = open(bounds()).await;
        let mut half_open = Vec::new();
        for _ in 0..40 {
            let mut peer = connect([127, 0, 0, 2], address).await;
            let _may_be_closed = peer.write_all(b"GET /metrics HTTP/1.1\r\nhost: ").await;
            half_open.push(peer);
        }
        // Another address is answered while they are there.
        let answer = told(connect([127, 0, 0, 3], address).await, LIVEZ).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // All of them end by themselves.
        for peer in half_open {
            let answer = told(peer, "").await;
            assert!(!answer.contains("200 OK"), "{answer}");
        }
        let answer = told(connect([127, 0, 0, 2], address).await, LIVEZ).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn who_has_too_many_connections_is_told_so() {
        let bounds = Bounds {
            head: std::time::Duration::from_secs(60),
            ..bounds()
        };
        let (address, _guard) = open(bounds).await;
        let mut silent = Vec::new();
        for _ in 0..8 {
            silent.push(connect([127, 0, 0, 2], address).await);
        }
        let answer = told(connect([127, 0, 0, 2], address).await, "").await;
        assert!(
            answer.contains("503") && answer.contains("close some"),
            "{answer}"
        );
        for last in 3..7 {
            silent.push(connect([127, 0, 0, last], address).await);
        }
        let answer = told(connect([127, 0, 0, 9], address).await, "").await;
        assert!(
            answer.contains("503") && answer.contains("try again later"),
            "{answer}"
        );
        drop(silent);
        // Places are free again as soon as the server has seen them go.
        loop {
            let answer = told(connect([127, 0, 0, 9], address).await, LIVEZ).await;
            if answer.starts_with("HTTP/1.1 200") {
                break;
            }
        }
    }

    #[tokio::test]
    async fn health_is_told_while_strangers_hold_every_place() {
        let bounds = Bounds {
            head: std::time::Duration::from_secs(60),
            ..bounds()
        };
        let (address, _guard) = open(bounds).await;
        let mut strangers = Vec::new();
        // All places, those of the kubelet's address, and those of connections without a place.
        for n in 0..40_u8 {
            strangers.push(connect([127, 0, 0, 2 + n % 5], address).await);
        }
        let metrics = "GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        for from in [2, 9] {
            for _ in 0..3 {
                let answer = told(connect([127, 0, 0, from], address).await, LIVEZ).await;
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                let ready = LIVEZ.replace("livez", "readyz");
                let answer = told(connect([127, 0, 0, from], address).await, &ready).await;
                assert!(
                    answer.contains("503") && answer.contains("not ready"),
                    "{answer}"
                );
            }
            let answer = told(connect([127, 0, 0, from], address).await, metrics).await;
            assert!(
                answer.contains("503") && answer.contains("retry-after"),
                "{answer}"
            );
        }
        // A question that comes in pieces is one question.
        let mut slow = connect([127, 0, 0, 9], address).await;
        slow.write_all(b"GET /li").await.unwrap();
        slow.flush().await.unwrap();
        tokio::task::yield_now().await;
        let answer = told(slow, "vez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        drop(strangers);
    }

    #[tokio::test]
    async fn a_connection_ends_after_its_time_and_an_idle_one_before() {
        let life = std::time::Duration::from_millis(700);
        for bounds in [
            bounds(),
            Bounds {
                head: 100 * life,
                life,
                ..bounds()
            },
        ] {
            let (address, _guard) = open(bounds).await;
            let kept = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
            let answer = told(connect([127, 0, 0, 2], address).await, kept).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_body_and_an_endless_head_are_refused() {
        let (address, _guard) = open(bounds()).await;
        let with_body = "POST /livez HTTP/1.1\r\nhost: a\r\ncontent-length: 9999999\r\n\r\nxxx";
        let answer = told(connect([127, 0, 0, 2], address).await, with_body).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        let head = format!(
            "GET /livez HTTP/1.1\r\nhost: a\r\nx: {}",
            "y".repeat(64 * 1_024)
        );
        let answer = told(connect([127, 0, 0, 2], address).await, &head).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }

    #[tokio::test]
    async fn readiness_and_state_are_told_as_they_are() {
        let monitor = Monitor::new(Clock::System);
        assert_eq!(ask(&monitor, "/livez", "*/*").await.0, StatusCode::OK);
        let unready = StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(ask(&monitor, "/readyz", "*/*").await.0, unready);
        assert_eq!(ask(&monitor, "/state.json", "*/*").await.0, unready);
        monitor.believe(|| "{\"certificates\":[]}".to_owned());
        monitor.ready();
        assert_eq!(ask(&monitor, "/readyz", "*/*").await.0, StatusCode::OK);
        let (_, kind, text) = ask(&monitor, "/state.json", "*/*").await;
        assert_eq!(
            (kind.as_str(), text.as_str()),
            ("application/json", "{\"certificates\":[]}")
        );
        monitor.not_ready();
        assert_eq!(ask(&monitor, "/readyz", "*/*").await.0, unready);
    }
}
