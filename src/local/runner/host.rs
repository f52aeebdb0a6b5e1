//! Directories of the machine that pods may name (`hostPath`): none, unless the operator allows
//! their prefix.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::local::beneath::{self, Dir};
use crate::local::rules;

/// The prefixes that the operator allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPaths(Vec<PathBuf>);

/// A directory or file of the machine that a pod may name.
#[derive(Debug)]
pub struct HostPath {
    prefix: Dir,
    /// Below the prefix, as the pod has it.
    rest: PathBuf,
    /// Where it is, without symbolic links.
    pub real: PathBuf,
}

/// A path of the machine is not given to a pod.
#[derive(Debug, thiserror::Error)]
pub enum HostPathError {
    /// Kubernetes' rules or ours.
    #[error("{0}")]
    Rule(String),
    /// No prefix allows it.
    #[error(
        "no directory of the machine is given to pods unless the operator allows it: start \
         `bouncert local` with --allow-host-path {path}, or use a Secret or ConfigMap"
    )]
    NotAllowed {
        /// The path.
        path: String,
    },
    /// It is missing, or leads out of the prefix.
    #[error("it cannot be opened below {}", prefix.display())]
    Open {
        /// The allowed prefix.
        prefix: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

// === impl HostPaths ===

impl HostPaths {
    /// Allows what is at or below `prefixes`.
    pub const fn new(prefixes: Vec<PathBuf>) -> Self {
        Self(prefixes)
    }

    /// Opens `path`, which may use symbolic links that stay below the allowed prefix.
    pub fn open(&self, path: &str) -> Result<HostPath, HostPathError> {
        rules::host_path(path).map_err(HostPathError::Rule)?;
        let below = |prefix: &PathBuf| {
            let rest = Path::new(path).strip_prefix(prefix).ok()?;
            Some((prefix.clone(), rest.to_owned()))
        };
        let longest = self.0.iter().filter_map(below);
        let (prefix, rest) = longest
            .max_by_key(|(prefix, _)| prefix.as_os_str().len())
            .ok_or_else(|| HostPathError::NotAllowed {
                path: path.to_owned(),
            })?;
        let opened = open(&prefix, &rest);
        let (dir, real) = opened.map_err(|source| HostPathError::Open { prefix, source })?;
        Ok(HostPath {
            prefix: dir,
            rest,
            real,
        })
    }
}

// === impl HostPath ===

impl HostPath {
    /// The contents of the file `below`, which may not lead out of the allowed prefix.
    pub fn read(&self, below: &str, max: u64) -> io::Result<Vec<u8>> {
        let path = self.rest.join(below);
        let file = beneath::open_within(&self.prefix, &path, OFlags::RDONLY)?;
        beneath::read_regular(&file, max)
    }
}

fn open(prefix: &Path, rest: &Path) -> io::Result<(Dir, PathBuf)> {
    // Links in the prefix are the operator's.
    let dir = Dir::open(&prefix.canonicalize()?)?;
    let opened: File = beneath::open_within(&dir, rest, OFlags::PATH)?;
    let real = std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
    Ok((dir, real))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_is_given_that_no_prefix_allows_and_links_do_not_lead_out() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().canonicalize().unwrap();
        let text = |name: &str| root.join(name).display().to_string();
        fs::create_dir_all(root.join("allowed/inner")).unwrap();
        fs::create_dir(root.join("victim")).unwrap();
        fs::write(root.join("victim/shadow"), "hash").unwrap();
        fs::write(root.join("allowed/inner/a.ini"), "[pgbouncer]").unwrap();
        symlink("../victim", root.join("allowed/out")).unwrap();
        symlink(root.join("victim"), root.join("allowed/away")).unwrap();
        symlink("inner", root.join("allowed/alias")).unwrap();
        symlink("../../victim/shadow", root.join("allowed/inner/b.ini")).unwrap();

        let none = HostPaths::default().open(&text("allowed")).unwrap_err();
        assert!(none.to_string().contains("--allow-host-path"), "{none}");
        let some = HostPaths::new(vec![root.join("allowed")]);
        for refused in ["victim", "allowed-not", "allowed/../victim"] {
            assert!(some.open(&text(refused)).is_err(), "{refused}");
        }
        for leads_out in ["allowed/out", "allowed/away", "allowed/out/shadow"] {
            let error = some.open(&text(leads_out)).unwrap_err();
            assert!(matches!(error, HostPathError::Open { .. }), "{error}");
        }
        let alias = some.open(&text("allowed/alias")).unwrap();
        assert_eq!(alias.real, root.join("allowed/inner"));
        assert_eq!(alias.read("a.ini", 99).unwrap(), b"[pgbouncer]");
        assert!(alias.read("b.ini", 99).is_err());
        assert!(alias.read("../../victim/shadow", 99).is_err());
    }
}
