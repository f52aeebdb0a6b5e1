//! TLS towards a pooler or PostgreSQL: verified chains and names, an optional client certificate,
//! and the adapter that lets `tokio-postgres` speak through rustls.
//!
//! There is no mode that skips verification. The name to verify is given apart from the address,
//! because pods are reached by address while their certificate carries the names of the Service.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use crate::pki::key::{KeyError, PrivateKey};
use crate::pki::pem::{self, PemError};

/// Why TLS cannot be set up on our side; nothing has been sent yet.
#[derive(Debug, Error)]
pub enum TlsSetupError {
    /// The client's certificates do not parse.
    #[error("cannot read the client certificate")]
    ReadCertificate(#[source] PemError),
    /// The client's key does not parse.
    #[error("cannot read the client key")]
    ReadKey(#[source] KeyError),
    /// The trust bundle does not parse.
    #[error("cannot read the trust bundle")]
    ReadRoots(#[source] PemError),
    /// A certificate of the trust bundle cannot be a trust anchor.
    #[error("certificate {position} of the trust bundle cannot be trusted")]
    BadRoot {
        /// Counted from 1.
        position: usize,
    },
    /// The bundle has no certificate.
    #[error("the trust bundle is empty")]
    NoRoots,
    /// The name to verify is neither a DNS name nor an address.
    #[error("`{0}` is not a name that a certificate can carry")]
    BadName(String),
    /// The key is not the certificate's.
    #[error("the client key is not the one of the client certificate")]
    KeyMismatch,
    /// rustls refuses the certificate, the key, or our own settings.
    #[error(
        "cannot use this certificate and key: rustls supports neither their kind nor their form"
    )]
    Unusable,
}

/// A client certificate with its key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads a chain, leaf first, and its key.
    pub fn from_pem(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, TlsSetupError> {
        let chain = certificates(chain_pem).map_err(TlsSetupError::ReadCertificate)?;
        let key = pem::text(key_pem).map_err(KeyError::from);
        let key = key.and_then(PrivateKey::from_pem);
        let key = key.map_err(TlsSetupError::ReadKey)?.to_pkcs8();
        Ok(Self { chain, key })
    }

    /// What rustls shows to a server.
    pub fn certified(self) -> Result<Arc<CertifiedKey>, TlsSetupError> {
        let certified = CertifiedKey::from_der(self.chain, self.key, &provider());
        certified.map(Arc::new).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsSetupError::KeyMismatch,
            _ => TlsSetupError::Unusable,
        })
    }
}

/// How to verify a server, and what to show it. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    presents: bool,
}

impl ClientTls {
    /// Accepts servers whose chain leads to `roots_pem` and whose leaf carries `name`, and shows
    /// them `identity`.
    pub fn verify_full(
        name: &str,
        roots_pem: &[u8],
        identity: Option<Identity>,
    ) -> Result<Self, TlsSetupError> {
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| TlsSetupError::BadName(name.to_owned()))?;
        let mut roots = RootCertStore::empty();
        if roots_pem.trim_ascii().is_empty() {
            return Err(TlsSetupError::NoRoots);
        }
        let certificates = certificates(roots_pem).map_err(TlsSetupError::ReadRoots)?;
        for (at, root) in certificates.into_iter().enumerate() {
            let added = roots.add(root);
            added.map_err(|_| TlsSetupError::BadRoot { position: at + 1 })?;
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|_| TlsSetupError::Unusable)?
            .with_root_certificates(roots);
        let presents = identity.is_some();
        let config =
            match identity {
                Some(Identity { chain, key }) => builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| match error {
                        rustls::Error::InconsistentKeys(_) => TlsSetupError::KeyMismatch,
                        _ => TlsSetupError::Unusable,
                    })?,
                None => builder.with_no_client_auth(),
            };
        Ok(Self {
            config: Arc::new(config),
            name: server_name,
            presents,
        })
    }

    /// Whether a client certificate is shown.
    pub const fn presents_certificate(&self) -> bool {
        self.presents
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("name", &self.name)
            .field("presents", &self.presents)
            .finish_non_exhaustive()
    }
}

/// The one crypto provider.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(document: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    pem::read_certificates(pem::text(document)?)
}

// === impl Connector ===

/// Hands a TCP stream to rustls on behalf of `tokio-postgres`; without TLS it is never asked.
#[derive(Clone, Debug)]
pub struct Connector(pub Option<ClientTls>);

impl TlsConnect<TcpStream> for Connector {
    type Stream = Encrypted;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted>> + Send>>;

    fn connect(self, stream: TcpStream) -> Self::Future {
        Box::pin(async move {
            let Some(tls) = self.0 else {
                return Err(io::Error::other("TLS is not set up"));
            };
            tokio_rustls::TlsConnector::from(tls.config)
                .connect(tls.name, stream)
                .await
                .map(Encrypted)
        })
    }
}

/// An encrypted stream, as `tokio-postgres` wants it.
#[derive(Debug)]
pub struct Encrypted(tokio_rustls::client::TlsStream<TcpStream>);

impl TlsStream for Encrypted {
    fn channel_binding(&self) -> ChannelBinding {
        // PgBouncer offers none.
        ChannelBinding::none()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
