//! TLS towards PostgreSQL: what the pooler is told, and the files that it is told of.
//!
//! The files lie beside `pgbouncer.ini` in the configuration Secret, so that a pod sees both or
//! neither. Their names hold a digest of their contents. PgBouncer reads them at every new
//! connection to PostgreSQL, so a file that changed under its name would be in force before the
//! configuration that it belongs to is. With a name of its own, each configuration keeps its files,
//! the digest of the pods follows their contents, and a reload replaces the connections that were
//! made with the former ones (docs/pgbouncer-behaviour.md, "TLS towards PostgreSQL").

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::config::ConfigError;
use super::inputs::BackendAddress;
use super::names;
use crate::api::tls::SslMode;
use crate::pgbouncer::ini::{ConnectString, Ini, Section};
use crate::redacted::Redacted;

/// Files by their names, in the Secret and in the pod.
pub type BackendFiles = BTreeMap<String, Redacted<String>>;

const MODE: &str = "server_tls_sslmode";
const CA_FILE: &str = "server_tls_ca_file";
const CERT_FILE: &str = "server_tls_cert_file";
const KEY_FILE: &str = "server_tls_key_file";
/// Bytes of a digest in a name.
const DIGEST_BYTES: usize = 8;
/// What the names of our files begin with.
const PREFIX: &str = "backend-";
/// Most former files that are kept: three for each of eight changes that no pod has taken up yet.
const FORMER_MAX: usize = 24;

/// How a pooler connects to PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendTls {
    /// The mode; `None` where nothing states one. The user's configuration decides then, or
    /// PgBouncer's default.
    pub mode: Option<SslMode>,
    /// The CAs that verify PostgreSQL, in PEM; only where the mode verifies.
    pub trust: Option<String>,
    /// What the pooler shows to PostgreSQL.
    pub identity: Option<ClientPair>,
}

/// A client certificate with its key, in PEM, proven to belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPair {
    /// Leaf first.
    pub chain: String,
    /// The leaf's key.
    pub key: Redacted<String>,
}

// === impl BackendTls ===

impl BackendTls {
    /// Whether a connection can fail because of TLS, so that it has to be tried before it is
    /// published.
    pub fn needs_proof(&self) -> bool {
        self.identity.is_some() || self.mode.is_some_and(|mode| mode >= SslMode::Require)
    }

    /// The lines of `[pgbouncer]`.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let Some(mode) = self.mode else {
            return Vec::new();
        };
        let at = |name: String| format!("{}/{name}", names::CONFIG_DIR);
        let mut settings = vec![(MODE, mode.as_str().to_owned())];
        if let Some(trust) = &self.trust {
            settings.push((CA_FILE, at(ca_name(trust))));
        }
        if let Some(pair) = &self.identity {
            settings.push((CERT_FILE, at(pair_name(pair, "crt"))));
            settings.push((KEY_FILE, at(pair_name(pair, "key"))));
        }
        settings
    }

    /// The files that [`Self::settings`] name.
    pub fn files(&self) -> BackendFiles {
        let mut files = BackendFiles::new();
        if let Some(trust) = &self.trust {
            files.insert(ca_name(trust), trust.clone().into());
        }
        if let Some(pair) = &self.identity {
            files.insert(pair_name(pair, "crt"), pair.chain.clone().into());
            files.insert(pair_name(pair, "key"), pair.key.clone());
        }
        files
    }

    /// Refuses text of the user's that would undo what is stated here.
    pub(super) fn check_users(&self, theirs: &Ini, origin: &str) -> Result<(), ConfigError> {
        let Some(mode) = self.mode else {
            return Ok(());
        };
        let said = |key| theirs.get(Section::Pgbouncer, key);
        let undone = |key, wanted: String| ConfigError::BackendTls {
            origin: origin.to_owned(),
            key,
            wanted,
        };
        if let Some(theirs) = said(MODE) {
            let theirs = SslMode::parse(&theirs.to_ascii_lowercase());
            if theirs.is_some_and(|theirs| theirs < mode) {
                return Err(undone(MODE, mode.as_str().to_owned()));
            }
        }
        for (key, given) in self.settings().into_iter().skip(1) {
            if said(key).is_some_and(|theirs| theirs != given) {
                return Err(undone(key, given));
            }
        }
        Ok(())
    }
}

/// What a published configuration connects to, and how; `None` where that cannot be told. Settings of
/// the user's are read as if they were stated: they are rendered again either way.
pub fn in_force(ini: &Ini, files: &BackendFiles) -> Option<(BackendAddress, BackendTls)> {
    let mut databases = ini.section(Section::Databases);
    let (name, line) = databases.next()?;
    if databases.next().is_some() {
        return None;
    }
    let said = |key| ini.get(Section::Pgbouncer, key);
    let file = |key| {
        let path: &str = said(key)?;
        let name = path.strip_prefix(names::CONFIG_DIR)?.strip_prefix('/')?;
        files.get(name)
    };
    let mode = said(MODE).and_then(|mode| SslMode::parse(&mode.to_ascii_lowercase()));
    let identity = file(CERT_FILE).zip(file(KEY_FILE));
    let tls = BackendTls {
        mode,
        trust: file(CA_FILE).map(|trust| trust.expose().clone()),
        identity: identity.map(|(chain, key)| ClientPair {
            chain: chain.expose().clone(),
            key: key.clone(),
        }),
    };
    Some((address_of(name, ConnectString::parse(line)?), tls))
}

/// The address that a line of `[databases]` was made from.
fn address_of(name: &str, line: ConnectString) -> BackendAddress {
    let by_host = {
        let pairs: Vec<(&str, &str)> = line.pairs().collect();
        match pairs.as_slice() {
            [("host", host), ("port", port), rest @ ..] => {
                let is_ours = match rest {
                    [] => name == "*",
                    [("dbname", database)] => *database == name,
                    _ => false,
                };
                let port = port.parse().ok().filter(|_| is_ours);
                port.map(|port| BackendAddress::Host {
                    host: (*host).to_owned(),
                    port,
                })
            }
            _ => None,
        }
    };
    by_host.unwrap_or(BackendAddress::ConnectString(line))
}

/// Whether a key of the configuration Secret is a file of TLS towards PostgreSQL.
pub fn is_backend_file(key: &str) -> bool {
    key.starts_with(PREFIX)
}

/// The files of `held` that pods may still use: those that the published `ini` names first, and no
/// more than [`FORMER_MAX`].
pub fn former_files(ini: Option<&Ini>, held: BackendFiles) -> BackendFiles {
    let named = |file: &str| {
        let keys = [CA_FILE, CERT_FILE, KEY_FILE];
        ini.is_some_and(|ini| {
            let value = |key| ini.get(Section::Pgbouncer, key);
            let path = format!("{}/{file}", names::CONFIG_DIR);
            keys.into_iter()
                .any(|key| value(key) == Some(path.as_str()))
        })
    };
    let (mut kept, others): (BackendFiles, BackendFiles) =
        held.into_iter().partition(|(file, _)| named(file));
    let room = FORMER_MAX.saturating_sub(kept.len());
    kept.extend(others.into_iter().take(room));
    kept
}

fn ca_name(trust: &str) -> String {
    format!("{PREFIX}ca-{}.crt", digest(trust))
}

/// Chain and key have one digest, the chain's: their names show that they belong together, and
/// nothing of the key.
fn pair_name(pair: &ClientPair, extension: &str) -> String {
    format!("{PREFIX}{}.{extension}", digest(&pair.chain))
}

fn digest(text: &str) -> String {
    let sum = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let bytes = sum.as_ref().iter().take(DIGEST_BYTES);
    bytes.fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(mode: SslMode) -> BackendTls {
        BackendTls {
            mode: Some(mode),
            trust: Some("ca".to_owned()),
            identity: Some(ClientPair {
                chain: "chain".to_owned(),
                key: "key".to_owned().into(),
            }),
        }
    }

    #[test]
    fn other_contents_have_another_name_and_every_named_file_is_there() {
        let one = tls(SslMode::VerifyFull);
        let files = one.files();
        assert_eq!(files.len(), 3);
        for (key, path) in one.settings().into_iter().skip(1) {
            let name = path.strip_prefix("/etc/config/").unwrap();
            assert!(files.contains_key(name), "{key} names {path}");
            assert!(is_backend_file(name));
        }
        let mut other = one.clone();
        other.trust = Some("another ca".to_owned());
        assert_ne!(other.settings()[1], one.settings()[1]);
        assert_eq!(other.settings()[2..], one.settings()[2..]);
    }

    #[test]
    fn nothing_stated_renders_nothing_and_asks_for_no_proof() {
        let none = BackendTls::default();
        assert!(none.settings().is_empty() && none.files().is_empty());
        assert!(!none.needs_proof());
        for mode in SslMode::ALL {
            let stated = BackendTls {
                mode: Some(mode),
                ..BackendTls::default()
            };
            assert_eq!(stated.needs_proof(), mode >= SslMode::Require, "{mode:?}");
        }
        assert!(
            tls(SslMode::Prefer).needs_proof(),
            "PostgreSQL may refuse it"
        );
    }

    #[test]
    fn the_users_text_may_be_stricter_and_not_weaker() {
        let wanted = BackendTls {
            mode: Some(SslMode::Require),
            ..BackendTls::default()
        };
        let theirs = |line: &str| Ini::parse(&format!("[pgbouncer]\n{line}\n")).unwrap();
        for fine in [
            "stats_period = 9",
            "server_tls_sslmode = require",
            "server_tls_sslmode = VERIFY-FULL",
            "server_tls_ca_file = /etc/ssl/cert.pem",
        ] {
            assert!(wanted.check_users(&theirs(fine), "x").is_ok(), "{fine}");
        }
        for (undoing, tls) in [
            ("server_tls_sslmode = prefer", &wanted),
            ("server_tls_sslmode = Disable", &wanted),
            (
                "server_tls_ca_file = /etc/ssl/cert.pem",
                &tls(SslMode::VerifyCa),
            ),
            ("server_tls_ca_file =", &tls(SslMode::VerifyCa)),
            ("server_tls_key_file = /tmp/x", &tls(SslMode::VerifyCa)),
        ] {
            let error = tls
                .check_users(&theirs(undoing), "Secret tuned")
                .unwrap_err();
            let text = error.to_string();
            let key = undoing.split(' ').next().unwrap();
            assert!(
                text.contains("Secret tuned") && text.contains(key),
                "{text}"
            );
        }
    }

    #[test]
    fn a_published_configuration_is_read_back_as_it_was_meant() {
        let stated = tls(SslMode::VerifyFull);
        let host = BackendAddress::Host {
            host: "books.vault.svc".to_owned(),
            port: 5433,
        };
        let list = |text: &str| BackendAddress::ConnectString(ConnectString::parse(text).unwrap());
        let read = |line: &str, tls: &BackendTls| {
            let settings = tls.settings().into_iter();
            let settings: String = settings
                .map(|(key, value)| format!("{key} = {value}\n"))
                .collect();
            let ini = format!("[databases]\n{line}\n[pgbouncer]\n{settings}");
            in_force(&Ini::parse(&ini).unwrap(), &tls.files())
        };
        for (line, address) in [
            (
                "ledger = host=books.vault.svc port=5433 dbname=ledger",
                host.clone(),
            ),
            ("* = host=books.vault.svc port=5433", host),
            ("ledger = host=a port=1", list("host=a port=1")),
            (
                "ledger = host=a port=1 dbname=other",
                list("host=a port=1 dbname=other"),
            ),
            (
                "ledger = host=a port=1 dbname=ledger user=x",
                list("host=a port=1 dbname=ledger user=x"),
            ),
        ] {
            let expected = Some((address, stated.clone()));
            assert_eq!(read(line, &stated), expected, "{line}");
        }
        let (_, nothing) = read("a = host=b port=1", &BackendTls::default()).unwrap();
        assert_eq!(nothing, BackendTls::default());
    }

    #[test]
    fn former_files_are_bounded_and_those_in_force_stay() {
        let held: BackendFiles = (0..40)
            .map(|n| (format!("backend-ca-{n:016x}.crt"), "ca".to_owned().into()))
            .collect();
        let in_force = format!("backend-ca-{:016x}.crt", 39);
        let ini = format!("[pgbouncer]\nserver_tls_ca_file = /etc/config/{in_force}\n");
        let kept = former_files(Ini::parse(&ini).ok().as_ref(), held);
        assert_eq!(kept.len(), FORMER_MAX);
        assert!(kept.contains_key(&in_force));
    }
}
