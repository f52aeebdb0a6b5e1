//! The right-hand side of a `[databases]`, `[users]` or `[peers]` line: `host=db port=5432`.

use std::fmt;

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

    /// Adds `key=value`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.pairs.push((key.to_owned(), value.to_string()));
        self
    }

    /// Reads the list; `None` where PgBouncer reports a syntax error.
    pub fn parse(text: &str) -> Option<Self> {
        let mut pairs = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=')?;
            let key = key.trim_end();
            if key.is_empty() || key.contains(char::is_whitespace) {
                return None;
            }
            let (value, after) = take_value(after.trim_start())?;
            pairs.push((key.to_owned(), value));
            rest = after.trim_start();
        }
        Some(Self { pairs })
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
            if value.is_empty() || value.contains(|c: char| c.is_whitespace() || c == '\'') {
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
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
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
            None => return Some((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quote_is_doubled_within_quotes() {
        let text = ConnectString::new()
            .with("host", "ledger.shop.svc")
            .with("connect_query", "select 'x y'")
            .with("password", "")
            .to_string();
        assert_eq!(
            text,
            "host=ledger.shop.svc connect_query='select ''x y''' password=''"
        );
    }

    #[test]
    fn an_open_quote_or_a_lone_word_is_refused() {
        assert_eq!(ConnectString::parse("host=ledger password='x"), None);
        assert_eq!(ConnectString::parse("ledger"), None);
        assert_eq!(ConnectString::parse("a b=1"), None);
        assert_eq!(ConnectString::parse("  "), Some(ConnectString::new()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(values in proptest::collection::vec("[ -~]{0,12}", 0..4)) {
            let written = values.iter().enumerate().fold(
                ConnectString::new(),
                |list, (n, value)| list.with(&format!("k{n}"), value),
            );
            prop_assert_eq!(ConnectString::parse(&written.to_string()), Some(written));
        }
    }
}
