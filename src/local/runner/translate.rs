//! The copy of the ini that the process reads: Kubernetes paths become host paths, service names
//! become addresses, and the settings that one machine with many poolers needs come last.
//!
//! No mount namespace is used, so a path in the ini is found by text. A path matches a mount only
//! at a path boundary, and the longest mount wins. `PgBouncer` takes the last value of a setting
//! within a section, but a second `[pgbouncer]` section sets everything it does not name back to its
//! default. So the overriding settings go to the end of the section that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A directory (or file) of the container and where it really is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Path in the container.
    pub container: String,
    /// Path on this machine.
    pub host: String,
}

/// The settings that the runner decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overrides {
    /// The pod's address.
    pub listen_addr: String,
    /// Directory of the Unix socket; short, because socket paths are limited to 107 bytes.
    pub socket_dir: String,
    /// Where the process writes its process id.
    pub pidfile: String,
}

/// The translated ini. `addresses` maps host names of `[databases]` to addresses; a name it does
/// not hold stays as it is, and the pooler reports it.
pub fn translate(
    ini: &str,
    mounts: &[Mount],
    addresses: &BTreeMap<String, String>,
    overrides: &Overrides,
) -> String {
    let mut out = String::with_capacity(ini.len() + 512);
    let mut rest = 0;
    for value in host_values(ini) {
        out.push_str(&ini[rest..value.start]);
        let replaced: Vec<&str> = ini[value.clone()]
            .split(',')
            .map(|host| addresses.get(host.trim()).map_or(host, String::as_str))
            .collect();
        out.push_str(&replaced.join(","));
        rest = value.end;
    }
    out.push_str(&ini[rest..]);
    with_overrides(host_paths(&out, mounts), overrides)
}

/// The ini with `overrides` at the end of its last `[pgbouncer]` section, or in a new one.
fn with_overrides(mut ini: String, overrides: &Overrides) -> String {
    let Overrides {
        listen_addr,
        socket_dir,
        pidfile,
    } = overrides;
    let settings = format!(
        "listen_addr = {listen_addr}\nunix_socket_dir = {socket_dir}\npidfile = {pidfile}\nlogfile =\n"
    );
    if !ini.ends_with('\n') {
        ini.push('\n');
    }
    if let Some(at) = section_end(&ini) {
        ini.insert_str(at, &settings);
    } else {
        ini.push_str("[pgbouncer]\n");
        ini.push_str(&settings);
    }
    ini
}

/// Where the last `[pgbouncer]` section ends.
fn section_end(ini: &str) -> Option<usize> {
    let (mut end, mut inside, mut start) = (None, false, 0);
    for line in ini.split_inclusive('\n') {
        let text = line.trim();
        if text.starts_with('[') {
            if inside {
                end = Some(start);
            }
            inside = text.eq_ignore_ascii_case("[pgbouncer]");
        }
        start += line.len();
    }
    if inside { Some(ini.len()) } else { end }
}

/// The host names that `[databases]` connects to; addresses and socket directories are left out.
pub fn hosts(ini: &str) -> BTreeSet<String> {
    host_values(ini)
        .into_iter()
        .flat_map(|value| ini[value].split(','))
        .map(str::trim)
        .filter(|host| !host.is_empty() && !host.starts_with(['/', '@']))
        .filter(|host| host.parse::<std::net::IpAddr>().is_err())
        .map(str::to_owned)
        .collect()
}

/// Every occurrence of a mount path in `text`, replaced by its host path.
pub fn host_paths(text: &str, mounts: &[Mount]) -> String {
    let mut mounts: Vec<(&str, &str)> = mounts
        .iter()
        .map(|m| (m.container.trim_end_matches('/'), m.host.as_str()))
        .filter(|(container, _)| !container.is_empty())
        .collect();
    mounts.sort_by_key(|(container, _)| std::cmp::Reverse(container.len()));
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let tail = &text[at..];
        let starts_path = !out.ends_with(is_path_char);
        let hit = mounts.iter().find(|(container, _)| {
            starts_path
                && tail.starts_with(container)
                && !tail[container.len()..].starts_with(is_name_char)
        });
        if let Some((container, host)) = hit {
            out.push_str(host);
            at += container.len();
            // What follows belongs to this path: copy it, so that it is not searched again.
            let end = text[at..]
                .find(|c: char| !is_path_char(c))
                .map_or(text.len(), |n| at + n);
            out.push_str(&text[at..end]);
            at = end;
        } else {
            let Some(c) = tail.chars().next() else { break };
            out.push(c);
            at += c.len_utf8();
        }
    }
    out
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn is_path_char(c: char) -> bool {
    is_name_char(c) || c == '/'
}

/// Where the values of `host` stand in the `[databases]` section.
fn host_values(ini: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut in_databases = false;
    let mut start = 0;
    for line in ini.split_inclusive('\n') {
        let text = line.trim();
        if text.starts_with('[') {
            in_databases = text.eq_ignore_ascii_case("[databases]");
        } else if in_databases && !text.starts_with([';', '#']) {
            // The connection string begins after the first `=`: before it is the database name.
            if let Some(eq) = line.find('=') {
                found.extend(host_value(&line[eq + 1..], start + eq + 1));
            }
        }
        start += line.len();
    }
    found
}

/// The value of `host` in one connection string that begins at `offset` of the ini.
fn host_value(conninfo: &str, offset: usize) -> Option<Range<usize>> {
    let bytes = conninfo.as_bytes();
    let skip = |mut at: usize, wanted: fn(u8) -> bool| {
        while at < bytes.len() && wanted(bytes[at]) {
            at += 1;
        }
        at
    };
    let blank: fn(u8) -> bool = |b| b.is_ascii_whitespace();
    let mut at = 0;
    loop {
        let key = skip(at, blank);
        let key_end = skip(key, |b| !b.is_ascii_whitespace() && b != b'=');
        let eq = skip(key_end, blank);
        if key == key_end || bytes.get(eq) != Some(&b'=') {
            return None;
        }
        let value = skip(eq + 1, blank);
        let (from, to, next) = if bytes.get(value) == Some(&b'\'') {
            let end = skip(value + 1, |b| b != b'\'');
            (value + 1, end, (end + 1).min(bytes.len()))
        } else {
            let end = skip(value, |b| !b.is_ascii_whitespace());
            (value, end, end)
        };
        if conninfo[key..key_end].eq_ignore_ascii_case("host") {
            return Some(offset + from..offset + to);
        }
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(container: &str, host: &str) -> Mount {
        Mount {
            container: container.into(),
            host: host.into(),
        }
    }

    fn overrides() -> Overrides {
        Overrides {
            listen_addr: "127.70.1.9".into(),
            socket_dir: "/r/1/run".into(),
            pidfile: "/r/1/run/pid".into(),
        }
    }

    #[test]
    fn paths_are_replaced_at_boundaries_and_the_longest_mount_wins() {
        let mounts = [
            mount("/etc/config", "/r/1/volumes/ini"),
            mount("/etc/config/extra/", "/r/1/volumes/extra"),
        ];
        let text = "a=/etc/config/x b = /etc/config/extra/y c=/etc/config2/z d=/opt/etc/config/q\n/etc/config";
        assert_eq!(
            host_paths(text, &mounts),
            "a=/r/1/volumes/ini/x b = /r/1/volumes/extra/y c=/etc/config2/z d=/opt/etc/config/q\n/r/1/volumes/ini"
        );
    }

    #[test]
    fn a_host_path_that_holds_a_mount_path_is_not_replaced_again() {
        let mounts = [mount("/etc/config", "/srv/etc/config")];
        assert_eq!(
            host_paths("x=/etc/config/etc/config/a", &mounts),
            "x=/srv/etc/config/etc/config/a"
        );
    }

    #[test]
    fn service_names_become_addresses_in_the_databases_section_only() {
        let ini = "[databases]\nshop= host=ledger.stock.svc port=5432 dbname=shop\n; old = host=ledger.stock.svc\nhostess = dbname='host=x' host = 'ledger.stock.svc'\n[pgbouncer]\nnote = host=ledger.stock.svc\n";
        let addresses = BTreeMap::from([("ledger.stock.svc".to_owned(), "127.66.0.3".to_owned())]);
        let out = translate(ini, &[], &addresses, &overrides());
        assert!(out.contains("shop= host=127.66.0.3 port=5432"), "{out}");
        assert!(out.contains("host = '127.66.0.3'"), "{out}");
        assert!(out.contains("; old = host=ledger.stock.svc"), "{out}");
        assert!(out.contains("note = host=ledger.stock.svc"), "{out}");
        assert!(out.contains("dbname='host=x'"), "{out}");
    }

    #[test]
    fn hosts_lists_names_but_neither_addresses_nor_socket_directories() {
        let ini = "[databases]\na = host=north.stock.svc,south.stock.svc\nb = host=10.1.2.3\nc = host=/run/pg\nd = dbname=x\n* = port=7 host=bare\n";
        let found: Vec<_> = hosts(ini).into_iter().collect();
        assert_eq!(found, ["bare", "north.stock.svc", "south.stock.svc"]);
    }

    #[test]
    fn the_settings_of_the_runner_end_the_section_that_is_there() {
        let ours = "listen_addr = 127.70.1.9\nunix_socket_dir = /r/1/run\npidfile = /r/1/run/pid\nlogfile =\n";
        let translated = |ini: &str| translate(ini, &[], &BTreeMap::new(), &overrides());
        assert_eq!(
            translated("[pgbouncer]\nlisten_addr = *\n[users]\na = pool_mode=session"),
            format!("[pgbouncer]\nlisten_addr = *\n{ours}[users]\na = pool_mode=session\n")
        );
        assert_eq!(
            translated("[databases]\n[pgbouncer]\nlogfile = /tmp/x.log"),
            format!("[databases]\n[pgbouncer]\nlogfile = /tmp/x.log\n{ours}")
        );
        assert_eq!(
            translated("[databases]\n"),
            format!("[databases]\n[pgbouncer]\n{ours}")
        );
    }
}
