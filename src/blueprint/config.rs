//! The configuration of a pooler, key by key as KubeDB renders it (CONTRACT 2.5).
//!
//! Layers, the least important first: template, `spec.connectionPool`, the user's Secret, the
//! inline text. `server_tls_*` is deliberately not among the keys: TLS towards PostgreSQL is the
//! user's configuration, and stays as it is through every change of the clients' side.

use super::inputs::{Backend, BackendAddress, Surroundings};
use super::names;
use crate::api::PgBouncer;
use crate::api::pgbouncer::ConnectionPool;
use crate::api::tls::AuthType;
use crate::names::Alias;
use crate::pgbouncer::ini::{self, ConnectString, Ini, ParseError, Problem, Section};

/// Port that the pooler listens on by default.
pub const PORT_DEFAULT: i32 = names::SERVICE_PORT;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The user's text is no ini file.
    #[error("{origin}, key pgbouncer.ini, is not a file that PgBouncer loads")]
    Parse {
        /// Where the text comes from.
        origin: String,
        /// What is wrong.
        #[source]
        source: ParseError,
    },
    /// The user's text redirects databases.
    #[error("{origin}, key pgbouncer.ini, may not have entries in [databases]")]
    Databases {
        /// Where the text comes from.
        origin: String,
    },
    /// PgBouncer would not load the result, or should not be given it.
    #[error("PgBouncer would refuse it: {}", list(.problems))]
    Refused {
        /// All that is wrong.
        problems: Vec<Problem>,
    },
}

/// Whether the pooler of a completed object offers TLS to its clients.
pub fn serves_tls(bouncer: &PgBouncer) -> bool {
    mounts_material(bouncer)
        && bouncer
            .spec
            .ssl_mode
            .is_none_or(crate::api::SslMode::is_tls)
}

/// Whether the pods of an object have key material: as soon as somebody signs it.
pub fn mounts_material(bouncer: &PgBouncer) -> bool {
    bouncer
        .spec
        .tls
        .as_ref()
        .is_some_and(|tls| tls.issuer_ref.is_some())
}

/// The port that the pooler listens on.
pub fn port(bouncer: &PgBouncer) -> i32 {
    bouncer
        .spec
        .connection_pool
        .as_ref()
        .and_then(|pool| pool.port)
        .unwrap_or(PORT_DEFAULT)
}

/// Which of the defaults that throttle are in force (CONTRACT G13): `max_db_connections=1` and
/// `max_user_connections=2` let a database have one server connection.
pub fn throttling_defaults(ini: &Ini, bouncer: &PgBouncer) -> Vec<(&'static str, String)> {
    let pool = bouncer.spec.connection_pool.clone().unwrap_or_default();
    [
        ("max_db_connections", pool.max_db_connections, "1"),
        ("max_user_connections", pool.max_user_connections, "2"),
    ]
    .into_iter()
    .filter(|(key, said, default)| {
        said.is_none() && ini.get(Section::Pgbouncer, key) == Some(default)
    })
    .map(|(key, _, default)| (key, default.to_owned()))
    .collect()
}

/// The `auth_type` in force.
pub(super) fn auth_type(ini: &Ini) -> String {
    ini.get(Section::Pgbouncer, "auth_type")
        .unwrap_or("md5")
        .to_owned()
}

/// The whole configuration, checked for the version that will load it.
pub(super) fn ini(
    bouncer: &PgBouncer,
    around: &Surroundings,
    admin: &str,
) -> Result<Ini, ConfigError> {
    let mut layers = vec![ours(bouncer, &around.backend, admin)];
    let custom = bouncer.spec.configuration.as_ref();
    if let Some(text) = &around.custom_ini {
        let name = custom
            .and_then(|custom| custom.secret_name.clone())
            .unwrap_or_default();
        layers.push(users(text, &format!("Secret {name}"))?);
    }
    if let Some(text) = custom.and_then(|custom| custom.inline.get(names::INI_KEY)) {
        layers.push(users(text, "spec.configuration.inline")?);
    }
    let merged = Ini::merged(&layers);
    ini::check(&merged, around.program.version)
        .map_err(|problems| ConfigError::Refused { problems })?;
    Ok(merged)
}

/// The template and `spec.connectionPool`.
fn ours(bouncer: &PgBouncer, backend: &Backend, admin: &str) -> Ini {
    let pool = bouncer.spec.connection_pool.clone().unwrap_or_default();
    let database = &bouncer.spec.database.database_name;
    let mut ini = Ini::new();
    ini.set(Section::Databases, database, target(backend, database));
    let mut set = |key: &str, value: &dyn std::fmt::Display| {
        ini.set(Section::Pgbouncer, key, value);
    };
    set("listen_addr", &"*");
    set("listen_port", &port(bouncer));
    set(
        "auth_type",
        &pool.auth_type.unwrap_or(AuthType::Md5).as_str(),
    );
    set(
        "auth_file",
        &format!("{}/{}", names::SECRET_DIR, names::USERLIST_KEY),
    );
    set("admin_users", &admin);
    set_pools(&pool, &mut set);
    set("logfile", &"/tmp/pgbouncer.log");
    set("pidfile", &"/tmp/pgbouncer.pid");
    if let Some(mode) = bouncer.spec.ssl_mode.filter(|_| serves_tls(bouncer)) {
        let dir = names::tls_dir(Alias::Server);
        set("client_tls_sslmode", &mode.as_str());
        set("client_tls_ca_file", &format!("{dir}/ca.crt"));
        set("client_tls_cert_file", &format!("{dir}/tls.crt"));
        set("client_tls_key_file", &format!("{dir}/tls.key"));
    }
    ini
}

fn set_pools(pool: &ConnectionPool, set: &mut impl FnMut(&str, &dyn std::fmt::Display)) {
    set("pool_mode", &pool.pool_mode.as_deref().unwrap_or("session"));
    set(
        "max_client_conn",
        &pool.max_client_connections.unwrap_or(100),
    );
    set("default_pool_size", &pool.default_pool_size.unwrap_or(20));
    set("min_pool_size", &pool.min_pool_size.unwrap_or(1));
    set("reserve_pool_size", &pool.reserve_pool_size.unwrap_or(1));
    set(
        "reserve_pool_timeout",
        &pool.reserve_pool_timeout_seconds.unwrap_or(5),
    );
    set("max_db_connections", &pool.max_db_connections.unwrap_or(1));
    set(
        "max_user_connections",
        &pool.max_user_connections.unwrap_or(2),
    );
    set("stats_period", &pool.stats_period_seconds.unwrap_or(60));
    let ignored = match pool.ignore_startup_parameters.as_deref().map(str::trim) {
        None | Some("" | "extra_float_digits") => "extra_float_digits".to_owned(),
        Some(more) => format!("extra_float_digits, {more}"),
    };
    set("ignore_startup_parameters", &ignored);
}

/// Where a database leads. No user and no password: clients log in as themselves.
fn target(backend: &Backend, database: &str) -> String {
    match &backend.address {
        BackendAddress::Host { host, port } => ConnectString::new()
            .with("host", host)
            .with("port", port)
            .with("dbname", database)
            .to_string(),
        BackendAddress::ConnectString(text) => text.clone(),
    }
}

/// The user's text, which may tune but not redirect.
fn users(text: &str, origin: &str) -> Result<Ini, ConfigError> {
    let ini = Ini::parse(text).map_err(|source| ConfigError::Parse {
        origin: origin.to_owned(),
        source,
    })?;
    if ini.section(Section::Databases).next().is_some() {
        return Err(ConfigError::Databases {
            origin: origin.to_owned(),
        });
    }
    Ok(ini)
}

fn list(problems: &[Problem]) -> String {
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    problems.join("; ")
}
