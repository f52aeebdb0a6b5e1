//! The readers themselves: programs that verify what a client or PgBouncer would.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::Composed;
use crate::support::{Pooler, write_private};

/// What a reader says: accepted, or its own text.
pub(super) type Said = Result<(), String>;

/// `openssl verify` with the defaults of libpq and PgBouncer: security level 2, no `-x509_strict`.
pub(super) fn openssl(chain: &str, bundle: &str, purpose: &str) -> Said {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let output = Command::new("openssl")
        .args(["verify", "-no-CApath", "-no-CAstore", "-auth_level", "2"])
        .args(["-purpose", purpose])
        .arg("-CAfile")
        .arg(file("bundle", bundle))
        .arg("-untrusted")
        .arg(file("chain", chain))
        .arg(file("leaf", chain))
        .output()
        .expect("openssl is installed");
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let reason = said.lines().find_map(|line| {
        let (depth, reason) = line.split_once(" lookup: ")?;
        let depth = depth.split(" at ").nth(1)?;
        Some(format!("{reason} ({depth})"))
    });
    Err(reason.unwrap_or(said))
}

/// A handshake of psql with PgBouncer's console: libpq verifies the server's chain, PgBouncer the
/// client's.
pub(super) async fn handshake(composed: &Composed) -> Said {
    let files = [
        ("server.crt", composed.server.chain.as_str()),
        ("server.key", composed.server.key.as_str()),
        ("ca.crt", composed.bundle.as_str()),
        ("users", "\"clerk\" \"\"\n"),
    ];
    let settings = "auth_type=trust\nauth_file={dir}/users\nadmin_users=clerk\n\
        client_tls_sslmode=verify-full\nclient_tls_cert_file={dir}/server.crt\n\
        client_tls_key_file={dir}/server.key\nclient_tls_ca_file={dir}/ca.crt";
    let pooler = Pooler::start("x = host=127.0.0.1", settings, &files).await;
    let client = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = client.path().join(name);
        write_private(&path, text);
        path.to_str().unwrap().to_owned()
    };
    let connection = format!(
        "host=localhost hostaddr={} port={} dbname=pgbouncer user=clerk sslmode=verify-full \
         sslrootcert={} sslcert={} sslkey={} connect_timeout=10",
        pooler.address.ip(),
        pooler.address.port(),
        write("ca.crt", &composed.bundle),
        write("client.crt", &composed.client.chain),
        write("client.key", &composed.client.key),
    );
    let output = tokio::process::Command::new("psql")
        .args(["-XAtc", "SHOW VERSION", &connection])
        .output()
        .await
        .expect("psql is installed");
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{said}; PgBouncer: {}", pooler.log()))
}

/// A reader that is a program of `programs/`, for `make readers`.
pub(super) struct Other {
    /// The column's title.
    pub(super) title: &'static str,
    /// The command and its arguments.
    pub(super) command: &'static [&'static str],
    /// How to see whether it can run; its first line of output names the version.
    pub(super) probe: &'static [&'static str],
    /// Where it can be had.
    pub(super) from: &'static str,
}

/// Readers that are asked by a program that gets the directories of the cases.
pub(super) const OTHERS: [Other; 6] = [
    Other {
        title: "Go",
        command: &["go", "run", "readers.go"],
        probe: &["go", "version"],
        from: "golang-go of Debian",
    },
    Other {
        title: "Java",
        command: &["java", "Readers.java"],
        probe: &["java", "--version"],
        from: "openjdk-17-jdk-headless of Debian",
    },
    Other {
        title: "Node.js",
        command: &["node", "readers.js"],
        probe: &["node", "--version"],
        from: "nodejs of Debian",
    },
    Other {
        title: "Python 3.13",
        command: &["python3", "readers.py", "ssl"],
        probe: &["python3", "-c", "import ssl; print(ssl.OPENSSL_VERSION)"],
        from: "python3 of Debian",
    },
    Other {
        title: "cryptography",
        command: &["python3", "readers.py", "cryptography"],
        probe: &[
            "python3",
            "-c",
            "import cryptography as c, cryptography.x509.verification; print(c.__version__)",
        ],
        from: "cryptography of PyPI, 45 or later",
    },
    Other {
        title: "GnuTLS",
        command: &["sh", "readers.sh"],
        probe: &["certtool", "--version"],
        from: "gnutls-bin of Debian",
    },
];

impl Other {
    /// Its version, or why it cannot run.
    pub(super) fn version(&self) -> Result<String, String> {
        let missing = |error: &dyn std::fmt::Display| format!("{error} ({})", self.from);
        let output = Command::new(self.probe[0]).args(&self.probe[1..]).output();
        let output = output.map_err(|error| missing(&error))?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(missing(&"it does not start"));
        }
        Ok(said.lines().next().unwrap_or_default().to_owned())
    }

    /// Its word on each case below `cases`, whose directories have numbers for names.
    pub(super) fn judge(&self, cases: &Path) -> Vec<Said> {
        let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/readers/programs");
        let output = Command::new(self.command[0])
            .args(&self.command[1..])
            .arg(cases)
            .current_dir(programs)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}{error}", self.title);
        said.lines()
            .map(|line| match line.split_once('\t') {
                Some((_, "accepted")) => Ok(()),
                Some((_, reason)) => Err(reason.to_owned()),
                None => panic!("{}: {line}", self.title),
            })
            .collect()
    }
}
