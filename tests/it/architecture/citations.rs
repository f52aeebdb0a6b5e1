//! References hold: documents and headings that comments cite, links of documents, code that worked
//! examples name, and tests that `CONTRIBUTING.md` says to run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{none, sources};

/// Names of documents outside the repository. They are put together here, because this file is read too.
const OUTSIDE: [&str; 7] = [
    concat!("CONT", "RACT"),
    concat!("DE", "SIGN"),
    concat!("PGBOUNCER", ".md"),
    concat!("STYLE", ".md"),
    concat!("DRIVERS", ".md"),
    concat!("CASES", ".md"),
    concat!("RULES", ".md"),
];

/// Folders whose text is read besides the sources, and files of the root.
const PLACES: [&str; 11] = [
    "docs",
    "deploy",
    "benches",
    "policies",
    "findings",
    "fuzz/fuzz_targets",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Makefile",
];

/// A text file: its path below the package, and what is in it.
struct Text {
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `place` that are text; `place` may be a file.
fn texts_below(place: &str) -> Vec<Text> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![root().join(place)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            let below = path.strip_prefix(root()).unwrap().to_string_lossy();
            let path = below.replace('\\', "/");
            found.push(Text { path, text });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn markdown() -> Vec<Text> {
    let all = PLACES.iter().flat_map(|place| texts_below(place));
    all.filter(|it| has_extension(&it.path, "md")).collect()
}

fn has_extension(path: &str, wanted: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|extension| extension == wanted)
}

/// The words of a text: what stands between characters that no name has.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    text.split(move |c: char| !is_part(c))
        .map(|word| word.trim_matches(['.', '-']))
}

/// Whether a word numbers a row of a document outside: a letter and a number, as in the tables that the
/// code once cited. Invariants (`I1`) are numbered in ARCHITECTURE.md.
fn is_row(word: &str) -> bool {
    let mut letters = word.chars();
    let is_letter = letters.next().is_some_and(|c| "ASNMG".contains(c));
    let number = letters.as_str();
    let is_number = !number.is_empty() && number.len() <= 2;
    let is_row = is_letter && is_number && number.chars().all(|c| c.is_ascii_digit());
    is_row || word.starts_with(concat!("PH", "-"))
}

/// The comments of a Rust file, each run of comment lines as one text, with the number of its first line.
fn comments(source: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (at, line) in source.lines().enumerate() {
        let Some(text) = line.trim_start().strip_prefix("//") else {
            is_open = false;
            continue;
        };
        let text = text.trim_start_matches(['/', '!']).trim();
        match found.last_mut().filter(|_| is_open) {
            Some((_, open)) => {
                open.push(' ');
                open.push_str(text);
            }
            None => found.push((at + 1, text.to_owned())),
        }
        is_open = true;
    }
    found
}

/// A document that a text cites, and the heading where it names one.
#[derive(Debug, PartialEq, Eq)]
struct Citation {
    document: String,
    heading: Option<String>,
}

fn citations(text: &str) -> Vec<Citation> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("docs/") {
        let path: String = text[at..]
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || "/._-".contains(*c))
            .collect();
        let rest = &text[at + path.len()..];
        let document = path.trim_end_matches('.').to_owned();
        // `docs/runbooks/NAME.md` and the like stand for many.
        if !has_extension(&document, "md") || document.contains("NAME") {
            continue;
        }
        let heading = rest.trim_start_matches('`').strip_prefix(", \"");
        let heading = heading.and_then(|rest| rest.split_once('"'));
        found.push(Citation {
            document,
            heading: heading.map(|(heading, _)| heading.to_owned()),
        });
    }
    found
}

/// The headings of a document; lines in blocks of code are not among them.
fn headings(document: &str) -> Vec<&str> {
    let mut is_code = false;
    let lines = document.lines().filter(move |line| {
        is_code ^= line.starts_with("```");
        !is_code && line.starts_with('#')
    });
    lines
        .map(|line| line.trim_start_matches('#').trim())
        .collect()
}

/// Why a citation does not hold; `None` if it does.
fn unheld(citation: &Citation) -> Option<String> {
    let Citation { document, heading } = citation;
    let Ok(text) = fs::read_to_string(root().join(document)) else {
        return Some(format!("{document} does not exist"));
    };
    let heading = heading.as_ref()?;
    let exists = headings(&text).contains(&heading.as_str());
    (!exists).then(|| format!("{document} has no heading {heading:?}"))
}

/// A link of a document: its words and where it leads.
fn links(document: &str) -> Vec<(&str, &str)> {
    let ends = document.match_indices("](");
    let found = ends.filter_map(|(at, _)| {
        let words = document[..at].rsplit_once('[')?.1;
        let target = document[at + 2..].split_once(')')?.0;
        Some((words, target))
    });
    found
        .filter(|(_, target)| !target.contains("://"))
        .collect()
}

/// What a heading is called in the part of a link behind `#`.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| {
        if c == ' ' {
            '-'
        } else {
            c.to_ascii_lowercase()
        }
    })
    .collect()
}

/// Why a link of the document at `from` does not hold; `None` if it does. Where the words of a link are
/// code, the file has to contain them: `` [`fn decide`](src/ops/decide/mod.rs) ``.
fn broken(from: &Text, words: &str, target: &str) -> Option<String> {
    let (path, part) = target.split_once('#').unwrap_or((target, ""));
    let folder = root().join(&from.path);
    let folder = folder.parent().unwrap();
    let file = if path.is_empty() {
        root().join(&from.path)
    } else {
        folder.join(path)
    };
    if !file.exists() {
        return Some(format!("{}: {target} does not exist", from.path));
    }
    let text = fs::read_to_string(&file).unwrap_or_default();
    if !part.is_empty() && !headings(&text).iter().any(|it| anchor(it) == part) {
        return Some(format!("{}: {target} is not a heading", from.path));
    }
    let code = words.strip_prefix('`').and_then(|it| it.strip_suffix('`'));
    let code = code.filter(|code| !target.ends_with(code) && file.is_file())?;
    (!text.contains(code)).then(|| format!("{}: {path} has no `{code}`", from.path))
}

/// Filters of tests that a document says to run: behind `--lib`, and behind `--test it --`.
fn filters(document: &str) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let commands = document.lines().filter(|line| line.contains("cargo test"));
    for command in commands {
        for (option, folder) in [("--lib ", "src"), ("--test it -- ", "tests/it")] {
            for (_, rest) in command
                .match_indices(option)
                .map(|(at, it)| (at, &command[at + it.len()..]))
            {
                let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
                let filter: String = rest.chars().take_while(|c| is_part(*c)).collect();
                found.push((folder, filter));
            }
        }
    }
    found
}

/// Whether a filter begins with a module of that folder.
fn is_module(folder: &str, filter: &str) -> bool {
    let first = filter.split("::").next().unwrap_or_default();
    let module = root().join(folder).join(first);
    !first.is_empty() && (module.is_dir() || module.with_extension("rs").is_file())
}

#[test]
fn nothing_refers_to_a_document_outside_the_repository() {
    let foreign = |text: &str| -> Vec<String> {
        let named = words(text).filter(|word| OUTSIDE.contains(word));
        named.map(str::to_owned).collect()
    };
    none(|source| {
        let named = foreign(&source.text).into_iter();
        named
            .map(|word| format!("{}: {word}", source.path))
            .collect::<Vec<_>>()
    });
    none(|source| {
        let rows = comments(&source.text).into_iter().flat_map(|(at, text)| {
            let rows = words(&text).filter(|word| is_row(word)).map(str::to_owned);
            rows.map(move |row| (at, row)).collect::<Vec<_>>()
        });
        rows.map(|(at, row)| format!("{}:{at}: {row}", source.path))
            .collect::<Vec<_>>()
    });
    let places = PLACES.iter().flat_map(|place| texts_below(place));
    let named = places.flat_map(|it| {
        foreign(&it.text)
            .into_iter()
            .map(move |word| (it.path.clone(), word))
    });
    assert_eq!(named.collect::<Vec<_>>(), Vec::new());
    assert_eq!(foreign(concat!("(CONT", "RACT 2.1)")).len(), 1);
    assert!(is_row(concat!("S", "17")) && is_row(concat!("PH", "-3")));
    assert!(!is_row("I7") && !is_row("SNI") && !is_row("A"));
}

#[test]
fn documents_and_headings_that_are_cited_exist() {
    none(|source| {
        let cited = comments(&source.text).into_iter();
        cited
            .flat_map(|(at, text)| citations(&text).into_iter().map(move |it| (at, it)))
            .filter_map(|(at, it)| Some(format!("{}:{at}: {}", source.path, unheld(&it)?)))
            .collect::<Vec<_>>()
    });
    let cited: usize = sources().iter().map(|it| citations(&it.text).len()).sum();
    assert!(cited > 20, "{cited}");
    for document in markdown() {
        let unheld: Vec<String> = citations(&document.text)
            .iter()
            .filter_map(unheld)
            .collect();
        assert_eq!(unheld, Vec::<String>::new(), "{}", document.path);
    }
    let wrapped = "/// As docs/rotation.md,\n/// \"Limits\" says.\nfn f() {}\n// docs/rotation.md, \"Limit\"\n";
    let read: Vec<_> = comments(wrapped)
        .iter()
        .flat_map(|(_, it)| citations(it))
        .collect();
    let headings: Vec<_> = read.iter().map(|it| it.heading.as_deref()).collect();
    assert_eq!(headings, [Some("Limits"), Some("Limit")]);
    assert_eq!(unheld(&read[0]), None);
    assert_eq!(
        unheld(&read[1]).unwrap(),
        "docs/rotation.md has no heading \"Limit\""
    );
}

#[test]
fn links_lead_somewhere_and_the_code_that_examples_name_is_there() {
    let (mut held, mut lost) = (0, Vec::new());
    for document in markdown() {
        for (words, target) in links(&document.text) {
            lost.extend(broken(&document, words, target));
            held += 1;
        }
    }
    assert!(lost.is_empty(), "\n{}\n", lost.join("\n"));
    assert!(held > 60, "{held}");
    let path = "docs/planted.md".to_owned();
    let text = "[`fn decide`](../src/ops/decide/mod.rs), [`fn dream`](../src/ops/decide/mod.rs), \
                [limits](rotation.md#limits), [more](rotation.md#more), [gone](gone.md)";
    let planted = Text {
        path,
        text: text.to_owned(),
    };
    let broken: Vec<bool> = links(text)
        .iter()
        .map(|(words, target)| broken(&planted, words, target).is_some())
        .collect();
    assert_eq!(broken, [false, true, false, true, true]);
}

#[test]
fn the_tests_that_contributing_says_to_run_exist() {
    let text = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let filters = filters(&text);
    assert!(filters.len() > 15, "{filters:?}");
    for (folder, filter) in filters {
        assert!(is_module(folder, &filter), "{folder} has no {filter}");
    }
    assert!(is_module("tests/it", "keys::errors"));
    assert!(!is_module("tests/it", "imaginary"));
}

#[test]
fn the_summary_of_the_book_lists_every_document() {
    let summary = fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let listed: BTreeSet<String> = links(&summary)
        .into_iter()
        .map(|(_, target)| format!("docs/{target}"))
        .collect();
    let documents = texts_below("docs").into_iter().map(|it| it.path);
    let unlisted: Vec<String> = documents
        .filter(|path| has_extension(path, "md") && path != "docs/SUMMARY.md")
        .filter(|path| !listed.contains(path))
        .collect();
    assert_eq!(unlisted, Vec::<String>::new());
}
