//! Patterns of `matches`, as RE2 and Go's `regexp` read them, written anew for the `regex` crate.
//!
//! The two differ: `\w`, `\d`, `\s` and `\b` are ASCII in RE2, `{` may be an ordinary character, one
//! repetition may not follow another, and a thousand repetitions are the most. What cannot be written
//! for the other is refused: `\B`, `\C`, `\p`.

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::iter::Peekable;
use std::str::Chars;

use regex::Regex;

/// Longest pattern that is read.
const PATTERN_MAX_BYTES: usize = 4_096;
/// Groups that may be open at once.
const NESTING_MAX: usize = 100;
/// How often something may be repeated by a number, nested numbers multiplied; RE2's limit.
const REPEAT_MAX: u32 = 1_000;

const DIGIT: &str = "0-9";
const WORD: &str = "0-9A-Za-z_";
/// Without the vertical tab.
const SPACE: &str = r"\t\n\x0c\r\x20";
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// Compiles an RE2 pattern.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_MAX_BYTES {
        return Err(format!(
            "the pattern is longer than {PATTERN_MAX_BYTES} octets"
        ));
    }
    let mut reader = Reader {
        rest: pattern.chars().peekable(),
        written: String::with_capacity(pattern.len() * 2),
        names: HashSet::new(),
        depth: 0,
    };
    reader.alternatives()?;
    if reader.rest.peek().is_some() {
        return Err("the pattern has a ) without a (".to_owned());
    }
    Regex::new(&reader.written).map_err(|_| "the pattern is too large".to_owned())
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    written: String,
    names: HashSet<String>,
    depth: usize,
}

/// What a repetition would apply to.
enum Last {
    /// Nothing.
    Nothing,
    /// Something; the number says how often what is in it is repeated.
    Something(u32),
    /// A repetition.
    Repetition(u32),
}

impl Last {
    const fn times(&self) -> u32 {
        match self {
            Self::Nothing => 1,
            Self::Something(times) | Self::Repetition(times) => *times,
        }
    }

    fn repeatable(&self) -> Result<(), String> {
        match self {
            Self::Something(_) => Ok(()),
            Self::Nothing => Err("a repetition in the pattern has nothing to repeat".to_owned()),
            Self::Repetition(_) => {
                Err("a repetition in the pattern follows another: put the first in ( )".to_owned())
            }
        }
    }
}

impl Reader<'_> {
    /// Reads up to the end or a closing bracket; says how often the innermost is repeated.
    fn alternatives(&mut self) -> Result<u32, String> {
        let mut most = 1;
        let mut last = Last::Nothing;
        while let Some(character) = self.rest.next_if(|c| *c != ')') {
            last = match character {
                '|' => {
                    self.written.push('|');
                    Last::Nothing
                }
                '(' => self.group()?,
                '[' => {
                    self.class()?;
                    Last::Something(1)
                }
                '*' | '+' | '?' => {
                    last.repeatable()?;
                    self.written.push(character);
                    self.lazy();
                    Last::Repetition(last.times())
                }
                '{' => {
                    if let Some(bounds) = self.bounds() {
                        self.repeat(bounds, &last)?
                    } else {
                        self.literal('{');
                        Last::Something(1)
                    }
                }
                '.' | '^' | '$' => {
                    self.written.push(character);
                    Last::Something(1)
                }
                '\\' => self.escape(last)?,
                other => {
                    self.literal(other);
                    Last::Something(1)
                }
            };
            most = most.max(last.times());
        }
        Ok(most)
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a text does not fail.
        let _ = self.written.write_fmt(text);
    }

    fn literal(&mut self, character: char) {
        self.write(format_args!("\\x{{{:x}}}", u32::from(character)));
    }

    fn group(&mut self) -> Result<Last, String> {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(format!(
                "more than {NESTING_MAX} groups of the pattern are open"
            ));
        }
        if self.rest.next_if_eq(&'?').is_some() {
            if self.flags_or_name()? {
                self.depth -= 1;
                return Ok(Last::Nothing);
            }
        } else {
            self.written.push_str("(?:");
        }
        let times = self.alternatives()?;
        if self.rest.next() != Some(')') {
            return Err("the pattern has a ( without a )".to_owned());
        }
        self.written.push(')');
        self.depth -= 1;
        Ok(Last::Something(times))
    }

    /// Reads what follows `(?`; says whether the group is closed already.
    fn flags_or_name(&mut self) -> Result<bool, String> {
        let unknown = || "the pattern has a group (?…) that RE2 does not know".to_owned();
        if self.rest.next_if_eq(&'P').is_some() && self.rest.peek() != Some(&'<') {
            return Err(unknown());
        }
        if self.rest.next_if_eq(&'<').is_some() {
            let mut name = String::new();
            while let Some(character) = self.rest.next_if(|c| *c != '>') {
                name.push(character);
            }
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let is_name = !name.is_empty() && name.chars().all(is_word);
            if self.rest.next() != Some('>') || !is_name || !self.names.insert(name) {
                return Err("the pattern has a group without a name of its own".to_owned());
            }
            self.written.push_str("(?:");
            return Ok(false);
        }
        let (mut flags, mut is_off, mut count) = (String::new(), false, 0);
        loop {
            match self.rest.next().ok_or_else(unknown)? {
                flag @ ('i' | 'm' | 's' | 'U') => {
                    // The crate refuses a flag that is written twice.
                    if flags.contains(flag) {
                        return Err("the pattern has a flag twice".to_owned());
                    }
                    flags.push(flag);
                    count += 1;
                }
                '-' if !is_off => {
                    is_off = true;
                    flags.push('-');
                    count = 0;
                }
                end @ (':' | ')') if !is_off || count > 0 => {
                    let is_closed = end == ')';
                    if !(flags.is_empty() && is_closed) {
                        self.write(format_args!("(?{flags}{end}"));
                    }
                    return Ok(is_closed);
                }
                _ => return Err(unknown()),
            }
        }
    }

    // === repetitions ===

    fn lazy(&mut self) {
        if self.rest.next_if_eq(&'?').is_some() {
            self.written.push('?');
        }
    }

    /// Reads `{n}`, `{n,}` or `{n,m}`; anything else stays, and the bracket is an ordinary character.
    fn bounds(&mut self) -> Option<(u64, Option<u64>)> {
        let mut ahead = self.rest.clone();
        let least = number(&mut ahead)?;
        let most = if ahead.next_if_eq(&',').is_none() {
            Some(least)
        } else if ahead.peek() == Some(&'}') {
            None
        } else {
            Some(number(&mut ahead)?)
        };
        if ahead.next() != Some('}') {
            return None;
        }
        self.rest = ahead;
        Some((least, most))
    }

    fn repeat(&mut self, (least, most): (u64, Option<u64>), before: &Last) -> Result<Last, String> {
        before.repeatable()?;
        let largest = most.unwrap_or(least).max(least);
        if most.is_some_and(|most| most < least) || largest > u64::from(REPEAT_MAX) {
            return Err(format!(
                "a repetition in the pattern is outside the limits: 0 to {REPEAT_MAX}"
            ));
        }
        let factor = u32::try_from(most.unwrap_or(least)).unwrap_or(REPEAT_MAX);
        let times = before.times().saturating_mul(factor.max(1));
        if times > REPEAT_MAX {
            return Err(format!(
                "repetitions in the pattern come to more than {REPEAT_MAX} together"
            ));
        }
        match most {
            Some(most) => self.write(format_args!("{{{least},{most}}}")),
            None => self.write(format_args!("{{{least},}}")),
        }
        self.lazy();
        Ok(Last::Repetition(times))
    }

    // === escapes ===

    fn escape(&mut self, before: Last) -> Result<Last, String> {
        match self.rest.peek() {
            Some('A' | 'z') => {
                let kind = self.rest.next().unwrap_or('A');
                self.write(format_args!("\\{kind}"));
            }
            Some('b') => {
                self.rest.next();
                self.written.push_str(r"(?-u:\b)");
            }
            Some('B' | 'C' | 'p' | 'P') => {
                return Err(
                    "the pattern has \\B, \\C, \\p or \\P, which are not supported".to_owned(),
                );
            }
            Some('Q') => {
                self.rest.next();
                return Ok(self.quoted(before));
            }
            Some('d' | 'D' | 's' | 'S' | 'w' | 'W') => {
                let kind = self.rest.next().unwrap_or('d');
                self.write(format_args!("[{}]", shorthand(kind)));
            }
            _ => {
                let character = self.escaped()?;
                self.literal(character);
            }
        }
        Ok(Last::Something(1))
    }

    /// Everything up to `\E` is an ordinary character.
    fn quoted(&mut self, before: Last) -> Last {
        let mut last = before;
        while let Some(character) = self.rest.next() {
            if character == '\\' && self.rest.next_if_eq(&'E').is_some() {
                break;
            }
            self.literal(character);
            last = Last::Something(1);
        }
        last
    }

    /// The character that an escape stands for; its backslash is read.
    fn escaped(&mut self) -> Result<char, String> {
        let unknown = || "the pattern has an escape that RE2 does not know".to_owned();
        let kind = self.rest.next().ok_or_else(unknown)?;
        let code = match kind {
            'a' => 0x07,
            'f' => 0x0c,
            'n' => 0x0a,
            'r' => 0x0d,
            't' => 0x09,
            'v' => 0x0b,
            '1'..='7' if !self.rest.peek().is_some_and(|c| c.is_digit(8)) => return Err(unknown()),
            '0'..='7' => {
                let mut code = kind.to_digit(8).ok_or_else(unknown)?;
                for _ in 0..2 {
                    let Some(digit) = self.rest.next_if(|c| c.is_digit(8)) else {
                        break;
                    };
                    code = code * 8 + digit.to_digit(8).ok_or_else(unknown)?;
                }
                code
            }
            'x' => self.hexadecimal().ok_or_else(unknown)?,
            other if other.is_ascii_punctuation() || other == ' ' || other.is_ascii_control() => {
                u32::from(other)
            }
            _ => return Err(unknown()),
        };
        char::from_u32(code).ok_or_else(unknown)
    }

    fn hexadecimal(&mut self) -> Option<u32> {
        if self.rest.next_if_eq(&'{').is_none() {
            let first = self.rest.next()?.to_digit(16)?;
            return Some(first * 16 + self.rest.next()?.to_digit(16)?);
        }
        let mut code = self.rest.next()?.to_digit(16)?;
        loop {
            match self.rest.next()? {
                '}' => return Some(code),
                digit => {
                    code = code.checked_mul(16)?.checked_add(digit.to_digit(16)?)?;
                }
            }
        }
    }

    // === classes ===

    fn class(&mut self) -> Result<(), String> {
        let unclosed = || "the pattern has a [ without a ]".to_owned();
        self.written.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.written.push('^');
        }
        let mut is_first = true;
        loop {
            let character = *self.rest.peek().ok_or_else(unclosed)?;
            if character == ']' && !is_first {
                self.rest.next();
                self.written.push(']');
                return Ok(());
            }
            is_first = false;
            if character == '[' && self.posix()? {
                continue;
            }
            if character == '\\' {
                let mut ahead = self.rest.clone();
                ahead.next();
                if let Some(kind) = ahead.next_if(|c| "dDsSwW".contains(*c)) {
                    self.rest = ahead;
                    self.write(format_args!("[{}]", shorthand(kind)));
                    continue;
                }
            }
            self.range()?;
        }
    }

    /// Reads `[:name:]`, if that is what follows.
    fn posix(&mut self) -> Result<bool, String> {
        let ahead: String = self.rest.clone().collect();
        let Some(inner) = ahead.strip_prefix("[:") else {
            return Ok(false);
        };
        let Some((name, _)) = inner.split_once(":]") else {
            return Ok(false);
        };
        let plain = name.strip_prefix('^').unwrap_or(name);
        if !POSIX.contains(&plain) {
            return Err("the pattern has a class [:…:] that RE2 does not know".to_owned());
        }
        self.write(format_args!("[:{name}:]"));
        for _ in 0..name.len() + 4 {
            self.rest.next();
        }
        Ok(true)
    }

    fn range(&mut self) -> Result<(), String> {
        let low = self.class_character()?;
        let mut ahead = self.rest.clone();
        let mut high = low;
        if ahead.next() == Some('-') && ahead.peek().is_some_and(|c| *c != ']') {
            self.rest = ahead;
            high = self.class_character()?;
        }
        if high < low {
            return Err("the pattern has a range that ends before it begins".to_owned());
        }
        self.literal(low);
        self.written.push('-');
        self.literal(high);
        Ok(())
    }

    fn class_character(&mut self) -> Result<char, String> {
        match self.rest.next() {
            Some('\\') => self.escaped(),
            Some(other) => Ok(other),
            None => Err("the pattern has a [ without a ]".to_owned()),
        }
    }
}

/// A number without a leading zero.
fn number(text: &mut Peekable<Chars<'_>>) -> Option<u64> {
    let mut digits = String::new();
    while let Some(digit) = text.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    if digits.is_empty() || digits.len() > 1 && digits.starts_with('0') {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

fn shorthand(kind: char) -> String {
    match kind {
        'd' => DIGIT.to_owned(),
        's' => SPACE.to_owned(),
        'w' => WORD.to_owned(),
        'D' => format!("^{DIGIT}"),
        'S' => format!("^{SPACE}"),
        _ => format!("^{WORD}"),
    }
}

#[cfg(test)]
mod tests;
