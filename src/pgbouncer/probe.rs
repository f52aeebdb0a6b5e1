//! What an address serves: the chain, read from a TLS handshake.
//!
//! The probe is an observer. It accepts every certificate and has no credentials: PostgreSQL's
//! `SSLRequest` comes before any login, and in TLS 1.3 a client has read the server's chain, and
//! proof that the server holds the key, before the server can complain about a missing client
//! certificate. So it works in every `sslmode`; where TLS is off the answer is
//! [`Served::Plaintext`], which is an alarm where TLS is wanted.
//!
//! It says goodbye properly, because an abrupt end costs one warning in the pooler's log. It never
//! opens TLS directly, which 1.24 does not answer at all.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::session::words;
use super::tls::provider;
use crate::instants::Shift;
use crate::names::Fingerprint;
use crate::pki::peer::public_key;
use crate::retry::Retry;

/// Length 8, then the code of an `SSLRequest`.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Bound for the goodbye; the chain is known by then.
const GOODBYE: Duration = Duration::from_millis(300);

/// What an address serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// TLS is off: the server answered `N`.
    Plaintext,
    /// TLS.
    Tls(Handshake),
}

/// What a handshake showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The chain as it was sent, leaf first, in DER.
    pub chain: Vec<Vec<u8>>,
    /// Protocol such as `TLSv1.3`; `None` when the server ended a TLS 1.2 handshake because it wants
    /// a client certificate.
    pub protocol: Option<String>,
    /// Cipher suite; `None` as for `protocol`.
    pub cipher: Option<String>,
    /// Whether the server asked for a client certificate.
    pub asks_for_certificate: bool,
    /// The subjects (DER) of the CAs whose client certificates it accepts; 1.18 does not tell.
    pub client_ca_names: Vec<Vec<u8>>,
}

impl Handshake {
    /// The leaf, in DER.
    pub fn leaf(&self) -> Option<&[u8]> {
        self.chain.first().map(Vec::as_slice)
    }

    /// The leaf's fingerprint.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.leaf().map(fingerprint)
    }
}

impl Served {
    /// The fingerprint of the served leaf; `None` without TLS.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match self {
            Self::Plaintext => None,
            Self::Tls(handshake) => handshake.fingerprint(),
        }
    }
}

/// SHA-256 of a certificate's DER.
pub fn fingerprint(der: &[u8]) -> Fingerprint {
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    Fingerprint::from_sha256(bytes)
}

/// What a server does with a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// What the server shows.
    pub served: Served,
    /// Why it does not accept the client certificate, in words; `None` where it went on, or never
    /// asked.
    pub refused: Option<String>,
}

/// Why nothing could be seen.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// No TCP connection.
    #[error("nothing accepts connections at {address}")]
    Unreachable {
        /// Who was asked.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("{address} did not answer within {after:?}")]
    TimedOut {
        /// Who was asked.
        address: SocketAddr,
        /// The bound.
        after: Duration,
    },
    /// The answer to the `SSLRequest` was neither `S` nor `N`.
    #[error("{address} does not speak PostgreSQL's protocol (it answered byte {byte:#04x})")]
    NotPostgres {
        /// Who was asked.
        address: SocketAddr,
        /// What came.
        byte: u8,
    },
    /// The connection ended before the server showed its certificate.
    #[error("the TLS handshake with {address} failed")]
    Handshake {
        /// Who was asked.
        address: SocketAddr,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// rustls refuses to start.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
    /// The name to ask for is not one.
    #[error("`{0}` is not a server name")]
    BadName(String),
}

impl ProbeError {
    /// Whether trying again can help.
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Handshake { .. } => {
                Retry::Backoff
            }
            Self::NotPostgres { .. } => Retry::WhenChanged,
            Self::Setup(_) | Self::BadName(_) => Retry::Never,
        }
    }
}

/// Sees what `address` serves to a client that asks for `server_name` (`None`: the address).
pub async fn probe(
    address: SocketAddr,
    server_name: Option<&str>,
    bound: Duration,
) -> Result<Served, ProbeError> {
    let observer = Arc::new(Observer::new(None));
    let (served, stream) = shake(address, server_name, &observer, bound).await?;
    if let Some(Ok(mut stream)) = stream {
        let _ended = timeout(GOODBYE, stream.shutdown()).await;
    }
    Ok(served)
}

/// Sees what `address` serves to a client that shows `identity`, and whether the server goes on with
/// it. In TLS 1.3 a client learns that only afterwards, so a login of `user` is begun and left.
pub async fn present(
    address: SocketAddr,
    server_name: Option<&str>,
    (identity, user): (Arc<CertifiedKey>, &str),
    bound: Duration,
) -> Result<Presented, ProbeError> {
    let observer = Arc::new(Observer::new(Some(identity)));
    let (served, stream) = shake(address, server_name, &observer, bound).await?;
    let refused = match stream {
        None => None,
        Some(Err(error)) => Some(why_refused(&error)),
        Some(Ok(mut stream)) => {
            let first = async {
                stream.write_all(&startup(user)).await?;
                stream.flush().await?;
                stream.read_u8().await
            };
            let first = timeout(bound, first)
                .await
                .map_err(|_| ProbeError::TimedOut {
                    address,
                    after: bound,
                })?;
            let _ended = timeout(GOODBYE, stream.shutdown()).await;
            first.err().map(|error| why_refused(&error))
        }
    };
    Ok(Presented { served, refused })
}

/// A `StartupMessage` of protocol 3.0 for a user.
fn startup(user: &str) -> Vec<u8> {
    let user = user.replace('\0', "");
    let body = format!("user\0{user}\0\0");
    let length = u32::try_from(body.len().saturating_add(8)).unwrap_or(u32::MAX);
    let mut message = length.to_be_bytes().to_vec();
    message.extend(196_608_u32.to_be_bytes());
    message.extend(body.as_bytes());
    message
}

/// Why a server ended a handshake that had shown its certificate.
fn why_refused(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    match tls {
        Some(rustls::Error::AlertReceived(alert)) => words(*alert),
        _ => "the server ended the connection".to_owned(),
    }
}

/// A TLS stream, or what ended its handshake after the server had shown itself.
type Shaken = Result<tokio_rustls::client::TlsStream<TcpStream>, io::Error>;

/// Connects and shakes hands; no stream where the server answers without TLS.
async fn shake(
    address: SocketAddr,
    server_name: Option<&str>,
    observer: &Arc<Observer>,
    bound: Duration,
) -> Result<(Served, Option<Shaken>), ProbeError> {
    let name = match server_name {
        Some(name) => ServerName::try_from(name.to_owned())
            .map_err(|_| ProbeError::BadName(name.to_owned()))?,
        None => ServerName::IpAddress(address.ip().into()),
    };
    let deadline = Instant::now().plus(bound);
    let late = |_| ProbeError::TimedOut {
        address,
        after: bound,
    };
    let (mut stream, byte) = timeout_at(deadline, ask(address)).await.map_err(late)??;
    match byte {
        b'S' => {}
        b'N' => {
            let _ended = timeout(GOODBYE, stream.shutdown()).await;
            return Ok((Served::Plaintext, None));
        }
        byte => return Err(ProbeError::NotPostgres { address, byte }),
    }
    let connector = connector(observer).map_err(ProbeError::Setup)?;
    let connected = timeout_at(deadline, connector.connect(name, stream))
        .await
        .map_err(late)?;
    finish(address, observer, connected)
}

/// Whether `address` accepts a TCP connection; leaves no trace in the pooler's log.
pub async fn accepts(address: SocketAddr, bound: Duration) -> Result<(), ProbeError> {
    timeout(bound, TcpStream::connect(address))
        .await
        .map_err(|_| ProbeError::TimedOut {
            address,
            after: bound,
        })?
        .map(drop)
        .map_err(|source| ProbeError::Unreachable { address, source })
}

/// Connects, sends the `SSLRequest`, returns the answer.
async fn ask(address: SocketAddr) -> Result<(TcpStream, u8), ProbeError> {
    let mut stream = TcpStream::connect(address)
        .await
        .map_err(|source| ProbeError::Unreachable { address, source })?;
    let handshake = |source| ProbeError::Handshake { address, source };
    stream.write_all(&SSL_REQUEST).await.map_err(handshake)?;
    let byte = stream.read_u8().await.map_err(handshake)?;
    Ok((stream, byte))
}

/// Makes a report of the handshake, also of one that the server broke off after it had shown itself.
fn finish(
    address: SocketAddr,
    observer: &Observer,
    connected: Shaken,
) -> Result<(Served, Option<Shaken>), ProbeError> {
    let mut seen = observer.seen();
    match connected {
        Ok(stream) => {
            let session = stream.get_ref().1;
            seen.protocol = session.protocol_version().map(|version| {
                let name = format!("{version:?}");
                name.replace("TLSv1_", "TLSv1.")
            });
            seen.cipher = session
                .negotiated_cipher_suite()
                .map(|suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_"));
            Ok((Served::Tls(seen), Some(Ok(stream))))
        }
        Err(error) if !seen.chain.is_empty() => Ok((Served::Tls(seen), Some(Err(error)))),
        Err(source) => Err(ProbeError::Handshake { address, source }),
    }
}

fn connector(observer: &Arc<Observer>) -> Result<tokio_rustls::TlsConnector, rustls::Error> {
    let provider = Arc::clone(&observer.provider);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::<Observer>::clone(observer))
        .with_client_cert_resolver(Arc::<Observer>::clone(observer));
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}

// === impl Observer ===

/// Accepts every chain and writes down what it saw. Signatures are checked all the same: a chain
/// counts as served only by who holds its key.
#[derive(Debug)]
struct Observer {
    provider: Arc<CryptoProvider>,
    /// What is shown to servers that ask.
    identity: Option<Arc<CertifiedKey>>,
    seen: Mutex<Handshake>,
}

impl Observer {
    fn new(identity: Option<Arc<CertifiedKey>>) -> Self {
        Self {
            provider: provider(),
            identity,
            seen: Mutex::new(Handshake {
                chain: Vec::new(),
                protocol: None,
                cipher: None,
                asks_for_certificate: false,
                client_ca_names: Vec::new(),
            }),
        }
    }

    fn seen(&self) -> Handshake {
        self.note(|seen| seen.clone())
    }

    /// Proves that the server holds the key of a certificate that webpki does not read, such as one of
    /// version 1.
    fn verify_by_key(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Option<HandshakeSignatureValid> {
        let (algorithm, key) = public_key(cert)?;
        let known = self.provider.signature_verification_algorithms.mapping;
        let (_, of_scheme) = known.iter().find(|(scheme, _)| *scheme == dss.scheme)?;
        let proves = |verifier: &&dyn SignatureVerificationAlgorithm| {
            verifier.public_key_alg_id().as_ref() == algorithm
                && verifier
                    .verify_signature(&key, message, dss.signature())
                    .is_ok()
        };
        let is_proven = of_scheme.iter().any(proves);
        is_proven.then(HandshakeSignatureValid::assertion)
    }

    fn note<R>(&self, write: impl FnOnce(&mut Handshake) -> R) -> R {
        write(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ServerCertVerifier for Observer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        self.note(|seen| seen.chain = chain.map(|der| der.to_vec()).collect());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
            .or_else(|error| self.verify_by_key(message, cert, dss).ok_or(error))
            .inspect_err(|_| self.note(|seen| seen.chain.clear()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
            .or_else(|error| self.verify_by_key(message, cert, dss).ok_or(error))
            .inspect_err(|_| self.note(|seen| seen.chain.clear()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl ResolvesClientCert for Observer {
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.note(|seen| {
            seen.asks_for_certificate = true;
            seen.client_ca_names = root_hint_subjects.iter().map(|n| n.to_vec()).collect();
        });
        self.identity.clone()
    }

    fn has_certs(&self) -> bool {
        // Asked first; only a resolver that may have certificates is told who is trusted.
        true
    }
}
