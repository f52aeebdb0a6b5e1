//! The ini file: read, merge, render.
//!
//! PgBouncer's dialect is small and strict: a section header, a comment (`;` or `#` at the start of
//! a line, nowhere else), or `key = value`. Keys are case-sensitive and consist of letters, digits
//! and `_ . - *`; a value runs to the end of its line. Anything else stops the program from loading
//! the file, which at a reload means that TLS is off, so [`Ini::parse`] refuses exactly that.
//!
//! The writer takes only text that the file can hold ([`text`]), and [`reader`] reads what was
//! written by PgBouncer's own rules.
//!
//! A second header of the same section would reset the first one's settings to their defaults;
//! every section is therefore written once. Within `[pgbouncer]` the `listen_`, `auth_` and
//! `client_tls_` lines come first: should a later line still fail to load, the ones that protect
//! clients are in force. [`Ini::publish`] writes `[pgbouncer]` last and a [`Marker`] as its last
//! line, so that the console tells whether all of the file was loaded.

mod check;
mod connect_string;
mod marker;
mod parameters;
pub mod reader;
pub mod text;

#[cfg(test)]
mod tests;

pub use check::{Problem, Unquoted, check};
pub use connect_string::ConnectString;
pub use marker::Marker;
pub use parameters::is_of_a_database;
pub use text::{DatabaseName, Unwritable, UnwritableAt};

use std::collections::HashMap;
use std::fmt;

use thiserror::Error;

use crate::opaque;
use crate::printable::{QUOTE_MAX, printable};

/// Longest file that a user may bring along; PgBouncer's own example, comments included, has 13 kB.
const FILE_MAX_BYTES: usize = 65_536;
/// Most lines of such a file.
const LINES_MAX: usize = 2_000;

/// A section of the file; the order is the order in which they are rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Section {
    /// Where each database name leads.
    Databases,
    /// The program's settings.
    Pgbouncer,
    /// Settings of single users.
    Users,
    /// Other instances to which cancel requests are passed on.
    Peers,
}

impl Section {
    /// All sections, in rendering order.
    pub const ALL: [Self; 4] = [Self::Databases, Self::Pgbouncer, Self::Users, Self::Peers];

    /// The name between the brackets.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Databases => "databases",
            Self::Pgbouncer => "pgbouncer",
            Self::Users => "users",
            Self::Peers => "peers",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|section| section.as_str() == name)
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not an ini file that PgBouncer loads.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// More than a configuration needs.
    #[error(
        "it has {bytes} bytes in {lines} lines: write at most {FILE_MAX_BYTES} bytes in {LINES_MAX} lines"
    )]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
        /// Its number of lines.
        lines: usize,
    },
    /// A line that is neither header, comment nor `key = value`.
    #[error("line {line} is neither a section, a comment nor `key = value`")]
    Syntax {
        /// Line number, from 1.
        line: usize,
    },
    /// A section that PgBouncer does not know.
    #[error(
        "line {line}: there is no section [{name}]; known are databases, pgbouncer, users, peers"
    )]
    UnknownSection {
        /// Line number, from 1.
        line: usize,
        /// What stood between the brackets.
        name: String,
    },
    /// A setting before the first section.
    #[error("line {line}: `{key}` stands before the first section; put it under [pgbouncer]")]
    NoSection {
        /// Line number, from 1.
        line: usize,
        /// The setting.
        key: String,
    },
    /// `%include`, which would read a file that nobody has checked.
    #[error("line {line}: %include is not supported; write the settings themselves")]
    Include {
        /// Line number, from 1.
        line: usize,
    },
    /// A line with a control character in it, or one that is too long.
    #[error("line {line} cannot be used")]
    Text {
        /// Line number, from 1.
        line: usize,
        /// Why.
        #[source]
        why: Unwritable,
    },
}

/// An ini file as a value: settings in the order in which they were first given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ini {
    entries: Vec<Entry>,
    /// Where each setting stands in `entries`.
    places: HashMap<(Section, String), usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    section: Section,
    key: String,
    value: String,
    /// The line as its author wrote it; `None` for lines of our own.
    written: Option<String>,
}

impl Ini {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a file. Comments are dropped; the text of every setting is kept as it was written, but
    /// for single quotes around a name that needs none.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let (bytes, lines) = (text.len(), text.lines().count());
        if bytes > FILE_MAX_BYTES || lines > LINES_MAX {
            return Err(ParseError::TooLarge { bytes, lines });
        }
        let mut ini = Self::new();
        let mut section = None;
        for (index, raw) in text.lines().enumerate() {
            let (line, text) = (index + 1, raw.trim_matches(text::is_blank));
            if text.is_empty() || text.starts_with([';', '#']) {
                continue;
            }
            text::check_value(text).map_err(|why| ParseError::Text { line, why })?;
            if text.starts_with("%include") {
                return Err(ParseError::Include { line });
            }
            if let Some(rest) = text.strip_prefix('[') {
                let name = rest.strip_suffix(']').ok_or(ParseError::Syntax { line })?;
                let unknown = || ParseError::UnknownSection {
                    line,
                    name: printable(&opaque::setting(name), QUOTE_MAX),
                };
                section = Some(Section::parse(name).ok_or_else(unknown)?);
                continue;
            }
            let (key, value) = setting(text).ok_or(ParseError::Syntax { line })?;
            let Some(section) = section else {
                let key = printable(&opaque::setting(key), QUOTE_MAX);
                return Err(ParseError::NoSection { line, key });
            };
            ini.put(Entry {
                section,
                key: key.to_owned(),
                value: value.to_owned(),
                // Versions that do not read quoted names read this one without its quotes.
                written: (!needless_quotes(text, key)).then(|| text.to_owned()),
            });
        }
        Ok(ini)
    }

    /// Sets `key` in `section`; a former value is replaced in its place. Text that PgBouncer would
    /// read otherwise is refused.
    pub fn set(
        &mut self,
        section: Section,
        key: &str,
        value: impl fmt::Display,
    ) -> Result<&mut Self, UnwritableAt> {
        let value = value.to_string();
        let at = |text: &str, why| UnwritableAt {
            place: format!("[{section}] {}", printable(key, QUOTE_MAX)),
            text: text.to_owned(),
            why,
        };
        let named = match section {
            Section::Databases | Section::Users => text::check_name(key),
            Section::Pgbouncer | Section::Peers => text::check_parameter(key),
        };
        named.map_err(|why| at(key, why))?;
        text::check_value(&value).map_err(|why| at(&value, why))?;
        self.put(Entry {
            section,
            key: key.to_owned(),
            value,
            written: None,
        });
        Ok(self)
    }

    /// Removes `key` from `section`.
    pub fn remove(&mut self, section: Section, key: &str) {
        if self.place(section, key).is_none() {
            return;
        }
        self.entries
            .retain(|entry| entry.section != section || entry.key != key);
        let places = self.entries.iter().enumerate();
        self.places = places.map(|(place, entry)| (entry.at(), place)).collect();
    }

    /// The value of `key` in `section`.
    pub fn get(&self, section: Section, key: &str) -> Option<&str> {
        let place = self.place(section, key)?;
        self.entries.get(place).map(|entry| entry.value.as_str())
    }

    /// The settings of a section.
    pub fn section(&self, section: Section) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .filter(move |entry| entry.section == section)
            .map(|entry| (entry.key.as_str(), entry.value.as_str()))
    }

    /// Lays `over` on top: its settings win, and keep the text in which they were written.
    pub fn overlay(&mut self, over: &Self) -> &mut Self {
        for entry in &over.entries {
            self.put(entry.clone());
        }
        self
    }

    /// Merges layers, the least important first: default template, `connectionPool`, the
    /// configuration Secret, inline.
    pub fn merged<'a>(layers: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut merged = Self::new();
        for layer in layers {
            merged.overlay(layer);
        }
        merged
    }

    /// The settings in their canonical form, over which digests are made. `[databases]` comes first,
    /// and each section once.
    pub fn render(&self) -> String {
        self.write(Section::ALL)
    }

    /// The file as pods get it: the same settings, and `marker` as the last line.
    ///
    /// `[pgbouncer]` comes last. A line before its header that does not load leaves all parameters
    /// as they were, and one after its header takes the marker away.
    pub fn publish(&self, marker: &Marker) -> String {
        let mut whole = self.clone();
        let line = marker.beside(self.get(Section::Pgbouncer, Marker::PARAMETER));
        whole.remove(Section::Pgbouncer, Marker::PARAMETER);
        whole.put(Entry {
            section: Section::Pgbouncer,
            key: Marker::PARAMETER.to_owned(),
            value: line,
            written: None,
        });
        whole.write([
            Section::Databases,
            Section::Users,
            Section::Peers,
            Section::Pgbouncer,
        ])
    }

    fn write(&self, sections: [Section; 4]) -> String {
        let mut text = String::new();
        for section in sections {
            let mut entries: Vec<&Entry> = self
                .entries
                .iter()
                .filter(|entry| entry.section == section)
                .collect();
            // Readers of the file expect these two sections, empty or not.
            let always = matches!(section, Section::Databases | Section::Pgbouncer);
            if entries.is_empty() && !always {
                continue;
            }
            if section == Section::Pgbouncer {
                entries.sort_by_key(|entry| !protects_clients(&entry.key));
            }
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&["[", section.as_str(), "]\n"].concat());
            for entry in entries {
                text.push_str(&entry.line());
                text.push('\n');
            }
        }
        text
    }

    fn put(&mut self, new: Entry) {
        let place = *self.places.entry(new.at()).or_insert(self.entries.len());
        match self.entries.get_mut(place) {
            Some(old) => *old = new,
            None => self.entries.push(new),
        }
    }

    fn place(&self, section: Section, key: &str) -> Option<usize> {
        self.places.get(&(section, key.to_owned())).copied()
    }
}

impl Entry {
    fn at(&self) -> (Section, String) {
        (self.section, self.key.clone())
    }

    fn line(&self) -> String {
        self.written.clone().unwrap_or_else(|| {
            let quote = if text::is_plain(&self.key) { "" } else { "'" };
            let line = format!("{quote}{}{quote} = {}", self.key, self.value);
            line.trim_end_matches(' ').to_owned()
        })
    }
}

/// Whether a line belongs first in `[pgbouncer]`.
fn protects_clients(key: &str) -> bool {
    ["listen_", "auth_", "client_tls_"]
        .iter()
        .any(|prefix| key.starts_with(prefix))
}

/// Checks for a name between single quotes that every version reads without them.
fn needless_quotes(text: &str, key: &str) -> bool {
    text.starts_with('\'') && text::is_plain(key)
}

/// Splits `key = value`; `None` where PgBouncer would report a syntax error. A name between single
/// quotes is read here for every version, and refused by [`check`] where the version does not.
fn setting(text: &str) -> Option<(&str, &str)> {
    if let Some(quoted) = text.strip_prefix('\'') {
        let (key, after) = quoted.split_once('\'')?;
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=')?;
        return (!key.is_empty()).then(|| (key, value.trim_matches(text::is_blank)));
    }
    let (key, value) = text.split_once('=')?;
    let key = key.trim_end_matches([' ', '\t']);
    text::is_plain(key).then(|| (key, value.trim_matches(text::is_blank)))
}
