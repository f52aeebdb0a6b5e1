//! Where an AppBinding says that its PostgreSQL listens: a Service, a URL or a list of `key=value`.
//!
//! URL and list are read as libpq reads them, as far as PgBouncer can do the same. What it cannot do
//! is refused by its reason: several hosts (libpq tries them in order, PgBouncer would spread
//! connections over all of them) and URLs without a host (libpq has a default, PgBouncer's pod has
//! nothing there).

use crate::api::appbinding::ClientConfig;
use crate::blueprint::BackendAddress;
use crate::names::{is_label, is_object_name};
use crate::pgbouncer::ini::{ConnectString, is_of_a_database};
use crate::printable::quoted;

/// PostgreSQL's own port.
const PORT_DEFAULT: u16 = 5432;
/// Longest path of a directory of Unix sockets: the socket's own name has to follow.
const SOCKET_DIR_MAX: usize = 90;
/// Longest name in DNS.
const HOST_MAX: usize = 253;
/// Longest label in DNS.
const LABEL_MAX: usize = 63;

/// The address, or what is wrong with it, as the end of a sentence about the AppBinding.
pub(super) fn address(config: &ClientConfig, namespace: &str) -> Result<BackendAddress, String> {
    if let Some(service) = &config.service {
        let namespace = service.namespace.as_deref().unwrap_or(namespace);
        label("spec.clientConfig.service.name", &service.name)?;
        label("spec.clientConfig.service.namespace", namespace)?;
        let port = u16::try_from(service.port).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| {
            let port = service.port;
            format!("spec.clientConfig.service.port is {port}; write a port from 1 to 65535")
        })?;
        return Ok(BackendAddress::Host {
            host: format!("{}.{namespace}.svc", service.name),
            port,
        });
    }
    let Some(url) = config.url.as_deref().map(str::trim) else {
        return Err("spec.clientConfig gives neither a service nor a url".to_owned());
    };
    let read = match url.split_once("://") {
        Some(("postgresql" | "postgres", rest)) => from_url(rest),
        Some((scheme, _)) if !scheme.contains(['=', '\'', ' ']) => Err(format!(
            "has the scheme {}; write postgresql://HOST:PORT",
            quoted(scheme)
        )),
        _ => from_list(url),
    };
    read.map_err(|what| format!("spec.clientConfig.url {what}"))
}

/// Checks the name of an object that has to be a DNS label.
pub(super) fn label(field: &str, name: &str) -> Result<(), String> {
    if is_label(name) {
        return Ok(());
    }
    Err(format!(
        "{field} is {}; a name has at most {LABEL_MAX} letters a-z, digits and -, and neither begins \
         nor ends with -",
        quoted(name)
    ))
}

/// Checks the name of an object that may be several labels. It becomes a part of the path of a call
/// to the API server.
pub(super) fn object_name(field: &str, name: &str) -> Result<(), String> {
    if is_object_name(name) {
        return Ok(());
    }
    Err(format!(
        "{field} is {}; a name has at most {HOST_MAX} letters a-z, digits, - and ., and a letter or \
         digit on both sides of each . and at both ends",
        quoted(name)
    ))
}

/// What stands behind `postgresql://`.
fn from_url(rest: &str) -> Result<BackendAddress, String> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let place = authority
        .rsplit_once('@')
        .map_or(authority, |(_, place)| place);
    if place.contains(',') {
        return Err(several());
    }
    let (host, port) = match place.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed
                .split_once(']')
                .ok_or_else(|| "has a [ without its ]".to_owned())?;
            (host, rest.strip_prefix(':').unwrap_or_default())
        }
        None => place.split_once(':').unwrap_or((place, "")),
    };
    let (mut host, mut port) = (decoded(host)?, decoded(port)?);
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match key {
            "host" => host = decoded(value)?,
            "port" => port = decoded(value)?,
            "hostaddr" if host.is_empty() => host = decoded(value)?,
            _ => {}
        }
    }
    Ok(BackendAddress::Host {
        host: checked_host(&host)?,
        port: checked_port(&port)?,
    })
}

/// A list of `key=value` in libpq's dialect: any blank separates, a backslash escapes.
fn from_list(text: &str) -> Result<BackendAddress, String> {
    let broken = || "is neither postgresql://HOST:PORT nor a list of key=value".to_owned();
    let mut list = ConnectString::new();
    let mut rest = text.trim_start();
    if rest.is_empty() {
        return Err(broken());
    }
    let has_host = pairs_of(rest).is_some_and(|pairs| pairs.iter().any(|(key, _)| key == "host"));
    while !rest.is_empty() {
        let ((key, value), after) = pair(rest).ok_or_else(broken)?;
        rest = after;
        let (key, value) = match key.as_str() {
            "host" => (key, checked_host(&value)?),
            "hostaddr" if has_host => continue,
            "hostaddr" => ("host".to_owned(), checked_host(&value)?),
            "port" => (key, checked_port(&value)?.to_string()),
            _ if is_of_a_database(&key) => (key, value),
            _ => {
                return Err(format!(
                    "has {}, which is no setting of a database in PgBouncer; remove it",
                    quoted(&key)
                ));
            }
        };
        // The value may be a password, so it is not repeated.
        list = list
            .with(&key, value)
            .map_err(|error| format!("has a value of {} that {}", quoted(&key), error.why))?;
    }
    if list.get("host").is_none() {
        return Err("names no host; write host=NAME".to_owned());
    }
    Ok(BackendAddress::ConnectString(list))
}

fn pairs_of(text: &str) -> Option<Vec<(String, String)>> {
    let (mut rest, mut pairs) = (text, Vec::new());
    while !rest.is_empty() {
        let (found, after) = pair(rest)?;
        pairs.push(found);
        rest = after;
    }
    Some(pairs)
}

/// Takes one pair off the front of a list in libpq's dialect.
fn pair(text: &str) -> Option<((String, String), &str)> {
    let (key, after) = text.split_once('=')?;
    let key = key.trim_end();
    if key.is_empty() || key.contains(char::is_whitespace) {
        return None;
    }
    let after = after.trim_start();
    let quotes = after.starts_with('\'');
    let mut value = String::new();
    let mut characters = after.char_indices().skip(usize::from(quotes));
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => value.push(characters.next()?.1),
            '\'' if quotes => {
                let rest = &after[at + 1..];
                let separated = rest.is_empty() || rest.starts_with(char::is_whitespace);
                return separated.then(|| ((key.to_owned(), value), rest.trim_start()));
            }
            c if c.is_whitespace() && !quotes => {
                return Some(((key.to_owned(), value), after[at..].trim_start()));
            }
            c => value.push(c),
        }
    }
    (!quotes).then(|| ((key.to_owned(), value), ""))
}

/// A host that PgBouncer connects to: a name, an address, or the directory of a Unix socket.
fn checked_host(host: &str) -> Result<String, String> {
    if host.contains(',') {
        return Err(several());
    }
    if host.is_empty() {
        return Err("names no host; write postgresql://HOST:PORT".to_owned());
    }
    if host.starts_with('/') {
        if host.len() <= SOCKET_DIR_MAX && !host.contains(|c: char| c.is_control()) {
            return Ok(host.to_owned());
        }
        return Err(format!(
            "names the socket directory {}; a directory has at most {SOCKET_DIR_MAX} bytes and no \
             control characters",
            quoted(host)
        ));
    }
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_name = host.len() <= HOST_MAX && host.chars().all(named);
    if is_name || host.parse::<std::net::IpAddr>().is_ok() {
        return Ok(host.to_owned());
    }
    Err(format!(
        "names the host {}; a host is an IP address, a name of letters a-z, digits and . - _ (others \
         in their xn-- form), or the directory of a Unix socket",
        quoted(host)
    ))
}

fn checked_port(port: &str) -> Result<u16, String> {
    if port.is_empty() {
        return Ok(PORT_DEFAULT);
    }
    if port.contains(',') {
        return Err(several());
    }
    let digits = port.chars().all(|c| c.is_ascii_digit());
    let read = port.parse().ok().filter(|port| digits && *port > 0);
    read.ok_or_else(|| format!("names the port {}; write one from 1 to 65535", quoted(port)))
}

fn several() -> String {
    "names several hosts: libpq tries them in order, and PgBouncer would spread connections over all \
     of them; name one, or a Service that follows the primary"
        .to_owned()
}

/// Text with its percent-encoding resolved.
fn decoded(text: &str) -> Result<String, String> {
    let broken = || {
        format!(
            "has a percent-encoding that cannot be read in {}",
            quoted(text)
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
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::pgbouncer::ini::reader;

    fn of(config: &serde_json::Value) -> Result<BackendAddress, String> {
        address(&serde_json::from_value(config.clone()).unwrap(), "vault")
    }

    fn url(url: &str) -> Result<BackendAddress, String> {
        of(&json!({ "url": url }))
    }

    fn host(host: &str, port: u16) -> BackendAddress {
        BackendAddress::Host {
            host: host.to_owned(),
            port,
        }
    }

    fn list(text: &str) -> BackendAddress {
        BackendAddress::ConnectString(ConnectString::parse(text).unwrap())
    }

    #[test]
    fn a_service_becomes_its_name_in_the_cluster() {
        let service = json!({ "scheme": "postgresql", "name": "books", "port": 5433 });
        assert_eq!(
            of(&json!({ "service": service })),
            Ok(host("books.vault.svc", 5433))
        );
        for (field, value) in [
            ("name", json!("books\n[pgbouncer]\nauth_type = any")),
            ("name", json!("books dbname=other")),
            ("name", json!("")),
            ("namespace", json!("vault.svc user=x")),
            ("namespace", json!("-a")),
            ("port", json!(0)),
            ("port", json!(65_536)),
            ("port", json!(-1)),
        ] {
            let mut service = service.clone();
            service[field] = value;
            let error = of(&json!({ "service": service })).unwrap_err();
            let named = format!("spec.clientConfig.service.{field} is ");
            assert!(error.starts_with(&named), "{error}");
            assert!(!error.contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn a_url_is_taken_apart_as_libpq_does() {
        for (text, expected) in [
            (
                "postgresql://me:x@db.example.org:6000/ledger?sslmode=disable",
                host("db.example.org", 6000),
            ),
            ("postgres://127.0.0.9", host("127.0.0.9", 5432)),
            ("postgres://[::1]:7/x", host("::1", 7)),
            ("postgresql://%2Frun%2Fpg/db", host("/run/pg", 5432)),
            (
                "postgresql:///db?host=/run/pg&port=6000",
                host("/run/pg", 6000),
            ),
            ("postgresql:///db?host=%2Frun%2Fpg", host("/run/pg", 5432)),
            (
                "postgresql://a/db?host=b&connect_timeout=3",
                host("b", 5432),
            ),
            ("postgresql:///db?hostaddr=10.0.0.1", host("10.0.0.1", 5432)),
            (
                "postgresql://b%6Foks.example.org:5433",
                host("books.example.org", 5433),
            ),
            ("host=a port=1", list("host=a port=1")),
            (
                "host = 'a' \t user='x y' password='it\\'s'",
                list("host=a user='x y' password='it''s'"),
            ),
            ("hostaddr=10.0.0.1 port=2", list("host=10.0.0.1 port=2")),
            ("host=/run/pg dbname=b", list("host=/run/pg dbname=b")),
        ] {
            assert_eq!(url(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_pgbouncer_cannot_do_is_refused_by_its_reason() {
        for (text, reason) in [
            ("postgresql://h1:5432,h2:5432/db", "names several hosts"),
            ("postgresql://h1%2Ch2/db", "names several hosts"),
            ("postgresql:///db?host=a,b", "names several hosts"),
            ("postgresql://a/db?port=1,2", "names several hosts"),
            ("host=a,b", "names several hosts"),
            ("postgres://:7/x", "names no host"),
            ("postgresql:///db", "names no host"),
            ("user=x", "names no host"),
            ("mysql://a/b", "has the scheme \"mysql\""),
            ("postgres://a:b/x", "names the port \"b\""),
            ("postgres://a:0/x", "names the port \"0\""),
            ("postgres://a:+5/x", "names the port \"+5\""),
            ("postgres://a%zz/x", "percent-encoding"),
            ("postgres://a%00/x", "percent-encoding"),
            ("postgres://a%0Ab/x", "names the host \"a\\u{a}b\""),
            ("postgres://a%20user=x/x", "names the host \"a user=x\""),
            ("postgres://bücher/x", "names the host \"bücher\""),
            ("postgres://[::1/x", "a [ without its ]"),
            ("nonsense", "neither postgresql://"),
            ("host=a password='open", "neither postgresql://"),
            (
                "host=a\nauth_type=any",
                "has \"auth_type\", which is no setting",
            ),
            (
                "host=a sslmode=require",
                "has \"sslmode\", which is no setting",
            ),
            ("host=a password='x\ny'", "has a value of \"password\""),
            ("", "neither postgresql://"),
        ] {
            let error = url(text).unwrap_err();
            assert!(error.starts_with("spec.clientConfig.url "), "{error}");
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(
            of(&json!({}))
                .unwrap_err()
                .contains("neither a service nor a url")
        );
    }

    #[test]
    fn the_name_of_an_object_is_no_path() {
        for name in ["books", "books.vault-2", "1.18.0"] {
            assert_eq!(object_name("spec.version", name), Ok(()));
        }
        for name in [
            "",
            "../secrets/x",
            "a..b",
            "a/b",
            "a?b",
            "a%2fb",
            "a b",
            "A",
            ".a",
            "a.",
            "a-",
            "-a",
            "a.-b",
            "a\n",
        ] {
            let error = object_name("spec.version", name).unwrap_err();
            assert!(error.starts_with("spec.version is \""), "{error}");
        }
    }

    #[test]
    fn a_password_is_not_repeated() {
        for text in ["postgresql://me:xyzzy@a:x/b", "host=a password='xy\nzzy'"] {
            let error = url(text).unwrap_err();
            assert!(!error.contains("zzy"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_url_is_refused_or_becomes_what_pgbouncer_reads(
            text in "(postgresql://|host=|)([a-z0-9.:/@?&=%,'\\\\ \\n\\x00\"\\[\\]]|\\PC){0,40}",
        ) {
            match url(&text) {
                Ok(BackendAddress::Host { host, .. }) => {
                    prop_assert!(!host.contains(char::is_control));
                    let line = ConnectString::new().with("host", &host).unwrap().to_string();
                    prop_assert_eq!(reader::pairs(&line).unwrap(), [("host".to_owned(), host)]);
                }
                Ok(BackendAddress::ConnectString(list)) => {
                    let read = reader::pairs(&list.to_string()).unwrap();
                    let read: Vec<_> = read.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                    prop_assert_eq!(read, list.pairs().collect::<Vec<_>>());
                }
                Err(error) => prop_assert!(!error.contains(crate::printable::is_hazard)),
            }
        }
    }
}
