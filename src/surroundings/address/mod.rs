//! Where an AppBinding says that its PostgreSQL listens: a Service, a URL or a list of `key=value`.
//!
//! URL and list are read as libpq reads them, as far as PgBouncer can do the same. What it cannot do
//! is refused by its reason: several hosts (libpq tries them in order, PgBouncer would spread
//! connections over all of them) and URLs without a host (libpq has a default, PgBouncer's pod has
//! nothing there).

#[cfg(test)]
mod tests;

use super::libpq::{self, Parameter, Stated, decoded};
use crate::api::appbinding::{ClientConfig, ServiceReference};
use crate::blueprint::BackendAddress;
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

/// Where a PostgreSQL listens, and what else is said of connections to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The address.
    pub(super) address: BackendAddress,
    /// What parameters state.
    pub(super) stated: Stated,
}

/// The place, or what is wrong with it, as the end of a sentence about the AppBinding.
pub(super) fn place(config: &ClientConfig, namespace: &str) -> Result<Place, String> {
    let url = config.url.as_deref().map(str::trim);
    let by_url = url.map(|url| {
        let mut stated = Stated::default();
        let address = from_text(url, &mut stated);
        let address = address.map_err(|what| format!("spec.clientConfig.url {what}"))?;
        Ok(Place { address, stated })
    });
    let Some(service) = &config.service else {
        return by_url.unwrap_or_else(|| {
            Err("spec.clientConfig gives neither a service nor a url".to_owned())
        });
    };
    let place = by_service(service, namespace)?;
    // Of both, the Service is the address. A URL of another dialect beside it states nothing.
    let is_ours = |url: &str| url.starts_with("postgres://") || url.starts_with("postgresql://");
    let Some(other) = by_url.filter(|_| url.is_some_and(is_ours)).transpose()? else {
        return Ok(place);
    };
    let (ours, theirs) = (place.stated.mode, other.stated.mode);
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours != theirs => Err(format!(
            "spec.clientConfig.service.query has sslmode={}, and spec.clientConfig.url has \
             sslmode={}; write one of them",
            ours.as_str(),
            theirs.as_str()
        )),
        _ => Ok(Place {
            stated: Stated {
                mode: ours.or(theirs),
            },
            ..place
        }),
    }
}

fn by_service(service: &ServiceReference, namespace: &str) -> Result<Place, String> {
    let namespace = service.namespace.as_deref().unwrap_or(namespace);
    label("spec.clientConfig.service.name", &service.name)?;
    label("spec.clientConfig.service.namespace", namespace)?;
    if !["", "postgresql", "postgres"].contains(&service.scheme.as_str()) {
        return Err(format!(
            "spec.clientConfig.service.scheme is {}; write postgresql",
            quoted(&service.scheme)
        ));
    }
    let port = u16::try_from(service.port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| {
        let port = service.port;
        format!("spec.clientConfig.service.port is {port}; write a port from 1 to 65535")
    })?;
    let mut stated = Stated::default();
    let text = service.query.as_deref().unwrap_or_default();
    let text = text.strip_prefix('?').unwrap_or(text);
    let of_address = |key: &str, _| match key {
        "host" | "hostaddr" | "port" => Err(format!(
            "has {key}; the address is service.name and service.port, so remove it"
        )),
        _ => Ok(false),
    };
    libpq::query(text, &mut stated, of_address)
        .map_err(|what| format!("spec.clientConfig.service.query {what}"))?;
    Ok(Place {
        address: BackendAddress::Host {
            host: format!("{}.{namespace}.svc", service.name),
            port,
        },
        stated,
    })
}

/// Reads a URL or a list.
fn from_text(url: &str, stated: &mut Stated) -> Result<BackendAddress, String> {
    match url.split_once("://") {
        Some(("postgresql" | "postgres", rest)) => from_url(rest, stated),
        Some((scheme, _)) if !scheme.contains(['=', '\'', ' ']) => Err(format!(
            "has the scheme {}; write postgresql://HOST:PORT",
            quoted(scheme)
        )),
        _ => from_list(url, stated),
    }
}

/// Checks the name of an object that has to be a DNS label.
pub(super) fn label(field: &str, name: &str) -> Result<(), String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = !name.is_empty() && name.len() <= LABEL_MAX;
    if fits && name.chars().all(inner) && !name.starts_with('-') && !name.ends_with('-') {
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
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let fits = !name.is_empty() && name.len() <= HOST_MAX && !name.contains("..");
    if fits && name.chars().all(inner) && !name.starts_with('.') {
        return Ok(());
    }
    Err(format!(
        "{field} is {}; a name has at most {HOST_MAX} letters a-z, digits, - and .",
        quoted(name)
    ))
}

/// What stands behind `postgresql://`.
fn from_url(rest: &str, stated: &mut Stated) -> Result<BackendAddress, String> {
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
    libpq::query(query, stated, |key, value| {
        match key {
            "host" => host = value,
            "port" => port = value,
            "hostaddr" if host.is_empty() => host = value,
            "hostaddr" => {}
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(BackendAddress::Host {
        host: checked_host(&host)?,
        port: checked_port(&port)?,
    })
}

/// A list of `key=value` in libpq's dialect: any blank separates, a backslash escapes.
fn from_list(text: &str, stated: &mut Stated) -> Result<BackendAddress, String> {
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
            _ if stated.take(&key, &value)? == Parameter::Followed => continue,
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
