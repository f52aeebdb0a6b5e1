//! Text that others wrote, made safe for terminals, logs, events, conditions and metrics.
//!
//! Names and messages come from objects, Secrets, certificates and servers. A terminal obeys the
//! control characters in them, and a reader is misled by characters that reorder or hide text.
//! Such a character is replaced by its number, `\u{1b}`; all other text stays as it is. Every
//! function here is idempotent.
//!
//! | function | for | line breaks and tabs |
//! |---|---|---|
//! | [`printable`] | one line: table cells, events, conditions, labels, log fields | replaced |
//! | [`document`] | the output of a verb, a log, the metrics page | kept |
//! | [`json`] | JSON documents; programs read the exact text | kept between values |

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

/// Stands for the end of a text that was too long.
const CUT: &str = "…[cut]";

/// Longest part of a stranger's text that an error message repeats, in bytes.
pub const QUOTE_MAX: usize = 128;

/// Longest value of a metric's label, in bytes: that of a name in Kubernetes.
const LABEL_MAX: usize = 253;

/// Whether a terminal would obey a character, or a reader not see it or see it elsewhere.
///
/// These are the control characters (C0, DEL, C1), the line and paragraph separators, the marks that
/// change the direction of text, and characters without width that no word needs: joiners, fillers,
/// tags, supplementary variation selectors.
pub const fn is_hazard(c: char) -> bool {
    matches!(c,
        '\u{0}'..='\u{1f}'
        | '\u{7f}'..='\u{9f}'
        | '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// One line of at most `max` bytes. What is cut off is replaced by a mark.
pub fn printable(text: &str, max: usize) -> String {
    let safe = replaced(text, is_hazard);
    if safe.len() <= max {
        return safe.into_owned();
    }
    let mark = beginning(CUT, max);
    let mut cut = beginning(&safe, max - mark.len()).to_owned();
    cut.push_str(mark);
    cut
}

/// As many whole characters as fit into `max` bytes.
pub fn beginning(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The text between double quotes, for an error message that repeats what is there.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(text, QUOTE_MAX))
}

/// The value of a metric's label. An encoder escapes only backslash, quote and line break.
pub fn label(text: &str) -> String {
    printable(text, LABEL_MAX)
}

/// Text of any length, in which line breaks and tabs stay.
pub fn document(text: &str) -> Cow<'_, str> {
    replaced(text, |c| is_hazard(c) && !matches!(c, '\n' | '\t'))
}

/// A JSON document that reads the same for programs. `serde_json` escapes only the first 32
/// characters; this escapes all hazards. Outside strings a document has none but line breaks.
pub fn json(document: &str) -> Cow<'_, str> {
    let hazard = |c: char| is_hazard(c) && !matches!(c, '\n' | '\t');
    if !document.contains(hazard) {
        return Cow::Borrowed(document);
    }
    let mut safe = String::with_capacity(document.len() + 16);
    for c in document.chars() {
        if hazard(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

fn replaced(text: &str, hazard: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hazard) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hazard(c) {
            // Writing to a String cannot fail.
            let _ = write!(safe, "\\u{{{:x}}}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// A writer of whole lines that makes them safe on their way.
///
/// The log's formatter writes each event in one call. Colours are the formatter's own, so this
/// writer stands only where there are none.
#[derive(Debug)]
pub struct Safe<W>(pub W);

/// The same for lines that are JSON documents.
#[derive(Debug)]
pub struct SafeJson<W>(pub W);

impl<W: io::Write> io::Write for SafeJson<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.write_all(json(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: io::Write> io::Write for Safe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.write_all(document(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn escapes_and_marks_that_reorder_text_are_shown_as_numbers() {
        assert_eq!(
            printable(
                "vault\u{1b}[2J\u{9b}31m\u{202e}gro\u{2066}\u{200b}\r\n\u{2028}x",
                200
            ),
            "vault\\u{1b}[2J\\u{9b}31m\\u{202e}gro\\u{2066}\\u{200b}\\u{d}\\u{a}\\u{2028}x"
        );
        assert_eq!(document("a\tb\n\u{7}"), "a\tb\n\\u{7}");
    }

    #[test]
    fn ordinary_text_of_every_script_stays() {
        for text in [
            "bücher",
            "שלום",
            "مرحبا",
            "日本語",
            "Ελλάδα",
            "❤\u{fe0f}",
            "a \\ \"b\"",
        ] {
            assert_eq!(printable(text, 100), text);
            assert_eq!(document(text), text);
            assert_eq!(json(text), text);
        }
    }

    #[test]
    fn long_text_is_cut_with_a_mark_between_characters() {
        assert_eq!(
            printable("ü".repeat(20).as_str(), 20),
            "üüüüüü…[cut]".to_owned()
        );
        assert_eq!(printable("abc", 3), "abc");
        assert!(printable("abcdefghijk", 4).len() <= 4);
        assert_eq!(quoted("a\nb"), "\"a\\u{a}b\"");
    }

    #[test]
    fn a_log_line_is_made_safe_and_counted_in_full() {
        let mut out = Safe(Vec::new());
        out.write_all(b"issuer=\x1b]0;x\x07 ok\n").unwrap();
        assert_eq!(out.0, b"issuer=\\u{1b}]0;x\\u{7} ok\n");
    }

    proptest! {
        #[test]
        fn nothing_hazardous_is_left_and_a_second_time_changes_nothing(
            text in any::<String>(),
            spice in prop::collection::vec(prop::char::range('\0', '\u{2070}'), 0..20),
            max in 0_usize..300,
        ) {
            let text: String = text.chars().chain(spice).collect();
            let line = printable(&text, max);
            prop_assert!(!line.contains(is_hazard));
            prop_assert!(line.len() <= max);
            prop_assert_eq!(printable(&line, max), line.clone());
            let whole = document(&text);
            prop_assert!(!whole.contains(|c| is_hazard(c) && c != '\n' && c != '\t'));
            prop_assert_eq!(document(&whole), &*whole);
        }

        #[test]
        fn programs_read_the_exact_text(text in any::<String>(), spice in any::<Vec<char>>()) {
            let text: String = text.chars().chain(spice).collect();
            let written = serde_json::to_string(&text).unwrap();
            let safe = json(&written);
            prop_assert!(!safe.contains(is_hazard));
            prop_assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
        }
    }
}
