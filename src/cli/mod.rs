//! Thin verbs: arguments in, one result out, an exit code that says how it went.

pub mod args;
pub mod crds;
pub mod exit;
pub mod output;
mod probe;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use time::OffsetDateTime;

use self::args::{Cli, LogFormatArg, Verb};
use self::exit::{Exit, Failure};
use self::output::Output;
use crate::api::common::rfc3339_seconds;
use crate::duration::GoDuration;
use crate::telemetry::{self, LogFormat, LogSink};

/// Runs the program with the process's own arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where nobody listens any more, the code still tells.
            let _ = error.print();
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            return exit.into();
        }
    };
    let output = Output::new(cli.output);
    match start(output, cli) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            output.note(&format!("error: {}", chain(&failure.error)));
            failure.exit.into()
        }
    }
}

fn start(output: Output, cli: Cli) -> Result<(), Failure> {
    let format = match cli.log_format {
        LogFormatArg::Text => LogFormat::Text,
        LogFormatArg::Json => LogFormat::Json,
    };
    telemetry::init_logs(format, LogSink::Stderr, cli.log.as_deref(), "warn")
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(output, cli.verb))
}

async fn run(output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Crds(args) => crds::print(output, args),
        Verb::Probe(args) => probe::print(output, &args).await,
    }
}

/// An error with all its causes, in one line.
fn chain(error: &anyhow::Error) -> String {
    let causes = error.chain().map(ToString::to_string);
    causes.collect::<Vec<_>>().join(": ")
}

/// Reads a duration argument as manifests write them, such as `90s` or `5m`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed: GoDuration = text.parse().map_err(|error| format!("{error}"))?;
    parsed
        .to_std()
        .ok_or_else(|| "a duration cannot be negative here".to_owned())
}

/// An instant as people read it.
fn instant(at: OffsetDateTime) -> String {
    rfc3339_seconds(at)
}
