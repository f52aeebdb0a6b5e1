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
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::tls::provider;
use crate::instants::Shift;
use crate::names::Fingerprint;
use crate::pki::unusual;
use crate::retry::Retry;

/// Length 8, then the code of an `SSLRequest`.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Signatures that psql accepts and that ring cannot check: of P-521, Ed448 and RSA-PSS keys. By TLS 1.2 a
/// server with a P-521 key wants a group besides that ring lacks, and is not seen.
const UNCHECKED: [SignatureScheme; 5] = [
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED448,
    SignatureScheme::Unknown(0x0809),
    SignatureScheme::Unknown(0x080a),
    SignatureScheme::Unknown(0x080b),
];

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
    /// Whether the server proved that it holds the leaf's key. It has shown the leaf all the same where
    /// its kind of signature cannot be checked here (P-521, Ed448, RSA-PSS keys).
    pub is_proved: bool,
}

impl Handshake {
    /// The leaf, in DER.
    pub fn leaf(&self) -> Option<&[u8]> {
        self.chain.first().map(Vec::as_slice)
    }

    /// The leaf's fingerprint; `None` where the server did not prove that it holds the key.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.leaf().filter(|_| self.is_proved).map(fingerprint)
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
            return Ok(Served::Plaintext);
        }
        byte => return Err(ProbeError::NotPostgres { address, byte }),
    }
    let observer = Arc::new(Observer::new());
    let connector = connector(&observer).map_err(ProbeError::Setup)?;
    let connected = timeout_at(deadline, connector.connect(name, stream))
        .await
        .map_err(late)?;
    finish(address, &observer, connected).await
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
async fn finish(
    address: SocketAddr,
    observer: &Observer,
    connected: io::Result<tokio_rustls::client::TlsStream<TcpStream>>,
) -> Result<Served, ProbeError> {
    let mut seen = observer.seen();
    match connected {
        Ok(mut stream) => {
            let session = stream.get_ref().1;
            seen.protocol = session.protocol_version().map(|version| {
                let name = format!("{version:?}");
                name.replace("TLSv1_", "TLSv1.")
            });
            seen.cipher = session
                .negotiated_cipher_suite()
                .map(|suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_"));
            let _ended = timeout(GOODBYE, stream.shutdown()).await;
            Ok(Served::Tls(seen))
        }
        Err(_) if !seen.chain.is_empty() => Ok(Served::Tls(seen)),
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

/// Accepts every chain and writes down what it saw. Signatures are checked all the same, where ring can: a
/// chain counts as served only by who holds its key.
#[derive(Debug)]
struct Observer {
    provider: Arc<CryptoProvider>,
    seen: Mutex<Handshake>,
}

impl Observer {
    fn new() -> Self {
        Self {
            provider: provider(),
            seen: Mutex::new(Handshake {
                chain: Vec::new(),
                protocol: None,
                cipher: None,
                asks_for_certificate: false,
                client_ca_names: Vec::new(),
                is_proved: false,
            }),
        }
    }

    /// Checks a signature with the leaf's key, whatever version the certificate is of.
    fn check(
        &self,
        message: &[u8],
        certificate: &[u8],
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = self.provider.signature_verification_algorithms.mapping;
        let algorithms = known.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let Some((_, algorithms)) = algorithms else {
            return Ok(HandshakeSignatureValid::assertion());
        };
        let key = unusual::public_key(certificate).map(SubjectPublicKeyInfoDer::from);
        let is_valid = key.as_ref().is_some_and(|key| {
            webpki::RawPublicKeyEntity::try_from(key).is_ok_and(|key| {
                let mut algorithms = algorithms.iter();
                algorithms.any(|algorithm| {
                    key.verify_signature(*algorithm, message, signed.signature())
                        .is_ok()
                })
            })
        });
        if is_valid {
            self.note(|seen| seen.is_proved = true);
            return Ok(HandshakeSignatureValid::assertion());
        }
        self.note(|seen| seen.chain.clear());
        Err(CertificateError::BadSignature.into())
    }

    fn seen(&self) -> Handshake {
        self.note(|seen| seen.clone())
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
        self.check(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let mut schemes = algorithms.supported_schemes();
        // Last, so that a server that has the choice proves what can be checked.
        schemes.extend(UNCHECKED);
        schemes
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
        None
    }

    fn has_certs(&self) -> bool {
        // Asked first; only a resolver that may have certificates is told who is trusted.
        true
    }
}

#[cfg(test)]
mod tests;
