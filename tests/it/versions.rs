//! The PgBouncers that tests run: the distribution's, and those of other Debian suites where
//! `deploy/more-pgbouncers.sh` could get them. One that is missing is told on standard error, past
//! the test runner's capture, and is an error in CI unless the archive refused it (the rule is in
//! that script).

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use bouncert::pgbouncer::Version;

use crate::support::{pgbouncer_program, unprivileged};

/// The suites that the script asks for.
const SUITES: [&str; 2] = ["trixie", "sid"];

/// A pgbouncer program.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) version: Version,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.version.fmt(f)
    }
}

/// The distribution's program, then the others that are there.
pub(crate) fn all() -> Vec<Program> {
    static FOUND: OnceLock<Vec<Program>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let own = asked(&pgbouncer_program()).expect("pgbouncer is installed");
        let others = SUITES.iter().filter_map(|suite| other(suite));
        std::iter::once(own).chain(others).collect()
    });
    found.clone()
}

/// Those that are not the distribution's.
pub(crate) fn others() -> Vec<Program> {
    all().split_off(1)
}

fn asked(path: &Path) -> Option<Program> {
    let output = Command::new(path).arg("--version").output().ok()?;
    let version = Version::parse(&String::from_utf8(output.stdout).ok()?)?;
    let path = path.to_owned();
    Some(Program { path, version })
}

fn other(suite: &str) -> Option<Program> {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dir = tmp.parent().expect("the target directory");
    let dir = dir.join("pgbouncers").join(suite);
    if let Some(found) = asked(&dir.join("pgbouncer")) {
        let path = within_reach(&dir, suite).join("pgbouncer");
        return Some(Program { path, ..found });
    }
    let refused = std::fs::read_to_string(dir.join("refused")).ok();
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(
        refused.is_some() || !in_ci,
        "PgBouncer of Debian {suite} is missing; deploy/more-pgbouncers.sh was not run"
    );
    let why = refused.unwrap_or_else(|| "`make test` would fetch it".to_owned());
    // Unlike `eprintln!` this is not captured.
    let mut stderr = std::io::stderr();
    let _ = writeln!(
        stderr,
        "NOT RUN: the tests with PgBouncer of Debian {suite}: {}",
        why.trim()
    );
    None
}

/// Poolers run under another user when the tests run as root; a checkout that this user cannot enter
/// is copied once to where it can.
fn within_reach(dir: &Path, suite: &str) -> PathBuf {
    let enters = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
    };
    if unprivileged().is_none() || dir.ancestors().all(enters) {
        return dir.to_owned();
    }
    let copy = std::env::temp_dir().join("bouncert-pgbouncers").join(suite);
    if asked(&copy.join("pgbouncer")).is_none() {
        std::fs::create_dir_all(copy.parent().expect("a parent")).expect("a directory");
        let copied = Command::new("cp").arg("-RT").args([dir, &copy]).status();
        assert!(copied.expect("cp").success(), "{}", copy.display());
    }
    copy
}
