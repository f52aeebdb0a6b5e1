//! What the PKI core makes, in the hands of strangers: TLS handshakes between OpenSSL and rustls.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bouncert::clock::Clock;
use bouncert::pki::authority::{CertificateAuthority, Issued, Serial};
use bouncert::pki::chain::{Expectation, KeyedChain, SecretData};
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::{CaProfile, LeafProfile, LeafUsage};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use time::Duration;

const ENCODINGS: [KeyEncoding; 2] = [KeyEncoding::Pkcs1, KeyEncoding::Pkcs8];

fn ca(algorithm: KeyAlgorithm) -> CertificateAuthority {
    let key = PrivateKey::generate(algorithm).unwrap();
    let profile = CaProfile::new("Harbour root", Duration::days(200));
    let serial = Serial::from_random([3; 20]);
    CertificateAuthority::self_signed(&profile, key, serial, Clock::System.now()).unwrap()
}

fn server() -> LeafProfile {
    LeafProfile {
        dns_names: vec!["pilot.harbour.svc".to_owned()],
        ..LeafProfile::new(LeafUsage::ServerAndClient, "pilot.harbour.svc")
    }
}

fn client() -> LeafProfile {
    LeafProfile::new(LeafUsage::Client, "mate")
}

/// Issues, proves and writes a certificate as a Secret would hold it.
fn secret(
    ca: &CertificateAuthority,
    profile: &LeafProfile,
    algorithm: KeyAlgorithm,
    encoding: KeyEncoding,
) -> SecretData {
    let now = Clock::System.now();
    let key = PrivateKey::generate(algorithm).unwrap();
    let serial = Serial::from_random([5; 20]);
    let Issued { chain, anchors, .. } = ca.sign(profile, key.public_key(), serial, now).unwrap();
    KeyedChain::from_parts(chain, key, encoding)
        .unwrap()
        .verify(&anchors, &Expectation::of(profile, now))
        .unwrap()
        .into_secret_data()
}

/// An `openssl s_server` that wants a client certificate; it ends with the test.
struct OpensslServer {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl OpensslServer {
    fn start(data: &SecretData) -> Self {
        let directory = TempDir::new().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut child = Command::new("openssl")
            .args([
                "s_server",
                "-accept",
                "127.0.0.1:0",
                "-rev",
                "-naccept",
                "1",
            ])
            .args([
                "-Verify",
                "4",
                "-verify_return_error",
                "-purpose",
                "sslclient",
            ])
            .arg("-cert")
            .arg(write("tls.crt", &data.tls_crt))
            .arg("-key")
            .arg(write("tls.key", data.tls_key.expose()))
            .arg("-CAfile")
            .arg(write("ca.crt", &data.ca_crt))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .by_ref()
            .map(|line| line.unwrap())
            .find_map(|line| {
                line.strip_prefix("ACCEPT ")?
                    .rsplit(':')
                    .next()?
                    .parse()
                    .ok()
            })
            .expect("s_server says where it listens");
        // Its later words are read and dropped, or it would stop at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            port,
            _directory: directory,
        }
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        // It may have ended by itself after its one connection.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects with rustls as the client of `own`, and has the server say a line backwards.
fn talk(port: u16, own: &SecretData) -> std::io::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(own.ca_crt.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let chain = CertificateDer::pem_slice_iter(own.tls_crt.as_bytes())
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(own.tls_key.expose().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let name = ServerName::try_from("pilot.harbour.svc").unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(std::time::Duration::from_secs(20)))?;
    let mut stream = rustls::StreamOwned::new(connection, socket);
    stream.write_all(b"tide\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn assert_handshake(ca: &CertificateAuthority, algorithm: KeyAlgorithm, encoding: KeyEncoding) {
    let openssl = OpensslServer::start(&secret(ca, &server(), algorithm, encoding));
    let answer = talk(openssl.port, &secret(ca, &client(), algorithm, encoding));
    assert_eq!(answer.unwrap(), "edit\n", "{algorithm} {encoding:?}");
}

#[test]
fn both_sides_complete_a_handshake_with_every_elliptic_key_and_encoding() {
    let ca = ca(KeyAlgorithm::EcdsaP384);
    for algorithm in [
        KeyAlgorithm::EcdsaP256,
        KeyAlgorithm::EcdsaP384,
        KeyAlgorithm::Ed25519,
    ] {
        for encoding in ENCODINGS {
            assert_handshake(&ca, algorithm, encoding);
        }
    }
}

#[test]
fn both_sides_complete_a_handshake_with_rsa_keys_of_kubedbs_size() {
    let ca = ca(KeyAlgorithm::Rsa2048);
    for encoding in ENCODINGS {
        assert_handshake(&ca, KeyAlgorithm::Rsa2048, encoding);
    }
}

#[test]
fn a_client_of_a_foreign_ca_is_turned_away() {
    let (ours, theirs) = (ca(KeyAlgorithm::EcdsaP256), ca(KeyAlgorithm::EcdsaP256));
    let of = |ca, profile: &LeafProfile| {
        secret(ca, profile, KeyAlgorithm::EcdsaP256, KeyEncoding::Pkcs8)
    };
    let openssl = OpensslServer::start(&of(&ours, &server()));
    let foreign = SecretData {
        ca_crt: ours.anchors().to_pem(),
        ..of(&theirs, &client())
    };
    let refusal = talk(openssl.port, &foreign).unwrap_err().to_string();
    // Both roots have the same name, so it is the signature that gives the stranger away.
    assert!(refusal.contains("alert"), "{refusal}");
}
