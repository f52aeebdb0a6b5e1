//! CAs as people have them.

mod statements;

use std::sync::OnceLock;

use self::statements::{algorithms, extensions, identifiers, policies};
use super::forge::{CA, Forge};

/// The documents of a CA's Secret.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) tls_crt: String,
    pub(super) tls_key: String,
    pub(super) ca_crt: String,
    /// The reason of a refusal that OpenSSL does not share, as a part of our text; empty where our refusal
    /// must be OpenSSL's, too.
    pub(super) alone: &'static str,
}

/// Every shape, made once. The order is that of the table.
pub(super) fn all() -> &'static [Shape] {
    static ALL: OnceLock<Vec<Shape>> = OnceLock::new();
    ALL.get_or_init(|| {
        let groups = [
            depths(),
            crossed(),
            links(),
            identifiers(),
            extensions(),
            policies(),
            algorithms(),
            lives(),
        ];
        groups.into_iter().flatten().collect()
    })
}

fn shape(name: &'static str, forge: &Forge, key: &str, tls: &[&str], ca: &[&str]) -> Shape {
    Shape {
        name,
        tls_crt: forge.pem(tls),
        tls_key: forge.read(&format!("{key}.key")),
        ca_crt: forge.pem(ca),
        alone: "",
    }
}

impl Shape {
    fn alone(self, alone: &'static str) -> Self {
        Self { alone, ..self }
    }
}

fn depths() -> Vec<Shape> {
    let forge = Forge::new();
    forge.ca("root", "Root", None);
    forge.ca("one", "One", Some("root"));
    forge.ca("two", "Two", Some("one"));
    forge.ca("three", "Three", Some("two"));
    forge.extended("flat", "Flat", None, &CA.replace("TRUE", "TRUE,pathlen:0"));
    forge.ca("below", "Below", Some("flat"));
    let constrained = |names: &str| format!("{CA}nameConstraints=critical,permitted;DNS:{names}\n");
    forge.extended("narrow", "Narrow", Some("root"), &constrained("localhost"));
    forge.extended("other", "Other", Some("root"), &constrained("example.org"));
    vec![
        shape("root alone", &forge, "root", &["root"], &[]),
        shape(
            "root in tls.crt and ca.crt",
            &forge,
            "root",
            &["root"],
            &["root"],
        ),
        shape("one CA below the root", &forge, "one", &["one"], &["root"]),
        shape(
            "two below, all in tls.crt",
            &forge,
            "two",
            &["two", "one", "root"],
            &[],
        ),
        shape(
            "three below, in no order",
            &forge,
            "three",
            &["three", "one"],
            &["root", "two"],
        ),
        shape(
            "root first, issuing CA second",
            &forge,
            "one",
            &["root", "one"],
            &[],
        ),
        shape("root missing", &forge, "two", &["two", "one"], &[]),
        shape("root with path length 0", &forge, "flat", &["flat"], &[]),
        shape(
            "a CA below a root with path length 0",
            &forge,
            "below",
            &["below"],
            &["flat"],
        ),
        shape(
            "name constraints that permit",
            &forge,
            "narrow",
            &["narrow"],
            &["root"],
        ),
        shape(
            "name constraints that forbid",
            &forge,
            "other",
            &["other"],
            &["root"],
        ),
    ]
}

fn crossed() -> Vec<Shape> {
    let forge = Forge::new();
    forge.ca("new", "New", None).ca("old", "Old", None);
    forge.ca("issuing", "Issuing", Some("new"));
    forge.ca("new.cross", "New", Some("old"));
    forge.ca("old.cross", "Old", Some("new"));
    forge.ca("issuing.old", "Issuing", Some("old"));
    let of = |name, tls: &[&str], ca: &[&str]| shape(name, &forge, "issuing", tls, ca);
    vec![
        of(
            "cross-certificate of a gone root, root last",
            &["issuing", "new.cross", "new"],
            &[],
        ),
        of(
            "cross-certificate of a gone root, root first",
            &["issuing", "new", "new.cross"],
            &[],
        ),
        of(
            "cross-certificate in ca.crt",
            &["issuing"],
            &["new.cross", "new"],
        ),
        of(
            "both roots and the cross-certificate",
            &["issuing", "new.cross", "new", "old"],
            &[],
        ),
        of("the former root only", &["issuing", "new.cross"], &["old"]),
        of(
            "cross-signed both ways",
            &["issuing", "new.cross", "old.cross"],
            &["new", "old"],
        ),
        of(
            "issuing CA signed by both roots",
            &["issuing", "issuing.old"],
            &["old", "new"],
        ),
    ]
}

fn links() -> Vec<Shape> {
    let forge = Forge::new();
    forge.ca("new", "Bank", None).ca("old", "Bank", None);
    forge.ca("new.link", "Bank", Some("old"));
    forge.ca("issuing", "Issuing", Some("new"));
    vec![
        shape("link certificate alone", &forge, "new", &["new.link"], &[]),
        shape(
            "link certificate as ca.crt",
            &forge,
            "issuing",
            &["issuing"],
            &["new.link"],
        ),
        shape(
            "link certificate below the former root",
            &forge,
            "new",
            &["new.link"],
            &["old"],
        ),
        shape(
            "link, new and former root",
            &forge,
            "new",
            &["new.link", "new"],
            &["old"],
        ),
        shape(
            "CA below link and both roots",
            &forge,
            "issuing",
            &["issuing", "new.link"],
            &["old", "new"],
        ),
        shape(
            "two CAs of one name, other first",
            &forge,
            "new",
            &["new"],
            &["old", "new"],
        ),
    ]
}

fn lives() -> Vec<Shape> {
    let forge = Forge::new();
    forge.dated("bank.expired", "Bank", (-400, -1));
    forge.dated("bank", "Bank", (-30, 300));
    forge.dated("bank.tomorrow", "Bank", (1, 700));
    forge.ca("issuing", "Issuing", Some("bank"));
    let of = |name, tls: &[&str], ca: &[&str]| shape(name, &forge, "bank", tls, ca);
    vec![
        of(
            "expired root before the renewed one",
            &["bank.expired", "bank"],
            &[],
        ),
        of("expired root in ca.crt", &["bank"], &["bank.expired"]),
        of(
            "today's root and tomorrow's",
            &["bank", "bank.tomorrow"],
            &[],
        ),
        of("tomorrow's root and today's", &["bank.tomorrow"], &["bank"]),
        of("expired root alone", &["bank.expired"], &[]),
        of("tomorrow's root alone", &["bank.tomorrow"], &[]),
        shape(
            "CA below three lives of its root",
            &forge,
            "issuing",
            &["issuing"],
            &["bank.tomorrow", "bank.expired", "bank"],
        ),
    ]
}
