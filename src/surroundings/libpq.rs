//! Parameters of libpq in an AppBinding, and what each of them is to a pooler: followed, without
//! effect, or refused by its name, because PgBouncer cannot do what it asks for. Pure.

use crate::api::tls::SslMode;
use crate::opaque;
use crate::printable::quoted;

/// What the parameters have stated so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stated {
    /// `sslmode`.
    pub(super) mode: Option<SslMode>,
}

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    /// One of TLS, or one that was examined: it is followed, or asks for what is so anyway.
    Followed,
    /// One of clients: the database, who logs in, how a client waits. A pooler has its own.
    OfClients,
    /// Not one of libpq.
    Unknown,
}

/// Parameters of clients.
const OF_CLIENTS: [&str; 14] = [
    "application_name",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "passfile",
    "password",
    "tcp_user_timeout",
    "user",
];

/// Parameters that are refused but for harmless values, and what to do instead.
const REFUSED: [(&str, &[&str], &str); 26] = [
    ("channel_binding", &["disable", "prefer"], UNABLE),
    ("gssdelegation", &["0"], UNABLE),
    ("gssencmode", &["disable", "prefer"], UNABLE),
    ("gsslib", &[], UNABLE),
    ("krbsrvname", &[], UNABLE),
    ("max_protocol_version", &["3.0", "latest"], UNABLE),
    ("min_protocol_version", &["3.0"], UNABLE),
    (
        "options",
        &[],
        "set such parameters at the database or the role in PostgreSQL, and remove it",
    ),
    ("replication", &["0", "false", "off", "no"], UNABLE),
    ("require_auth", &[], UNABLE),
    ("requirepeer", &[], UNABLE),
    (
        "service",
        &[],
        "a service file is on a client's machine; write host and port",
    ),
    (
        "servicefile",
        &[],
        "a service file is on a client's machine; write host and port",
    ),
    ("sslcert", &[], PAIR),
    ("sslcertmode", &["allow"], PAIR),
    ("sslcompression", &["0"], UNABLE),
    ("sslcrl", &[], REVOCATION),
    ("sslcrldir", &[], REVOCATION),
    ("sslkey", &[], PAIR),
    ("sslkeylogfile", &[], UNABLE),
    ("sslnegotiation", &["postgres"], UNABLE),
    ("sslpassword", &[], PAIR),
    (
        "sslrootcert",
        &[],
        "a file, or the CAs of a system, are those of a client's machine; put the certificates of the \
         CAs into spec.clientConfig.caBundle and remove it",
    ),
    ("sslsni", &["1"], UNABLE),
    (
        "ssl_min_protocol_version",
        &["TLSv1", "TLSv1.1", "TLSv1.2"],
        PROTOCOLS,
    ),
    ("ssl_max_protocol_version", &["TLSv1.3"], PROTOCOLS),
];

const UNABLE: &str = "PgBouncer cannot do that towards PostgreSQL; remove it";
const PAIR: &str = "a file of a client's machine is not in the pods; name a Secret with tls.crt and \
                    tls.key in spec.tlsSecret and remove it";
const REVOCATION: &str = "PgBouncer reads no revocation lists towards PostgreSQL; remove it";
const PROTOCOLS: &str = "write server_tls_protocols into spec.configuration of the PgBouncer and \
                         remove it";

// === impl Stated ===

impl Stated {
    /// Takes a parameter in. An error is the end of a sentence that begins with the field.
    pub(super) fn take(&mut self, key: &str, value: &str) -> Result<Parameter, String> {
        match (key, value) {
            ("sslmode", _) => self.mode = Some(mode(value)?),
            // As JDBC writes it; libpq reads it so.
            ("ssl", "true") => self.mode = Some(SslMode::Require),
            ("target_session_attrs", _) => attributes(value)?,
            _ if OF_CLIENTS.contains(&key) => return Ok(Parameter::OfClients),
            _ => {
                let Some((_, harmless, advice)) = REFUSED.iter().find(|(name, ..)| *name == key)
                else {
                    return Ok(Parameter::Unknown);
                };
                if !value.is_empty() && !harmless.contains(&value) {
                    return Err(format!("has {key}: {advice}"));
                }
            }
        }
        Ok(Parameter::Followed)
    }
}

/// Reads the parameters of a URL's query; `other` gets those that are none of libpq's beside
/// addresses.
pub(super) fn query(
    text: &str,
    stated: &mut Stated,
    mut address: impl FnMut(&str, String) -> Result<bool, String>,
) -> Result<(), String> {
    for parameter in text.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let (key, value) = (decoded(key)?, decoded(value)?);
        if address(&key, value.clone())? {
            continue;
        }
        if stated.take(&key, &value)? == Parameter::Unknown {
            return Err(unknown(&key));
        }
    }
    Ok(())
}

/// Refuses a parameter that is none.
fn unknown(key: &str) -> String {
    format!(
        "has {}, which is not a parameter of libpq; remove it",
        quoted(&opaque::setting(key))
    )
}

/// Reads an `sslmode`.
pub(super) fn mode(text: &str) -> Result<SslMode, String> {
    SslMode::parse(text).ok_or_else(|| {
        let known: Vec<&str> = SslMode::ALL.into_iter().map(SslMode::as_str).collect();
        format!(
            "has the sslmode {}; write one of {}",
            quoted(&opaque::setting(text)),
            known.join(", ")
        )
    })
}

/// `any` asks for nothing.
fn attributes(value: &str) -> Result<(), String> {
    if value.is_empty() || value == "any" {
        return Ok(());
    }
    Err(format!(
        "has target_session_attrs={}: PgBouncer does not ask a server what it is; name a Service that \
         follows the primary and remove it",
        quoted(&opaque::setting(value))
    ))
}

/// Text with its percent-encoding resolved.
pub(super) fn decoded(text: &str) -> Result<String, String> {
    let broken = || {
        format!(
            "has a percent-encoding that cannot be read in {}",
            quoted(&opaque::setting(text))
        )
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit().ok_or_else(broken)?, digit().ok_or_else(broken)?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| broken())?);
    }
    let text = String::from_utf8(bytes).map_err(|_| broken())?;
    if text.contains('\0') {
        Err(broken())
    } else {
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Stated, String> {
        let mut stated = Stated::default();
        query(text, &mut stated, |key, _| Ok(key == "host"))?;
        Ok(stated)
    }

    fn stated(mode: SslMode) -> Result<Stated, String> {
        Ok(Stated { mode: Some(mode) })
    }

    #[test]
    fn the_last_mode_counts_as_in_libpq() {
        assert_eq!(read(""), Ok(Stated::default()));
        assert_eq!(read("sslmode=require"), stated(SslMode::Require));
        assert_eq!(
            read("sslmode=disable&sslmode=verify-full"),
            stated(SslMode::VerifyFull)
        );
        assert_eq!(read("%73slmode=verify%2Dca"), stated(SslMode::VerifyCa));
        assert_eq!(read("ssl=true"), stated(SslMode::Require));
    }

    #[test]
    fn what_clients_say_and_what_is_so_anyway_is_no_obstacle() {
        for text in [
            "user=me&password=x%26y&dbname=ledger",
            "connect_timeout=3&application_name=shop",
            "target_session_attrs=any",
            "gssencmode=prefer&channel_binding=prefer",
            "sslcompression=0&sslsni=1&sslnegotiation=postgres&sslrootcert=",
            "host=a&&",
        ] {
            assert_eq!(read(text), Ok(Stated::default()), "{text}");
        }
    }

    #[test]
    fn what_pgbouncer_cannot_do_is_refused_by_its_name_and_says_what_to_write() {
        for (text, words) in [
            ("target_session_attrs=read-write", "a Service that follows"),
            ("sslrootcert=/etc/ca.crt", "spec.clientConfig.caBundle"),
            ("sslrootcert=system", "spec.clientConfig.caBundle"),
            ("sslcert=/tmp/x", "spec.tlsSecret"),
            ("sslkey=/tmp/x", "spec.tlsSecret"),
            ("sslpassword=xyzzy", "spec.tlsSecret"),
            ("sslcertmode=disable", "spec.tlsSecret"),
            ("sslcrl=/tmp/x", "revocation lists"),
            ("sslnegotiation=direct", "PgBouncer cannot"),
            ("channel_binding=require", "PgBouncer cannot"),
            ("gssencmode=require", "PgBouncer cannot"),
            ("require_auth=scram-sha-256", "PgBouncer cannot"),
            ("replication=database", "PgBouncer cannot"),
            (
                "options=-c%20search_path%3Dx",
                "at the database or the role",
            ),
            ("service=books", "write host and port"),
            ("ssl_min_protocol_version=TLSv1.3", "server_tls_protocols"),
            ("sslmode=strict", "write one of disable, allow"),
            ("sslmode=", "has the sslmode \"\""),
            ("sslmode=REQUIRE", "has the sslmode"),
            ("ssl=false", "not a parameter of libpq"),
            ("no_such=1", "not a parameter of libpq"),
            ("sslmode=%zz", "percent-encoding"),
        ] {
            let error = read(text).unwrap_err();
            let key = text.split('=').next().unwrap();
            assert!(error.contains(words), "{text}: {error}");
            assert!(error.contains(key) || text.contains('%'), "{text}: {error}");
            assert!(!error.contains("xyzzy"), "{error}");
        }
    }
}
