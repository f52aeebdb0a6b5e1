//! Thin verbs: arguments in, one result out, an exit code that says how it went.

pub mod args;
pub mod exit;
pub mod output;

pub mod crds;
mod probe;

mod connect;
mod follow;

mod certs;
mod change;
mod plan;
mod policy;
mod schedule;
mod status;

mod chaos;
mod demo;
pub mod leader;
mod local;
mod memory;
mod run;
mod scene;
mod shell;
mod standing;

use std::process::ExitCode;

use clap::FromArgMatches;
use ring::rand::{SecureRandom, SystemRandom};
use tempfile::NamedTempFile;
use time::OffsetDateTime;

use self::args::{Cli, LogFormatArg, PolicyArgs, Verb};
use self::exit::{Exit, Failure};
use self::output::{Output, ReaderGone};
use crate::api::common::rfc3339_seconds;
use crate::local::runner::confine;
use crate::panics;
use crate::telemetry::{self, LogFormat, LogSink};

/// Runs the program with the process's own arguments.
pub fn main() -> ExitCode {
    if let Some(exit) = pod_init() {
        return exit;
    }
    let called = std::env::args().next().unwrap_or_default();
    let read = shell::command(&called).try_get_matches();
    let read = read.and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match read {
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
        // The reader has what it wanted.
        Err(failure) if ReaderGone::is_cause_of(&failure.error) => Exit::Done.into(),
        Err(failure) => {
            output.note(&format!("error: {}", chain(&failure.error)));
            failure.exit.into()
        }
    }
}

/// Becomes a pooler where the local platform asks for it; `None` where people call.
fn pod_init() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(confine::VERB) {
        return None;
    }
    let text = arguments.next().unwrap_or_default();
    let error = confine::become_pooler(&text);
    // It ends in the pod's log.
    Output::new(output::Format::Text).note(&format!("error: {}", crate::causes::chain(&error)));
    Some(Exit::Machine.into())
}

fn start(output: Output, cli: Cli) -> Result<(), Failure> {
    let format = match cli.log_format {
        LogFormatArg::Text => LogFormat::Text,
        LogFormatArg::Json => LogFormat::Json,
    };
    let mut kept = None;
    let (sink, fallback) = match &cli.verb {
        // These talk to people; their log is for whoever has to find out what went wrong.
        Verb::Demo(_) | Verb::Chaos(_) if cli.log.is_none() => {
            let log = NamedTempFile::with_prefix("bouncert-log-")?;
            let file = log.reopen()?;
            kept = Some(log);
            (LogSink::File(file), "bouncert=debug,warn")
        }
        // kube's controllers put a span of their own around ours, which says the same at length.
        Verb::Local(_) | Verb::Run(_) => (LogSink::Stderr, "info,kube_runtime=warn"),
        // What the client library complains about is in the error that the verb ends with.
        _ => (LogSink::Stderr, "warn,kube_client=off"),
    };
    telemetry::init_logs(format, sink, cli.log.as_deref(), fallback)
        .map_err(|error| Failure::new(Exit::Usage, error))?;
    panics::install();
    let holds_keys = matches!(
        cli.verb,
        Verb::Run(_) | Verb::Local(_) | Verb::Demo(_) | Verb::Chaos(_)
    );
    if holds_keys && !cli.core_dumps {
        memory::forbid_core_dumps();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(run(output, cli.verb));
    if let (Err(_), Some(log)) = (&ended, kept) {
        let (_, path) = log.keep()?;
        output.note(&format!("the log is in {}", path.display()));
    }
    ended
}

async fn run(output: Output, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Demo(args) => demo::run(output, args).await,
        Verb::Chaos(args) => chaos::run(output, &args).await,
        Verb::Local(args) => local::until_stopped(output, args).await,
        Verb::Run(args) => run::until_stopped(output, &args).await,
        Verb::Crds(args) => crds::print(output, &args).await,
        Verb::Policy(PolicyArgs::Check(args)) => policy::check(output, &args),
        Verb::Certs(args) => certs::print(output, &args).await,
        Verb::Schedule(args) => schedule::print(output, &args).await,
        Verb::Rotate(args) => change::carry_out(output, args).await,
        Verb::AddTls(args) => change::carry_out(output, args).await,
        Verb::ChangeIssuer(args) => change::carry_out(output, args).await,
        Verb::RemoveTls(args) => change::carry_out(output, args).await,
        Verb::Status(args) => status::print(output, &args).await,
        Verb::Completions(args) => shell::completions(output, args),
        Verb::Man(args) => shell::man(output, &args),
        Verb::Probe(args) => probe::print(output, &args).await,
    }
}

/// An error with all its causes, in one line.
fn chain(error: &anyhow::Error) -> String {
    let mut words = String::new();
    // Some libraries repeat the cause in their own words; once is enough.
    for cause in error.chain().map(ToString::to_string) {
        if words.is_empty() {
            words = cause;
        } else if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

/// Random octets from the system.
fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut octets = [0; N];
    SystemRandom::new()
        .fill(&mut octets)
        .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    Ok(octets)
}

/// Random text: hexadecimal digits, two per octet.
fn random_hex<const N: usize>() -> anyhow::Result<String> {
    let octets: [u8; N] = random()?;
    let digits = octets.iter().flat_map(|octet| [octet >> 4, octet & 15]);
    Ok(digits
        .filter_map(|digit| char::from_digit(u32::from(digit), 16))
        .collect())
}

/// An instant as people read it.
fn instant(at: OffsetDateTime) -> String {
    rfc3339_seconds(at)
}
