//! What the compiler does not hold of ARCHITECTURE.md: who may name whom, what the core may not touch,
//! sizes, and exports that nothing uses.
//!
//! The rules read whole source files, so that they see a violation before it has any effect. What
//! stands under `#[cfg(test)]` is a test and free to name anything. `planted` puts a violation of
//! each rule into every file that it could stand in.

mod citations;
mod exports;
mod guards;
mod layers;
mod planted;
mod source;

use std::fs;
use std::path::Path;

use self::layers::directions;
use self::source::{Source, sources};

/// The core: pure, synchronous, without a clock. Paths below `src`, without `.rs`.
const CORE: [&str; 34] = [
    "printable",
    "lease",
    "rotation/brake",
    "cluster/correlate",
    "cluster/mirror",
    "cluster/owner",
    "inventory/facts",
    "inventory/round",
    "inventory/state",
    "api",
    "pki",
    "policy",
    "blueprint",
    "retry",
    "seal",
    "provisioner/around",
    "provisioner/blocked",
    "provisioner/conditions",
    "provisioner/validate",
    "ops/journal",
    "ops/plan",
    "ops/decide",
    "ops/view",
    "rotation/window",
    "rotation/limits",
    "rotation/facts",
    "rotation/decide",
    "rotation/fleet",
    "rotation/forecast",
    "rotation/index",
    "rotation/drift",
    "rotation/request",
    "rotation/tell",
    "local/runner/pod",
];

/// What may not stand in the core.
const IMPURE: [&str; 10] = [
    "async ",
    ".await",
    "kube::Client",
    "kube::Api",
    "kube::client",
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "now()",
    "now_utc",
];

/// Longest file.
const LINES_MAX: usize = 500;

/// Whether the file is one of the core's.
fn is_core(source: &Source) -> bool {
    source.room().is_some_and(|room| {
        let mut core = CORE.iter();
        core.any(|core| room == *core || room.starts_with(&format!("{core}/")))
    })
}

fn impurities(source: &Source) -> Vec<String> {
    if !is_core(source) || source.is_test() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, line) in source.code() {
        for word in IMPURE.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{}:{at}: `{word}` in the core", source.path));
        }
    }
    found
}

fn oversize(source: &Source) -> Option<String> {
    let lines = source.text.lines().count();
    (lines > LINES_MAX).then(|| format!("{}: {lines} lines", source.path))
}

fn idle_tests(source: &Source) -> Vec<String> {
    let forbidden = ["#[ignore", "#[should_panic"];
    source
        .all_code()
        .filter(|(_, line)| forbidden.iter().any(|word| line.contains(word)))
        .map(|(at, line)| format!("{}:{at}: {}", source.path, line.trim()))
        .collect()
}

fn undocumented(source: &Source) -> Option<String> {
    let inner = source.path.ends_with("/tests.rs");
    (!inner && !source.text.starts_with("//!"))
        .then(|| format!("{}: does not begin by saying its one job", source.path))
}

fn none<T: IntoIterator<Item = String>>(check: impl Fn(&Source) -> T) {
    let found: Vec<String> = sources().iter().flat_map(check).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn modules_name_only_what_lies_below_them() {
    none(directions);
}

#[test]
fn the_core_is_pure() {
    none(impurities);
}

#[test]
fn no_file_is_longer_than_500_lines() {
    none(oversize);
}

#[test]
fn no_test_is_idle() {
    none(idle_tests);
}

#[test]
fn every_module_says_its_one_job() {
    none(undocumented);
}

/// The tests that a document names: words in backticks of the form `a_sentence_like_this`.
fn named_tests(document: &str) -> Vec<&str> {
    let words = document.split('`').skip(1).step_by(2);
    words
        .filter(|word| word.matches('_').count() >= 3)
        .filter(|word| {
            word.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
        .collect()
}

#[test]
fn the_tests_that_the_documents_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = sources();
    for document in ["docs/conformance.md", "docs/security.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let named = named_tests(&text);
        assert!(named.len() >= 5, "{document} names {named:?}");
        for test in named {
            let declared = format!("fn {test}(");
            let exists = sources.iter().any(|source| source.text.contains(&declared));
            assert!(exists, "{document} names {test}, which does not exist");
        }
    }
}

#[test]
fn times_and_durations_are_computed_in_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let library = text("src/lib.rs");
    assert!(library.contains("#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]"));
    // Integers are exempt, and nothing else; the lint's sight of the rest is proved in `instants`.
    let settings = text("clippy.toml");
    let (_, allowed) = settings
        .split_once("arithmetic-side-effects-allowed-binary")
        .unwrap();
    let exempt = allowed.split('"').skip(1).step_by(2);
    let is_integer = |name: &str| name.starts_with(['i', 'u']) && name.len() <= 5;
    assert_eq!(exempt.filter(|name| !is_integer(name)).count(), 0);
    let expectations = sources().iter().filter(|source| {
        let lint = concat!("clippy::", "arithmetic_side_effects");
        source.text.contains(lint)
    });
    let expectations: Vec<String> = expectations.map(|source| source.path.clone()).collect();
    let known = [
        "src/instants.rs",
        "src/lib.rs",
        "tests/it/architecture/mod.rs",
    ];
    assert!(
        expectations
            .iter()
            .all(|path| known.contains(&path.as_str())),
        "{expectations:?}"
    );
}
