//! Who the server is and who may talk to it: CA and token in the data directory, a fresh leaf at
//! every start, and the kubeconfig that tells a client all of it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::instants::Shift;
use crate::local::trust::{self, Distrust, Privacy};
use crate::opaque::assert_opaque;
use crate::pki::key::{KeyError, PrivateKey};
use crate::pki::pem::{PemError, read_certificates};
use crate::redacted::Redacted;

const CA_CERTIFICATE: &str = "apiserver-ca.crt";
const CA_KEY: &str = "apiserver-ca.key";
const TOKEN: &str = "token";

/// The CA outlives any sensible data directory.
const CA_LIFETIME: Duration = Duration::days(3650);
/// The leaf is made anew at every start.
const LEAF_LIFETIME: Duration = Duration::days(365);
/// Clocks of client and server may differ by this much.
const BACKDATED: Duration = Duration::minutes(5);
/// 256 bits, beyond guessing.
const TOKEN_BYTES: usize = 32;

/// First line of a kubeconfig that may be overwritten.
const MARK: &str = "# Written by `bouncert local`; overwritten at every start.";

/// Why credentials cannot be made or kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The CA in the data directory does not parse, or a certificate cannot be made.
    #[error("cannot use the API server's CA in {}", path.display())]
    Authority {
        /// The CA certificate's file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: AuthorityTrouble,
    },
    /// The TLS stack refuses the certificate.
    #[error("cannot serve TLS with the API server's certificate")]
    Tls(#[source] rustls::Error),
    /// The system's random source failed.
    #[error("cannot make a token: the system gives no random bytes")]
    Random,
    /// Another user may have made or read a file.
    #[error(transparent)]
    Untrusted(#[from] Distrust),
    /// The kubeconfig's place holds somebody else's file.
    #[error(
        "{} exists and was not written by bouncert; choose another --kubeconfig", path.display()
    )]
    ForeignKubeconfig {
        /// The file.
        path: PathBuf,
    },
}

/// What is wrong with the CA. It carries nothing of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityTrouble {
    /// The certificate cannot be read.
    #[error("its certificate cannot be read")]
    Certificate(#[source] PemError),
    /// The key cannot be read.
    #[error("its key cannot be read")]
    Key(#[source] KeyError),
    /// The two are of no use for signing.
    #[error("nothing can be signed with it")]
    Unusable,
}

const _: () = assert_opaque::<AuthorityTrouble>();

/// CA and token of one data directory.
#[derive(Debug)]
pub struct Credentials {
    ca_pem: String,
    ca_key: Redacted<String>,
    ca_path: PathBuf,
    token: Redacted<String>,
}

impl Credentials {
    /// Reads CA and token from `dir`, and makes what is not there yet.
    pub fn open(dir: &Path, now: OffsetDateTime) -> Result<Self, CredentialsError> {
        let ca_path = dir.join(CA_CERTIFICATE);
        let key_path = dir.join(CA_KEY);
        let (ca_pem, ca_key) = if let (Some(certificate), Some(key)) = (
            read(&ca_path, Privacy::Readable)?,
            read(&key_path, Privacy::Secret)?,
        ) {
            (certificate, Redacted::new(key))
        } else {
            let (certificate, key) = authority(now).map_err(|_| CredentialsError::Authority {
                path: ca_path.clone(),
                source: AuthorityTrouble::Unusable,
            })?;
            write_private(&key_path, key.expose())?;
            write_private(&ca_path, &certificate)?;
            (certificate, key)
        };
        let token_path = dir.join(TOKEN);
        let token = match read(&token_path, Privacy::Secret)? {
            Some(token) if !token.trim().is_empty() => Redacted::new(token.trim().to_owned()),
            _ => {
                let token = token()?;
                write_private(&token_path, token.expose())?;
                token
            }
        };
        Ok(Self {
            ca_pem,
            ca_key,
            ca_path,
            token,
        })
    }

    /// The token that every request carries.
    pub const fn token(&self) -> &Redacted<String> {
        &self.token
    }

    /// A TLS configuration with a fresh leaf for `address`.
    pub fn tls(
        &self,
        address: SocketAddr,
        now: OffsetDateTime,
    ) -> Result<Arc<ServerConfig>, CredentialsError> {
        let broken = |source| CredentialsError::Authority {
            path: self.ca_path.clone(),
            source,
        };
        let unusable = |_: rcgen::Error| broken(AuthorityTrouble::Unusable);
        let ca_key = PrivateKey::from_pem(self.ca_key.expose());
        let ca_key = ca_key.map_err(|error| broken(AuthorityTrouble::Key(error)))?;
        let ca_key = KeyPair::try_from(&ca_key.to_pkcs8()).map_err(unusable)?;
        let ca = read_certificates(&self.ca_pem);
        let ca = ca.map_err(|error| broken(AuthorityTrouble::Certificate(error)))?;
        let issuer = Issuer::from_ca_cert_der(&ca[0], ca_key).map_err(unusable)?;
        let key = KeyPair::generate().map_err(unusable)?;
        let names = vec![address.ip().to_string(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).map_err(unusable)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "bouncert-local-apiserver");
        params.not_before = now.minus(BACKDATED);
        params.not_after = now.plus(LEAF_LIFETIME);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &issuer).map_err(unusable)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(CredentialsError::Tls)?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .map_err(CredentialsError::Tls)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Writes the kubeconfig for a server at `address`: mode 0600, replaced in one step. A file
    /// that somebody else wrote is left alone.
    pub fn write_kubeconfig(
        &self,
        path: &Path,
        address: SocketAddr,
    ) -> Result<(), CredentialsError> {
        let there = read(path, Privacy::Own)?;
        if there.is_some_and(|text| !text.trim().is_empty() && !text.starts_with(MARK)) {
            return Err(CredentialsError::ForeignKubeconfig {
                path: path.to_owned(),
            });
        }
        let text = Redacted::new(format!(
            "{MARK}\n\
             apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             - name: bouncert-local\n\
             \x20 cluster:\n\
             \x20   server: https://{address}\n\
             \x20   certificate-authority-data: {ca}\n\
             users:\n\
             - name: bouncert-local\n\
             \x20 user:\n\
             \x20   token: {token}\n\
             contexts:\n\
             - name: bouncert-local\n\
             \x20 context:\n\
             \x20   cluster: bouncert-local\n\
             \x20   user: bouncert-local\n\
             current-context: bouncert-local\n",
            ca = STANDARD.encode(&self.ca_pem),
            token = self.token.expose(),
        ));
        write_private(path, text.expose())
    }
}

fn authority(now: OffsetDateTime) -> Result<(String, Redacted<String>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "bouncert-local-ca");
    params.not_before = now.minus(BACKDATED);
    params.not_after = now.plus(CA_LIFETIME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), Redacted::new(key.serialize_pem())))
}

fn token() -> Result<Redacted<String>, CredentialsError> {
    let mut bytes = [0_u8; TOKEN_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| CredentialsError::Random)?;
    Ok(Redacted::new(HEXLOWER.encode(&bytes)))
}

fn read(path: &Path, privacy: Privacy) -> Result<Option<String>, CredentialsError> {
    let Some(mut file) = trust::open(path, privacy)? else {
        return Ok(None);
    };
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) => Ok(Some(text)),
        Err(source) => Err(CredentialsError::File {
            action: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Writes a file of mode 0600 beside its place, syncs it, and moves it there.
fn write_private(path: &Path, text: &str) -> Result<(), CredentialsError> {
    let failed = |source| CredentialsError::File {
        action: "write",
        path: path.to_owned(),
        source,
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // `create_new`: never through a link that somebody else put there.
        let mut options = OpenOptions::new();
        let mut file: File = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2031-05-06 07:08:09 UTC);

    #[test]
    fn a_second_start_keeps_ca_and_token() {
        let dir = tempfile::tempdir().unwrap();
        let first = Credentials::open(dir.path(), NOW).unwrap();
        let second = Credentials::open(dir.path(), NOW).unwrap();
        assert_eq!(first.ca_pem, second.ca_pem);
        assert!(first.token() == second.token());
        second.tls("127.0.0.1:7".parse().unwrap(), NOW).unwrap();
        for file in [CA_CERTIFICATE, CA_KEY, TOKEN] {
            let mode = std::fs::metadata(dir.path().join(file))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn a_kubeconfig_of_somebody_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials::open(dir.path(), NOW).unwrap();
        let address = "127.0.0.1:7".parse().unwrap();
        let theirs = dir.path().join("config");
        std::fs::write(&theirs, "apiVersion: v1\n").unwrap();
        let refused = credentials.write_kubeconfig(&theirs, address);
        assert!(matches!(
            refused,
            Err(CredentialsError::ForeignKubeconfig { .. })
        ));
        let ours = dir.path().join("ours");
        credentials.write_kubeconfig(&ours, address).unwrap();
        credentials
            .write_kubeconfig(&ours, "127.0.0.1:9".parse().unwrap())
            .unwrap();
        assert!(
            std::fs::read_to_string(&ours)
                .unwrap()
                .contains("https://127.0.0.1:9")
        );
    }
}
