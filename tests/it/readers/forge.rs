//! Makes CAs of any shape with the `openssl` program, as people make theirs.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use bouncert::pki::authority::{CertificateAuthority, Serial};
use bouncert::pki::key::PrivateKey;
use bouncert::pki::profile::CaProfile;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// What a CA's certificate usually says.
pub(super) const CA: &str = "basicConstraints=critical,CA:TRUE\n\
    keyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
/// The same without identifiers.
pub(super) const BARE: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n\
    subjectKeyIdentifier=none\nauthorityKeyIdentifier=none\n";
/// A key on P-256.
pub(super) const P256: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";

/// A directory of keys and certificates.
pub(super) struct Forge {
    directory: TempDir,
    made: RefCell<BTreeSet<String>>,
}

/// A certificate to be made.
#[derive(Clone)]
pub(super) struct Made<'a> {
    /// The file's name.
    pub(super) file: &'a str,
    /// The common name.
    pub(super) name: &'a str,
    /// The name of its key.
    pub(super) key: &'a str,
    /// The file and the key of the CA that signs; itself where there is none.
    pub(super) by: Option<(&'a str, &'a str)>,
    /// Lines of extensions; none make an X.509 v1 certificate.
    pub(super) extensions: &'a str,
    /// How it is signed.
    pub(super) sign: &'a str,
}

impl Forge {
    pub(super) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            made: RefCell::default(),
        }
    }

    /// Makes a key, unless it is there.
    pub(super) fn key(&self, name: &str, kind: &str) -> &Self {
        if self.made.borrow_mut().insert(name.to_owned()) {
            let mut from = kind.to_owned();
            if kind == "DSA" {
                let parameters = "-algorithm DSA -pkeyopt dsa_paramgen_bits:2048";
                self.run(&format!("genpkey -genparam -out @/{name}.dsa {parameters}"));
                from = format!("-paramfile @/{name}.dsa");
            }
            self.run(&format!("genpkey -out @/{name}.key {from}"));
        }
        self
    }

    /// Makes a certificate; keys that are missing are P-256.
    pub(super) fn make(&self, it: &Made<'_>) -> &Self {
        self.key(it.key, P256);
        let Made {
            file,
            name,
            key,
            sign,
            ..
        } = it;
        let extensions = it.extensions;
        let path = |name: String| self.directory.path().join(name);
        fs::write(path(format!("{file}.ext")), extensions).unwrap();
        self.run(&format!(
            "req -new -key @/{key}.key -subj /CN={name} -out @/{file}.csr"
        ));
        let by = match it.by {
            Some((ca, ca_key)) => format!("-CA @/{ca}.crt -CAkey @/{ca_key}.key"),
            None => format!("-key @/{key}.key"),
        };
        let extended = if extensions.is_empty() {
            String::new()
        } else {
            format!("-extfile @/{file}.ext")
        };
        // The serial number is another for each file.
        let serial: u64 = file.bytes().fold(1, |sum, byte| sum * 31 + u64::from(byte)) >> 2;
        self.run(&format!(
            "x509 -req -in @/{file}.csr {by} -set_serial {serial} -days 3650 {extended} {sign} \
             -out @/{file}.crt"
        ));
        self
    }

    /// A CA as people make them: signed by `by`, or by itself.
    pub(super) fn ca(&self, file: &str, name: &str, by: Option<&str>) -> &Self {
        self.extended(file, name, by, CA)
    }

    /// The same with other extensions. The key has the CA's common name.
    pub(super) fn extended(
        &self,
        file: &str,
        name: &str,
        by: Option<&str>,
        extensions: &str,
    ) -> &Self {
        let key = by.map(|by| by.split('.').next().unwrap_or(by).to_owned());
        self.make(&Made {
            file,
            name,
            key: file.split('.').next().unwrap_or(file),
            by: by.zip(key.as_deref()),
            extensions,
            sign: "-sha256",
        })
    }

    /// A self-signed CA by our own code, whose life can be chosen: days from now.
    pub(super) fn dated(&self, file: &str, name: &str, days: (i64, i64)) -> &Self {
        let key = file.split('.').next().unwrap_or(file);
        self.key(key, P256);
        let key = PrivateKey::from_pem(&self.read(&format!("{key}.key"))).unwrap();
        let profile = CaProfile::new(name, Duration::days(days.1 - days.0));
        #[expect(
            clippy::disallowed_methods,
            reason = "programs of the machine have its time"
        )]
        let now = OffsetDateTime::now_utc() + Duration::days(days.0);
        let serial = Serial::from_random([7; 20]);
        let ca = CertificateAuthority::self_signed(&profile, key, serial, now).unwrap();
        fs::write(
            self.directory.path().join(format!("{file}.crt")),
            ca.certificate_pem(),
        )
        .unwrap();
        self
    }

    /// The certificates of these files, one after the other.
    pub(super) fn pem(&self, files: &[&str]) -> String {
        let read = |file: &&str| self.read(&format!("{file}.crt"));
        files.iter().map(read).collect()
    }

    pub(super) fn read(&self, file: &str) -> String {
        let path = self.directory.path().join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn run(&self, line: &str) {
        let line = line.replace('@', self.directory.path().to_str().unwrap());
        let output = Command::new("openssl")
            .args(line.split_whitespace())
            .output()
            .expect("openssl is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
    }
}
