//! The only place that prints: results on standard output, everything else on standard error.
//!
//! Text from objects and servers is made safe here ([`crate::printable`]): a terminal obeys no escape
//! in it. Programs that ask for JSON read the exact text.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::printable::{document, json, printable};

/// Longest cell of a table, in bytes.
const CELL_MAX: usize = 1_024;

/// Standard output was closed by its reader, such as `head`, before all was written.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("standard output was closed")]
pub struct ReaderGone;

impl ReaderGone {
    /// Whether a verb ended because of this.
    pub fn is_cause_of(error: &anyhow::Error) -> bool {
        let io = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>());
        io.filter_map(io::Error::get_ref)
            .any(|inner| inner.downcast_ref::<Self>().is_some())
    }
}

/// How a result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Writes results and progress.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
}

impl Output {
    /// Writes results as `format`.
    pub const fn new(format: Format) -> Self {
        Self { format }
    }

    /// Writes a result: `value` for programs, `text` of it for people.
    pub fn result<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        match self.format {
            Format::Text => self.verbatim(&document(&text(value))),
            Format::Json => self.verbatim(&json(&serde_json::to_string_pretty(value)?)),
        }
    }

    /// Writes a document of the program's own that looks the same to everybody.
    pub fn verbatim(self, document: &str) -> io::Result<()> {
        write_to(&mut io::stdout().lock(), document).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => io::Error::new(error.kind(), ReaderGone),
            _ => error,
        })
    }

    /// Tells people something besides the result.
    pub fn note(self, text: &str) {
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(io::stderr(), "{}", document(text));
    }

    /// Shows that something is under way.
    pub fn progress(self) -> Progress {
        Progress::new()
    }
}

/// One line that changes on a terminal; one line per change elsewhere.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    last: std::sync::Mutex<String>,
}

impl Progress {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self {
            bar,
            last: std::sync::Mutex::default(),
        }
    }

    /// What is under way now. Repeats are not printed.
    pub fn now(&self, text: &str) {
        let mut last = self
            .last
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if *last == text {
            return;
        }
        text.clone_into(&mut last);
        match &self.bar {
            Some(bar) => bar.set_message(document(text).into_owned()),
            None => Output::new(Format::Text).note(text),
        }
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(document(text)),
            None => Output::new(Format::Text).note(text),
        }
    }

    /// Takes the changing line away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn write_to(out: &mut impl Write, document: &str) -> io::Result<()> {
    out.write_all(document.as_bytes())?;
    if !document.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// A table as `kubectl get` prints them.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell, CELL_MAX)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_one_line_without_escapes() {
        let row = vec!["a\u{1b}[2J\nb".to_owned(), "c".to_owned()];
        assert_eq!(
            table(&["X", "Y"], [row]),
            "X                  Y\na\\u{1b}[2J\\u{a}b   c"
        );
    }

    #[test]
    fn only_a_closed_standard_output_is_quiet() {
        let network = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(!ReaderGone::is_cause_of(&network.into()));
        let gone = io::Error::new(io::ErrorKind::BrokenPipe, ReaderGone);
        let gone = anyhow::Error::from(gone).context("a verb");
        assert!(ReaderGone::is_cause_of(&gone));
    }
}
