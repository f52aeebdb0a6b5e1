//! A second reader of the file, by PgBouncer's own grammar. It shares no code with the writer, and
//! what the writer has written is published only if this reader reads what was meant.
//!
//! The grammar is what PgBouncer 1.18.0, 1.24.1 and 1.26.1 were measured to do, quirks included
//! (docs/pgbouncer-behaviour.md, "Syntax of the configuration"):
//!
//! * Blanks and line breaks before a line do not count; `;` and `#` begin a comment there only.
//! * `%include` and a blank read another file. A header may be followed by more on its line.
//! * A second `[pgbouncer]` header sets every parameter back to its default.
//! * A key is what letters, digits and `_ . - *` stand there, possibly nothing. From 1.26.1 on a
//!   key may stand between single quotes, and then holds anything else.
//! * A value is the rest of the line without blanks at its ends. A NUL ends the file.
//! * In a list of pairs only a space separates; a quote is doubled within quotes; the character
//!   after a closing quote is dropped unread; an empty value is an error.
//! * In the userlist the bounds count a doubled quote twice, and a name that is too long ends the
//!   file: users after it do not exist.

use std::cell::Cell;

use thiserror::Error;

use crate::pgbouncer::Version;

/// One setting as PgBouncer reads it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    /// The section's name.
    pub section: String,
    /// The key without quotes.
    pub key: String,
    /// The value.
    pub value: String,
}

/// Why PgBouncer would not read the file, or only a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unread {
    /// A line that is no setting.
    #[error("line {0} is not read")]
    Syntax(usize),
    /// A section that the version does not have.
    #[error("line {0} begins a section that does not exist")]
    Section(usize),
    /// Another file.
    #[error("line {0} includes another file")]
    Include(usize),
    /// The file ends early.
    #[error("line {0} holds a NUL, where the file ends")]
    Nul(usize),
    /// No `[pgbouncer]`.
    #[error("there is no section [pgbouncer]")]
    NoMain,
    /// A list of pairs that is none.
    #[error("a list of key=value does not end or begin as it should")]
    Pairs,
    /// A userlist that ends early.
    #[error("line {0} of the userlist is not read, nor is any after it")]
    Users(usize),
}

/// What differs between versions.
struct Dialect {
    quoted_keys: bool,
    peers: bool,
}

impl Dialect {
    fn of(version: Version) -> Self {
        Self {
            quoted_keys: version >= Version::new(1, 26, 1),
            peers: version >= Version::new(1, 19, 0),
        }
    }
}

/// Reads a file as that version does.
pub fn read(text: &str, version: Version) -> Result<Vec<Setting>, Unread> {
    let dialect = Dialect::of(version);
    let mut cursor = Cursor::new(text);
    let (mut section, mut found, mut main) = (None, Vec::new(), false);
    loop {
        cursor.skip(|byte| b" \t\n\x0b\x0c\r".contains(&byte));
        let line = cursor.line();
        match cursor.peek() {
            None => break,
            Some(0) => return Err(Unread::Nul(line)),
            Some(b'#' | b';') => cursor.skip(|byte| byte != b'\n' && byte != 0),
            Some(b'[') => {
                let name = header(&mut cursor, &dialect)?;
                if name == "pgbouncer" {
                    main = true;
                    found.retain(|setting: &Setting| setting.section != "pgbouncer");
                }
                section = Some(name);
            }
            Some(_) => {
                let (key, value) = setting(&mut cursor, &dialect)?;
                let section = section.clone().ok_or(Unread::Syntax(line))?;
                found.push(Setting {
                    section,
                    key,
                    value,
                });
            }
        }
    }
    if main { Ok(found) } else { Err(Unread::NoMain) }
}

/// Reads a list of pairs.
pub fn pairs(text: &str) -> Result<Vec<(String, String)>, Unread> {
    let mut cursor = Cursor::new(text);
    let mut found = Vec::new();
    loop {
        cursor.skip(|byte| byte == b' ');
        if cursor.peek().is_none() {
            return Ok(found);
        }
        let key = cursor.take(|byte| byte != b'=' && byte != b' ' && byte != 0);
        cursor.skip(|byte| byte == b' ');
        if key.is_empty() || cursor.next() != Some(b'=') {
            return Err(Unread::Pairs);
        }
        cursor.skip(|byte| byte == b' ');
        let value = if cursor.peek() == Some(b'\'') {
            cursor.next();
            let value = unquoted(&mut cursor).ok_or(Unread::Pairs)?;
            // Whatever it is.
            cursor.next();
            value
        } else {
            cursor.take(|byte| byte != b' ' && byte != 0)
        };
        if value.is_empty() {
            return Err(Unread::Pairs);
        }
        found.push((key, value));
    }
}

/// Reads a userlist: names and secrets.
pub fn users(text: &str) -> Result<Vec<(String, String)>, Unread> {
    const NAME_MAX: usize = 127;
    const SECRET_MAX: usize = 2_047;
    let mut cursor = Cursor::new(text);
    let mut found = Vec::new();
    loop {
        cursor.skip(|byte| b" \t\n\x0b\x0c\r".contains(&byte));
        let line = cursor.line();
        match cursor.peek() {
            None => return Ok(found),
            Some(b';') => {
                cursor.skip(|byte| byte != b'\n');
                continue;
            }
            Some(b'"') => {}
            Some(_) => return Err(Unread::Users(line)),
        }
        let mut field = |max: usize| {
            cursor.skip(|byte| byte != b'"' && byte != 0);
            let begin = cursor.at + 1;
            cursor.next();
            let mut field = Vec::new();
            loop {
                match (cursor.next()?, cursor.peek()) {
                    (b'"', Some(b'"')) => {
                        cursor.next();
                        field.push(b'"');
                    }
                    (b'"', _) => break,
                    (0, _) => return None,
                    (byte, _) => field.push(byte),
                }
            }
            let raw = cursor.at - 1 - begin;
            (raw <= max).then(|| String::from_utf8_lossy(&field).into_owned())
        };
        let user = field(NAME_MAX).ok_or(Unread::Users(line))?;
        let secret = field(SECRET_MAX).ok_or(Unread::Users(line))?;
        found.push((user, secret));
        cursor.skip(|byte| byte != b'\n' && byte != 0);
    }
}

/// The name in a header.
fn header(cursor: &mut Cursor<'_>, dialect: &Dialect) -> Result<String, Unread> {
    let line = cursor.line();
    cursor.next();
    let name = cursor.take(|byte| byte != b']' && byte != b'\n' && byte != 0);
    if cursor.next() != Some(b']') {
        return Err(Unread::Syntax(line));
    }
    match name.as_str() {
        "databases" | "pgbouncer" | "users" => Ok(name),
        "peers" if dialect.peers => Ok(name),
        _ => Err(Unread::Section(line)),
    }
}

/// A key and its value.
fn setting(cursor: &mut Cursor<'_>, dialect: &Dialect) -> Result<(String, String), Unread> {
    let line = cursor.line();
    if cursor.rest().starts_with(b"%include ") || cursor.rest().starts_with(b"%include\t") {
        return Err(Unread::Include(line));
    }
    let key = if dialect.quoted_keys && cursor.peek() == Some(b'\'') {
        cursor.next();
        let key = cursor.take(|byte| byte != b'\'' && byte != 0);
        if key.is_empty() || cursor.next() != Some(b'\'') {
            return Err(Unread::Syntax(line));
        }
        key
    } else {
        cursor.take(|byte| byte.is_ascii_alphanumeric() || b"_.-*".contains(&byte))
    };
    cursor.skip(|byte| byte == b' ' || byte == b'\t');
    if cursor.next() != Some(b'=') {
        return Err(Unread::Syntax(line));
    }
    cursor.skip(|byte| byte == b' ' || byte == b'\t');
    let value = cursor.take(|byte| byte != b'\n' && byte != 0);
    if cursor.peek() == Some(0) {
        return Err(Unread::Nul(line));
    }
    let end = value.trim_end_matches([' ', '\t', '\u{b}', '\u{c}', '\r']);
    Ok((key, end.to_owned()))
}

/// The rest of a quoted value, without its closing quote.
fn unquoted(cursor: &mut Cursor<'_>) -> Option<String> {
    let mut value = Vec::new();
    loop {
        match (cursor.next()?, cursor.peek()) {
            (0, _) => return None,
            (b'\'', Some(b'\'')) => {
                cursor.next();
                value.push(b'\'');
            }
            (b'\'', _) => return Some(String::from_utf8_lossy(&value).into_owned()),
            (byte, _) => value.push(byte),
        }
    }
}

/// A place in a text, in bytes, as the program has it.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// A position and the line that it is on: lines are counted once.
    counted: Cell<(usize, usize)>,
}

impl<'a> Cursor<'a> {
    const fn new(text: &'a str) -> Self {
        Self {
            bytes: text.as_bytes(),
            counted: Cell::new((0, 1)),
            at: 0,
        }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip(&mut self, goes_on: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&goes_on) {
            self.at += 1;
        }
    }

    fn take(&mut self, goes_on: impl Fn(u8) -> bool) -> String {
        let begin = self.at;
        self.skip(goes_on);
        let taken = self.bytes.get(begin..self.at).unwrap_or_default();
        String::from_utf8_lossy(taken).into_owned()
    }

    /// The line, from 1.
    fn line(&self) -> usize {
        let (from, line) = match self.counted.get() {
            (from, line) if from <= self.at => (from, line),
            _ => (0, 1),
        };
        let between = self.bytes.get(from..self.at).unwrap_or_default();
        let line = line + between.split(|byte| *byte == b'\n').skip(1).count();
        self.counted.set((self.at, line));
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Version = Version::new(1, 18, 0);
    const NEW: Version = Version::new(1, 26, 1);

    fn settings(text: &str, version: Version) -> Result<Vec<String>, Unread> {
        let read = read(text, version)?;
        let line = |s: Setting| format!("{}/{}/{}", s.section, s.key, s.value);
        Ok(read.into_iter().map(line).collect())
    }

    #[test]
    fn names_between_quotes_are_read_from_1_26_1() {
        let text = "[databases]\n'sales 2026' = host=a\n[pgbouncer]\n";
        assert_eq!(settings(text, OLD), Err(Unread::Syntax(2)));
        assert_eq!(
            settings(text, Version::new(1, 24, 1)),
            Err(Unread::Syntax(2))
        );
        assert_eq!(
            settings(text, NEW).unwrap(),
            ["databases/sales 2026/host=a"]
        );
        let doubled = "[databases]\n'a''b' = host=a\n[pgbouncer]\n";
        assert_eq!(settings(doubled, NEW), Err(Unread::Syntax(2)));
        let named = "[databases]\n\"a\" = host=a\n[pgbouncer]\n";
        assert_eq!(
            settings(named, NEW),
            Err(Unread::Syntax(2)),
            "SQL's quotes are not"
        );
    }

    #[test]
    fn quirks_are_read_as_the_program_does() {
        assert_eq!(
            settings(
                "[databases] a=b\n[pgbouncer]\nx=1\n[users]\n[pgbouncer]y = 2 \r\n",
                OLD
            )
            .unwrap(),
            ["databases/a/b", "pgbouncer/y/2"],
            "a second header resets"
        );
        assert_eq!(
            settings("[pgbouncer]\nx=1\0\ny=2\n", OLD),
            Err(Unread::Nul(2))
        );
        assert_eq!(
            settings("[pgbouncer] %include /x\n", OLD),
            Err(Unread::Include(1))
        );
        assert_eq!(
            settings("[peers]\n[pgbouncer]\n", OLD),
            Err(Unread::Section(1))
        );
        assert_eq!(settings("[databases]\n", OLD), Err(Unread::NoMain));
        assert_eq!(settings("x=1\n[pgbouncer]\n", OLD), Err(Unread::Syntax(1)));
        let dropped = pairs("host='a'xport=1").unwrap();
        assert_eq!(dropped[1], ("port".to_owned(), "1".to_owned()));
        assert_eq!(pairs("dbname=''"), Err(Unread::Pairs));
        assert_eq!(pairs("a=x\ty b=2").unwrap().len(), 2);
    }

    #[test]
    fn a_user_that_is_too_long_ends_the_userlist() {
        let name = "u".repeat(127);
        let text = format!("; c\n\"{name}\" \"p\"\"q\" rest\n\"z\" \"\"\n");
        let read = users(&text).unwrap();
        assert_eq!(read[0], (name, "p\"q".to_owned()));
        assert_eq!(read[1], ("z".to_owned(), String::new()));
        let quotes = format!("\"{}{}\" \"p\"\n", "u".repeat(100), "\"\"".repeat(14));
        assert_eq!(
            users(&quotes),
            Err(Unread::Users(1)),
            "a doubled quote counts twice"
        );
    }
}
