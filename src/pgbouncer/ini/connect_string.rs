//! The right-hand side of a `[databases]`, `[users]` or `[peers]` line: `host=db port=5432`.
//!
//! The dialect is not libpq's (measured on 1.18.0, 1.24.1 and 1.26.1): only a space separates, a
//! quote is doubled within quotes, there is no backslash, and an empty value is an error. After a
//! closing quote PgBouncer drops one character unread, so anything but a space there is refused.

use std::fmt;

use super::text::{self, Unwritable, UnwritableAt};

/// A list of `key=value` pairs, with `''` quoting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectString {
    pairs: Vec<(String, String)>,
}

impl ConnectString {
    /// An empty list.
    pub const fn new() -> Self {
        Self { pairs: Vec::new() }
    }

    /// Adds `key=value`; refuses what PgBouncer would read otherwise.
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Result<Self, UnwritableAt> {
        let value = value.to_string();
        let at = |text: &str, why: Unwritable| UnwritableAt {
            place: key.to_owned(),
            text: text.to_owned(),
            why,
        };
        text::check_parameter(key).map_err(|why| at(key, why))?;
        text::check_connect_value(&value).map_err(|why| at(&value, why))?;
        self.pairs.push((key.to_owned(), value));
        Ok(self)
    }

    /// Reads the list; `None` where PgBouncer reports a syntax error or would read something else
    /// than what stands there.
    pub fn parse(text: &str) -> Option<Self> {
        let mut list = Self::new();
        let mut rest = text.trim_matches(text::is_blank);
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=')?;
            let (value, after) = take_value(after.trim_start_matches(' '))?;
            list = list.with(key.trim_end_matches(' '), value).ok()?;
            rest = after.trim_start_matches(' ');
        }
        Some(list)
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs()
            .find(|(known, _)| *known == key)
            .map(|(_, value)| value)
    }

    /// All pairs, in order.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl fmt::Display for ConnectString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.pairs().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            if value.contains(|c: char| c.is_whitespace() || c == '\'') {
                write!(f, "{key}='{}'", value.replace('\'', "''"))?;
            } else {
                write!(f, "{key}={value}")?;
            }
        }
        Ok(())
    }
}

/// Takes one value, quoted or plain, off the front.
fn take_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('\'') else {
        let end = text.find(' ').unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let (part, after) = rest.split_once('\'')?;
        value.push_str(part);
        match after.strip_prefix('\'') {
            Some(after) => {
                value.push('\'');
                rest = after;
            }
            None if after.is_empty() || after.starts_with(' ') => return Some((value, after)),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pgbouncer::ini::reader;

    #[test]
    fn a_quote_is_doubled_within_quotes() {
        let text = ConnectString::new()
            .with("host", "ledger.shop.svc")
            .and_then(|list| list.with("connect_query", "select 'x y'"))
            .unwrap()
            .to_string();
        assert_eq!(text, "host=ledger.shop.svc connect_query='select ''x y'''");
    }

    #[test]
    fn an_open_quote_or_a_lone_word_is_refused() {
        for text in [
            "host=ledger password='x",
            "ledger",
            "a b=1",
            "password=''",
            "password= ",
            "host='a'port=7",
            "host=a\tport=7\nb=c",
        ] {
            assert_eq!(ConnectString::parse(text), None, "{text}");
        }
        assert_eq!(ConnectString::parse("  "), Some(ConnectString::new()));
        let tab = ConnectString::parse("dbname=x\ty port=2").unwrap();
        assert_eq!(tab.get("dbname"), Some("x\ty"), "a tab does not separate");
    }

    #[test]
    fn what_has_no_quoting_is_refused_with_its_reason() {
        let refused = |value: &str| ConnectString::new().with("dbname", value).unwrap_err();
        assert_eq!(refused("").why, Unwritable::Empty);
        assert_eq!(refused("a\n[pgbouncer]").why, Unwritable::Control('\n'));
        assert_eq!(refused("a\0b").why, Unwritable::Control('\0'));
        assert_eq!(refused("a\rb").to_string(), "dbname is \"a\\u{d}b\"");
        assert!(ConnectString::new().with("a=b c", "x").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_by_both_readers(
            values in proptest::collection::vec("([ -~\t\u{a0}ü']|\\PC){1,12}", 0..4),
        ) {
            let mut written = ConnectString::new();
            for (n, value) in values.iter().enumerate() {
                written = written.with(&format!("k{n}"), value).unwrap();
            }
            let text = written.to_string();
            let read = reader::pairs(&text).unwrap();
            let read: Vec<(&str, &str)> =
                read.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            prop_assert_eq!(read, written.pairs().collect::<Vec<_>>());
            prop_assert_eq!(ConnectString::parse(&text), Some(written));
        }
    }
}
