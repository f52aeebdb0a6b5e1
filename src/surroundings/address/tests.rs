//! What AppBindings say of an address, as users write it.

use proptest::prelude::*;
use serde_json::json;

use super::{object_name, place};
use crate::api::SslMode;
use crate::blueprint::BackendAddress;
use crate::pgbouncer::ini::ConnectString;
use crate::pgbouncer::ini::reader;

fn of(config: &serde_json::Value) -> Result<BackendAddress, String> {
    let config = serde_json::from_value(config.clone()).unwrap();
    place(&config, "vault").map(|place| place.address)
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
        ("scheme", json!("mysql")),
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
            "host=a connect_timeout=3",
            "has \"connect_timeout\", which is no setting",
        ),
        ("host=a sslmode=on", "has the sslmode \"on\""),
        ("host=a sslrootcert=/x", "spec.clientConfig.caBundle"),
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
        "a\n",
    ] {
        let error = object_name("spec.version", name).unwrap_err();
        assert!(error.starts_with("spec.version is \""), "{error}");
    }
}

#[test]
fn the_mode_is_followed_wherever_it_is_stated() {
    let service = |query: &str| {
        json!({ "service": {
            "scheme": "postgresql", "name": "books", "port": 5433, "query": query,
        }})
    };
    let both = |url: &str| {
        let mut config = service("sslmode=require");
        config["url"] = json!(url);
        config
    };
    let mode = |config: &serde_json::Value| {
        let config = serde_json::from_value(config.clone()).unwrap();
        place(&config, "vault").map(|place| place.stated.mode)
    };
    for (config, expected) in [
        (service(""), None),
        (service("sslmode=disable"), Some(SslMode::Disable)),
        (service("?sslmode=verify-ca"), Some(SslMode::VerifyCa)),
        (
            json!({ "url": "postgresql://a/b?sslmode=verify-full" }),
            Some(SslMode::VerifyFull),
        ),
        (
            json!({ "url": "host=a sslmode=require" }),
            Some(SslMode::Require),
        ),
        (both("postgresql://a/b"), Some(SslMode::Require)),
        (both("tcp(books:5433)/"), Some(SslMode::Require)),
    ] {
        assert_eq!(mode(&config), Ok(expected), "{config}");
    }
    for (config, words) in [
        (service("host=x"), "service.query has host"),
        (service("sslmode=on"), "service.query has the sslmode"),
        (
            service("target_session_attrs=primary"),
            "service.query has target_session_attrs=\"primary\"",
        ),
        (both("postgresql://a/b?sslmode=prefer"), "write one of them"),
        (
            both("postgresql://a/b?sslrootcert=/x"),
            "url has sslrootcert",
        ),
    ] {
        let error = mode(&config).unwrap_err();
        assert!(error.contains(words), "{config}: {error}");
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
