//! One bounded HTTP exchange with Vault: a connection, a request, an answer.
//!
//! There is no pool and no redirect: a certificate is issued a few times a day, and a token that
//! followed a redirect would end up with whoever sent it.
//!
//! The server's name is resolved once, the addresses are judged, and these are connected to: a name that
//! leads elsewhere a moment later changes nothing. What goes wrong on the way is told as one error,
//! because an issuer is a tenant's, and its condition must not say what listens where.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::{VaultError, VaultNetworks};
use crate::pki::bundle::TrustBundle;
use crate::redacted::Redacted;

/// Bound of one exchange, connection included.
pub(super) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest answer that is read: a chain and its CAs are a few KiB.
const ANSWER_MAX_BYTES: usize = 1024 * 1024;

/// A Vault server.
pub(super) struct Server {
    url: String,
    prefix: String,
    host: String,
    port: u16,
    addresses: Vec<SocketAddr>,
    tls: Option<TlsConnector>,
}

impl Server {
    /// The server at `url`, whose certificate is proved against `roots`, or against the roots of the
    /// machine, and whose address has to be in `networks`.
    pub(super) async fn find(
        url: &str,
        roots: Option<&TrustBundle>,
        networks: &VaultNetworks,
    ) -> Result<Self, VaultError> {
        let bad = || VaultError::Server {
            server: url.to_owned(),
        };
        let parsed: Uri = url.parse().map_err(|_| bad())?;
        let (tls, port) = match parsed.scheme_str() {
            Some("https") => (Some(connector(url, roots)?), 443),
            Some("http") => (None, 80),
            _ => return Err(bad()),
        };
        let host = parsed.host().ok_or_else(bad)?.trim_matches(['[', ']']);
        let port = parsed.port_u16().unwrap_or(port);
        Ok(Self {
            addresses: addresses(url, host, port, networks).await?,
            url: url.to_owned(),
            prefix: parsed.path().trim_end_matches('/').to_owned(),
            host: host.to_owned(),
            port,
            tls,
        })
    }

    /// Posts `body` to `path`; status and answer. An answer that is neither a success with an object
    /// nor a refusal with `errors` is not Vault's.
    pub(super) async fn post(
        &self,
        path: &str,
        headers: &[(&'static str, &Redacted<String>)],
        body: &Value,
    ) -> Result<(StatusCode, Value), VaultError> {
        let request = self.request(path, headers, body)?;
        let exchange = tokio::time::timeout(EXCHANGE_TIMEOUT, self.exchange(request)).await;
        let (status, bytes) = exchange.map_err(|_| self.broken(&"no answer in time"))??;
        let answer = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let is_vault = if status.is_success() {
            answer.is_object()
        } else {
            answer["errors"].is_array()
        };
        if is_vault {
            Ok((status, answer))
        } else {
            Err(self.broken(&format!("the answer, {status}, is not Vault's")))
        }
    }

    fn request(
        &self,
        path: &str,
        headers: &[(&'static str, &Redacted<String>)],
        body: &Value,
    ) -> Result<Request<Full<Bytes>>, VaultError> {
        let uri = format!("{}/{}", self.prefix, path.trim_start_matches('/'));
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(CONTENT_TYPE, "application/json")
            // Vault's agents refuse requests without it, against forged ones from browsers.
            .header("x-vault-request", "true");
        for (name, value) in headers {
            let mut value = HeaderValue::from_str(value.expose())
                .map_err(|_| VaultError::NotAHeader { field: name })?;
            value.set_sensitive(true);
            request = request.header(HeaderName::from_static(name), value);
        }
        request
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|_| VaultError::Spec {
                detail: "path and mountPath have to be paths of a URL".to_owned(),
            })
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), VaultError> {
        let socket = TcpStream::connect(self.addresses.as_slice());
        let socket = socket.await.map_err(|error| self.broken(&error))?;
        let Some(tls) = &self.tls else {
            return self.speak(socket, request).await;
        };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| self.broken(&error))?;
        let stream = tls.connect(name, socket).await;
        self.speak(stream.map_err(|error| self.broken(&error))?, request)
            .await
    }

    async fn speak<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), VaultError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|error| self.broken(&error))?;
        let answer = async {
            let response = sender.send_request(request).await;
            let response = response.map_err(|error| self.broken(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect();
            let body = body.await.map_err(|error| self.broken(&error))?;
            Ok((status, body.to_bytes()))
        };
        // The connection is driven beside the exchange, and goes with it.
        match select(Box::pin(answer), Box::pin(connection)).await {
            Either::Left((answer, _)) => answer,
            Either::Right((_, answer)) => answer.await,
        }
    }

    /// An answer that lacks what Vault's has.
    pub(super) fn not_vault(&self, what: &str) -> VaultError {
        self.broken(&format!("the answer has no {what}"))
    }

    fn broken(&self, detail: &impl ToString) -> VaultError {
        unreachable(&self.url, detail)
    }
}

/// The addresses of a server that may be connected to.
async fn addresses(
    url: &str,
    host: &str,
    port: u16,
    networks: &VaultNetworks,
) -> Result<Vec<SocketAddr>, VaultError> {
    let found = tokio::time::timeout(EXCHANGE_TIMEOUT, lookup_host((host, port))).await;
    let found = found.map_err(|_| unreachable(url, &"the name is not resolved in time"))?;
    let found: Vec<SocketAddr> = found.map_err(|error| unreachable(url, &error))?.collect();
    let allowed = found.iter().copied();
    let allowed: Vec<SocketAddr> = allowed.filter(|at| networks.allows(at.ip())).collect();
    if allowed.is_empty() && !found.is_empty() {
        return Err(VaultError::Address {
            server: url.to_owned(),
        });
    }
    Ok(allowed)
}

/// The one error for whatever keeps us from an answer of Vault's.
fn unreachable(url: &str, detail: &impl ToString) -> VaultError {
    tracing::debug!(
        server = url,
        detail = detail.to_string(),
        "Vault does not answer"
    );
    VaultError::Unreachable {
        server: url.to_owned(),
    }
}

fn connector(url: &str, roots: Option<&TrustBundle>) -> Result<TlsConnector, VaultError> {
    let mut store = RootCertStore::empty();
    match roots {
        Some(roots) => store.add_parsable_certificates(roots.certificates().iter().cloned()),
        None => store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unreachable(url, &error))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
