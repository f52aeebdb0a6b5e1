//! What the PKI core makes, in the hands of strangers: TLS handshakes between OpenSSL and rustls; and
//! the issuers, through the API.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bouncert::api::{ClusterIssuer, Issuer, IssuerRef};
use bouncert::causes::chain;
use bouncert::clock::Clock;
use bouncert::cluster::Cluster;
use bouncert::issuer::{Issuance, Issuers, Outcome, SigningRequest};
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use bouncert::names::ObjectRef;
use bouncert::pki::authority::{CertificateAuthority, Issued, Serial};
use bouncert::pki::chain::{Expectation, KeyedChain, SecretData};
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::pki::profile::{CaProfile, LeafProfile, LeafUsage};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use kube::api::{Api, PostParams};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
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
fn both_sides_complete_a_handshake_with_rsa_keys_of_every_size_and_encoding() {
    let ca = ca(KeyAlgorithm::Rsa2048);
    for algorithm in [
        KeyAlgorithm::Rsa2048,
        KeyAlgorithm::Rsa3072,
        KeyAlgorithm::Rsa4096,
    ] {
        for encoding in ENCODINGS {
            assert_handshake(&ca, algorithm, encoding);
        }
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

// === issuers, through the API ===

/// A cluster with cert-manager's kinds and the namespaces `harbour` and `keys`.
async fn cluster() -> Cluster {
    let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
    let client = server.client();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in ["harbour", "keys"] {
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
    }
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in [Issuer::crd(), ClusterIssuer::crd()] {
        definitions
            .create(&PostParams::default(), &definition)
            .await
            .unwrap();
    }
    Cluster::new(client)
}

fn issuers(cluster: &Cluster) -> Issuers {
    Issuers::new(cluster.clone(), Clock::System, "keys")
}

async fn put_secret(cluster: &Cluster, namespace: &str, ca: &CertificateAuthority) {
    let key = ca.key().to_pem(KeyEncoding::Pkcs8);
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": "harbour-ca"},
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": BASE64.encode(ca.certificate_pem()),
            "tls.key": BASE64.encode(key.expose()),
        },
    }))
    .unwrap();
    cluster.create(&secret).await.unwrap();
}

async fn put_issuer(cluster: &Cluster, name: &str, spec: Value) {
    let issuer: Issuer = serde_json::from_value(json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Issuer",
        "metadata": {"namespace": "harbour", "name": name}, "spec": spec,
    }))
    .unwrap();
    cluster.create(&issuer).await.unwrap();
}

async fn put_cluster_issuer(cluster: &Cluster, name: &str, spec: Value) {
    let issuer: ClusterIssuer = serde_json::from_value(json!({
        "apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer",
        "metadata": {"name": name}, "spec": spec,
    }))
    .unwrap();
    let api: Api<ClusterIssuer> = Api::all(cluster.client().clone());
    api.create(&PostParams::default(), &issuer).await.unwrap();
}

/// Asks `kind`/`name` for the server certificate of the tests.
async fn ask(cluster: &Cluster, kind: &str, name: &str) -> Outcome {
    let reference = IssuerRef {
        api_group: None,
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let request = SigningRequest {
        issuer: &reference,
        namespace: "harbour",
        name: "pilot-server-cert-r1",
        owner: None,
        profile: &server(),
        key: &key,
    };
    issuers(cluster).sign(&request).await
}

fn assert_believed(outcome: Outcome) -> Box<Issuance> {
    let Outcome::Issued(issuance) = outcome else {
        panic!("{outcome:?}")
    };
    let wanted = Expectation::of(&server(), Clock::System.now());
    issuance.chain.verify(&issuance.anchors, &wanted).unwrap();
    issuance
}

#[tokio::test]
async fn issuers_of_a_namespace_and_of_the_cluster_sign_with_the_ca_in_their_secret() {
    let cluster = cluster().await;
    let (local, global) = (ca(KeyAlgorithm::EcdsaP256), ca(KeyAlgorithm::Ed25519));
    put_secret(&cluster, "harbour", &local).await;
    put_secret(&cluster, "keys", &global).await;
    let spec = json!({"ca": {"secretName": "harbour-ca"}});
    put_issuer(&cluster, "pilots", spec.clone()).await;
    put_cluster_issuer(&cluster, "pilots", spec).await;
    let issuance = assert_believed(ask(&cluster, "Issuer", "pilots").await);
    assert_eq!(&issuance.anchors, local.anchors());
    let issuance = assert_believed(ask(&cluster, "ClusterIssuer", "pilots").await);
    assert_eq!(&issuance.anchors, global.anchors());
}

#[tokio::test]
async fn two_certificates_of_one_issuer_have_different_serial_numbers() {
    let cluster = cluster().await;
    put_issuer(&cluster, "own", json!({"selfSigned": {}})).await;
    let first = assert_believed(ask(&cluster, "Issuer", "own").await);
    let second = assert_believed(ask(&cluster, "Issuer", "own").await);
    assert_ne!(first.signer.serial, second.signer.serial);
    assert_eq!(
        first.signer.serial.len(),
        40,
        "20 octets: {}",
        first.signer.serial
    );
}

#[tokio::test]
async fn what_is_missing_is_named_and_found_as_soon_as_it_is_there() {
    let cluster = cluster().await;
    let failure = |outcome: Outcome| {
        let Outcome::Failed(error) = outcome else {
            panic!("{outcome:?}")
        };
        (error.reason(), chain(&error))
    };
    let (reason, text) = failure(ask(&cluster, "Issuer", "pilots").await);
    assert_eq!(reason, "IssuerNotFound");
    assert!(
        text.starts_with("Issuer harbour/pilots does not exist"),
        "{text}"
    );
    let (reason, _) = failure(ask(&cluster, "Certificate", "pilots").await);
    assert_eq!(reason, "InvalidIssuerReference");

    put_issuer(
        &cluster,
        "pilots",
        json!({"ca": {"secretName": "harbour-ca"}}),
    )
    .await;
    let (reason, text) = failure(ask(&cluster, "Issuer", "pilots").await);
    assert_eq!(reason, "IssuerSecretNotFound");
    assert!(text.contains("harbour/harbour-ca"), "{text}");

    put_secret(&cluster, "harbour", &ca(KeyAlgorithm::EcdsaP256)).await;
    assert_believed(ask(&cluster, "Issuer", "pilots").await);
}

#[tokio::test]
async fn an_issuer_that_cert_manager_holds_back_is_pending() {
    let cluster = cluster().await;
    put_issuer(&cluster, "own", json!({"selfSigned": {}})).await;
    let at = ObjectRef::new("harbour", "own");
    let condition = json!({"status": {"conditions": [{
        "type": "Ready", "status": "False", "message": "closed for the storm",
    }]}});
    cluster
        .patch_status::<Issuer>(&at, &condition)
        .await
        .unwrap();
    let Outcome::Pending { on } = ask(&cluster, "Issuer", "own").await else {
        panic!("not pending")
    };
    assert_eq!(
        on,
        "Issuer harbour/own to become ready: closed for the storm"
    );
}
