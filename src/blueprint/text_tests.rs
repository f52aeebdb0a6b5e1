//! Text of objects in the configuration: refused with its reason, or read by PgBouncer as meant.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::PgBouncer;
use crate::blueprint::defaults::{IssuerKind, complete};
use crate::causes::chain;
use crate::pgbouncer::Version;
use crate::pgbouncer::ini::{ConnectString, Ini, Section, reader};

const QUOTES: Version = Version::new(1, 26, 1);

fn of(bouncer: &PgBouncer, around: &Surroundings) -> Result<Inputs, InputsError> {
    let mut bouncer = bouncer.clone();
    bouncer.spec = complete(&bouncer.spec, "billing", IssuerKind::Private);
    Inputs::new(&bouncer, around)
}

fn named(database: &str, version: Version) -> Result<Inputs, InputsError> {
    let mut bouncer = testing::bouncer("billing");
    bouncer.spec.database.database_name = database.to_owned();
    let mut around = testing::surroundings();
    around.program.version = version;
    of(&bouncer, &around)
}

fn refusal(result: Result<Inputs, InputsError>) -> String {
    chain(&result.expect_err("is refused"))
}

#[test]
fn a_database_name_that_the_file_cannot_hold_is_refused_with_object_field_and_reason() {
    for (name, shown, reason) in [
        (
            "sales 2026",
            "sales 2026",
            "PgBouncer 1.18.0 reads names of letters",
        ),
        (
            "acme$prod",
            "acme$prod",
            "PgBouncer 1.18.0 reads names of letters",
        ),
        ("bücher", "bücher", "others are read from 1.26.1 on"),
        ("a;b", "a;b", "choose such a spec.version"),
        ("a=b", "a=b", "rename the database"),
        ("\"a\"", "\"a\"", "reads names of letters"),
        ("%include /x", "%include /x", "reads names of letters"),
        (
            "a\n[pgbouncer]\nauth_type = any",
            "a\\u{a}[pgbouncer]\\u{a}auth_type = any",
            "U+000A",
        ),
        ("a\0b", "a\\u{0}b", "U+0000"),
        ("a\r", "a\\u{d}", "U+000D"),
        ("it's", "it's", "single quote"),
        ("pgbouncer", "pgbouncer", "reserved for the admin console"),
        ("", "", "it is empty"),
    ] {
        let message = refusal(named(name, Version::new(1, 18, 0)));
        let begin = "the configuration cannot be rendered: PgBouncer shop/billing: \
                     spec.database.databaseName is ";
        let begin = format!("{begin}\"{shown}\": ");
        assert!(message.starts_with(&begin), "{name:?}: {message}");
        assert!(message.contains(reason), "{name:?}: {message}");
    }
    assert!(refusal(named(&"d".repeat(64), QUOTES)).contains("it has 64 bytes, and at most 63"));
}

#[test]
fn from_1_26_1_other_names_stand_between_quotes() {
    for name in [
        "sales 2026",
        "acme$prod",
        "bücher",
        "a;b",
        "#a",
        "[x]",
        "%include /x",
        " a ",
    ] {
        let inputs = named(name, QUOTES).unwrap();
        let text = inputs.configuration();
        assert!(
            text.contains(&format!("'{name}' = host=books.vault.svc")),
            "{text}"
        );
        assert!(named(name, Version::new(1, 24, 1)).is_err());
    }
}

#[test]
fn a_line_for_all_databases_names_none() {
    let inputs = named("*", Version::new(1, 18, 0)).unwrap();
    let line = inputs.ini().get(Section::Databases, "*").unwrap();
    assert_eq!(line, "host=books.vault.svc port=5433");
}

#[test]
fn other_fields_are_data_too() {
    let plain = testing::surroundings();
    let with = |pool: serde_json::Value| {
        let mut bouncer = testing::bouncer("billing");
        bouncer.spec.connection_pool = serde_json::from_value(pool).unwrap();
        refusal(of(&bouncer, &plain))
    };
    let ignored = with(json!({"ignoreStartupParameters": "a\nauth_type = any"}));
    assert!(
        ignored.contains(
            "PgBouncer shop/billing: spec.connectionPool.ignoreStartupParameters is \
             \"extra_float_digits, a\\u{a}auth_type = any\": it holds the control character U+000A"
        ),
        "{ignored}"
    );
    assert!(
        with(json!({"poolMode": "session\nx = y"})).contains("spec.connectionPool.poolMode is")
    );
    assert!(with(json!({"maxClientConnections": 4_294_967_297_i64})).contains("2147483647"));
    assert!(with(json!({"port": 0})).contains("spec.connectionPool.port is 0"));
    assert!(with(json!({"port": 70_000})).contains("from 1 to 65535"));

    let admin = |name: &str| {
        let mut around = testing::surroundings();
        around.admin = Some(testing::credentials(name, "secret"));
        refusal(of(&testing::bouncer("billing"), &around))
    };
    for name in ["pgbouncer, eve", "pgbouncer eve", "a\nauth_type = any"] {
        assert!(
            admin(name).contains("username in the auth Secret is"),
            "{name}"
        );
    }

    let superuser = |name: &str| {
        let mut around = testing::surroundings();
        around.backend.superuser = testing::credentials(name, "secret");
        refusal(of(&testing::bouncer("billing"), &around))
    };
    let refused = superuser("post\u{1b}[2J");
    assert!(refused.contains("the user name has 8 bytes"), "{refused}");
    assert!(!refused.contains("post"), "{refused}");
}

#[test]
fn a_users_text_is_data_too() {
    let inline = |text: &str| {
        let mut bouncer = testing::bouncer("billing");
        let configuration = json!({"inline": {"pgbouncer.ini": text}});
        bouncer.spec.configuration = serde_json::from_value(configuration).unwrap();
        of(&bouncer, &testing::surroundings())
    };
    for (text, reason) in [
        (
            "[pgbouncer]\nverbose = 1\0\n",
            "line 2 cannot be used: it holds the control character U+0000",
        ),
        ("[pgbouncer]\r\nverbose = 1\rauth_type = any\n", "U+000D"),
        (
            "[pgbouncer]\n%include /tmp/x\n",
            "line 2: %include is not supported",
        ),
        ("[pgbouncer] %include /tmp/x\n", "line 1 is neither"),
        (
            "[databases]\n'x' = host=a\n[pgbouncer]\n",
            "may not have entries in [databases]",
        ),
        (
            "[users]\n'ann o' = pool_mode=session\n",
            "others are read from 1.26.1 on",
        ),
        (
            "[users]\nann = pool_mode='session'max_user_connections=1\n",
            "a quote is not closed",
        ),
    ] {
        let message = refusal(inline(text));
        assert!(message.contains(reason), "{text:?}: {message}");
    }
    let inputs = inline("[pgbouncer]\nstats_users = scraper\n").unwrap();
    let marker = format!(
        "stats_users = scraper, bouncert-loaded-{}\n",
        inputs.digest()
    );
    assert!(
        inputs.configuration().ends_with(&marker),
        "{}",
        inputs.configuration()
    );
}

#[test]
fn the_marker_is_the_digest_and_the_digest_does_not_know_it() {
    let mut around = testing::surroundings();
    around.material = Some(testing::material());
    let inputs = of(&testing::tls_bouncer("billing"), &around).unwrap();
    let before = digest(&inputs.ini().render(), around.material.as_ref());
    assert_eq!(inputs.digest(), before, "an upgrade makes no pod stale");
    let settings = reader::read(inputs.configuration(), around.program.version).unwrap();
    let last = settings.last().unwrap();
    assert_eq!(last.key, "stats_users");
    assert_eq!(last.value, format!("bouncert-loaded-{before}"));
}

prop_compose! {
    fn strange()(text in "(\\PC|[ -~\\n\\r\\x00\\t\\u{85}\\u{a0}\\u{2028}]){0,24}") -> String { text }
}

proptest! {
    #[test]
    fn text_of_every_field_is_refused_or_read_as_it_was_meant(
        database in "([a-z]{1,6}|(\\PC|[ -~\\n\\r\\x00\\t]){0,12})",
        ignored in strange(),
        mode in "(session|transaction|\\PC{0,6})",
        admin in "([a-z]{1,6}|(\\PC|[ -~\\n\\r\\x00\\t]){0,12})",
        host in "([a-z.]{1,12}|(\\PC|[ -~\\n\\r\\x00\\t]){0,16})",
        password in strange(),
        custom in proptest::option::of(
            "(\\[(users|pgbouncer|peers)\\]|[a-c_]{1,3} ?= ?[ -~]{0,8}|[ -~\\n\\r\\x00\\t%']{0,12}|\n){0,8}",
        ),
        newer in any::<bool>(),
    ) {
        let mut bouncer = testing::bouncer("billing");
        bouncer.spec.database.database_name.clone_from(&database);
        bouncer.spec.connection_pool = serde_json::from_value(
            json!({"ignoreStartupParameters": ignored, "poolMode": mode}),
        ).unwrap();
        let mut around = testing::surroundings();
        if newer {
            around.program.version = QUOTES;
        }
        around.admin = Some(testing::credentials(&admin, "x"));
        around.backend.superuser = testing::credentials("postgres", &password);
        around.backend.address = BackendAddress::Host { host: host.clone(), port: 5433 };
        around.custom_ini.clone_from(&custom);
        match of(&bouncer, &around) {
            Err(error) => prop_assert!(!chain(&error).contains(crate::printable::is_hazard)),
            Ok(inputs) => {
                let read = reader::read(inputs.configuration(), around.program.version).unwrap();
                let value = |section: &str, key: &str| {
                    let of = |s: &&reader::Setting| s.section == section && s.key == key;
                    read.iter().find(of).map(|s| s.value.clone())
                };
                let line = value("databases", &database).expect("the database is there");
                let pairs = reader::pairs(&line).unwrap();
                let get = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
                prop_assert_eq!(get("host"), Some(host.as_str()));
                prop_assert_eq!(get("dbname"), (database != "*").then_some(database.as_str()));
                prop_assert_eq!(read.iter().filter(|s| s.section == "databases").count(), 1);
                let users = Ini::parse(custom.as_deref().unwrap_or_default()).unwrap();
                let brings = |key| users.get(Section::Pgbouncer, key).is_some();
                if !brings("admin_users") {
                    prop_assert_eq!(value("pgbouncer", "admin_users"), Some(admin));
                }
                if !brings("auth_type") {
                    prop_assert_eq!(value("pgbouncer", "auth_type"), Some("md5".to_owned()));
                }
            }
        }
    }

    #[test]
    fn a_list_of_pairs_survives_the_whole_way(value in "(\\PC|[ '=\\\\]){1,20}") {
        let list = ConnectString::new().with("host", "a").and_then(|list| list.with("user", &value));
        let mut around = testing::surroundings();
        around.backend.address = BackendAddress::ConnectString(list.unwrap());
        let inputs = of(&testing::bouncer("billing"), &around).unwrap();
        let read = reader::read(inputs.configuration(), around.program.version).unwrap();
        let line = read.iter().find(|s| s.key == "ledger").unwrap();
        let pairs = reader::pairs(&line.value).unwrap();
        prop_assert_eq!(&pairs[1].1, &value);
    }
}
