//! Violations that are planted, to see that the rules see them: in a file of their own, and in every file
//! of the package that they could stand in, at its beginning and at its end.

use super::exports::Exports;
use super::guards::{parsers, unguarded};
use super::layers::{allowed, directions, layer};
use super::source::{Source, sources};
use super::{LINES_MAX, idle_tests, impurities, is_core, oversize, undocumented};

#[test]
fn planted_violations_are_seen() {
    let upward = Source::new("src/cluster/watch.rs", "use crate::ops::plan;\n");
    assert_eq!(
        directions(&upward),
        ["src/cluster/watch.rs:1: cluster may not name ops"]
    );
    let grouped = "use crate::{\n    names::ObjectRef,\n    api::{A, B}, provisioner::x,\n};\n";
    let sideways = Source::new("src/ops/act.rs", grouped);
    assert_eq!(
        directions(&sideways),
        ["src/ops/act.rs:3: ops may not name provisioner"]
    );
    let outward = Source::new("src/local/mod.rs", "fn f() { crate::blueprint::g() }");
    assert_eq!(directions(&outward).len(), 1);
    let homeless = Source::new("src/stray.rs", "");
    assert_eq!(
        directions(&homeless),
        ["src/stray.rs: stray is in no layer"]
    );

    let clock = Source::new("src/pki/leaf.rs", "//! now()\nlet at = clock.now();\n");
    assert_eq!(
        impurities(&clock),
        ["src/pki/leaf.rs:2: `now()` in the core"]
    );
    let waiting = Source::new("src/ops/decide/mod.rs", "pub async fn decide() {}\n");
    assert_eq!(impurities(&waiting).len(), 1);
    let acting = Source::new("src/ops/act.rs", "pub async fn act() {}\n");
    assert!(impurities(&acting).is_empty());

    let long = Source::new("src/cli/long.rs", &"\n".repeat(LINES_MAX + 1));
    assert!(oversize(&long).is_some());
    let idle = "#[ignore = \"slow\"]";
    assert_eq!(idle_tests(&Source::new("tests/it/x.rs", idle)).len(), 1);
    assert!(undocumented(&Source::new("src/pki/x.rs", "use std::fs;")).is_some());
}

#[test]
fn tests_inside_a_file_may_name_anything() {
    let text = "//! Doc.\n\n#[cfg(test)]\nmod tests {\n    use crate::cli;\n    use tokio::x;\n}\n";
    let source = Source::new("src/pki/leaf.rs", text);
    assert!(directions(&source).is_empty());
    assert!(impurities(&source).is_empty());
}

/// The text with `line` behind the head of the file, and at its end.
fn planted(source: &Source, line: &str) -> [Source; 2] {
    let head = source
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"));
    let head: usize = head.map(|line| line.len() + 1).sum();
    let (head, rest) = source.text.split_at(head.min(source.text.len()));
    [
        source.with(&format!("{head}{line}\n{rest}")),
        source.with(&format!("{}\n{line}\n", source.text)),
    ]
}

/// Whether a rule sees one violation more in each of the two.
fn assert_seen(source: &Source, line: &str, rule: impl Fn(&Source) -> usize) {
    let before = rule(source);
    for (place, planted) in ["first", "last"].into_iter().zip(planted(source, line)) {
        let path = &source.path;
        assert_eq!(
            rule(&planted),
            before + 1,
            "`{line}` as the {place} line of {path}"
        );
    }
}

#[test]
fn a_planted_violation_is_seen_in_every_file_that_it_could_stand_in() {
    let modules = [
        "cli",
        "daemon",
        "controllers",
        "ops",
        "rotation",
        "provisioner",
    ];
    let exports = Exports::of(sources().iter());
    let mut seen = [0; 6];
    for source in sources() {
        let is_product = source.room().is_some() && !source.is_test();
        let module = source.module().filter(|module| layer(module).is_some());
        if let Some(module) = module.filter(|_| is_product) {
            let forbidden = modules.iter().find(|to| !allowed(module, to));
            if let Some(to) = forbidden {
                let root = if module == "main" {
                    "bouncert"
                } else {
                    "crate"
                };
                let line = format!("use {root}::{to}::planted;");
                assert_seen(source, &line, |source| directions(source).len());
                seen[0] += 1;
            }
        }
        if is_product && is_core(source) {
            assert_seen(source, "async fn planted() {}", |source| {
                impurities(source).len()
            });
            seen[1] += 1;
        }
        let line = "fn planted() { DeleteParams::default(); }";
        let acts = source.with(line);
        if !unguarded(&acts).is_empty() {
            assert_seen(source, line, |source| unguarded(source).len());
            seen[2] += 1;
        }
        let line = "fn planted() { serde_json::from_slice(text); }";
        let parses = source.with(line);
        if !parsers(&parses).is_empty() {
            assert_seen(source, line, |source| parsers(source).len());
            seen[3] += 1;
        }
        let line = "#[ignore] fn planted() {}";
        assert_seen(source, line, |source| idle_tests(source).len());
        let lines = source.text.lines().count();
        let long = "\n".repeat(LINES_MAX + 1 - lines);
        assert!(oversize(&source.with(&format!("{}{long}", source.text))).is_some());
        if is_product {
            let line = "pub(crate) fn planted_and_never_called() {}";
            assert_seen(source, line, |source| exports.unused(source).len());
            seen[4] += 1;
        }
        seen[5] += 1;
    }
    // Every rule has found files to be tried in.
    assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
}
