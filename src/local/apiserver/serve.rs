//! The server on a loopback socket: TLS, bearer tokens, bounded connections, a graceful end.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::HeaderValue;
use http::header::{AUTHORIZATION, CONNECTION};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ring::digest::{Digest, SHA256, digest};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Layer;

use super::ApiServer;
use super::access::Identity;
use super::credentials::{Credentials, CredentialsError};
use super::doorway::{Connection, Doorway};
use super::error::ApiError;
use super::faults::{Faults, Faulty};
use super::path::{self, Path};

/// A client that has not finished its handshake and sent a request of a known user by then is not
/// one. It includes the time for the headers of that request.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection without a request for this long is closed; Go's clients keep idle ones for 90 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Answers under way get this long after `stop`; watches never end by themselves.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after the system refuses to accept, usually for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where to serve, and where the files go.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where to listen; port 0 lets the kernel pick.
    pub listen: SocketAddr,
    /// Directory of CA and token.
    pub dir: PathBuf,
    /// The kubeconfig to write.
    pub kubeconfig: PathBuf,
    /// What stands in front of the server, for tests and chaos.
    pub faults: Option<Faults>,
}

/// Why the server cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Only loopback addresses are served.
    #[error("{address} is not a loopback address, and the local API server serves no other")]
    NotLoopback {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Somebody else listens there.
    #[error("{address} is in use; choose another port, or 0 for any")]
    InUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The socket cannot be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The credentials cannot be made.
    #[error("cannot prepare the API server's credentials")]
    Credentials(#[from] CredentialsError),
}

/// A server that listens and does not answer yet.
pub struct Listening {
    listener: TcpListener,
    tls: TlsAcceptor,
    front: Faulty<Router>,
}

impl ApiServer {
    /// Opens the socket and writes the kubeconfig. Clients may connect from now on and are
    /// answered once [`Listening::run`] is driven.
    pub async fn listen(&self, options: &ServeOptions) -> Result<Listening, ServeError> {
        let address = options.listen;
        if !address.ip().is_loopback() {
            return Err(ServeError::NotLoopback { address });
        }
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| match source.kind() {
                ErrorKind::AddrInUse => ServeError::InUse { address },
                _ => ServeError::Listen { address, source },
            })?;
        let address = listener
            .local_addr()
            .map_err(|source| ServeError::Listen { address, source })?;
        let now = self.inner.options.clock.now();
        let credentials = Credentials::open(&options.dir, now)?;
        let tls = TlsAcceptor::from(credentials.tls(address, now)?);
        credentials.write_kubeconfig(&options.kubeconfig, address)?;
        let token = digest(&SHA256, credentials.token().expose().as_bytes());
        let door = Door {
            server: self.clone(),
            token: Arc::new(token),
        };
        let router = self
            .router()
            .layer(middleware::from_fn_with_state(door, authenticate));
        tracing::info!(%address, kubeconfig = %options.kubeconfig.display(), "API server listens");
        let faults = options.faults.clone().unwrap_or_else(Faults::none);
        let front = faults.layer(router);
        Ok(Listening {
            listener,
            tls,
            front,
        })
    }
}

impl Listening {
    /// Answers until `stop`; then answers under way are finished and watches are closed.
    pub async fn run(self, stop: CancellationToken) {
        let doorway = Arc::new(Doorway::default());
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((socket, _)) => {
                    let (tls, front) = (self.tls.clone(), self.front.clone());
                    connections.spawn(serve(socket, tls, front, doorway.enter(), stop.clone()));
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }
}

async fn serve(
    socket: TcpStream,
    tls: TlsAcceptor,
    front: Faulty<Router>,
    connection: Arc<Connection>,
    stop: CancellationToken,
) {
    let deadline = tokio::time::sleep(HELLO_TIMEOUT);
    let mut deadline = std::pin::pin!(deadline);
    let shaken = tokio::select! {
        shaken = tls.accept(socket) => shaken,
        () = connection.closed() => return,
        () = stop.cancelled() => return,
        () = deadline.as_mut() => return,
    };
    let stream = match shaken {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "no TLS handshake");
            return;
        }
    };
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT);
    let service = TowerToHyperService::new(Extension(Arc::clone(&connection)).layer(front));
    let mut served = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let given_up = async {
        deadline.await;
        if !connection.is_unknown() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        _ = served.as_mut() => return,
        () = connection.closed() => return,
        () = given_up => return,
        () = stop.cancelled() => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = timeout(CLOSING_TIMEOUT, served).await;
}

/// What the socket checks tokens with.
#[derive(Clone)]
struct Door {
    server: ApiServer,
    /// Digest of the administrator's token.
    token: Arc<Digest>,
}

/// Lets through who has a token, as whom it says, and anybody who asks for health only.
async fn authenticate(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let given = given
        .and_then(|text| text.strip_prefix("Bearer "))
        .unwrap_or_default();
    // Digests are compared, so the time taken says nothing about the token.
    let given = given.trim();
    let is_admin = digest(&SHA256, given.as_bytes()).as_ref() == door.token.as_ref().as_ref();
    let identity = if is_admin {
        Some(Identity::Admin)
    } else {
        door.server.bearer(given)
    };
    if let Some(identity) = identity {
        let connection = request.extensions().get::<Arc<Connection>>();
        let shares = &door.server.inner.shares;
        if let Some(Err(error)) = connection.map(|one| one.known(&identity, shares)) {
            let mut refused = error.into_response();
            let close = HeaderValue::from_static("close");
            refused.headers_mut().insert(CONNECTION, close);
            return refused;
        }
        request.extensions_mut().insert(identity);
    } else if path::parse(request.uri().path()) != Some(Path::Health) {
        return ApiError::Unauthorized.into_response();
    }
    next.run(request).await
}
