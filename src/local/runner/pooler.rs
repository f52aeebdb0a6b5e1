//! Finds the `pgbouncer` program and asks its version.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where distributions put the program when it is not in the search path of an ordinary user.
const USUAL_PLACES: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"];

/// The program that pods run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pooler {
    /// Where it is.
    pub path: PathBuf,
    /// Its version, for example `1.18.0`.
    pub version: String,
}

/// The program cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PoolerError {
    /// It is nowhere.
    #[error(
        "pgbouncer was not found in the search path, /usr/sbin, /usr/local/sbin or /usr/local/bin; install it (Debian, Ubuntu: `apt-get install pgbouncer`; Fedora: `dnf install pgbouncer`; Alpine: `apk add pgbouncer`) or name its path"
    )]
    NotFound,
    /// The path that was named holds no program.
    #[error("there is no pgbouncer at {path}; install the package pgbouncer or name another path")]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// It does not run.
    #[error("cannot run {path} --version")]
    Run {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It says something else.
    #[error("{path} --version does not answer like PgBouncer: {answer:?}")]
    NotPgBouncer {
        /// The path.
        path: PathBuf,
        /// What it said.
        answer: String,
    },
}

/// The program at `path`, or the first one in the search path and the usual places.
pub fn find_pgbouncer(path: Option<PathBuf>) -> Result<Pooler, PoolerError> {
    let path = match path {
        Some(path) if path.is_file() => path,
        Some(path) => return Err(PoolerError::NoFile { path }),
        None => search().ok_or(PoolerError::NotFound)?,
    };
    let output = Command::new(&path)
        .arg("--version")
        .output()
        .map_err(|source| PoolerError::Run {
            path: path.clone(),
            source,
        })?;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    match version(&answer) {
        Some(version) => Ok(Pooler { path, version }),
        None => Err(PoolerError::NotPgBouncer { path, answer }),
    }
}

fn search() -> Option<PathBuf> {
    let listed = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&listed)
        .chain(USUAL_PLACES.iter().map(PathBuf::from))
        .map(|dir: PathBuf| dir.join("pgbouncer"))
        .find(|path: &PathBuf| Path::is_file(path))
}

fn version(answer: &str) -> Option<String> {
    let rest = answer.lines().next()?.strip_prefix("PgBouncer ")?;
    let version = rest.split_whitespace().next()?;
    version
        .starts_with(|c: char| c.is_ascii_digit())
        .then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_first_line() {
        assert_eq!(
            version("PgBouncer 1.18.0\nlibevent 2.1\n").as_deref(),
            Some("1.18.0")
        );
        assert_eq!(version("psql (PostgreSQL) 15.1"), None);
    }

    #[test]
    fn a_missing_program_is_named_with_what_to_install() {
        let error = find_pgbouncer(Some("/nonexistent/pgbouncer".into())).unwrap_err();
        assert!(error.to_string().contains("package pgbouncer"));
    }
}
