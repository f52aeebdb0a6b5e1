//! Cargo.lock against the facts of RustSec's advisory database in `deploy/advisories.toml`.
//!
//! The database is a Git repository that no registry carries, so machines without access to it compare with
//! these facts. `make audit` runs this test, and cargo-audit as well where it and the database can be had.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use semver::{Version, VersionReq};
use serde::Deserialize;

/// `deploy/advisories.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    database: Database,
    accepted: Vec<Accepted>,
    advisory: Vec<Advisory>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Database {
    url: String,
    read: String,
    newest: String,
    newest_date: String,
    newest_commit: String,
    looked_up: BTreeSet<String>,
    not_looked_up: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    id: String,
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Advisory {
    id: String,
    #[serde(rename = "crate")]
    name: String,
    kind: Kind,
    patched: Vec<VersionReq>,
    unaffected: Vec<VersionReq>,
    commit: String,
}

/// What an advisory is about.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Vulnerability,
    Unsound,
    Unmaintained,
}

/// `Cargo.lock`.
#[derive(Debug, Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: Version,
    source: Option<String>,
}

impl Facts {
    fn read() -> Self {
        toml::from_str(&file("deploy/advisories.toml")).unwrap()
    }

    /// What is wrong with a lock file; empty where nothing is.
    fn findings(&self, lock: &Lock) -> Vec<String> {
        let mut found = Vec::new();
        let mut used = BTreeSet::new();
        for package in lock
            .package
            .iter()
            .filter(|package| package.source.is_some())
        {
            let (name, version) = (&package.name, &package.version);
            let known = self.database.looked_up.contains(name);
            if known == self.database.not_looked_up.contains(name) {
                found.push(format!("{name} {version}: look its advisories up"));
            }
            for advisory in self
                .advisory
                .iter()
                .filter(|advisory| advisory.concerns(package))
            {
                let accepted =
                    |accepted: &&Accepted| accepted.id == advisory.id && accepted.name == *name;
                if self.accepted.iter().any(|it| accepted(&it)) {
                    used.insert(advisory.id.as_str());
                } else {
                    let Advisory {
                        id, kind, patched, ..
                    } = advisory;
                    let patched: Vec<String> = patched.iter().map(ToString::to_string).collect();
                    let patched = patched.join(" or ");
                    found.push(format!(
                        "{name} {version}: {id} ({kind:?}); patched: {patched}"
                    ));
                }
            }
        }
        let unused = self
            .accepted
            .iter()
            .filter(|it| !used.contains(it.id.as_str()));
        found.extend(unused.map(|it| format!("{}: accepted, and it does not match", it.id)));
        found
    }
}

impl Advisory {
    fn concerns(&self, package: &Package) -> bool {
        let holds =
            |ranges: &[VersionReq]| ranges.iter().any(|range| range.matches(&package.version));
        self.name == package.name && !holds(&self.patched) && !holds(&self.unaffected)
    }
}

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn lock(text: &str) -> Lock {
    toml::from_str(text).unwrap()
}

#[test]
fn no_crate_in_the_lock_file_has_an_advisory_that_is_not_accepted() {
    let facts = Facts::read();
    let lock = lock(&file("Cargo.lock"));
    assert!(lock.package.len() > 300, "{}", lock.package.len());
    let found = facts.findings(&lock);
    let Database {
        url,
        read,
        newest,
        newest_date,
        newest_commit,
        ..
    } = &facts.database;
    // Unlike `println!` this is not captured.
    let mut stderr = std::io::stderr();
    let _ = writeln!(
        stderr,
        "audit: {} crates compared with {} advisories of {url}, read {read}, newest seen {newest} of \
         {newest_date} (commit {}); accepted: {}",
        lock.package.len(),
        facts.advisory.len(),
        newest_commit.get(..7).unwrap_or_default(),
        facts
            .accepted
            .iter()
            .map(|it| it.id.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    );
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_planted_hit_is_seen_and_so_is_a_crate_that_was_not_looked_up() {
    let facts = Facts::read();
    let planted = |name: &str, version: &str| {
        let text = format!(
            "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"registry\"\n\
             [[package]]\nname = \"rsa\"\nversion = \"0.10.0\"\nsource = \"registry\"\n"
        );
        facts.findings(&lock(&text))
    };
    for (name, version, id) in [
        ("rustls", "0.23.44", "RUSTSEC-2026-0285"),
        ("rustls-webpki", "0.103.12", "RUSTSEC-2026-0104"),
        ("time", "0.3.46", "RUSTSEC-2026-0009"),
        ("tokio", "1.44.1", "RUSTSEC-2025-0023"),
        ("ring", "0.16.20", "RUSTSEC-2025-0010"),
        ("axum-core", "0.3.0-rc.1", "RUSTSEC-2022-0055"),
    ] {
        let found = planted(name, version);
        assert!(
            found.iter().any(|it| it.contains(id)),
            "{name} {version}: {found:?}"
        );
    }
    for (name, version) in [
        ("rustls", "0.23.45"),
        ("rustls", "0.23.46"),
        ("time", "0.3.55"),
        ("ring", "0.17.14"),
    ] {
        assert_eq!(
            planted(name, version),
            Vec::<String>::new(),
            "{name} {version}"
        );
    }
    let unknown = planted("leftpad", "1.0.0");
    assert_eq!(unknown, ["leftpad 1.0.0: look its advisories up"]);
    let gone = facts.findings(&lock("package = []"));
    assert_eq!(gone, ["RUSTSEC-2023-0071: accepted, and it does not match"]);
}

#[test]
fn every_fact_names_its_source() {
    let facts = Facts::read();
    let is_commit =
        |text: &str| text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_commit(&facts.database.newest_commit));
    let mut seen = BTreeSet::new();
    for advisory in &facts.advisory {
        assert!(is_commit(&advisory.commit), "{}", advisory.id);
        assert!(
            advisory.id.starts_with("RUSTSEC-") && advisory.id.len() == 17,
            "{}",
            advisory.id
        );
        assert!(seen.insert(&advisory.id), "{} stands twice", advisory.id);
        assert!(
            facts.database.looked_up.contains(&advisory.name),
            "{}",
            advisory.name
        );
    }
    for accepted in &facts.accepted {
        assert!(
            seen.contains(&accepted.id) && accepted.reason.len() > 40,
            "{}",
            accepted.id
        );
    }
}
