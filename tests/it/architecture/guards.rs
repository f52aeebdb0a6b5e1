//! What only some files may call: writes that state or delete objects, and parsers that quote what they
//! could not read.

use super::layers::OPERATOR;
use super::none;
use super::source::{Source, sources};

/// Words that state or delete an object whose owner nobody has asked for.
const UNGUARDED: [&str; 5] = [
    "Patch::Apply",
    ".force()",
    "DeleteParams",
    "delete_collection",
    ".evict(&at",
];

/// The operator states and deletes objects in one file, which asks whose they are.
pub(super) fn unguarded(source: &Source) -> Vec<String> {
    let is_operator = source
        .module()
        .is_some_and(|module| OPERATOR.contains(&module) || module == "cluster");
    if !is_operator || source.is_test() || source.path == "src/cluster/owned.rs" {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, line) in source.code() {
        for word in UNGUARDED.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{}:{at}: `{word}` without an owner", source.path));
        }
    }
    found
}

/// The parameters of a verb of `cluster::owned` by which it knows whose the object is.
const GUARDS: [&str; 3] = ["owner: &Owner", "uid: &str", "object: &K"];

/// The verbs of `cluster::owned` that anybody may call and that have no such parameter.
fn unowned_verbs(source: &Source) -> Vec<String> {
    let verbs = source.text.split("    pub async fn ").skip(1);
    let head = |verb: &str| verb.split(" {\n").next().unwrap_or_default().to_owned();
    let verbs = verbs.map(head);
    verbs
        .filter(|verb| !GUARDS.iter().any(|guard| verb.contains(guard)))
        .collect()
}

/// `pki::pem` reads keys and certificates, `opaque` tells what is wrong with the rest.
#[test]
fn no_parser_that_quotes_sees_what_may_be_secret() {
    none(parsers);
    let planted = Source::new("src/issuer/x.rs", "let key = ::pem::parse(text)?;\n");
    assert_eq!(parsers(&planted), ["src/issuer/x.rs:1: ` ::pem::` outside"]);
}

#[test]
fn no_object_is_applied_with_force_or_deleted_without_a_look_at_whose_it_is() {
    none(unguarded);
    let planted = Source::new("src/ops/act.rs", "let p = DeleteParams::default();\n");
    let found = ["src/ops/act.rs:1: `DeleteParams` without an owner"];
    assert_eq!(unguarded(&planted), found);
    let sources = sources();
    let owned = sources.iter().find(|it| it.path == "src/cluster/owned.rs");
    assert_eq!(unowned_verbs(owned.unwrap()), Vec::<String>::new());
    let planted = "    pub async fn delete<K>(&self, at: &ObjectRef) -> Result<()> {\n";
    assert_eq!(
        unowned_verbs(&Source::new("src/cluster/owned.rs", planted)).len(),
        1
    );
}

/// Parsers of other crates that see whole documents, any of which may hold a key. Their errors quote.
const PARSERS: [&str; 10] = [
    "serde_json::from_slice",
    "serde_json::from_str",
    "serde_json::from_reader",
    "serde_saphyr::from_",
    " ::pem::",
    "(::pem::",
    "pem_slice",
    "PemObject",
    "KeyPair::from_pem",
    "from_ca_cert_pem",
];

/// Files that may call one, because they pass none of its text on: what they read is ours, or its error
/// becomes one of `opaque`.
pub(super) const PARSING: [&str; 20] = [
    "cli/policy",
    "cli/scene/cast",
    "cli/standing",
    "cluster/owned",
    "cluster/tokens",
    "issuer/vault/http",
    "local/apiserver/apply/fields",
    "local/apiserver/body",
    "local/apiserver/patch",
    "local/apiserver/read",
    "local/apiserver/scale",
    "local/apiserver/table/jsonpath",
    "local/apiserver/tokens",
    "local/runner/confine",
    "local/runner/records",
    "local/store/disk",
    "ops/former",
    "ops/ledger",
    "policy/document",
    "rotation/index/kept",
];

pub(super) fn parsers(source: &Source) -> Vec<String> {
    if source.room().is_none_or(|room| PARSING.contains(&room)) || source.is_test() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, line) in source.code() {
        for word in PARSERS.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{}:{at}: `{word}` outside", source.path));
        }
    }
    found
}
