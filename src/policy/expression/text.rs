//! The text of a rule, written anew for the parser of the `cel` crate, which understands some texts
//! otherwise than the specification of CEL says (cel 0.13).
//!
//! String literals are read here and written with escapes that the parser reads rightly. Comments are
//! left out. Of several `!` in a row those are left out that cancel each other.

use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Chars;

/// Writes `text` anew.
pub(super) fn rewrite(text: &str) -> Result<String, String> {
    let mut writer = Writer {
        rest: text.chars().peekable(),
        written: String::with_capacity(text.len()),
        word: String::new(),
    };
    writer.run()?;
    Ok(writer.written)
}

struct Writer<'a> {
    rest: Peekable<Chars<'a>>,
    written: String,
    /// The letters and digits right before, which may be the prefix of a string.
    word: String,
}

impl Writer<'_> {
    fn run(&mut self) -> Result<(), String> {
        while let Some(character) = self.rest.next() {
            match character {
                '"' | '\'' => self.string(character)?,
                '/' if self.rest.peek() == Some(&'/') => {
                    while self.rest.next_if(|c| *c != '\n').is_some() {}
                    self.written.push(' ');
                }
                '!' if self.rest.peek() != Some(&'=') => self.negations(),
                '.' if !self.follows_value() => {
                    return Err(
                        "a dot stands where no value is before it: names begin with a \
                                letter, and numbers with fractions are not supported"
                            .to_owned(),
                    );
                }
                '{' => return Err("maps and messages are not supported".to_owned()),
                '`' => return Err("names between backticks are not supported".to_owned()),
                _ => self.written.push(character),
            }
            if character.is_ascii_alphanumeric() || character == '_' {
                self.word.push(character);
            } else {
                self.word.clear();
            }
        }
        Ok(())
    }

    fn follows_value(&self) -> bool {
        let before = self.written.trim_end().chars().next_back();
        before.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ')' | ']' | '"'))
    }

    /// An even number of them is none at all.
    fn negations(&mut self) {
        let mut is_odd = true;
        loop {
            let mut ahead = self.rest.clone();
            while ahead.next_if(char::is_ascii_whitespace).is_some() {}
            if ahead.next() != Some('!') || ahead.peek() == Some(&'=') {
                break;
            }
            self.rest = ahead;
            is_odd = !is_odd;
        }
        self.written.push(if is_odd { '!' } else { ' ' });
    }

    fn string(&mut self, quote: char) -> Result<(), String> {
        let is_raw = match self.word.as_str() {
            "" => false,
            "r" | "R" => {
                self.written.pop();
                true
            }
            "b" | "B" | "br" | "bR" | "Br" | "BR" | "rb" | "rB" | "Rb" | "RB" => {
                return Err("strings of octets are not supported".to_owned());
            }
            _ => return Err("a string follows a name without anything between them".to_owned()),
        };
        let is_triple = {
            let mut ahead = self.rest.clone();
            let is_triple = ahead.next() == Some(quote) && ahead.next() == Some(quote);
            if is_triple {
                self.rest = ahead;
            }
            is_triple
        };
        let content = self.content(quote, is_raw, is_triple)?;
        self.written.push('"');
        for character in content.chars() {
            match character {
                ' ' | '!' | '#'..='[' | ']'..='~' => self.written.push(character),
                other => {
                    // Writing to a text does not fail.
                    let _ = write!(self.written, "\\U{:08x}", u32::from(other));
                }
            }
        }
        self.written.push('"');
        Ok(())
    }

    fn content(&mut self, quote: char, is_raw: bool, is_triple: bool) -> Result<String, String> {
        let unclosed = || format!("a string that begins with {quote} has no end");
        let mut content = String::new();
        loop {
            let character = self.rest.next().ok_or_else(unclosed)?;
            if character == quote && (!is_triple || self.skip_two(quote)) {
                return Ok(content);
            }
            match character {
                '\n' | '\r' if !is_triple => return Err(unclosed()),
                // All ends of lines are line feeds.
                '\r' => {
                    self.rest.next_if_eq(&'\n');
                    content.push('\n');
                }
                '\\' if !is_raw => content.push(self.escape()?),
                other => content.push(other),
            }
        }
    }

    fn skip_two(&mut self, quote: char) -> bool {
        let mut ahead = self.rest.clone();
        let is_end = ahead.next() == Some(quote) && ahead.next() == Some(quote);
        if is_end {
            self.rest = ahead;
        }
        is_end
    }

    fn escape(&mut self) -> Result<char, String> {
        let unknown = || {
            "a string has an escape that CEL does not know: write \\\\ for a backslash, or the \
             string as r'…'"
                .to_owned()
        };
        let kind = self.rest.next().ok_or_else(unknown)?;
        let code = match kind {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => 0x0a,
            'r' => 0x0d,
            't' => 0x09,
            'v' => 0x0b,
            '\\' | '?' | '"' | '\'' | '`' => u32::from(kind),
            'x' | 'X' => self.digits(0, 2, 16).ok_or_else(unknown)?,
            'u' => self.digits(0, 4, 16).ok_or_else(unknown)?,
            'U' => self.digits(0, 8, 16).ok_or_else(unknown)?,
            '0'..='3' => {
                let first = kind.to_digit(8).ok_or_else(unknown)?;
                self.digits(first, 2, 8).ok_or_else(unknown)?
            }
            _ => return Err(unknown()),
        };
        char::from_u32(code).ok_or_else(unknown)
    }

    fn digits(&mut self, first: u32, count: usize, radix: u32) -> Option<u32> {
        (0..count).try_fold(first, |code, _| {
            let digit = self.rest.next()?.to_digit(radix)?;
            code.checked_mul(radix)?.checked_add(digit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_as_the_specification_says() {
        for (written, expected) in [
            (r#"'\"'"#, r#""\U00000022""#),
            (r#""\'""#, r#""'""#),
            (r"r'\d'", r#""\U0000005cd""#),
            (r#"R"a\""#, r#""a\U0000005c""#),
            (r"'\x41\u0042\U00000043\104'", r#""ABCD""#),
            ("'é'", r#""\U000000e9""#),
            ("'''a'b\r\nc'''", r#""a'b\U0000000ac""#),
            ("''", r#""""#),
            ("''''''", r#""""#),
        ] {
            assert_eq!(rewrite(written).unwrap(), expected, "{written}");
        }
        for wrong in [
            r"'\d'",
            r"'\8'",
            r"'\x4'",
            r"'\ud800'",
            "'a",
            "'a\nb'",
            "b'a'",
            "x'a'",
            "'''a''",
        ] {
            assert!(rewrite(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn comments_and_double_negations_are_left_out() {
        for (written, expected) in [
            ("true // '", "true  "),
            ("a // b\n&& c", "a  \n&& c"),
            ("'//'", r#""//""#),
            ("!!a", " a"),
            ("! ! !a", "!a"),
            ("a != !b", "a != !b"),
            ("1 / 2", "1 / 2"),
        ] {
            assert_eq!(rewrite(written).unwrap(), expected, "{written}");
        }
    }
}
