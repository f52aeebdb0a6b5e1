//! Fixtures of the PKI's tests, and a stranger that reads what we make: the `openssl` program.

use std::io::Write as _;
use std::process::{Command, Stdio};

use tempfile::NamedTempFile;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::authority::{CertificateAuthority, Serial};
use super::bundle::TrustBundle;
use super::chain::CertificateChain;
use super::key::{KeyAlgorithm, PrivateKey};
use super::profile::{CaProfile, LeafProfile, LeafUsage};

/// The instant of the tests.
pub(crate) const NOW: OffsetDateTime = datetime!(2031-04-05 06:07:08 UTC);

/// Every kind of key that can be asked for.
pub(crate) const ALGORITHMS: [KeyAlgorithm; 6] = [
    KeyAlgorithm::EcdsaP256,
    KeyAlgorithm::EcdsaP384,
    KeyAlgorithm::Ed25519,
    KeyAlgorithm::Rsa2048,
    KeyAlgorithm::Rsa3072,
    KeyAlgorithm::Rsa4096,
];

/// A serial number, another for each `number`.
pub(crate) fn serial(number: u8) -> Serial {
    Serial::from_random([number; 20])
}

/// A P-256 key.
pub(crate) fn key() -> PrivateKey {
    PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap()
}

/// A root CA that lives for ten years from [`NOW`].
pub(crate) fn root(name: &str) -> CertificateAuthority {
    let profile = CaProfile::new(name, Duration::days(3650));
    CertificateAuthority::self_signed(&profile, key(), serial(1), NOW).unwrap()
}

/// The server of the tests.
pub(crate) fn server() -> LeafProfile {
    LeafProfile {
        dns_names: [
            "*.ledger-pods.treasury.svc",
            "ledger.treasury.svc",
            "localhost",
        ]
        .map(str::to_owned)
        .to_vec(),
        ip_addresses: vec!["127.0.0.1".parse().unwrap()],
        ..LeafProfile::new(LeafUsage::ServerAndClient, "ledger.treasury.svc")
    }
}

/// The client of the tests, which has no alternative names.
pub(crate) fn client() -> LeafProfile {
    LeafProfile::new(LeafUsage::Client, "clerk")
}

/// Runs `openssl` with `input` on its standard input; its output, or what it complained about.
pub(crate) fn openssl(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    // It may have left before reading all; its answer is what counts.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{}{}", text(&output.stdout), text(&output.stderr)))
    }
}

/// `openssl verify -x509_strict` of a chain against a bundle, for a purpose, at an instant.
pub(crate) fn openssl_verify(
    chain: &CertificateChain,
    bundle: &TrustBundle,
    purpose: &str,
    at: OffsetDateTime,
) -> Result<String, String> {
    let file = |text: &str| {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    };
    let roots = file(&bundle.to_pem());
    let above = file(&chain.to_pem());
    let at = at.unix_timestamp().to_string();
    let arguments = [
        "verify",
        "-x509_strict",
        "-no-CApath",
        "-no-CAstore",
        "-purpose",
        purpose,
        "-attime",
        &at,
        "-CAfile",
        roots.path().to_str().unwrap(),
        "-untrusted",
        above.path().to_str().unwrap(),
    ];
    openssl(&arguments, &chain.to_pem())
}

/// Writes a certificate to the folder that `make pkilint` names, for another program to judge.
pub(super) fn keep_for_lint(certificate: &[u8]) {
    if let Some(folder) = std::env::var_os("BOUNCERT_LINT_DIR") {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        let name: String = digest
            .as_ref()
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect();
        let file = std::path::Path::new(&folder).join(format!("{name}.der"));
        std::fs::write(file, certificate).unwrap();
    }
}
