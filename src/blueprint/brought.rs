//! What a configuration that is brought along may not change: the settings by which the daemon, the
//! Service and the clients find and trust the pooler. It may tune everything else.

use serde_json::Value;

use super::config::ConfigError;
use crate::api::PgBouncer;
use crate::pgbouncer::ini::{Ini, Section};
use crate::printable::quoted;

/// Settings that follow from the specification, and where it says them.
const FIXED: [(&str, &str); 7] = [
    ("listen_port", "the port is spec.connectionPool.port"),
    (
        "auth_file",
        "users are those of spec.database, with their Secrets by spec.database.syncUsers",
    ),
    ("pidfile", "the pod's probes read it"),
    ("client_tls_sslmode", "the mode is spec.sslMode"),
    ("client_tls_ca_file", "certificates are those of spec.tls"),
    ("client_tls_cert_file", "certificates are those of spec.tls"),
    ("client_tls_key_file", "certificates are those of spec.tls"),
];
/// Addresses that other pods can reach.
const EVERYWHERE: [&str; 3] = ["*", "0.0.0.0", "::"];

/// Checks the settings of `brought` against `ours`, which has those of the specification. A setting that
/// the specification does not make, such as `client_tls_*` without `spec.tls`, is the user's own.
pub(super) fn check(
    brought: &Ini,
    ours: &Ini,
    (origin, bouncer): (&str, &PgBouncer),
) -> Result<(), ConfigError> {
    let get = |key: &str| brought.get(Section::Pgbouncer, key);
    let refuse = |key: &'static str, value: &str, instead: String| ConfigError::Taken {
        origin: origin.to_owned(),
        key,
        value: value.to_owned(),
        instead,
    };
    for (key, place) in FIXED {
        let (Some(value), Some(set)) = (get(key), ours.get(Section::Pgbouncer, key)) else {
            continue;
        };
        if value != set {
            let instead = format!("leave it out, or write {}: {place}", quoted(set));
            return Err(refuse(key, value, instead));
        }
    }
    if let Some(value) = get("user") {
        let instead =
            "leave it out: the securityContext of spec.podTemplate says as whom the pod runs";
        return Err(refuse("user", value, instead.to_owned()));
    }
    let listed =
        |list: &str, wanted: &[&str]| list.split(',').any(|one| wanted.contains(&one.trim()));
    if let Some(value) = get("listen_addr").filter(|value| !listed(value, &EVERYWHERE)) {
        let instead = "leave it out, or write \"*\": clients and the daemon come from other pods";
        return Err(refuse("listen_addr", value, instead.to_owned()));
    }
    let admin = ours
        .get(Section::Pgbouncer, "admin_users")
        .unwrap_or_default();
    if let Some(value) = get("admin_users").filter(|value| !listed(value, &[admin])) {
        let instead = format!(
            "add {}: the daemon logs in to the console as that user",
            quoted(admin)
        );
        return Err(refuse("admin_users", value, instead));
    }
    if let Some(value) = get("auth_hba_file").filter(|value| !is_mounted(bouncer, value)) {
        let instead = "mount a volume there by spec.podTemplate, or leave it out: without the file every \
                       login is refused";
        return Err(refuse("auth_hba_file", value, instead.to_owned()));
    }
    Ok(())
}

/// Whether a file lies beneath a volume that `spec.podTemplate` mounts.
fn is_mounted(bouncer: &PgBouncer, file: &str) -> bool {
    let template = bouncer.spec.pod_template.as_ref();
    let containers = template.and_then(|template| template.pointer("/spec/containers"));
    let containers = containers.and_then(Value::as_array).into_iter().flatten();
    let mounts = containers.flat_map(|container| container["volumeMounts"].as_array());
    mounts.flatten().any(|mount| {
        let path = mount["mountPath"].as_str().unwrap_or_default();
        let inner = file.strip_prefix(path.trim_end_matches('/'));
        !path.is_empty() && inner.is_some_and(|inner| inner.is_empty() || inner.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing;
    use super::*;

    const ORIGIN: &str = "spec.configuration.inline";

    fn judged(text: &str, with_tls: bool, template: Option<Value>) -> Result<(), String> {
        let mut bouncer = testing::bouncer("billing");
        bouncer.spec.pod_template = template;
        let mut ours = Ini::new();
        let mut set = |key: &str, value: &str| {
            ours.set(Section::Pgbouncer, key, value).unwrap();
        };
        set("listen_port", "5432");
        set("auth_file", "/var/run/pgbouncer/secret/userlist");
        set("admin_users", "pgbouncer");
        set("pidfile", "/tmp/pgbouncer.pid");
        if with_tls {
            set("client_tls_sslmode", "verify-full");
            set("client_tls_ca_file", "/tls/ca.crt");
            set("client_tls_cert_file", "/tls/tls.crt");
            set("client_tls_key_file", "/tls/tls.key");
        }
        let brought = Ini::parse(&format!("[pgbouncer]\n{text}\n")).unwrap();
        check(&brought, &ours, (ORIGIN, &bouncer)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_specification_says_is_not_changed_by_a_file() {
        for (text, told) in [
            (
                "listen_port = 6432",
                "listen_port is \"6432\": leave it out, or write \"5432\": the port is spec.connectionPool.port",
            ),
            (
                "auth_file = /etc/users",
                "auth_file is \"/etc/users\": leave it out",
            ),
            ("pidfile = /run/x", "pidfile is \"/run/x\""),
            ("user = postgres", "user is \"postgres\": leave it out"),
            (
                "listen_addr = 127.0.0.1",
                "listen_addr is \"127.0.0.1\": leave it out, or write \"*\"",
            ),
            (
                "admin_users = ops",
                "admin_users is \"ops\": add \"pgbouncer\"",
            ),
            (
                "auth_hba_file = /etc/hba",
                "auth_hba_file is \"/etc/hba\": mount a volume there",
            ),
            (
                "client_tls_sslmode = prefer",
                "client_tls_sslmode is \"prefer\": leave it out, or write \"verify-full\": the mode is spec.sslMode",
            ),
            (
                "client_tls_sslmode = disable",
                "client_tls_sslmode is \"disable\"",
            ),
            ("client_tls_ca_file = /x", "client_tls_ca_file is \"/x\""),
            (
                "client_tls_cert_file = /x",
                "client_tls_cert_file is \"/x\"",
            ),
            ("client_tls_key_file = /x", "client_tls_key_file is \"/x\""),
        ] {
            let error = judged(text, true, None).unwrap_err();
            assert!(error.starts_with(ORIGIN) && error.contains(told), "{error}");
        }
    }

    #[test]
    fn what_says_the_same_and_what_tunes_stays() {
        for text in [
            "listen_port = 5432",
            "client_tls_sslmode=verify-full",
            "admin_users = ops, pgbouncer",
            "listen_addr = 0.0.0.0",
            "listen_addr = 10.0.0.1, ::",
            "auth_type = scram-sha-256",
            "client_tls_ciphers = secure",
            "pool_mode = transaction",
            "stats_users = ops",
            "unix_socket_dir = /tmp",
        ] {
            assert_eq!(judged(text, true, None), Ok(()), "{text}");
        }
        let own = "client_tls_sslmode = require\nclient_tls_key_file = /own/key";
        assert_eq!(judged(own, false, None), Ok(()), "without spec.tls");
        let mounts = json!([{"name": "hba", "mountPath": "/etc/hba/"}]);
        let template =
            json!({"spec": {"containers": [{"name": "pgbouncer", "volumeMounts": mounts}]}});
        let inside = judged(
            "auth_hba_file = /etc/hba/file",
            true,
            Some(template.clone()),
        );
        assert_eq!(inside, Ok(()));
        let beside = judged("auth_hba_file = /etc/hba-other/file", true, Some(template));
        assert!(beside.is_err());
    }
}
