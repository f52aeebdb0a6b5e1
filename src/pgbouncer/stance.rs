//! How a pooler treats its clients: what it was told, and what it does.
//!
//! `SHOW CONFIG` shows what was told. It is no proof that TLS is set up so, but it tells whether a
//! file has been read, and whether one was read that does not parse: then everything behind the bad
//! line, or before it, is back at its default. What is done is seen from outside: a client without
//! TLS, and one without a certificate, are let in or not. Neither needs a password, because both are
//! turned away before they are asked for one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::ini::{Ini, Section};
use super::session::{Session, SessionError, Target};
use super::tls::ClientTls;
use crate::fence::Fence;

/// The settings that tell one configuration from another, and from a broken one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    ssl_mode: String,
    auth_type: String,
    pool_mode: String,
}

impl Words {
    /// What a configuration asks for.
    pub fn of_ini(ini: &Ini) -> Self {
        Self::new(|key| ini.get(Section::Pgbouncer, key))
    }

    /// What `SHOW CONFIG` answers.
    pub fn of_config(config: &BTreeMap<String, String>) -> Self {
        Self::new(|key| config.get(key).map(String::as_str))
    }

    fn new<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Self {
        let word = |key: &str, default: &str| {
            let said = value(key).filter(|text| !text.is_empty());
            said.unwrap_or(default).to_ascii_lowercase()
        };
        let mut ssl_mode = word("client_tls_sslmode", "disable");
        // PgBouncer makes no difference between the two.
        if ssl_mode == "prefer" {
            "allow".clone_into(&mut ssl_mode);
        }
        Self {
            ssl_mode,
            auth_type: word("auth_type", "md5"),
            pool_mode: word("pool_mode", "session"),
        }
    }
}

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            ssl_mode,
            auth_type,
            pool_mode,
        } = self;
        write!(
            f,
            "sslmode {ssl_mode}, auth_type {auth_type}, pool_mode {pool_mode}"
        )
    }
}

/// The parameters of `ini` that the running program does not know: it would not load the file.
pub fn unknown<'a>(ini: &'a Ini, config: &BTreeMap<String, String>) -> Vec<&'a str> {
    let keys = ini.section(Section::Pgbouncer).map(|(key, _)| key);
    keys.filter(|key| !config.contains_key(*key)).collect()
}

/// Whether clients of a kind are let as far as their login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// They are.
    Open,
    /// They are turned away before it.
    Shut,
}

/// Whether clients without TLS come as far as their login.
pub async fn without_tls(
    address: SocketAddr,
    user: &str,
    bound: Duration,
) -> Result<Door, SessionError> {
    knock(address, user, None, bound).await
}

/// Whether clients with TLS and without a certificate come as far as their login.
pub async fn without_certificate(
    address: SocketAddr,
    user: &str,
    tls: ClientTls,
    bound: Duration,
) -> Result<Door, SessionError> {
    knock(address, user, Some(tls), bound).await
}

async fn knock(
    address: SocketAddr,
    user: &str,
    tls: Option<ClientTls>,
    bound: Duration,
) -> Result<Door, SessionError> {
    let target = Target {
        address,
        user: user.to_owned(),
        password: None,
        tls,
        timeout: bound,
        // Looking is no act.
        fence: Fence::default(),
    };
    match Session::open(&target, "pgbouncer").await {
        Ok(session) => {
            session.close().await;
            Ok(Door::Open)
        }
        Err(SessionError::TlsRequired { .. } | SessionError::ClientCertificateMissing { .. }) => {
            Ok(Door::Shut)
        }
        // Asked for a password, or for another one: that is inside.
        Err(
            SessionError::Login { .. }
            | SessionError::Protocol { .. }
            | SessionError::Backend { .. }
            | SessionError::Command { .. },
        ) => Ok(Door::Open),
        Err(
            error @ (SessionError::Unreachable { .. }
            | SessionError::TimedOut { .. }
            | SessionError::NoTls { .. }
            | SessionError::ServerCertificate { .. }
            | SessionError::ClientCertificate { .. }
            | SessionError::Fenced { .. }
            | SessionError::Closed { .. }),
        ) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_and_its_answer_are_the_same_words() {
        let text = "[pgbouncer]\nclient_tls_sslmode = Prefer\npool_mode = transaction\n";
        let ini = Ini::parse(text).unwrap();
        let answer = [
            ("client_tls_sslmode", "allow"),
            ("auth_type", "md5"),
            ("pool_mode", "transaction"),
        ];
        let config = answer.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let config = BTreeMap::from(config);
        assert_eq!(Words::of_ini(&ini), Words::of_config(&config));
        let defaults = Words::of_ini(&Ini::new());
        assert_ne!(Words::of_ini(&ini), defaults);
        assert!(defaults.to_string().contains("sslmode disable"));
        assert!(unknown(&ini, &config).is_empty());
        let newer = Ini::parse("[pgbouncer]\nmax_prepared_statements = 3\n").unwrap();
        assert_eq!(unknown(&newer, &config), ["max_prepared_statements"]);
    }
}
