//! What a running program tells: logs (on standard error or in a file, never on standard output),
//! metrics, and the admin server that shows these.

pub mod admin;
mod chunks;
mod classic;
pub mod families;
mod front;
mod listen;
mod monitor;

#[cfg(test)]
pub(crate) use self::classic::classic;
pub use self::listen::{BadListenAddress, ListenAddress};
pub use self::monitor::Monitor;

use std::fs::File;
use std::io;
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::printable::{Safe, SafeJson};

/// Variable that says what is logged, when nothing else does.
const VARIABLE: &str = "RUST_LOG";

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object per line.
    Json,
}

/// Where the log goes.
#[derive(Debug)]
pub enum LogSink {
    /// Standard error.
    Stderr,
    /// A file.
    File(File),
}

/// Why nothing is logged.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error("`{0}` is not a log filter such as `info` or `bouncert=debug,warn`")]
    BadFilter(String),
    /// Somebody else has set up logs already.
    #[error("logs are set up already")]
    Twice,
}

/// What is never logged, whatever the user asks for: kube's client logs the whole body of an answer that it
/// cannot read, and a body may be a Secret. The error itself is told by its caller.
const BODIES: [&str; 1] = ["kube_client::client=off"];

/// Sets up logs for the whole process, once. `filter` is what the user asked for; without it
/// `RUST_LOG` decides, and without that `fallback`.
pub fn init_logs(
    format: LogFormat,
    sink: LogSink,
    filter: Option<&str>,
    fallback: &str,
) -> Result<(), LogError> {
    let asked = filter.map(str::to_owned);
    let wanted = asked
        .or_else(|| std::env::var(VARIABLE).ok())
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| fallback.to_owned());
    let filter = EnvFilter::try_new(&wanted).map_err(|_| LogError::BadFilter(wanted))?;
    let filter = BODIES.iter().try_fold(filter, |filter, off| {
        let directive = off
            .parse()
            .map_err(|_| LogError::BadFilter((*off).to_owned()));
        directive.map(|directive| filter.add_directive(directive))
    })?;
    // Text of others stands in fields. Its escapes are made visible in what was formatted, so the
    // formatter has none of its own.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_span_events(FmtSpan::NONE);
    let done = match (format, sink) {
        (LogFormat::Text, LogSink::Stderr) => builder.with_writer(|| Safe(io::stderr())).try_init(),
        (LogFormat::Json, LogSink::Stderr) => builder
            .json()
            .with_writer(|| SafeJson(io::stderr()))
            .try_init(),
        (LogFormat::Text, LogSink::File(file)) => {
            builder.with_writer(Mutex::new(Safe(file))).try_init()
        }
        (LogFormat::Json, LogSink::File(file)) => builder
            .json()
            .with_writer(Mutex::new(SafeJson(file)))
            .try_init(),
    };
    done.map_err(|_| LogError::Twice)
}
