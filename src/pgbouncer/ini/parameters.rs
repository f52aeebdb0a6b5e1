//! The settings that each PgBouncer version knows. A setting that the running version does not know
//! stops the file from loading, so a missing row here is safer than a wrong one: it only refuses.
//!
//! The rows without a version are those of `SHOW CONFIG` on 1.18.0, the oldest version we drive;
//! the later ones are from the release notes.

use super::Section;
use crate::pgbouncer::Version;

/// What a value has to look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Anything, also nothing.
    Text,
    /// A whole number; `0x` and a leading `0` are understood. Switches are numbers too: `on` and
    /// `yes` do not load.
    Number,
    /// Seconds, not negative, with or without a fraction.
    Seconds,
    /// One of a few words, in any case.
    OneOf(&'static [&'static str]),
    /// The authentication method, whose words depend on the version.
    AuthType,
}

/// One known setting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) since: Version,
    pub(super) removed: Option<Version>,
}

impl Parameter {
    const fn since(mut self, major: u16, minor: u16) -> Self {
        self.since = Version::new(major, minor, 0);
        self
    }

    const fn removed(mut self, major: u16, minor: u16) -> Self {
        self.removed = Some(Version::new(major, minor, 0));
        self
    }

    /// Whether `version` loads a file with this setting.
    pub(super) fn known_to(&self, version: Version) -> bool {
        version >= self.since && self.removed.is_none_or(|removed| version < removed)
    }
}

/// The setting of that name in that section.
pub(super) fn find(section: Section, name: &str) -> Option<&'static Parameter> {
    let table = match section {
        Section::Pgbouncer => PGBOUNCER,
        Section::Databases => DATABASE,
        Section::Users => USER,
        Section::Peers => PEER,
    };
    table.iter().find(|parameter| parameter.name == name)
}

/// Whether a line of `[databases]` may hold that key, in any version.
pub fn is_of_a_database(key: &str) -> bool {
    find(Section::Databases, key).is_some()
}

/// First version with a `[peers]` section.
pub(super) const PEERS_SINCE: Version = Version::new(1, 19, 0);

/// Authentication methods, and the first version that has each.
pub(super) const AUTH_TYPES: &[(&str, Version)] = &[
    ("any", OLDEST),
    ("trust", OLDEST),
    ("plain", OLDEST),
    ("md5", OLDEST),
    ("cert", OLDEST),
    ("hba", OLDEST),
    ("pam", OLDEST),
    ("scram-sha-256", OLDEST),
    ("ldap", Version::new(1, 25, 0)),
];

const OLDEST: Version = Version::new(0, 0, 0);
const SSL_MODE: Kind = Kind::OneOf(&[
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
]);
const POOL_MODE: Kind = Kind::OneOf(&["session", "transaction", "statement"]);

const fn row(name: &'static str, kind: Kind) -> Parameter {
    Parameter {
        name,
        kind,
        since: OLDEST,
        removed: None,
    }
}

const fn text(name: &'static str) -> Parameter {
    row(name, Kind::Text)
}

const fn number(name: &'static str) -> Parameter {
    row(name, Kind::Number)
}

const fn seconds(name: &'static str) -> Parameter {
    row(name, Kind::Seconds)
}

const PGBOUNCER: &[Parameter] = &[
    text("admin_users"),
    number("application_name_add_host"),
    text("auth_dbname").since(1, 19),
    text("auth_file"),
    text("auth_hba_file"),
    text("auth_ident_file").since(1, 23),
    text("auth_ldap_options").since(1, 25),
    text("auth_query"),
    row("auth_type", Kind::AuthType),
    text("auth_user"),
    seconds("autodb_idle_timeout"),
    seconds("cancel_wait_timeout").since(1, 19),
    seconds("client_idle_timeout"),
    seconds("client_login_timeout"),
    text("client_tls13_ciphers").since(1, 25),
    text("client_tls_ca_file"),
    text("client_tls_cert_file"),
    text("client_tls_ciphers"),
    text("client_tls_dheparams"),
    text("client_tls_ecdhcurve"),
    text("client_tls_key_file"),
    text("client_tls_protocols"),
    row("client_tls_sslmode", SSL_MODE),
    text("conffile"),
    number("default_pool_size"),
    number("disable_pqexec"),
    seconds("dns_max_ttl"),
    seconds("dns_nxdomain_ttl"),
    seconds("dns_zone_check_period"),
    seconds("idle_transaction_timeout"),
    text("ignore_startup_parameters"),
    text("job_name"),
    text("listen_addr"),
    number("listen_backlog"),
    number("listen_port"),
    number("log_connections"),
    number("log_disconnections"),
    number("log_pooler_errors"),
    number("log_stats"),
    text("logfile"),
    text("login_notify_message").since(1, 26),
    number("max_client_conn"),
    number("max_db_client_connections").since(1, 24),
    number("max_db_connections"),
    number("max_packet_size"),
    number("max_prepared_statements").since(1, 21),
    number("max_user_client_connections").since(1, 24),
    number("max_user_connections"),
    number("min_pool_size"),
    number("peer_id").since(1, 19),
    text("pidfile"),
    number("pkt_buf"),
    seconds("pool_idle_timeout").since(1, 26),
    row("pool_mode", POOL_MODE),
    seconds("query_timeout"),
    number("query_wait_notify").since(1, 25),
    seconds("query_wait_timeout"),
    number("reserve_pool_size"),
    seconds("reserve_pool_timeout"),
    text("resolv_conf"),
    number("sbuf_loopcnt"),
    number("scram_iterations").since(1, 25),
    seconds("server_check_delay"),
    text("server_check_query"),
    seconds("server_connect_timeout"),
    number("server_fast_close"),
    seconds("server_idle_timeout"),
    seconds("server_lifetime"),
    seconds("server_login_retry"),
    text("server_reset_query"),
    number("server_reset_query_always"),
    number("server_round_robin"),
    text("server_tls13_ciphers").since(1, 25),
    text("server_tls_ca_file"),
    text("server_tls_cert_file"),
    text("server_tls_ciphers"),
    text("server_tls_key_file"),
    text("server_tls_protocols"),
    row("server_tls_sslmode", SSL_MODE),
    number("so_reuseport"),
    number("stats_period"),
    text("stats_users"),
    // SUSPEND and with it this setting went in 1.26.
    seconds("suspend_timeout").removed(1, 26),
    number("syslog"),
    text("syslog_facility"),
    text("syslog_ident"),
    number("tcp_defer_accept"),
    number("tcp_keepalive"),
    number("tcp_keepcnt"),
    number("tcp_keepidle"),
    number("tcp_keepintvl"),
    number("tcp_socket_buffer"),
    number("tcp_user_timeout"),
    text("track_extra_parameters").since(1, 20),
    seconds("transaction_timeout").since(1, 25),
    text("unix_socket_dir"),
    text("unix_socket_group"),
    text("unix_socket_mode"),
    text("user"),
    number("verbose"),
];

const DATABASE: &[Parameter] = &[
    text("application_name"),
    text("auth_dbname").since(1, 19),
    text("auth_query").since(1, 22),
    text("auth_user"),
    text("client_encoding"),
    text("connect_query"),
    text("datestyle"),
    text("dbname"),
    text("host"),
    text("load_balance_hosts").since(1, 24),
    number("max_db_client_connections").since(1, 24),
    number("max_db_connections"),
    number("min_pool_size"),
    text("password"),
    row("pool_mode", POOL_MODE),
    number("pool_size"),
    number("port"),
    number("reserve_pool"),
    number("reserve_pool_size").since(1, 24),
    seconds("server_lifetime").since(1, 23),
    text("timezone"),
    text("user"),
];

const USER: &[Parameter] = &[
    seconds("client_idle_timeout").since(1, 24),
    seconds("idle_transaction_timeout").since(1, 24),
    number("max_user_client_connections").since(1, 24),
    number("max_user_connections"),
    row("pool_mode", POOL_MODE),
    number("pool_size").since(1, 23),
    seconds("query_timeout").since(1, 24),
    number("reserve_pool_size").since(1, 24),
    seconds("transaction_timeout").since(1, 25),
];

const PEER: &[Parameter] = &[
    text("host").since(1, 19),
    number("pool_size").since(1, 19),
    number("port").since(1, 19),
];
