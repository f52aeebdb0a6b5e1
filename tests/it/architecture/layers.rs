//! Who may name whom, as ARCHITECTURE.md has it.

use super::source::Source;

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
const SIBLINGS: [(&str, &str); 12] = [
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
];

/// The operator: what the local platform may not name. What it stands on is a Kubernetes API.
pub(super) const OPERATOR: [&str; 10] = [
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

/// The modules of this crate that the file names, with line numbers.
fn named(source: &Source) -> Vec<(usize, String)> {
    let root = if source.module() == Some("main") {
        "bouncert::"
    } else {
        "crate::"
    };
    let mut named = Vec::new();
    let mut group: Option<usize> = None;
    for (at, line) in source.code() {
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

pub(super) fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Whether `from` may name `to`; both are modules of the table.
pub(super) fn allowed(from: &str, to: &str) -> bool {
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

pub(super) fn directions(source: &Source) -> Vec<String> {
    let Some(module) = source.module().filter(|module| *module != "lib") else {
        return Vec::new();
    };
    if source.is_test() {
        return Vec::new();
    }
    if layer(module).is_none() {
        return vec![format!("{}: {module} is in no layer", source.path)];
    }
    let named = named(source).into_iter();
    named
        .filter(|(_, to)| layer(to).is_some() && !allowed(module, to))
        .map(|(at, to)| format!("{}:{at}: {module} may not name {to}", source.path))
        .collect()
}
