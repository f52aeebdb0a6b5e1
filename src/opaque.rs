//! Errors of parsers that have seen what may be secret: what kind of trouble, and where; never what
//! stood there.
//!
//! Any field of a Secret, an answer or a file may hold a private key, also one that is meant for
//! certificates: users exchange `tls.crt` and `tls.key`. The text of a parser quotes what it could not
//! read. So no error of a parser leaves the module that called it: it becomes one of the types here, or
//! one that [`assert_opaque`] accepts.

use std::error::Error;
use std::fmt;

use serde_json::error::Category;

/// Compiles only for errors that cannot carry what was read: `Copy` excludes owned text, `'static`
/// excludes borrowed text.
pub const fn assert_opaque<E: Error + Copy + 'static>() {}

const _: () = assert_opaque::<JsonTrouble>();
const _: () = assert_opaque::<YamlTrouble>();

/// JSON that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonTrouble {
    kind: &'static str,
    line: usize,
    column: usize,
}

/// YAML that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct YamlTrouble {
    at: Option<(u64, u64)>,
}

// === impl JsonTrouble ===

impl From<serde_json::Error> for JsonTrouble {
    fn from(error: serde_json::Error) -> Self {
        Self {
            kind: kind_of(&error),
            line: error.line(),
            column: error.column(),
        }
    }
}

impl fmt::Display for JsonTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        if self.line > 0 {
            write!(f, " (line {}, column {})", self.line, self.column)?;
        }
        Ok(())
    }
}

impl Error for JsonTrouble {}

// === impl YamlTrouble ===

impl From<serde_saphyr::Error> for YamlTrouble {
    fn from(error: serde_saphyr::Error) -> Self {
        let location = error.locations();
        let location = location.and_then(serde_saphyr::Locations::primary_location);
        Self {
            at: location.map(|at| (at.line(), at.column())),
        }
    }
}

impl fmt::Display for YamlTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is not YAML, or a field has another type")?;
        if let Some((line, column)) = self.at.filter(|(line, _)| *line > 0) {
            write!(f, " (line {line}, column {column})")?;
        }
        Ok(())
    }
}

impl Error for YamlTrouble {}

// === text about fields ===

/// What serde says of a specification, without the values that it quotes, such as `invalid type: a string,
/// expected struct Spec`. A field that does not exist is named if its name looks like one.
pub fn shape(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let (said, place) = split_place(&said);
    let told = if said.starts_with("missing field `") || said.starts_with("duplicate field `") {
        // serde takes these names from our own types.
        said.to_owned()
    } else if let Some((kind, rest)) = split_kind(said, "invalid type: ") {
        format!("invalid type: {kind}{rest}")
    } else if let Some((kind, rest)) = split_kind(said, "invalid value: ") {
        format!("invalid value: {kind}{rest}")
    } else if let Some(rest) = said.strip_prefix("unknown field `") {
        unknown("field", rest)
    } else if let Some(rest) = said.strip_prefix("unknown variant `") {
        unknown("value", rest)
    } else if error.classify() == Category::Data {
        // Our own types' words about a value, such as a duration.
        words(said)
    } else {
        kind_of(error).to_owned()
    };
    format!("{told}{place}")
}

fn kind_of(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        Category::Io => "it cannot be read",
        Category::Syntax => "it is not JSON",
        Category::Data => "a field is missing, or has a value that it cannot have",
        Category::Eof => "it ends too early",
    }
}

/// The ` at line 1 column 2` that `serde_json` appends to what it reads from text.
fn split_place(said: &str) -> (&str, &str) {
    said.rfind(" at line ").map_or((said, ""), |at| {
        let (said, place) = said.split_at(at);
        let digits = |c: char| c.is_ascii_digit() || c == ' ';
        let is_place = place
            .replace("at line", "")
            .replace("column", "")
            .chars()
            .all(digits);
        if is_place { (said, place) } else { (said, "") }
    })
}

/// serde's name of a kind of value, and what was expected, which comes from our own types.
fn split_kind<'a>(said: &'a str, prefix: &str) -> Option<(&'static str, &'a str)> {
    const KINDS: [(&str, &str); 9] = [
        ("string", "a string"),
        ("integer", "an integer"),
        ("floating point", "a number"),
        ("boolean", "a boolean"),
        ("map", "a map"),
        ("sequence", "a list"),
        ("null", "null"),
        ("unit", "null"),
        ("character", "a character"),
    ];
    let rest = said.strip_prefix(prefix)?;
    let kind = KINDS.iter().find(|(word, _)| rest.starts_with(word));
    let kind = kind.map_or("another kind of value", |(_, kind)| *kind);
    // The last one: what is quoted before it may hold the same words.
    let expected = rest.rfind(", expected ").map_or("", |at| &rest[at..]);
    Some((kind, expected))
}

fn unknown(what: &str, rest: &str) -> String {
    let (name, after) = rest.split_once('`').unwrap_or((rest, ""));
    let expected = after.rfind(", expected ").map_or("", |at| &after[at..]);
    match plain_name(name) {
        Some(name) => format!("unknown {what} `{name}`{expected}"),
        None => format!("unknown {what}{expected}"),
    }
}

/// `name`, if it looks like the name of a field, a kind or a parameter: a few words, and neither
/// digits nor signs that base64 has.
pub fn plain_name(name: &str) -> Option<&str> {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_plain = !name.is_empty() && name.len() <= 40 && name.chars().all(is_letter);
    (is_plain && !looks_encoded(name)).then_some(name)
}

/// The name of a setting for a message: as it is written if it looks like one, which has small letters, in
/// words; in base64 large ones are everywhere.
pub fn setting(name: &str) -> String {
    let in_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    let is_plain = |word: &str| word.len() < RUN_MIN || word.chars().all(in_word);
    if name.len() <= 128 && name.split([' ', '.', ':']).all(is_plain) {
        name.to_owned()
    } else {
        LEFT_OUT.to_owned()
    }
}

/// What stands for a piece that is not told.
const LEFT_OUT: &str = "<left out>";
/// Shortest run of characters that is taken for a piece of a key.
const RUN_MIN: usize = 16;
/// Runs of so many characters are no names that people write.
const LINE_MIN: usize = 40;

/// The words of another program, such as an API server or Vault, without what looks like a piece of a
/// key or a token.
pub fn words(said: &str) -> String {
    let in_run = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '_' | '-');
    let mut told = String::with_capacity(said.len());
    let mut rest = said;
    while !rest.is_empty() {
        let end = rest.find(|c| !in_run(c)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        if looks_encoded(run) {
            told.push_str(LEFT_OUT);
        } else {
            told.push_str(run);
        }
        let end = after.find(in_run).unwrap_or(after.len());
        let (between, after) = after.split_at(end);
        told.push_str(between);
        rest = after;
    }
    told
}

/// Whether a run looks like base64: small and large letters, digits and signs alternate far more often
/// than in names, where they come in words.
fn looks_encoded(run: &str) -> bool {
    if run.len() < RUN_MIN {
        return false;
    }
    let class = |byte: &u8| match byte {
        b'a'..=b'z' => 0,
        b'A'..=b'Z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    };
    let classes: Vec<u8> = run.as_bytes().iter().map(class).collect();
    let has = |wanted| classes.contains(&wanted);
    let changes = classes.windows(2).filter(|pair| pair[0] != pair[1]).count();
    // A line of a key has 64 characters; a third is what none of them falls short of.
    let least = if run.len() < LINE_MIN { 42 } else { 33 };
    has(0) && has(1) && changes * 100 >= (run.len() - 1) * least
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[expect(dead_code, reason = "only its reading is of interest")]
    struct Spec {
        server: String,
        replicas: Option<u8>,
        mode: Option<Mode>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Open,
    }

    fn shape_of(text: &str) -> String {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        shape(&serde_json::from_value::<Spec>(value).unwrap_err())
    }

    #[test]
    fn what_is_wrong_with_a_specification_is_told_without_its_values() {
        let told = [
            ("{}", "missing field `server`"),
            (
                r#"{"server": "s", "replicas": "hunter2, expected u8"}"#,
                "invalid type: a string, expected u8",
            ),
            (
                r#"{"server": "s", "replicas": 4711}"#,
                "invalid value: an integer, expected u8",
            ),
            (
                r#"{"server": "s", "mode": "hunter2"}"#,
                "unknown value, expected `open`",
            ),
            (
                r#"{"servr": "s"}"#,
                "unknown field `servr`, expected one of `server`, `replicas`, `mode`",
            ),
            (
                r#"{"MHcCAQEEIKx+": "s"}"#,
                "unknown field, expected one of `server`, `replicas`, `mode`",
            ),
        ];
        for (text, expected) in told {
            assert_eq!(shape_of(text), expected, "{text}");
        }
    }

    #[test]
    fn json_and_yaml_that_cannot_be_read_have_a_place_and_no_text() {
        let json = serde_json::from_str::<Spec>("{\n \"server\": hunter2}").unwrap_err();
        let json = JsonTrouble::from(json);
        assert_eq!(json.to_string(), "it is not JSON (line 2, column 12)");
        let yaml = serde_saphyr::from_str::<Spec>("server: [hunter2").unwrap_err();
        let yaml = YamlTrouble::from(yaml);
        assert!(yaml.to_string().contains("(line 1, "), "{yaml}");
        assert!(!format!("{yaml:?} {yaml} {json:?}").contains("hunter2"));
    }

    #[test]
    fn words_of_others_keep_names_and_lose_keys() {
        let kept = [
            "secrets \"ledger-server-cert-r12\" is forbidden: User \"system:serviceaccount:bouncert:bouncert\" cannot get resource",
            "ClusterIssuer/pki-2031 CertificateRequestPolicy PgBouncerOpsRequest",
            "5d41402abc4b2a76b9719d911017c592 1f0c7b9e-3c1d-4a59-8a75-9d2b6a3f1f00",
            "https://vault.example:8200/v1/auth/kubernetes/login 2031-04-05T06:07:08Z",
        ];
        for text in kept {
            assert_eq!(words(text), text);
        }
        let token = "hvs.CAESIJlWh2Yt0gSzWq1Xn8Kf3Lp9Zr7TbVd2Qe5Uj4Mw";
        assert_eq!(
            words(&format!("bad token {token}!")),
            "bad token hvs.<left out>!"
        );
    }

    #[test]
    fn a_setting_is_named_as_it_is_written() {
        for name in [
            "pool_mode",
            "server_tls13_ciphers",
            "Ledger pool_size",
            "bücher",
        ] {
            assert_eq!(setting(name), name);
        }
    }

    proptest! {
        #[test]
        fn no_line_of_a_key_survives_as_words(bytes in proptest::collection::vec(any::<u8>(), 48)) {
            for encoded in [STANDARD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
                let told = words(&format!("cannot parse \"{encoded}\": unexpected"));
                prop_assert_eq!(told, "cannot parse \"<left out>\": unexpected");
                prop_assert_eq!(plain_name(&encoded), None);
                prop_assert_eq!(setting(&encoded), LEFT_OUT);
            }
        }
    }
}
