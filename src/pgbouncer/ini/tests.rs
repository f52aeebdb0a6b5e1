//! Tests of reading, merging, rendering and checking.

use proptest::prelude::*;

use super::*;
use crate::pgbouncer::Version;

const V1_18: Version = Version::new(1, 18, 0);
const V1_26: Version = Version::new(1, 26, 1);

fn problems(text: &str, version: Version) -> Vec<String> {
    let ini = Ini::parse(text).expect("parses");
    let problems = check(&ini, version).err().unwrap_or_default();
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn user_text_is_kept_as_it_was_written() {
    let mut ours = Ini::new();
    ours.set(
        Section::Databases,
        "ledger",
        "host=ledger.shop.svc port=5433",
    )
    .and_then(|ini| ini.set(Section::Pgbouncer, "pool_mode", "session"))
    .and_then(|ini| ini.set(Section::Pgbouncer, "auth_type", "md5"))
    .unwrap();
    let theirs =
        Ini::parse("; note\n[pgbouncer]\nauth_type=scram-sha-256\nverbose =  2\n").unwrap();
    assert_eq!(
        Ini::merged([&ours, &theirs]).render(),
        "[databases]\nledger = host=ledger.shop.svc port=5433\n\n\
         [pgbouncer]\nauth_type=scram-sha-256\npool_mode = session\nverbose =  2\n"
    );
}

#[test]
fn a_plain_name_loses_its_quotes_for_versions_that_do_not_read_them() {
    let ini = Ini::parse(
        "[databases]\n'sales' = host=a\n[pgbouncer]\n'pool_mode'=session\n[users]\n'ann'=pool_mode=session\n",
    )
    .unwrap();
    for version in [V1_18, V1_26] {
        assert_eq!(check(&ini, version), Ok(()));
        let read = reader::read(&ini.render(), version).unwrap();
        let keys: Vec<&str> = read.iter().map(|setting| setting.key.as_str()).collect();
        assert_eq!(keys, ["sales", "pool_mode", "ann"]);
    }
}

#[test]
fn what_protects_clients_is_rendered_first() {
    let ini = Ini::parse(
        "[users]\nann = pool_mode=session\n[pgbouncer]\nverbose=1\nclient_tls_sslmode=require\n\
         pool_mode=session\nlisten_port=7000\n[databases]\nledger = host=here\n[pgbouncer]\nverbose=0\n",
    )
    .unwrap();
    assert_eq!(
        ini.render(),
        "[databases]\nledger = host=here\n\n\
         [pgbouncer]\nclient_tls_sslmode=require\nlisten_port=7000\nverbose=0\npool_mode=session\n\n\
         [users]\nann = pool_mode=session\n"
    );
}

#[test]
fn what_stops_the_program_from_loading_is_refused() {
    let error = |text: &str| Ini::parse(text).unwrap_err();
    assert_eq!(
        error("[pgbouncer]\na b = 1"),
        ParseError::Syntax { line: 2 }
    );
    assert_eq!(
        error("[pgbouncer]\nauth_type"),
        ParseError::Syntax { line: 2 }
    );
    assert_eq!(error("[users] x"), ParseError::Syntax { line: 1 });
    assert_eq!(error("\n%include /x.ini"), ParseError::Include { line: 2 });
    assert!(matches!(
        error("[ users ]"),
        ParseError::UnknownSection { line: 1, .. }
    ));
    assert!(matches!(
        error("verbose=1"),
        ParseError::NoSection { line: 1, .. }
    ));
}

#[test]
fn a_parameter_of_another_version_is_named() {
    let text = "[pgbouncer]\nmax_prepared_statements=10\nsuspend_timeout=5\nAUTH_TYPE=md5\n";
    assert_eq!(
        problems(text, V1_18),
        [
            "[pgbouncer] max_prepared_statements: PgBouncer 1.18.0 does not know this parameter",
            "[pgbouncer] AUTH_TYPE: PgBouncer has no such parameter",
        ]
    );
    assert_eq!(
        problems(text, V1_26),
        [
            "[pgbouncer] suspend_timeout: PgBouncer 1.26.1 does not know this parameter",
            "[pgbouncer] AUTH_TYPE: PgBouncer has no such parameter",
        ]
    );
}

#[test]
fn values_are_checked_as_the_program_reads_them() {
    let text = "[pgbouncer]\nlog_connections=yes\nlisten_port=0x1F\nserver_lifetime=1.5\n\
                query_timeout=-1\npool_mode=Session\nauth_type=ldap\n";
    let found = problems(text, V1_18);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].contains("log_connections: `yes` is not a whole number"));
    assert!(found[1].contains("query_timeout: `-1` is not a number of seconds"));
    assert!(found[2].contains("auth_type: `ldap` is not one of"));
    assert_eq!(problems("[pgbouncer]\nauth_type=ldap\n", V1_26), [""; 0]);
}

#[test]
fn tls_rules_are_held() {
    let tls = |mode: &str, rest: &str| {
        problems(
            &format!("[pgbouncer]\nclient_tls_sslmode={mode}\n{rest}"),
            V1_18,
        )
    };
    let pair = "client_tls_key_file=/k\nclient_tls_cert_file=/c\n";
    assert_eq!(tls("disable", ""), [""; 0]);
    assert_eq!(tls("require", pair), [""; 0]);
    assert!(tls("require", "")[0].contains("needs client_tls_key_file"));
    assert!(tls("verify-full", pair)[0].contains("needs client_tls_ca_file"));
    assert!(tls("verify-ca", pair)[0].contains("every CA of the machine"));
    let cert = format!("{pair}client_tls_ca_file=/a\nauth_type=cert\n");
    assert_eq!(tls("verify-full", &cert), [""; 0]);
    assert!(tls("verify-ca", &cert)[0].contains("auth_type=cert"));
}

#[test]
fn connect_strings_are_checked() {
    let found = problems(
        "[databases]\npgbouncer = host=a\nb = host=x colour=red\nc = password='x\nd = port=abc\n\
         [peers]\n1 = host=y\n[users]\nann = max_user_connections=3 pool_size=2\n",
        V1_18,
    );
    let text = found.join("\n");
    for part in [
        "reserved for the admin console",
        "b colour: PgBouncer has no such parameter",
        "c: not a list",
        "d port: `abc` is not a whole number",
        "[peers] 1: PgBouncer 1.18.0",
        "ann pool_size: PgBouncer 1.18.0",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
}

#[test]
fn text_that_would_be_a_second_line_is_refused() {
    let mut ini = Ini::new();
    let mut refused =
        |section, key: &str, value: &str| ini.set(section, key, value).map(drop).unwrap_err().why;
    let (databases, main) = (Section::Databases, Section::Pgbouncer);
    let injected = "x\n[pgbouncer]\nauth_type = any";
    assert_eq!(
        refused(main, "pool_mode", injected),
        Unwritable::Control('\n')
    );
    assert_eq!(
        refused(databases, injected, "host=a"),
        Unwritable::Control('\n')
    );
    assert_eq!(
        refused(main, "auth_file", "/a\0b"),
        Unwritable::Control('\0')
    );
    assert_eq!(
        refused(main, "auth_file", "/a\rb"),
        Unwritable::Control('\r')
    );
    assert_eq!(refused(main, "auth_file", "/a "), Unwritable::Blank);
    assert_eq!(refused(main, "a b", "c"), Unwritable::NoParameter);
    assert_eq!(refused(databases, "it's", "host=a"), Unwritable::Quote);
    assert_eq!(refused(databases, "", "host=a"), Unwritable::Empty);
    let long = "v".repeat(text::VALUE_MAX + 1);
    assert!(matches!(
        refused(main, "auth_query", &long),
        Unwritable::TooLong { .. }
    ));
    assert_eq!(ini, Ini::new());
}

#[test]
fn a_users_line_with_a_control_character_or_too_long_is_named() {
    let error = |text: &str| Ini::parse(text).unwrap_err();
    for hidden in [
        "a = b\0",
        "a = b\rc = d",
        "a = \u{1b}[2J",
        "a\u{0}\n%include /x",
    ] {
        let text = format!("[pgbouncer]\r\nverbose = 1\r\n{hidden}\r\n");
        assert!(
            matches!(error(&text), ParseError::Text { line: 3, .. }),
            "{hidden:?}"
        );
    }
    let long = format!(
        "[pgbouncer]\nauth_query = {}\n",
        "x".repeat(text::VALUE_MAX)
    );
    assert!(matches!(error(&long), ParseError::Text { line: 2, .. }));
    assert_eq!(
        error("[pgbouncer] %include /x"),
        ParseError::Syntax { line: 1 }
    );
    assert_eq!(
        error("[pgbouncer]\n\u{a0}verbose = 1"),
        ParseError::Syntax { line: 2 }
    );
    let comment = Ini::parse("; \u{1b} a comment is not written\n[pgbouncer]\n").unwrap();
    assert_eq!(comment, Ini::new());
}

#[test]
fn a_name_between_quotes_needs_the_version_that_reads_it() {
    let mut ini = Ini::new();
    ini.set(Section::Databases, "sales 2026", "host=here")
        .unwrap();
    assert!(ini.render().contains("'sales 2026' = host=here\n"));
    assert_eq!(check(&ini, V1_26), Ok(()));
    let refused = check(&ini, V1_18).unwrap_err();
    assert_eq!(
        refused[0].to_string(),
        "[databases] \"sales 2026\": PgBouncer 1.18.0 reads names of letters, digits and _ . - * \
         only; others are read from 1.26.1 on"
    );
    let theirs = Ini::parse("[users]\n'ann o' = pool_mode=session\n").unwrap();
    assert_eq!(check(&theirs, V1_26), Ok(()));
    assert!(check(&theirs, V1_18).is_err());
    let mut long = Ini::new();
    long.set(Section::Databases, &"d".repeat(64), "host=here")
        .unwrap();
    assert!(
        check(&long, V1_26).unwrap_err()[0]
            .to_string()
            .contains("at most 63 bytes")
    );
}

#[test]
fn a_number_that_is_read_as_another_is_refused() {
    for number in ["4294967297", "2147483648", "0x100000000", "-", "", "+-1"] {
        let text = format!("[pgbouncer]\nmax_client_conn={number}\n");
        assert_eq!(problems(&text, V1_18).len(), 1, "{number}");
    }
    for number in ["2147483647", "-2147483648", "0x7fffffff", "017", "+5"] {
        let text = format!("[pgbouncer]\nmax_client_conn={number}\n");
        assert_eq!(problems(&text, V1_18), [""; 0], "{number}");
    }
}

#[test]
fn a_published_file_ends_with_its_marker_and_begins_with_what_may_fail() {
    let ini = Ini::parse(
        "[pgbouncer]\nstats_users = scraper\nverbose=1\n[users]\nann = pool_mode=session\n",
    )
    .unwrap();
    let text = ini.publish(&Marker::of("0a1b"));
    assert_eq!(
        text,
        "[databases]\n\n[users]\nann = pool_mode=session\n\n[pgbouncer]\nverbose=1\n\
         stats_users = scraper, bouncert-loaded-0a1b\n"
    );
    assert_eq!(
        ini.render(),
        ini.clone().render(),
        "the digest does not change with it"
    );
}

proptest! {
    #[test]
    fn every_text_is_refused_or_read_back_as_it_was_meant(
        entries in proptest::collection::vec(
            (0_usize..3, "([a-z0-9_.*-]{1,4}|[ -~\\n\\r\\x00\t%\\[\\];#='\"ü\u{a0}]{0,8}|\\PC{0,4})",
             "([ -~\\n\\r\\x00\t\u{a0}\u{85}]{0,12}|\\PC{0,6})"),
            0..8,
        ),
    ) {
        let mut ini = Ini::new();
        for (section, key, value) in &entries {
            let section = [Section::Databases, Section::Pgbouncer, Section::Users][*section];
            let _refused = ini.set(section, key, value);
        }
        let marker = Marker::of("0a1b");
        let read = reader::read(&ini.publish(&marker), V1_26).unwrap();
        let mut read: Vec<_> = read
            .iter()
            .map(|s| (s.section.as_str(), s.key.as_str(), s.value.as_str()))
            .collect();
        let last = read.pop().unwrap();
        prop_assert!(last.1 == "stats_users" && last.2.ends_with("bouncert-loaded-0a1b"));
        read.sort_unstable();
        let mut meant: Vec<_> = Section::ALL
            .into_iter()
            .flat_map(|section| {
                ini.section(section).map(move |(key, value)| (section.as_str(), key, value))
            })
            .filter(|(section, key, _)| (*section, *key) != ("pgbouncer", "stats_users"))
            .collect();
        meant.sort_unstable();
        prop_assert_eq!(read, meant);
    }

    #[test]
    fn a_rendered_file_reads_as_what_was_rendered(
        lines in proptest::collection::vec("(\\[(users|databases|pgbouncer)\\]|[ -~]{0,16}|[a-c_]{1,3} ?= ?[ -~]{0,8})", 0..12),
    ) {
        if let Ok(ini) = Ini::parse(&lines.join("\n")) {
            let rendered = ini.render();
            let again = Ini::parse(&rendered).expect("what is rendered parses");
            for section in Section::ALL {
                let mut ours: Vec<_> = ini.section(section).collect();
                let mut theirs: Vec<_> = again.section(section).collect();
                ours.sort_unstable();
                theirs.sort_unstable();
                prop_assert_eq!(ours, theirs);
            }
            prop_assert_eq!(again.render(), rendered);
        }
    }
}

#[test]
fn a_file_of_more_lines_or_bytes_than_a_configuration_needs_is_refused_before_it_is_read() {
    let many = format!("[users]\n{}", "a =\n".repeat(2_000));
    let long = format!("[pgbouncer]\n; {}\n", "x".repeat(70_000));
    for text in [many, long] {
        let refused = Ini::parse(&text).unwrap_err();
        assert!(matches!(refused, ParseError::TooLarge { .. }), "{refused}");
        assert!(
            refused.to_string().contains("at most 65536 bytes"),
            "{refused}"
        );
    }
    let most = format!("[users]\n{}", "a =\n".repeat(1_999));
    assert!(Ini::parse(&most).is_ok());
}

#[test]
fn what_stands_for_a_section_is_shown_without_control_characters() {
    let refused = Ini::parse("[users]\t_ =[users]\n").unwrap_err().to_string();
    assert!(
        !refused.contains(crate::printable::is_hazard),
        "{refused:?}"
    );
}
