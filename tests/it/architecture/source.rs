//! Source files as the rules see them: whole, without comments and the text of strings, and with or
//! without what is there for tests.
//!
//! A file is taken apart as Rust's lexer does it, so that nothing hides what follows it: not a test module
//! at the beginning, not a brace in a string. (`proc-macro2` with places of tokens would make Cargo build
//! every derive anew.)

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, OnceLock};

/// A source file.
pub(super) struct Source {
    /// Below the package, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// Whether another file declares it for tests only.
    is_for_tests: bool,
    all: OnceLock<Vec<String>>,
    product: OnceLock<Vec<String>>,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            is_for_tests: false,
            all: OnceLock::new(),
            product: OnceLock::new(),
        }
    }

    /// The same file with another text.
    pub(super) fn with(&self, text: &str) -> Self {
        let is_for_tests = self.is_for_tests;
        Self {
            is_for_tests,
            ..Self::new(&self.path, text)
        }
    }

    /// The path below `src`, without `.rs` and `/mod`.
    pub(super) fn room(&self) -> Option<&str> {
        let path = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        Some(path.strip_suffix("/mod").unwrap_or(path))
    }

    pub(super) fn module(&self) -> Option<&str> {
        self.room()?.split('/').next()
    }

    /// Whether the whole file is there for tests.
    pub(super) fn is_test(&self) -> bool {
        let Some(room) = self.room() else { return true };
        let mut parts = room.split('/');
        self.is_for_tests || parts.any(|part| matches!(part, "tests" | "testing"))
    }

    /// The lines of the product's code, with their numbers.
    pub(super) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(
            self.product
                .get_or_init(|| lines(&self.text, Take::Product)),
        )
    }

    /// The lines of all code, with their numbers.
    pub(super) fn all_code(&self) -> impl Iterator<Item = (usize, &str)> {
        numbered(self.all.get_or_init(|| lines(&self.text, Take::All)))
    }
}

fn numbered(lines: &[String]) -> impl Iterator<Item = (usize, &str)> {
    let lines = lines.iter().enumerate();
    lines.map(|(at, line)| (at + 1, line.as_str()))
}

/// What of a file is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Take {
    All,
    /// All but the items under `#[cfg(test)]`.
    Product,
}

fn lines(text: &str, take: Take) -> Vec<String> {
    let mut code = code_of(text);
    if take == Take::Product {
        while let Some(at) = find(&code, "#[cfg(test)]") {
            let end = end_of_item(&code, at + "#[cfg(test)]".len());
            blank(&mut code[at..end]);
        }
    }
    let code: String = code.into_iter().collect();
    code.lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// The characters of a file, with spaces in place of comments and of what stands between quotes.
fn code_of(text: &str) -> Vec<char> {
    let mut code: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < code.len() {
        let rest = &code[at..];
        let before = at.checked_sub(1).map(|before| code[before]);
        let length = if starts(rest, "//") {
            rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())
        } else if starts(rest, "/*") {
            comment_length(rest)
        } else if let Some((head, length)) = quoted(rest, before) {
            blank(&mut code[at + head..at + length - 1]);
            at += length;
            continue;
        } else {
            at += 1;
            continue;
        };
        blank(&mut code[at..at + length]);
        at += length;
    }
    code
}

/// The length of a comment, in which others may stand.
fn comment_length(text: &[char]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < text.len() {
        if starts(&text[at..], "/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if starts(&text[at..], "*/") {
            (at, depth) = (at + 2, depth - 1);
        } else {
            at += 1;
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of what begins a literal with quotes, and that of the whole; `None` where none begins.
fn quoted(text: &[char], before: Option<char>) -> Option<(usize, usize)> {
    let is_in_name = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if text[0] == '"' {
        return Some((1, 1 + escaped_length(&text[1..], '"')));
    }
    if text[0] == '\'' {
        // A lifetime has no second quote.
        let is_letter = text.get(2) == Some(&'\'') || text.get(1) == Some(&'\\');
        return is_letter.then(|| (1, 1 + escaped_length(&text[1..], '\'')));
    }
    let letters = text
        .iter()
        .take_while(|c| matches!(c, 'b' | 'c' | 'r'))
        .count();
    if is_in_name || text[..letters].last() != Some(&'r') {
        return None;
    }
    let marks = text[letters..].iter().take_while(|c| **c == '#').count();
    let head = letters + marks + 1;
    let end: String = ['"']
        .into_iter()
        .chain(std::iter::repeat_n('#', marks))
        .collect();
    if text.get(head - 1) != Some(&'"') {
        return None;
    }
    let inner = find(&text[head..], &end).unwrap_or(text.len() - head);
    Some((head, (head + inner + end.len()).min(text.len())))
}

/// The length up to and with an end that no backslash stands before.
fn escaped_length(text: &[char], end: char) -> usize {
    let mut at = 0;
    while at < text.len() && text[at] != end {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// Where the item ends that begins at `at`: with its braces, or with a semicolon outside of any.
fn end_of_item(code: &[char], at: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, character) in code[at..].iter().enumerate() {
        match character {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && *character == '}' {
                    return at + offset + 1;
                }
            }
            ';' if depth == 0 => return at + offset + 1,
            _ => {}
        }
    }
    code.len()
}

fn blank(code: &mut [char]) {
    for character in code.iter_mut().filter(|character| **character != '\n') {
        *character = ' ';
    }
}

fn starts(code: &[char], word: &str) -> bool {
    let mut code = code.iter();
    word.chars().all(|c| code.next() == Some(&c))
}

fn find(code: &[char], word: &str) -> Option<usize> {
    (0..code.len()).find(|at| starts(&code[*at..], word))
}

/// All files of the package, read once.
pub(super) fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(read);
    &SOURCES
}

fn read() -> Vec<Source> {
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
    let for_tests: BTreeSet<String> = sources.iter().flat_map(declared_for_tests).collect();
    for source in &mut sources {
        source.is_for_tests = source.room().is_some_and(|room| for_tests.contains(room));
    }
    sources
}

/// The rooms of the modules that a file declares for tests only.
fn declared_for_tests(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else {
        return Vec::new();
    };
    let folder = if matches!(room, "lib" | "main") {
        ""
    } else {
        room
    };
    let product: BTreeSet<String> = source
        .code()
        .filter_map(|(_, line)| declared(line))
        .collect();
    let all = source.all_code().filter_map(|(_, line)| declared(line));
    all.filter(|name| !product.contains(name))
        .map(|name| format!("{folder}/{name}").trim_matches('/').to_owned())
        .collect()
}

/// The name in `mod name;`, whoever may see it.
fn declared(line: &str) -> Option<String> {
    let (_, name) = line.strip_suffix(';')?.rsplit_once("mod ")?;
    name.chars()
        .all(|c| c.is_ascii_lowercase() || c == '_')
        .then(|| name.to_owned())
}

#[test]
fn comments_strings_and_tests_are_no_code_and_hide_nothing() {
    let text = "//! now()\n#[cfg(test)]\nmod tests;\nuse a::b; // now()\n#[cfg(test)]\nmod inner {\n    \
                fn f() { \"}\" }\n}\nfn g() { let s = \"now() {\"; t('}') }\n";
    let source = Source::new("src/pki/leaf.rs", text);
    let code: Vec<_> = source
        .code()
        .filter(|(_, line)| !line.trim().is_empty())
        .collect();
    assert_eq!(
        code.last(),
        Some(&(9, "fn g() { let s = \"       \"; t(' ') }"))
    );
    let numbers: Vec<usize> = code
        .iter()
        .map(|(at, _)| *at)
        .filter(|at| *at > 1)
        .collect();
    assert_eq!(numbers, [4, 9]);
    assert!(
        source
            .all_code()
            .any(|(at, line)| at == 6 && line.contains("mod inner"))
    );
    assert_eq!(declared_for_tests(&source), ["pki/leaf/tests"]);
}
