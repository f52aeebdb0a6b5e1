//! Where pods keep their files.
//!
//! The data directory is 0700, but poolers of a root daemon run as other users, and the path of a
//! Unix socket may not pass 107 bytes. So the files of pods live in a short runtime directory that
//! belongs to the data directory by a hash of its path. It holds nothing that a restart cannot make
//! again; logs stay in the data directory.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

/// The directories of one platform.
#[derive(Clone, Debug)]
pub struct Dirs {
    runtime: PathBuf,
    logs: PathBuf,
}

/// The directories of one pod.
#[derive(Clone, Debug)]
pub struct PodDirs {
    /// All of it.
    pub root: PathBuf,
    /// One directory per volume.
    pub volumes: PathBuf,
    /// Unix socket and process id.
    pub run: PathBuf,
    /// The translated ini.
    pub ini: PathBuf,
    /// Standard output and error of the process.
    pub log: PathBuf,
}

impl Dirs {
    /// Makes the directories that belong to `data` (an absolute, existing path).
    pub fn create(data: &Path) -> io::Result<Self> {
        let logs = data.join("logs");
        private_dir(&logs, 0o700)?;
        let mode = if Uid::effective().is_root() {
            0o711
        } else {
            0o700
        };
        let hash = crate::local::hash::short(data.as_os_str().as_encoded_bytes(), 4);
        let mut refused = None;
        for base in bases() {
            let runtime = base.join(&hash);
            match private_dir(&base, mode).and_then(|()| private_dir(&runtime, mode)) {
                Ok(()) => return Ok(Self { runtime, logs }),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| io::Error::other("no directory to choose from")))
    }

    /// The directory under which each pod has one named after its uid.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The directories of the pod `uid`.
    pub fn pod(&self, uid: &str) -> PodDirs {
        let root = self.runtime.join(uid);
        PodDirs {
            volumes: root.join("volumes"),
            run: root.join("run"),
            ini: root.join("pgbouncer.ini"),
            log: self.logs.join(format!("{uid}.log")),
            root,
        }
    }

    /// Removes everything that only serves running pods.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.runtime) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Candidates for the parent of runtime directories, best first.
fn bases() -> Vec<PathBuf> {
    let uid = Uid::effective();
    let fallback = PathBuf::from(format!("/tmp/bouncert-{uid}"));
    if uid.is_root() {
        return vec![PathBuf::from("/run/bouncert"), fallback];
    }
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    session
        .filter(|dir| dir.is_absolute() && dir.as_os_str().len() <= 40)
        .map(|dir| dir.join("bouncert"))
        .into_iter()
        .chain([fallback])
        .collect()
}

/// Makes `path` with `mode`, or accepts it if it is a real directory of ours; a directory that
/// another user planted in a shared place is refused.
fn private_dir(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(path)?;
            if !found.is_dir() || found.uid() != Uid::effective().as_raw() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!("{} is not a directory of ours", path.display()),
                ));
            }
        }
        Err(error) => return Err(error),
    }
    // Whatever the umask left out.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_a_pod_fits_into_a_socket_path() {
        let data = tempfile::tempdir().unwrap();
        let deep = data.path().join("a-very-long-directory-name".repeat(8));
        fs::create_dir_all(&deep).unwrap();
        let dirs = Dirs::create(&deep).unwrap();
        let pod = dirs.pod("11111111-2222-3333-4444-555555555555");
        assert!(pod.run.join(".s.PGSQL.65535").as_os_str().len() < 107);
        dirs.remove().unwrap();
        assert!(!dirs.runtime().exists());
    }

    #[test]
    fn a_symlink_in_the_place_of_a_directory_is_refused() {
        let data = tempfile::tempdir().unwrap();
        let planted = data.path().join("planted");
        std::os::unix::fs::symlink("/tmp", &planted).unwrap();
        assert!(private_dir(&planted, 0o700).is_err());
    }
}
