//! The text of a label selector, read as Kubernetes' `labels.Parse` does.

use std::collections::BTreeSet;

use super::{REQUIREMENTS_MAX, Requirement, VALUES_MAX};
use crate::local::apiserver::error::ApiError;

/// Longest name in a key, and longest value.
const NAME_MAX: usize = 63;
/// Longest prefix of a key.
const PREFIX_MAX: usize = 253;

/// A piece of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    /// `,`, `(`, `)`, or an operator.
    Mark(&'a str),
    End,
}

/// The text that is still to be read.
struct Reader<'a> {
    rest: &'a str,
    /// Values that may still come.
    values_left: usize,
}

/// Reads all requirements; an empty text has none.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, ApiError> {
    let mut reader = Reader {
        rest: text,
        values_left: VALUES_MAX,
    };
    let mut found = Vec::new();
    if reader.peek() == Token::End {
        return Ok(found);
    }
    loop {
        found.push(reader.requirement()?);
        if found.len() > REQUIREMENTS_MAX {
            return Err(ApiError::BadRequest(format!(
                "a selector has at most {REQUIREMENTS_MAX} requirements"
            )));
        }
        match reader.next() {
            Token::End => return Ok(found),
            Token::Mark(",") => {}
            other => return Err(unexpected(other, "',' or 'end of string'")),
        }
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn peek(&self) -> Token<'a> {
        self.split().0
    }

    fn next(&mut self) -> Token<'a> {
        let (token, rest) = self.split();
        self.rest = rest;
        token
    }

    fn split(&self) -> (Token<'a>, &'a str) {
        let text = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = text.chars().next() else {
            return (Token::End, text);
        };
        if !is_mark(first) {
            let end = text.find(|c| is_mark(c) || " \t\r\n".contains(c));
            let (word, rest) = text.split_at(end.unwrap_or(text.len()));
            return (Token::Word(word), rest);
        }
        let double = text.starts_with("==") || text.starts_with("!=");
        let (mark, rest) = text.split_at(if double { 2 } else { 1 });
        (Token::Mark(mark), rest)
    }

    fn requirement(&mut self) -> Result<Requirement, ApiError> {
        let is_missing = self.peek() == Token::Mark("!");
        if is_missing {
            self.next();
        }
        let key = match self.next() {
            Token::Word(key) => key.to_owned(),
            other if is_missing => return Err(unexpected(other, "identifier")),
            other => return Err(unexpected(other, "!, identifier, or 'end of string'")),
        };
        check_key(&key)?;
        if is_missing {
            return Ok(Requirement::Missing(key));
        }
        if matches!(self.peek(), Token::End | Token::Mark(",")) {
            return Ok(Requirement::Exists(key));
        }
        match self.next() {
            Token::Mark("=" | "==") => Ok(Requirement::In(key, self.one_value()?)),
            Token::Mark("!=") => Ok(Requirement::NotIn(key, self.one_value()?)),
            Token::Mark(">") => Ok(Requirement::Above(key, self.number()?)),
            Token::Mark("<") => Ok(Requirement::Below(key, self.number()?)),
            Token::Word("in") => Ok(Requirement::In(key, self.values()?)),
            Token::Word("notin") => Ok(Requirement::NotIn(key, self.values()?)),
            other => Err(unexpected(other, "in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn one_value(&mut self) -> Result<BTreeSet<String>, ApiError> {
        Ok(BTreeSet::from([self.value()?]))
    }

    fn number(&mut self) -> Result<i64, ApiError> {
        let value = self.value()?;
        value.parse().map_err(|_| {
            unreadable(&format!(
                "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be \
                 an integer"
            ))
        })
    }

    /// The value after an operator; it may be empty.
    fn value(&mut self) -> Result<String, ApiError> {
        if matches!(self.peek(), Token::End | Token::Mark(",")) {
            return Ok(String::new());
        }
        match self.next() {
            Token::Word(value) => self.checked(value),
            other => Err(unexpected(other, "identifier")),
        }
    }

    /// The values in parentheses.
    fn values(&mut self) -> Result<BTreeSet<String>, ApiError> {
        let open = self.next();
        if open != Token::Mark("(") {
            return Err(unexpected(open, "'('"));
        }
        let mut values = BTreeSet::new();
        if self.peek() == Token::Mark(")") {
            return Err(unreadable(
                "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ));
        }
        loop {
            let value = match self.peek() {
                Token::Word(value) => {
                    self.next();
                    value
                }
                _ => "",
            };
            values.insert(self.checked(value)?);
            match self.next() {
                Token::Mark(",") => {}
                Token::Mark(")") => return Ok(values),
                other => return Err(unexpected(other, "',' or ')'")),
            }
        }
    }

    fn checked(&mut self, value: &str) -> Result<String, ApiError> {
        let Some(left) = self.values_left.checked_sub(1) else {
            return Err(ApiError::BadRequest(format!(
                "a selector has at most {VALUES_MAX} values"
            )));
        };
        self.values_left = left;
        if value.is_empty() || is_name(value) {
            return Ok(value.to_owned());
        }
        Err(unreadable(&format!(
            "values[0]: Invalid value: {value:?}: a valid label must be an empty string or consist \
             of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character"
        )))
    }
}

const fn is_mark(letter: char) -> bool {
    matches!(letter, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

/// A qualified name: `name` or `prefix/name`.
fn check_key(key: &str) -> Result<(), ApiError> {
    let (prefix, name) = key.split_once('/').unwrap_or(("a", key));
    let label = |part: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !part.is_empty()
            && part.bytes().all(inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let is_domain = prefix.len() <= PREFIX_MAX && prefix.split('.').all(label);
    if is_domain && is_name(name) {
        return Ok(());
    }
    Err(unreadable(&format!(
        "key: Invalid value: {key:?}: name part must consist of alphanumeric characters, '-', '_' \
         or '.', and must start and end with an alphanumeric character"
    )))
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    text.len() <= NAME_MAX
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

fn unexpected(found: Token<'_>, expected: &str) -> ApiError {
    let found = match found {
        Token::Word(text) | Token::Mark(text) => text,
        Token::End => "",
    };
    unreadable(&format!("found '{found}', expected: {expected}"))
}

fn unreadable(why: &str) -> ApiError {
    ApiError::BadRequest(format!("unable to parse requirement: {why}"))
}
