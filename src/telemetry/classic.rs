//! OpenMetrics text as the older text format of Prometheus (0.0.4), for whoever does not ask for
//! OpenMetrics: `curl`, `promtool check metrics`, other collectors.
//!
//! The two differ little: a counter's family bears the suffix `_total` itself, and there are
//! neither units nor a last line. Samples look the same.

use std::fmt::{self, Write};

/// Writes what is written to it on to `out`, in the older format. What follows on the last line break is
/// not written: both formats end with one.
#[derive(Debug)]
pub(super) struct Classic<'a, W> {
    out: &'a mut W,
    line: String,
    /// Name and words of a `HELP` line that waits for its type.
    help: Option<(String, String)>,
}

/// Writes `openmetrics` anew.
#[cfg(test)]
pub(crate) fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    // Writing to a String does not fail.
    let _ = Classic::new(&mut text).write_str(openmetrics);
    text
}

impl<'a, W: Write> Classic<'a, W> {
    /// A writer in front of `out`.
    pub(super) const fn new(out: &'a mut W) -> Self {
        Self {
            out,
            line: String::new(),
            help: None,
        }
    }

    fn end_line(&mut self) -> fmt::Result {
        let line = self.line.as_str();
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let parts = rest.split_once(' ');
            self.help = parts.map(|(name, words)| (name.to_owned(), words.to_owned()));
        } else if let Some((name, kind)) = kind_of(line) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            if let Some((_, words)) = self.help.take().filter(|(helped, _)| *helped == name) {
                writeln!(self.out, "# HELP {name}{suffix} {words}")?;
            }
            writeln!(self.out, "# TYPE {name}{suffix} {kind}")?;
        } else if !line.starts_with("# UNIT ") && line != "# EOF" {
            self.out.write_str(line)?;
            self.out.write_char('\n')?;
        }
        self.line.clear();
        Ok(())
    }
}

impl<W: Write> Write for Classic<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut lines = text.split('\n');
        self.line.push_str(lines.next().unwrap_or_default());
        for next in lines {
            self.end_line()?;
            self.line.push_str(next);
        }
        Ok(())
    }
}

fn kind_of(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("# TYPE ")?.split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_bear_their_suffix_and_units_go() {
        let openmetrics = "# HELP pears Pears eaten.\n# TYPE pears counter\n\
            pears_total{kind=\"a b\"} 3\n# HELP wait_seconds Waits.\n# TYPE wait_seconds gauge\n\
            # UNIT wait_seconds seconds\nwait_seconds 4\n# EOF\n";
        let expected = "# HELP pears_total Pears eaten.\n# TYPE pears_total counter\n\
            pears_total{kind=\"a b\"} 3\n# HELP wait_seconds Waits.\n# TYPE wait_seconds gauge\n\
            wait_seconds 4\n";
        assert_eq!(classic(openmetrics), expected);
        let mut text = String::new();
        let mut writer = Classic::new(&mut text);
        for letter in openmetrics.chars() {
            writer.write_char(letter).unwrap();
        }
        assert_eq!(text, expected, "however it is cut");
    }
}
