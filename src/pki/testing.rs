//! Fixtures of the PKI's tests, and a stranger that reads what we make: the `openssl` program.

use std::io::Write as _;
use std::process::{Command, Stdio};

use rustls_pki_types::CertificateDer;
use tempfile::NamedTempFile;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::authority::{CertificateAuthority, Serial};
use super::bundle::TrustBundle;
use super::chain::CertificateChain;
use super::key::{KeyAlgorithm, PrivateKey};
use super::profile::{CaProfile, LeafProfile, LeafUsage, Subject};
use super::tbs::{self, Statement};

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

/// A CA or a leaf to be forged: everything that paths depend on can be chosen.
pub(crate) struct Forged<'a> {
    /// The subject's common name.
    pub(crate) name: &'a str,
    /// The key that is certified.
    pub(crate) key: &'a PrivateKey,
    /// Name and key of the signing CA.
    pub(crate) by: (&'a str, &'a PrivateKey),
    /// `subjectKeyIdentifier` and `authorityKeyIdentifier`.
    pub(crate) identifiers: (Option<&'a [u8]>, Option<&'a [u8]>),
    /// Further extensions.
    pub(crate) extensions: Vec<Vec<u8>>,
    /// Days from [`NOW`] at which its life begins and ends.
    pub(crate) days: (i64, i64),
}

impl<'a> Forged<'a> {
    /// A CA named `name`, whose identifiers are made from the keys as ours are.
    pub(crate) fn ca(name: &'a str, key: &'a PrivateKey, by: (&'a str, &'a PrivateKey)) -> Self {
        Self {
            name,
            key,
            by,
            identifiers: (None, None),
            extensions: tbs::ca_extensions(None, &[]),
            days: (-1, 1000),
        }
        .with_own_identifiers()
    }

    fn with_own_identifiers(mut self) -> Self {
        let own = self.key.public_key().key_identifier();
        let above = self.by.1.public_key().key_identifier();
        self.extensions.extend(tbs::key_identifiers(&own, &above));
        self
    }

    /// The same with these identifiers instead of its own.
    pub(crate) fn identified(
        mut self,
        subject: Option<&'a [u8]>,
        authority: Option<&'a [u8]>,
    ) -> Self {
        self.extensions = tbs::ca_extensions(None, &[]);
        self.identifiers = (subject, authority);
        self
    }

    /// The same with other extensions besides its identifiers.
    pub(crate) fn extended(mut self, extensions: Vec<Vec<u8>>) -> Self {
        self.extensions = extensions;
        self.with_own_identifiers()
    }

    /// The same with another life.
    pub(crate) fn living(self, days: (i64, i64)) -> Self {
        Self { days, ..self }
    }

    /// The certificate.
    pub(crate) fn sign(mut self) -> CertificateDer<'static> {
        let name = |name: &str| tbs::name(Some(name), &Subject::default());
        let (subject, authority) = self.identifiers;
        // Either alone is possible, so they are taken from a pair.
        let [own, above] =
            tbs::key_identifiers(subject.unwrap_or_default(), authority.unwrap_or_default());
        self.extensions.extend(subject.map(|_| own));
        self.extensions.extend(authority.map(|_| above));
        let statement = Statement {
            serial: Serial::from_random([fastrand::u8(..); 20]),
            issuer: &name(self.by.0),
            not_before: NOW + Duration::days(self.days.0),
            not_after: NOW + Duration::days(self.days.1),
            subject: &name(self.name),
            spki: self.key.public_key_der(),
            extensions: &self.extensions,
        };
        tbs::sign(&statement, self.by.1).unwrap()
    }
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
