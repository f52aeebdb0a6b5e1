//! Items that are `pub` and that no code of the product names: what only tests call is not tested for
//! anything, and goes.
//!
//! A name is looked for and not an item, so one that something else has as well is not found here. Names
//! that derived code uses, and doors that only tests and `chaos` go through, are listed.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, sources};

/// What stands before the name of an item.
const KINDS: [&str; 7] = ["fn", "struct", "enum", "trait", "type", "const", "static"];

/// Items that no code of the product names, and why they stay.
const KEPT: [(&str, &str); 11] = [
    ("src/api/certmanager.rs: ClusterIssuerSpec", "kube's derive"),
    ("src/api/opsrequest.rs: OpsRequestStatus", "kube's derive"),
    ("src/api/petset.rs: PetSetStatus", "kube's derive"),
    ("src/api/version.rs: PgBouncerVersionSpec", "kube's derive"),
    (
        "src/policy/document.rs: CertificateRequestPolicySpec",
        "kube's derive",
    ),
    (
        "src/local/apiserver/access/mod.rs: client_as",
        "tests act as a ServiceAccount",
    ),
    (
        "src/local/apiserver/mod.rs: client_through",
        "tests hand in faults",
    ),
    (
        "src/local/platform.rs: runtime_dir",
        "tests look at the files of pods",
    ),
    (
        "src/pki/authority.rs: sign_ca",
        "tests make intermediate CAs",
    ),
    (
        "src/pki/authority.rs: cross_sign",
        "a change of issuer will cross-sign (ARCHITECTURE.md)",
    ),
    (
        "src/pki/bundle.rs: contains_all",
        "properties of bundles are tested by it",
    ),
];

/// In how many places each word of the product's code stands.
pub(super) struct Exports<'a> {
    words: BTreeMap<&'a str, usize>,
}

impl<'a> Exports<'a> {
    pub(super) fn of(sources: impl Iterator<Item = &'a Source>) -> Self {
        let mut words = BTreeMap::new();
        for source in sources.filter(|source| source.room().is_some() && !source.is_test()) {
            for (_, line) in source.code() {
                for word in line.split(|c: char| !c.is_alphanumeric() && c != '_') {
                    *words.entry(word).or_default() += 1;
                }
            }
        }
        Self { words }
    }

    /// The exported items of a file whose names stand nowhere else.
    pub(super) fn unused(&self, source: &Source) -> BTreeSet<String> {
        if source.room().is_none() || source.is_test() {
            return BTreeSet::new();
        }
        let exported = source.code().filter_map(|(_, line)| exported(line));
        exported
            .filter(|name| self.words.get(name).is_none_or(|count| *count < 2))
            .map(|name| format!("{}: {name}", source.path))
            .collect()
    }
}

/// The name of the item that a line exports.
fn exported(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(seen_by) => seen_by.split_once(')')?.1,
        None => rest,
    };
    let rest = rest.strip_prefix(' ')?;
    let mut is_item = false;
    for word in rest.split(|c: char| !c.is_alphanumeric() && c != '_') {
        match word {
            "async" | "unsafe" => {}
            word if KINDS.contains(&word) => is_item = true,
            name => return Some(name).filter(|_| is_item),
        }
    }
    None
}

#[test]
fn what_is_exported_is_used() {
    let exports = Exports::of(sources().iter());
    let unused: BTreeSet<String> = sources()
        .iter()
        .flat_map(|source| exports.unused(source))
        .collect();
    let kept: BTreeSet<String> = KEPT.iter().map(|(item, _)| (*item).to_owned()).collect();
    let unknown: Vec<_> = unused.difference(&kept).collect();
    assert!(
        unknown.is_empty(),
        "nothing of the product names {unknown:#?}"
    );
    let over: Vec<_> = kept.difference(&unused).collect();
    assert!(over.is_empty(), "is used, or gone: {over:#?}");
}

#[test]
fn items_are_found_whoever_may_see_them() {
    for (line, name) in [
        ("pub fn a() {", "a"),
        ("    pub(crate) const fn b(x: u8) -> u8 {", "b"),
        ("pub(in crate::ops) async fn c<T>(", "c"),
        ("pub(super) const D: &str = \"\"", "D"),
        ("pub struct E<'a>(u8);", "E"),
    ] {
        assert_eq!(exported(line), Some(name), "{line}");
    }
    assert_eq!(exported("fn private() {"), None);
    assert_eq!(exported("    pub field: fn () -> u8,"), None);
}
