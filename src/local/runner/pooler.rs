//! Finds the `pgbouncer` programs of this machine, asks their versions, and chooses one for a pod.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::pgbouncer::Version;

/// Where distributions put the program when it is not in the search path of an ordinary user.
const USUAL_PLACES: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"];

/// A program that pods run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pooler {
    /// Where it is.
    pub path: PathBuf,
    /// Its version, for example `1.18.0`.
    pub version: String,
}

/// All programs that pods may run; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poolers {
    first: Pooler,
    others: Vec<Pooler>,
}

/// No program here is of the version that a pod asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "image {image} asks for PgBouncer {wanted}, and the programs here are of versions {present}: name one of version {wanted} with --pgbouncer, or choose another spec.version"
)]
pub struct NoSuchVersion {
    image: String,
    wanted: Version,
    present: String,
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

// === impl Poolers ===

impl Poolers {
    /// The programs at `paths`, or the first one in the search path and the usual places.
    pub fn find(paths: &[PathBuf]) -> Result<Self, PoolerError> {
        let mut named = paths.iter().cloned();
        let first = find_pgbouncer(named.next())?;
        let others = named.map(|path| find_pgbouncer(Some(path)));
        Ok(Self {
            first,
            others: others.collect::<Result<_, _>>()?,
        })
    }

    /// The one that was named first.
    pub const fn first(&self) -> &Pooler {
        &self.first
    }

    /// The program for a pod of `image`, whose tag names a version. Where there is a choice, that
    /// version or the latest patch of it is run, and nothing else; a machine with one program runs it
    /// whatever is asked for, because to most people here it does not matter.
    pub fn of_image(&self, image: &str) -> Result<&Pooler, NoSuchVersion> {
        let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
        let Some(wanted) = Version::parse(tag).filter(|_| !self.others.is_empty()) else {
            return Ok(&self.first);
        };
        let all = || self.all();
        let of = |pooler: &Pooler| Version::parse(&pooler.version);
        let exact = all().find(|pooler| of(pooler) == Some(wanted));
        let minor = |version: Version| (version.major, version.minor);
        let near = || {
            all()
                .filter(|pooler| of(pooler).map(minor) == Some(minor(wanted)))
                .max_by_key(|pooler| of(pooler))
        };
        exact.or_else(near).ok_or_else(|| NoSuchVersion {
            image: image.to_owned(),
            wanted,
            present: self.versions().collect::<Vec<_>>().join(", "),
        })
    }

    /// The versions that are here.
    pub fn versions(&self) -> impl Iterator<Item = &str> {
        self.all().map(|pooler| pooler.version.as_str())
    }

    fn all(&self) -> impl Iterator<Item = &Pooler> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

/// The program at `path`, or the first one in the search path and the usual places.
fn find_pgbouncer(path: Option<PathBuf>) -> Result<Pooler, PoolerError> {
    let path = match path {
        // Processes start in another directory.
        Some(path) if path.is_file() => std::path::absolute(&path).unwrap_or(path),
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
    fn a_pod_gets_the_program_of_its_version_where_there_is_a_choice() {
        let pooler = |version: &str| Pooler {
            path: format!("/opt/{version}/pgbouncer").into(),
            version: version.to_owned(),
        };
        let alone = Poolers {
            first: pooler("1.18.0"),
            others: Vec::new(),
        };
        let several = Poolers {
            first: pooler("1.18.0"),
            others: vec![pooler("1.24.0"), pooler("1.24.1"), pooler("1.26.1")],
        };
        let chosen = |of: &Poolers, tag: &str| {
            let image = format!("registry.example:5000/kubedb/pgbouncer{tag}");
            of.of_image(&image).map(|pooler| pooler.version.clone())
        };
        assert_eq!(chosen(&alone, ":1.24.0").unwrap(), "1.18.0");
        assert_eq!(chosen(&several, ":1.24.0").unwrap(), "1.24.0");
        assert_eq!(chosen(&several, ":1.24.7-alpine").unwrap(), "1.24.1");
        assert_eq!(chosen(&several, ":latest").unwrap(), "1.18.0");
        let refused = chosen(&several, ":1.23.1").unwrap_err().to_string();
        assert!(refused.contains("asks for PgBouncer 1.23.1"), "{refused}");
        assert!(
            refused.contains("1.18.0, 1.24.0, 1.24.1, 1.26.1"),
            "{refused}"
        );
    }

    #[test]
    fn a_missing_program_is_named_with_what_to_install() {
        let error = find_pgbouncer(Some("/nonexistent/pgbouncer".into())).unwrap_err();
        assert!(error.to_string().contains("package pgbouncer"));
    }
}
