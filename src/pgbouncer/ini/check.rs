//! Would this version of PgBouncer load the file, and is it safe to let it?
//!
//! All problems are reported at once. Besides what stops the program from loading the file, this
//! refuses what it loads but should not be given: `verify-ca` without a CA file, which trusts every
//! CA of the machine.

use std::fmt;

use thiserror::Error;

use super::connect_string::ConnectString;
use super::parameters::{self, Kind, PEERS_SINCE, Parameter};
use super::text::{self, DATABASE_NAME_MAX, QUOTED_NAMES_SINCE};
use super::{Ini, Section};
use crate::opaque;
use crate::pgbouncer::Version;
use crate::pgbouncer::userlist::USER_MAX;
use crate::printable::{QUOTE_MAX, printable, quoted};

/// One thing wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// No version has such a setting.
    #[error("[{section}] {key}: PgBouncer has no such parameter")]
    UnknownParameter {
        /// Where it stands.
        section: Section,
        /// The setting.
        key: String,
    },
    /// The running version has no such setting yet, or no longer.
    #[error("[{section}] {key}: PgBouncer {version} does not know this parameter")]
    OtherVersion {
        /// Where it stands.
        section: Section,
        /// The setting.
        key: String,
        /// The version that does not know it.
        version: Version,
    },
    /// The value does not parse.
    #[error("[{section}] {key}: `{}` is not {expected}", printable(.value, QUOTE_MAX))]
    BadValue {
        /// Where it stands.
        section: Section,
        /// The setting.
        key: String,
        /// What was given.
        value: String,
        /// What is wanted.
        expected: String,
    },
    /// A connect string that does not parse.
    #[error("[{section}] {key}: not a list of `key=value`, or a quote is not closed")]
    BadConnectString {
        /// Where it stands.
        section: Section,
        /// The database, user or peer.
        key: String,
    },
    /// The admin console's own name.
    #[error("[databases] pgbouncer: this name is reserved for the admin console")]
    ReservedDatabase,
    /// A name that the version has no quoting for.
    #[error("[{section}] {}: {}", quoted(.name), Unquoted(*.version))]
    Name {
        /// Where it stands.
        section: Section,
        /// The database or user.
        name: String,
        /// The version in question.
        version: Version,
    },
    /// A name of which only the beginning would fit.
    #[error("[{section}] {}: a name has at most {max} bytes", quoted(.name))]
    LongName {
        /// Where it stands.
        section: Section,
        /// The database or user.
        name: String,
        /// The bound.
        max: usize,
    },
    /// TLS without what to show to clients.
    #[error("client_tls_sslmode={mode} needs client_tls_key_file and client_tls_cert_file")]
    TlsWithoutCertificate {
        /// The mode in question.
        mode: String,
    },
    /// Verification of clients without what to verify them by.
    #[error(
        "client_tls_sslmode={mode} needs client_tls_ca_file, or every CA of the machine is trusted"
    )]
    VerifyWithoutCa {
        /// The mode in question.
        mode: String,
    },
    /// Certificate logins where clients need not show a verified certificate.
    #[error("auth_type=cert needs client_tls_sslmode=verify-full")]
    CertWithoutVerifyFull,
    /// HBA without its file, which refuses all logins.
    #[error("auth_type=hba needs auth_hba_file, or every login is refused")]
    HbaWithoutFile,
}

/// What a version can read of a name, in words.
pub struct Unquoted(pub Version);

impl fmt::Display for Unquoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PgBouncer {} reads names of letters, digits and _ . - * only; others are read from \
             {QUOTED_NAMES_SINCE} on",
            self.0
        )
    }
}

/// Checks `ini` for `version`; all problems are reported.
pub fn check(ini: &Ini, version: Version) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    for (key, value) in ini.section(Section::Pgbouncer) {
        problems.extend(check_setting(Section::Pgbouncer, key, key, value, version));
    }
    for section in [Section::Databases, Section::Users, Section::Peers] {
        check_lines(ini, section, version, &mut problems);
    }
    check_tls(ini, &mut problems);
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// Checks the lines of a section whose values are connect strings.
fn check_lines(ini: &Ini, section: Section, version: Version, problems: &mut Vec<Problem>) {
    for (name, value) in ini.section(section) {
        if section == Section::Databases && name == "pgbouncer" {
            problems.push(Problem::ReservedDatabase);
        }
        problems.extend(check_name(section, name, version));
        if section == Section::Peers && version < PEERS_SINCE {
            problems.push(Problem::OtherVersion {
                section,
                key: name.to_owned(),
                version,
            });
        }
        let Some(pairs) = ConnectString::parse(value) else {
            problems.push(Problem::BadConnectString {
                section,
                key: opaque::setting(name),
            });
            continue;
        };
        for (key, value) in pairs.pairs() {
            let shown = format!("{name} {key}");
            problems.extend(check_setting(section, key, &shown, value, version));
        }
    }
}

/// Checks the name of a database, user or peer.
fn check_name(section: Section, name: &str, version: Version) -> Option<Problem> {
    let max = match section {
        Section::Databases => DATABASE_NAME_MAX,
        Section::Users | Section::Peers | Section::Pgbouncer => USER_MAX,
    };
    let name_shown = || name.to_owned();
    if !text::is_plain(name) && version < QUOTED_NAMES_SINCE {
        let name = name_shown();
        return Some(Problem::Name {
            section,
            name,
            version,
        });
    }
    (name.len() > max).then(|| Problem::LongName {
        section,
        name: name_shown(),
        max,
    })
}

/// Checks one setting; `shown` is how the problem names it.
fn check_setting(
    section: Section,
    key: &str,
    shown: &str,
    value: &str,
    version: Version,
) -> Option<Problem> {
    // The file may be a Secret of the user's, and hold what belongs into another one.
    let key_shown = opaque::setting(shown);
    let Some(parameter) = parameters::find(section, key) else {
        return Some(Problem::UnknownParameter {
            section,
            key: key_shown,
        });
    };
    if !parameter.known_to(version) {
        return Some(Problem::OtherVersion {
            section,
            key: key_shown,
            version,
        });
    }
    expected(parameter, value, version).map(|expected| Problem::BadValue {
        section,
        key: key_shown,
        value: opaque::setting(value),
        expected,
    })
}

/// What the value should have been; `None` when it is fine.
fn expected(parameter: &Parameter, value: &str, version: Version) -> Option<String> {
    match parameter.kind {
        Kind::Text => None,
        Kind::Number => (!is_number(value))
            .then(|| "a whole number of at most 2147483647 (switches are 0 and 1)".to_owned()),
        Kind::Seconds => {
            let fine = value
                .parse::<f64>()
                .is_ok_and(|s| s.is_finite() && s >= 0.0);
            (!fine).then(|| "a number of seconds".into())
        }
        Kind::OneOf(words) => {
            let fine = words.iter().any(|word| word.eq_ignore_ascii_case(value));
            (!fine).then(|| format!("one of {}", words.join(", ")))
        }
        Kind::AuthType => {
            let known = || {
                parameters::AUTH_TYPES
                    .iter()
                    .filter(|(_, since)| version >= *since)
                    .map(|(word, _)| *word)
            };
            let fine = known().any(|word| word.eq_ignore_ascii_case(value));
            (!fine).then(|| format!("one of {}", known().collect::<Vec<_>>().join(", ")))
        }
    }
}

/// Whether the C library's `strtol` with base 0 takes all of it, and an `int` holds it: what is too
/// large for one is read as another number.
fn is_number(value: &str) -> bool {
    let (sign, digits) = match value.strip_prefix(['-', '+']) {
        Some(digits) => (if value.starts_with('-') { "-" } else { "" }, digits),
        None => ("", value),
    };
    let (digits, radix) = match digits.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (digits, 8),
        None => (digits, 10),
    };
    digits.chars().all(|c| c.is_digit(radix))
        && i32::from_str_radix(&[sign, digits].concat(), radix).is_ok()
}

/// The rules that hold between settings.
fn check_tls(ini: &Ini, problems: &mut Vec<Problem>) {
    let value = |key| ini.get(Section::Pgbouncer, key).unwrap_or_default();
    let mode = match value("client_tls_sslmode").to_ascii_lowercase() {
        mode if mode.is_empty() => "disable".to_owned(),
        mode => mode,
    };
    let auth = value("auth_type").to_ascii_lowercase();
    if mode != "disable"
        && (value("client_tls_key_file").is_empty() || value("client_tls_cert_file").is_empty())
    {
        problems.push(Problem::TlsWithoutCertificate { mode: mode.clone() });
    }
    if mode.starts_with("verify-") && value("client_tls_ca_file").is_empty() {
        problems.push(Problem::VerifyWithoutCa { mode: mode.clone() });
    }
    if auth == "cert" && mode != "verify-full" {
        problems.push(Problem::CertWithoutVerifyFull);
    }
    if auth == "hba" && value("auth_hba_file").is_empty() {
        problems.push(Problem::HbaWithoutFile);
    }
}
