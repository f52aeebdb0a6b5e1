//! The only place that prints: results on standard output, everything else on standard error.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

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
        let written = match self.format {
            Format::Text => text(value),
            Format::Json => serde_json::to_string_pretty(value)?,
        };
        self.verbatim(&written)
    }

    /// Writes a document that looks the same to everybody.
    pub fn verbatim(self, document: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(document.as_bytes())?;
        if !document.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// Tells people something besides the result.
    pub fn note(self, text: &str) {
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(io::stderr(), "{text}");
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
            Some(bar) => bar.set_message(text.to_owned()),
            None => Output::new(Format::Text).note(text),
        }
    }

    /// What on a terminal replaces the line, and is not worth a line elsewhere.
    pub fn detail(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// A line that stays.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
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

/// A table as `kubectl get` prints them.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}
