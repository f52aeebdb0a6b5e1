//! The configuration of a pooler, key by key as KubeDB renders it
//! (docs/kubedb-compatibility.md, "Configuration file").
//!
//! Layers, the least important first: template, `spec.connectionPool`, the user's Secret, the
//! inline text. `server_tls_*` is rendered where the AppBinding, or an annotation in its stead, states a
//! mode ([`super::backend_tls`]); the user's text may be stricter then, and not weaker.
//!
//! Text from objects is data here: what the file cannot hold is refused with the object, the field
//! and the reason, and a [`Configuration`] exists only if PgBouncer's own grammar reads what was
//! meant.

use kube::ResourceExt;

use super::inputs::{Backend, BackendAddress, Surroundings};
use super::names;
use crate::api::PgBouncer;
use crate::api::annotations::BACKEND_SSLMODE;
use crate::api::pgbouncer::ConnectionPool;
use crate::api::tls::AuthType;
use crate::names::{Alias, ObjectRef};
use crate::pgbouncer::Version;
use crate::pgbouncer::ini::{
    self, ConnectString, DatabaseName, Ini, Marker, ParseError, Problem, Section, Unquoted,
    Unwritable, UnwritableAt, reader,
};
use crate::printable::quoted;

/// Port that the pooler listens on by default.
pub const PORT_DEFAULT: i32 = names::SERVICE_PORT;

/// Who logs in how where the configuration says `auth_type=cert`; the first line that matches counts.
///
/// A CA signs for many, and PgBouncer asks only whether a certificate names the user. So a certificate
/// alone opens neither the admin console nor anything for the name that our own client certificates
/// bear: both take a password as well, which is of this PgBouncer alone.
pub(super) const HBA: &str = "\
# Written by Bouncert in place of auth_type=cert. The console, and the user whose name is in the client
# certificates of every PgBouncer, need a certificate and a password; other users a certificate.
hostssl \"pgbouncer\" all 0.0.0.0/0 scram-sha-256
hostssl \"pgbouncer\" all ::/0 scram-sha-256
hostssl all \"pgbouncer\" 0.0.0.0/0 scram-sha-256
hostssl all \"pgbouncer\" ::/0 scram-sha-256
hostssl all all 0.0.0.0/0 cert
hostssl all all ::/0 cert
";

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
    /// A field whose text the file cannot hold.
    #[error("PgBouncer {at}: {field} is {}", quoted(.text))]
    Field {
        /// The object.
        at: ObjectRef,
        /// The field.
        field: &'static str,
        /// What is there.
        text: String,
        /// Why it cannot be used.
        #[source]
        why: Unwritable,
    },
    /// A name that the version has no quoting for.
    #[error(
        "PgBouncer {at}: spec.database.databaseName is {}: {}; rename the database or choose such a \
         spec.version",
        quoted(.name), Unquoted(*.version)
    )]
    DatabaseName {
        /// The object.
        at: ObjectRef,
        /// What is there.
        name: String,
        /// The version that runs.
        version: Version,
    },
    /// An admin user that would become several.
    #[error(
        "PgBouncer {at}: username in the auth Secret is {}; admin_users is a list, so the name may \
         not hold commas or blanks",
        quoted(.name)
    )]
    Admin {
        /// The object.
        at: ObjectRef,
        /// What is there.
        name: String,
    },
    /// The user's text undoes what is stated of TLS towards PostgreSQL.
    #[error(
        "{origin}, key pgbouncer.ini, sets {key}, and the AppBinding (or the annotation \
         {BACKEND_SSLMODE}) asks for {wanted}: remove the line"
    )]
    BackendTls {
        /// Where the text comes from.
        origin: String,
        /// The parameter.
        key: &'static str,
        /// What is asked for.
        wanted: String,
    },
    /// The port is none.
    #[error("PgBouncer {at}: spec.connectionPool.port is {port}; write a port from 1 to 65535")]
    Port {
        /// The object.
        at: ObjectRef,
        /// What is there.
        port: i32,
    },
    /// Text that the file cannot hold, of whatever field.
    #[error("a value cannot stand in pgbouncer.ini")]
    Text(#[from] UnwritableAt),
    /// PgBouncer would read the file otherwise than it was meant.
    #[error("pgbouncer.ini would be read otherwise than it was meant; nothing is published")]
    ReadBack,
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

/// The throttling defaults that are in force: `max_db_connections=1` and `max_user_connections=2` let
/// a database have one server connection (docs/kubedb-compatibility.md, "Defaults that throttle").
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

/// Where [`HBA`] is mounted.
fn hba_file() -> String {
    format!("{}/{}", names::CONFIG_DIR, names::HBA_KEY)
}

/// What the configuration has read as its `auth_hba_file`; `None` where that is not ours.
pub(super) fn hba(ini: &Ini) -> Option<&'static str> {
    let file = ini.get(Section::Pgbouncer, "auth_hba_file");
    (file == Some(hba_file().as_str())).then_some(HBA)
}

/// The `auth_type` in force.
pub(super) fn auth_type(ini: &Ini) -> String {
    ini.get(Section::Pgbouncer, "auth_type")
        .unwrap_or("md5")
        .to_owned()
}

/// A file that may be published.
#[derive(Clone, Debug)]
pub(super) struct Configuration(String);

impl Configuration {
    /// Writes the file with its marker and reads it back as that version does.
    pub(super) fn new(ini: &Ini, marker: &Marker, version: Version) -> Result<Self, ConfigError> {
        let text = ini.publish(marker);
        let read = reader::read(&text, version).map_err(|_| ConfigError::ReadBack)?;
        let mut read: Vec<(&str, &str, &str)> = read.iter().map(parts).collect();
        let last = read.pop().ok_or(ConfigError::ReadBack)?;
        let shown = [(last.1.to_owned(), last.2.to_owned())];
        let holds_marker = Marker::in_config(&shown.into()).as_ref() == Some(marker);
        let meant = Section::ALL.into_iter().flat_map(|section| {
            let lines = ini.section(section);
            lines.map(move |(key, value)| (section.as_str(), key, value))
        });
        // The marker's parameter is the one that does not stay as it was.
        let mut meant: Vec<_> = meant
            .filter(|(section, key, _)| (*section, *key) != (last.0, last.1))
            .collect();
        meant.sort_unstable();
        read.sort_unstable();
        let mut lists = read.iter().filter(|(section, ..)| *section != "pgbouncer");
        if holds_marker && meant == read && lists.all(|(_, _, list)| reads_as_meant(list)) {
            Ok(Self(text))
        } else {
            Err(ConfigError::ReadBack)
        }
    }

    /// The file.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

fn parts(setting: &reader::Setting) -> (&str, &str, &str) {
    (&setting.section, &setting.key, &setting.value)
}

/// Whether PgBouncer reads the pairs of a connect string that were written.
fn reads_as_meant(list: &str) -> bool {
    let (Ok(read), Some(meant)) = (reader::pairs(list), ConnectString::parse(list)) else {
        return false;
    };
    let read = read
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    meant.pairs().eq(read)
}

/// Whether a configuration can be written for a completed object, before anything is made for it.
/// The admin user may be unknown yet.
pub fn examine(bouncer: &PgBouncer, around: &Surroundings) -> Result<(), ConfigError> {
    let admin = around.admin.as_ref();
    let admin = admin.map_or("pgbouncer", |admin| admin.username.as_str());
    let ini = ini(bouncer, around, admin)?;
    Configuration::new(&ini, &Marker::of(""), around.program.version).map(drop)
}

/// The whole configuration, checked for the version that will load it.
pub(super) fn ini(
    bouncer: &PgBouncer,
    around: &Surroundings,
    admin: &str,
) -> Result<Ini, ConfigError> {
    let mut layers = vec![ours(bouncer, around, admin)?];
    let tls = &around.backend.tls;
    let mut add = |text: &str, origin: &str| -> Result<(), ConfigError> {
        let theirs = users(text, origin)?;
        tls.check_users(&theirs, origin)?;
        layers.push(theirs);
        Ok(())
    };
    let custom = bouncer.spec.configuration.as_ref();
    if let Some(text) = &around.custom_ini {
        let name = custom
            .and_then(|custom| custom.secret_name.clone())
            .unwrap_or_default();
        add(text, &format!("Secret {name}"))?;
    }
    if let Some(text) = custom.and_then(|custom| custom.inline.get(names::INI_KEY)) {
        add(text, "spec.configuration.inline")?;
    }
    let mut merged = Ini::merged(&layers);
    ini::check(&merged, around.program.version)
        .map_err(|problems| ConfigError::Refused { problems })?;
    if auth_type(&merged).eq_ignore_ascii_case("cert") {
        merged.set(Section::Pgbouncer, "auth_type", "hba")?;
        merged.set(Section::Pgbouncer, "auth_hba_file", hba_file())?;
    }
    Ok(merged)
}

/// The template and `spec.connectionPool`.
fn ours(bouncer: &PgBouncer, around: &Surroundings, admin: &str) -> Result<Ini, ConfigError> {
    let pool = bouncer.spec.connection_pool.clone().unwrap_or_default();
    let at = || ObjectRef::new(bouncer.namespace().unwrap_or_default(), bouncer.name_any());
    let port = port(bouncer);
    if u16::try_from(port).map_or(true, |port| port == 0) {
        return Err(ConfigError::Port { at: at(), port });
    }
    if admin.contains([',', ' ', '\t']) {
        let name = admin.to_owned();
        return Err(ConfigError::Admin { at: at(), name });
    }
    let database = database(bouncer, around.program.version)?;
    let mut ini = Ini::new();
    let leads_to = target(&around.backend, &database)?;
    ini.set(Section::Databases, database.as_str(), leads_to)?;
    let mut failed = None;
    let mut set = |key: &str, value: &dyn std::fmt::Display| {
        if let Err(error) = ini.set(Section::Pgbouncer, key, value) {
            failed.get_or_insert_with(|| (key.to_owned(), error));
        }
    };
    set("listen_addr", &"*");
    set("listen_port", &port);
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
    for (key, value) in around.backend.tls.settings() {
        set(key, &value);
    }
    match failed {
        None => Ok(ini),
        Some((key, UnwritableAt { text, why, .. })) => {
            let field = match key.as_str() {
                "pool_mode" => "spec.connectionPool.poolMode",
                "ignore_startup_parameters" => "spec.connectionPool.ignoreStartupParameters",
                _ => "username in the auth Secret",
            };
            let at = at();
            Err(ConfigError::Field {
                at,
                field,
                text,
                why,
            })
        }
    }
}

/// The database that the object names, if the version can be told of it.
fn database(bouncer: &PgBouncer, version: Version) -> Result<DatabaseName, ConfigError> {
    let name = &bouncer.spec.database.database_name;
    let at = ObjectRef::new(bouncer.namespace().unwrap_or_default(), bouncer.name_any());
    let database = match DatabaseName::new(name) {
        Ok(database) => database,
        Err(why) => {
            return Err(ConfigError::Field {
                at,
                field: "spec.database.databaseName",
                text: name.clone(),
                why,
            });
        }
    };
    if database.is_read_by(version) {
        return Ok(database);
    }
    let name = name.clone();
    Err(ConfigError::DatabaseName { at, name, version })
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

/// Where a database leads. No user and no password: clients log in as themselves. A line for all
/// databases names none, so that each client gets the one that it asks for.
fn target(backend: &Backend, database: &DatabaseName) -> Result<ConnectString, UnwritableAt> {
    match &backend.address {
        BackendAddress::Host { host, port } => {
            let list = ConnectString::new()
                .with("host", host)?
                .with("port", port)?;
            if database.is_any() {
                return Ok(list);
            }
            list.with("dbname", database.as_str())
        }
        BackendAddress::ConnectString(list) => Ok(list.clone()),
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
