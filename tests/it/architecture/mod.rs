//! The map of ARCHITECTURE.md, held: who may name whom, what the core may not touch, and sizes.
//!
//! The rules read source text, so that they see a violation before it has any effect. What follows
//! `#[cfg(test)]` in a file is a test and free to name anything.

mod citations;
mod guards;

use std::fs;
use std::path::{Path, PathBuf};

/// Layers, lowest first. A module names only modules of lower layers, and the siblings that
/// [`SIBLINGS`] allows.
const LAYERS: [&[&str]; 8] = [
    &[
        "causes",
        "cel",
        "names",
        "printable",
        "duration",
        "opaque",
        "redacted",
        "retry",
        "seal",
        "clock",
        "fence",
        "instants",
        "panics",
        "telemetry",
    ],
    &["pki", "api", "policy", "lease"],
    &["cluster", "pgbouncer"],
    &["issuer", "material", "blueprint", "surroundings"],
    &["provisioner", "ops", "rotation", "inventory"],
    &["controllers"],
    &["daemon", "local"],
    &["cli", "main"],
];

/// Who may name a module of the same layer.
const SIBLINGS: [(&str, &str); 13] = [
    ("clock", "instants"),
    ("fence", "clock"),
    ("retry", "clock"),
    ("seal", "redacted"),
    ("telemetry", "clock"),
    ("telemetry", "printable"),
    ("policy", "pki"),
    ("policy", "api"),
    ("material", "issuer"),
    ("material", "blueprint"),
    ("surroundings", "material"),
    ("surroundings", "blueprint"),
    ("surroundings", "issuer"),
];

/// The operator: what the local platform may not name. What it stands on is a Kubernetes API.
const OPERATOR: [&str; 10] = [
    "inventory",
    "issuer",
    "material",
    "blueprint",
    "surroundings",
    "provisioner",
    "ops",
    "rotation",
    "controllers",
    "daemon",
];

/// The core: pure, synchronous, without a clock. Paths below `src`, without `.rs`.
const CORE: [&str; 36] = [
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
    "surroundings/address",
    "surroundings/libpq",
    "surroundings/transforms",
    "surroundings/wanted_tls",
    "provisioner/around",
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

/// A source file.
struct Source {
    /// Below the package, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// The path below `src`, without `.rs` and `/mod`.
    fn room(&self) -> Option<&str> {
        let path = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        Some(path.strip_suffix("/mod").unwrap_or(path))
    }

    fn module(&self) -> Option<&str> {
        self.room()?.split('/').next()
    }

    /// Whether the whole file is there for tests.
    fn is_test(&self) -> bool {
        let Some(room) = self.room() else { return true };
        room.split('/')
            .any(|part| matches!(part, "tests" | "testing"))
    }

    /// The lines of code before the tests, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(at, line)| (at + 1, line))
    }

    /// The modules of this crate that the file names, with line numbers.
    fn named(&self) -> Vec<(usize, String)> {
        let root = if self.module() == Some("main") {
            "bouncert::"
        } else {
            "crate::"
        };
        let mut named = Vec::new();
        let mut group: Option<usize> = None;
        for (at, line) in self.code() {
            if let Some(depth) = group.as_mut() {
                collect_group(line, depth, at, &mut named);
                group = group.filter(|depth| *depth > 0);
                continue;
            }
            for (start, _) in line.match_indices(root) {
                let rest = &line[start + root.len()..];
                if let Some(list) = rest.strip_prefix('{') {
                    let mut depth = 1;
                    collect_group(list, &mut depth, at, &mut named);
                    group = Some(depth).filter(|depth| *depth > 0);
                } else {
                    named.push((at, first_word(rest)));
                }
            }
        }
        named
    }
}

/// Takes the first words of a `{a, b::{c, d}}` list at depth 1.
fn collect_group(list: &str, depth: &mut usize, at: usize, named: &mut Vec<(usize, String)>) {
    let mut item = String::new();
    for character in list.chars() {
        match character {
            '{' => *depth += 1,
            '}' => *depth -= 1,
            ',' if *depth == 1 => {
                named.push((at, first_word(&item)));
                item.clear();
                continue;
            }
            _ => {}
        }
        if *depth == 0 {
            break;
        }
        if *depth == 1 {
            item.push(character);
        }
    }
    named.push((at, first_word(&item)));
}

fn first_word(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Whether `from` may name `to`; both are modules of the table.
fn allowed(from: &str, to: &str) -> bool {
    if from == to {
        return true;
    }
    if from == "local" && OPERATOR.contains(&to) {
        return false;
    }
    match (layer(from), layer(to)) {
        (Some(from_layer), Some(to_layer)) if from_layer == to_layer => {
            SIBLINGS.contains(&(from, to)) || (from, to) == ("main", "cli")
        }
        (Some(from_layer), Some(to_layer)) => from_layer > to_layer,
        _ => false,
    }
}

fn directions(source: &Source) -> Vec<String> {
    let Some(module) = source.module().filter(|module| *module != "lib") else {
        return Vec::new();
    };
    if source.is_test() {
        return Vec::new();
    }
    if layer(module).is_none() {
        return vec![format!("{}: {module} is in no layer", source.path)];
    }
    let named = source.named().into_iter();
    named
        .filter(|(_, to)| layer(to).is_some() && !allowed(module, to))
        .map(|(at, to)| format!("{}:{at}: {module} may not name {to}", source.path))
        .collect()
}

fn impurities(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else {
        return Vec::new();
    };
    let is_core = CORE
        .iter()
        .any(|core| room == *core || room.starts_with(&format!("{core}/")));
    if !is_core || source.is_test() {
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
    // Put together here, because this file is looked at too.
    let forbidden = [concat!("#[", "ignore"), concat!("#[", "should_panic")];
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| forbidden.iter().any(|word| line.contains(word)))
        .map(|(at, line)| format!("{}:{}: {}", source.path, at + 1, line.trim()))
        .collect()
}

fn undocumented(source: &Source) -> Option<String> {
    let inner = source.path.ends_with("/tests.rs");
    (!inner && !source.text.starts_with("//!"))
        .then(|| format!("{}: does not begin by saying its one job", source.path))
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(root).unwrap();
                let below = below.to_string_lossy().replace('\\', "/");
                sources.push(Source::new(&below, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(sources.len() > 20, "found {} sources", sources.len());
    sources
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
    let expectations = sources().into_iter().filter(|source| {
        let lint = concat!("clippy::", "arithmetic_side_effects");
        source.text.contains(lint)
    });
    let expectations: Vec<String> = expectations.map(|source| source.path).collect();
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
    let idle = concat!("#[", "ignore = \"slow\"]");
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
