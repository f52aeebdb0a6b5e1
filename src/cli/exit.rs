//! What the exit code says.

use std::process::ExitCode;

/// The exit codes, as `--help` and `docs/cli.md` list them.
pub const TABLE: &str = "\
Exit codes:
  0  done
  1  failed: what was asked for did not come about
  2  usage: an argument is missing or wrong
  3  the Kubernetes API cannot be reached
  4  this machine lacks something: a program, a free port, a usable data directory";

/// How a verb ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// What was asked for did not come about.
    Failed,
    /// An argument is missing or wrong.
    Usage,
    /// The Kubernetes API cannot be reached.
    NoCluster,
    /// This machine lacks something.
    Machine,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoCluster => 3,
            Self::Machine => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A verb that did not do what it was asked for.
#[derive(Debug)]
pub struct Failure {
    /// How it ends.
    pub exit: Exit,
    /// Why.
    pub error: anyhow::Error,
}

impl Failure {
    /// Ends with `exit` because of `error`.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
        }
    }

    /// A wrong argument, in words.
    pub fn usage(words: impl Into<String>) -> Self {
        Self::new(Exit::Usage, anyhow::Error::msg(words.into()))
    }
}

/// Whatever has no code of its own is a failure.
impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(Exit::Failed, error)
    }
}
