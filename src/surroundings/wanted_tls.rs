//! TLS towards PostgreSQL as AppBinding and PgBouncer ask for it, with libpq's meaning. Pure.
//!
//! | stated | becomes |
//! |---|---|
//! | a mode in `clientConfig.url` or `clientConfig.service.query` | that mode |
//! | none there, and the PgBouncer's annotation `bouncert.dev/backend-sslmode` | its mode |
//! | none, and `clientConfig.caBundle` | `verify-full` |
//! | none, no bundle, and `spec.tlsSecret` | `require` |
//! | nothing | nothing: the user's configuration or PgBouncer's default |
//! | `require` and a bundle | `verify-ca`, as in libpq |
//!
//! What contradicts itself, and what would go without a certificate to verify by, is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::libpq::mode;
use crate::api::annotations::BACKEND_SSLMODE;
use crate::api::appbinding::ClientConfig;
use crate::api::tls::SslMode;
use crate::blueprint::BackendAddress;
use crate::blueprint::backend_tls::{BackendTls, ClientPair};
use crate::causes::chain;
use crate::pki::chain::{CertificateChain, KeyedChain};
use crate::pki::facts::CertificateFacts;
use crate::pki::key::PrivateKey;
use crate::pki::pem;
use crate::printable::quoted;

/// The field of the bundle.
const BUNDLE: &str = "spec.clientConfig.caBundle";

/// What asks for TLS.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// `spec.clientConfig`.
    pub(super) config: &'a ClientConfig,
    /// The mode that its parameters state.
    pub(super) mode: Option<SslMode>,
    /// Where PostgreSQL listens.
    pub(super) address: &'a BackendAddress,
    /// The PgBouncer's annotation.
    pub(super) annotation: Option<&'a str>,
    /// The pair of `spec.tlsSecret`.
    pub(super) identity: Option<&'a ClientPair>,
}

/// The object that has to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The AppBinding; the text names its field.
    Application(String),
    /// The PgBouncer.
    Bouncer(String),
}

/// What is wanted.
pub(super) fn wanted(asked: Asked<'_>) -> Result<BackendTls, Refused> {
    let trust = bundle(asked.config.ca_bundle.as_deref()).map_err(Refused::Application)?;
    let by_annotation = asked
        .annotation
        .map(|text| mode(text).map_err(|what| format!("annotation {BACKEND_SSLMODE} {what}")))
        .transpose()
        .map_err(Refused::Bouncer)?;
    if let (Some(theirs), Some(ours)) = (asked.mode, by_annotation)
        && theirs != ours
    {
        return Err(Refused::Bouncer(format!(
            "annotation {BACKEND_SSLMODE} is {}, and its AppBinding has sslmode={}; remove the \
             annotation",
            quoted(ours.as_str()),
            theirs.as_str()
        )));
    }
    let stated = asked.mode.or(by_annotation);
    let identity = asked.identity.cloned();
    let chosen = match (stated, &trust, &identity) {
        (Some(SslMode::Require), Some(_), _) => Some(SslMode::VerifyCa),
        (Some(mode), ..) => Some(mode),
        (None, Some(_), _) => Some(SslMode::VerifyFull),
        (None, None, Some(_)) => Some(SslMode::Require),
        (None, None, None) => None,
    };
    let tls = BackendTls {
        mode: chosen,
        trust,
        identity,
    };
    check(asked, &tls).map_err(Refused::Application)?;
    Ok(BackendTls {
        // A mode that does not verify reads no bundle, so that a bad one does no harm.
        trust: tls.trust.clone().filter(|_| verifies(&tls)),
        ..tls
    })
}

/// Whether the mode verifies.
fn verifies(tls: &BackendTls) -> bool {
    tls.mode >= Some(SslMode::VerifyCa)
}

/// Refuses what contradicts itself, and what could not verify.
fn check(asked: Asked<'_>, tls: &BackendTls) -> Result<(), String> {
    let useless = match (&tls.trust, &tls.identity) {
        (Some(_), _) => Some(BUNDLE),
        (None, Some(_)) => Some("spec.tlsSecret"),
        (None, None) => None,
    };
    if let (Some(SslMode::Disable), Some(field)) = (tls.mode, useless) {
        return Err(format!(
            "sslmode is disable, and {field} is of no use without TLS; remove it, or write \
             sslmode=verify-full"
        ));
    }
    if !verifies(tls) {
        return Ok(());
    }
    if tls.trust.is_none() {
        return Err(format!(
            "{BUNDLE} is missing; put the certificates of the CAs that sign for PostgreSQL there, \
             because sslmode asks to verify its certificate"
        ));
    }
    if asked.config.insecure_skip_tls_verify == Some(true) {
        return Err(
            "spec.clientConfig.insecureSkipTLSVerify is true, and sslmode or caBundle asks to verify; \
             remove it"
                .to_owned(),
        );
    }
    if tls.mode == Some(SslMode::VerifyFull) {
        return check_name(asked);
    }
    Ok(())
}

/// PgBouncer verifies the name that it connects to, and no other.
fn check_name(asked: Asked<'_>) -> Result<(), String> {
    let host = match asked.address {
        BackendAddress::Host { host, .. } => host.as_str(),
        BackendAddress::ConnectString(list) => list.get("host").unwrap_or_default(),
    };
    match asked.config.server_name.as_deref() {
        None | Some("") => Ok(()),
        Some(name) if name.eq_ignore_ascii_case(host) => Ok(()),
        Some(name) => Err(format!(
            "spec.clientConfig.serverName is {}, and PgBouncer verifies the host that it connects to, \
             {}; remove serverName, or write sslmode=verify-ca",
            quoted(name),
            quoted(host)
        )),
    }
}

/// The certificates of `caBundle`, in PEM; `None` where there is none.
fn bundle(encoded: Option<&str>) -> Result<Option<String>, String> {
    let Some(encoded) = encoded.map(str::trim).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let bytes = STANDARD.decode(encoded).map_err(|_| {
        format!("{BUNDLE} is not base64; write the PEM certificates of the CAs in base64")
    })?;
    let unreadable = |error: pem::PemError| format!("{BUNDLE} cannot be read: {}", chain(&error));
    let text = pem::text(&bytes).map_err(unreadable)?;
    let certificates = pem::read_certificates(text).map_err(unreadable)?;
    for (index, certificate) in certificates.iter().enumerate() {
        if CertificateFacts::read(certificate).is_none() {
            let position = index + 1;
            return Err(unreadable(pem::PemError::BadCertificate { position }));
        }
    }
    Ok(Some(pem::write_certificates(&certificates)))
}

/// A chain and the key of its leaf, each in PEM; the error is the end of a sentence about their Secret.
pub(super) fn pair(chain_pem: &str, key_pem: &str) -> Result<ClientPair, String> {
    let certificates = CertificateChain::from_pem(chain_pem);
    let certificates =
        certificates.map_err(|error| format!("key tls.crt cannot be used: {}", chain(&error)))?;
    let key = PrivateKey::with_encoding(key_pem);
    let (key, encoding) =
        key.map_err(|error| format!("key tls.key cannot be used: {}", chain(&error)))?;
    let (written, key_text) = (certificates.to_pem(), key.to_pem(encoding));
    KeyedChain::from_parts(certificates, key, encoding)
        .map_err(|error| format!("tls.crt and tls.key do not belong together: {error}"))?;
    Ok(ClientPair {
        chain: written,
        key: key_text,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pki::testing;

    fn config(value: serde_json::Value) -> ClientConfig {
        serde_json::from_value(value).unwrap()
    }

    fn encoded() -> String {
        STANDARD.encode(testing::root("notary").certificate_pem())
    }

    fn own_pair() -> ClientPair {
        let ca = testing::root("notary");
        let key = testing::key();
        let issued = ca.sign(
            &testing::client(),
            key.public_key(),
            testing::serial(7),
            testing::NOW,
        );
        let leaf = issued.unwrap().chain;
        let key = key.to_pem(crate::pki::key::KeyEncoding::Pkcs8);
        pair(&leaf.to_pem(), key.expose()).unwrap()
    }

    fn asked(
        config: &ClientConfig,
        mode: Option<SslMode>,
        annotation: Option<&str>,
        identity: Option<&ClientPair>,
    ) -> Result<BackendTls, Refused> {
        let address = &BackendAddress::Host {
            host: "books.vault.svc".to_owned(),
            port: 5432,
        };
        wanted(Asked {
            config,
            mode,
            address,
            annotation,
            identity,
        })
    }

    #[test]
    fn the_mode_is_what_is_stated_or_follows_from_what_is_given() {
        use SslMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
        let (bare, own) = (ClientConfig::default(), own_pair());
        let trusting = config(json!({ "caBundle": encoded() }));
        for (config, mode, annotation, identity, expected) in [
            (&bare, None, None, None, None),
            (&bare, Some(Disable), None, None, Some(Disable)),
            (&bare, Some(Prefer), None, None, Some(Prefer)),
            (&bare, None, Some("require"), None, Some(Require)),
            (&bare, Some(Require), Some("require"), None, Some(Require)),
            (&bare, None, None, Some(&own), Some(Require)),
            (&bare, Some(Prefer), None, Some(&own), Some(Prefer)),
            (&trusting, None, None, None, Some(VerifyFull)),
            (&trusting, Some(VerifyFull), None, None, Some(VerifyFull)),
            (&trusting, Some(VerifyCa), None, Some(&own), Some(VerifyCa)),
            (&trusting, Some(Require), None, None, Some(VerifyCa)),
            (&trusting, None, Some("require"), None, Some(VerifyCa)),
            (&trusting, Some(Allow), None, None, Some(Allow)),
        ] {
            let tls = asked(config, mode, annotation, identity).unwrap();
            assert_eq!(tls.mode, expected, "{mode:?} {annotation:?}");
            let verifies = expected >= Some(VerifyCa);
            assert_eq!(tls.trust.is_some(), verifies, "{mode:?} {annotation:?}");
            assert_eq!(tls.identity.as_ref(), identity);
        }
    }

    #[test]
    fn what_contradicts_itself_or_cannot_verify_is_refused_with_its_field() {
        use SslMode::{Disable, Require, VerifyCa, VerifyFull};
        let (bare, own) = (ClientConfig::default(), own_pair());
        let trusting = |more: &str, value: serde_json::Value| {
            let mut given = json!({ "caBundle": encoded() });
            given[more] = value;
            config(given)
        };
        let fine = trusting("serverName", json!("BOOKS.vault.svc"));
        assert!(asked(&fine, None, None, None).is_ok());
        let other_name = trusting("serverName", json!("books.example"));
        assert!(asked(&other_name, Some(VerifyCa), None, None).is_ok());
        for (config, mode, identity, words) in [
            (&bare, Some(VerifyFull), None, "caBundle is missing"),
            (&bare, Some(VerifyCa), None, "caBundle is missing"),
            (&fine, Some(Disable), None, "caBundle is of no use"),
            (
                &bare,
                Some(Disable),
                Some(&own),
                "spec.tlsSecret is of no use",
            ),
            (&other_name, None, None, "serverName is \"books.example\""),
            (
                &trusting("insecureSkipTLSVerify", json!(true)),
                None,
                None,
                "insecureSkipTLSVerify is true",
            ),
            (
                &config(json!({ "caBundle": "&" })),
                Some(Require),
                None,
                "caBundle is not base64",
            ),
            (
                &config(json!({ "caBundle": STANDARD.encode("nothing") })),
                None,
                None,
                "caBundle cannot be read",
            ),
        ] {
            let Err(Refused::Application(what)) = asked(config, mode, None, identity) else {
                panic!("{words}");
            };
            assert!(what.contains(words), "{what}");
        }
        for (mode, annotation, words) in [
            (
                Some(Require),
                "prefer",
                "its AppBinding has sslmode=require",
            ),
            (None, "strict", "has the sslmode \"strict\""),
        ] {
            let Err(Refused::Bouncer(what)) = asked(&bare, mode, Some(annotation), None) else {
                panic!("{words}");
            };
            assert!(what.contains(words), "{what}");
        }
    }

    #[test]
    fn a_pair_whose_halves_are_strangers_or_exchanged_is_refused_and_no_key_shows() {
        let (one, other) = (own_pair(), own_pair());
        let strangers = pair(&one.chain, other.key.expose()).unwrap_err();
        assert!(strangers.contains("do not belong together"), "{strangers}");
        let exchanged = pair(one.key.expose(), &one.chain).unwrap_err();
        assert!(exchanged.contains("key tls.crt"), "{exchanged}");
        let inner = one.key.expose().lines().nth(1).unwrap();
        assert!(!exchanged.contains(inner) && !strangers.contains(inner));
    }
}
