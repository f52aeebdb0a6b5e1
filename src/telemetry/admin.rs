//! The admin server: plain HTTP, read only, for Prometheus, kubelets and people.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | OpenMetrics text; the older text format for whoever does not accept that |
//! | `/state.json` | what the daemon believes |
//! | `/livez` | 200 while the process answers |
//! | `/readyz` | 200 while the daemon does its work, else 503 |
//!
//! Nothing here is secret, and nothing can be changed; still it listens on loopback unless it is
//! told otherwise.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::chunks::Chunks;
use super::classic::Classic;
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
    /// It ended by itself.
    #[error("the admin server failed")]
    Serve(#[source] io::Error),
}

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl AdminServer {
    /// Takes the address.
    pub async fn bind(address: ListenAddress) -> Result<Self, AdminError> {
        let unusable = |source| AdminError::Listen { address, source };
        let listener = address.bind().await.map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is told to stop.
    pub async fn run(self, monitor: Monitor, stop: CancellationToken) -> Result<(), AdminError> {
        axum::serve(self.listener, router(monitor))
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
            .map_err(AdminError::Serve)
    }
}

/// The routes.
pub fn router(monitor: Monitor) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/state.json", get(state))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(monitor)
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
    use http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::clock::Clock;

    async fn ask(monitor: &Monitor, path: &str, accept: &str) -> (StatusCode, String, String) {
        let request = Request::get(path).header(ACCEPT, accept);
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
