//! Text that the file can hold. Whatever goes into an [`super::Ini`] or a [`super::ConnectString`]
//! passes here, so that a value cannot become a second line, and is read back as it was meant.
//!
//! The file has no quoting for values, and hardly any for names (measured on 1.18.0, 1.24.1 and
//! 1.26.1): a value runs to the end of its line and loses blanks at both ends; a name consists of
//! letters, digits and `_ . - *`. From 1.26.1 on a name between single quotes may hold anything but
//! a single quote. A NUL ends the file.

use thiserror::Error;

use crate::pgbouncer::Version;
use crate::printable::quoted;

/// Longest value and longest line, in bytes. PgBouncer's packets, in which its console shows a
/// value, have 4,096 by default.
pub const VALUE_MAX: usize = 4_096;
/// Longest name of a database: PostgreSQL's, and PgBouncer's.
pub const DATABASE_NAME_MAX: usize = 63;
/// First version that was seen to read names between single quotes.
pub const QUOTED_NAMES_SINCE: Version = Version::new(1, 26, 1);

/// Why a text cannot stand in the file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unwritable {
    /// Nothing, where something is needed.
    #[error("it is empty")]
    Empty,
    /// Longer than what is read.
    #[error("it has {length} bytes, and at most {max} are read")]
    TooLong {
        /// Its length.
        length: usize,
        /// The bound.
        max: usize,
    },
    /// A control character; a line break among them.
    #[error("it holds the control character U+{:04X}, which pgbouncer.ini cannot hold", u32::from(*.0))]
    Control(char),
    /// Blanks at an end, which are not read.
    #[error("it begins or ends with a blank, which pgbouncer.ini cannot hold")]
    Blank,
    /// A single quote in a name.
    #[error("it holds a single quote, and pgbouncer.ini has no quoting for that in a name")]
    Quote,
    /// A name of a parameter that is none.
    #[error("names of parameters consist of letters, digits and _ . - *")]
    NoParameter,
    /// The admin console's own name.
    #[error("this name is reserved for the admin console")]
    Reserved,
}

/// A text that cannot stand in the file, and where it should have stood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{place} is {}", quoted(.text))]
pub struct UnwritableAt {
    /// What it should have been.
    pub place: String,
    /// The text.
    pub text: String,
    /// Why it cannot be.
    #[source]
    pub why: Unwritable,
}

/// The name of a database that the file can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseName(String);

impl DatabaseName {
    /// Checks a name. `*` stands for all databases that have no line of their own.
    pub fn new(name: &str) -> Result<Self, Unwritable> {
        check_name(name)?;
        if name == "pgbouncer" {
            return Err(Unwritable::Reserved);
        }
        bounded(name, DATABASE_NAME_MAX)?;
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it stands for all databases.
    pub fn is_any(&self) -> bool {
        self.0 == "*"
    }

    /// Whether that version reads the name.
    pub fn is_read_by(&self, version: Version) -> bool {
        is_plain(&self.0) || version >= QUOTED_NAMES_SINCE
    }
}

/// Checks a value of a parameter.
pub(super) fn check_value(value: &str) -> Result<(), Unwritable> {
    check_characters(value)?;
    if value.trim_matches(is_blank) != value {
        return Err(Unwritable::Blank);
    }
    bounded(value, VALUE_MAX)
}

/// Checks a value within a connect string; there is quoting for blanks, and none for nothing.
pub(super) fn check_connect_value(value: &str) -> Result<(), Unwritable> {
    if value.is_empty() {
        return Err(Unwritable::Empty);
    }
    check_characters(value)?;
    bounded(value, VALUE_MAX)
}

/// Checks the name of a parameter.
pub(super) fn check_parameter(key: &str) -> Result<(), Unwritable> {
    if is_plain(key) {
        Ok(())
    } else {
        Err(Unwritable::NoParameter)
    }
}

/// Checks the name of a database or user.
pub(super) fn check_name(name: &str) -> Result<(), Unwritable> {
    if name.is_empty() {
        return Err(Unwritable::Empty);
    }
    check_characters(name)?;
    if name.contains('\'') {
        return Err(Unwritable::Quote);
    }
    bounded(name, VALUE_MAX)
}

/// Whether every version reads the name without quotes.
pub(super) fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '*');
    !name.is_empty() && name.chars().all(plain)
}

/// What PgBouncer takes for a blank.
pub(super) const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}

fn check_characters(text: &str) -> Result<(), Unwritable> {
    match text.chars().find(|c| c.is_control() && *c != '\t') {
        Some(c) => Err(Unwritable::Control(c)),
        None => Ok(()),
    }
}

const fn bounded(text: &str, max: usize) -> Result<(), Unwritable> {
    let length = text.len();
    if length > max {
        return Err(Unwritable::TooLong { length, max });
    }
    Ok(())
}
