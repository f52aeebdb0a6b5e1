//! The data directory: 0700, its files 0600, out of other users' reach, and one platform at a time.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::beneath::{Dir, Owner};
use super::trust::{self, Distrust, Privacy};

/// File whose lock says that a platform runs.
const LOCK: &str = "lock";
/// Files that a platform reads or writes, and what other users may do with them.
const FILES: [(&str, Privacy); 6] = [
    (LOCK, Privacy::Readable),
    ("token", Privacy::Secret),
    ("apiserver-ca.key", Privacy::Secret),
    ("apiserver-ca.crt", Privacy::Readable),
    ("kubeconfig", Privacy::Secret),
    ("admin.url", Privacy::Readable),
];
/// Directories that a platform reads or writes; each entry is a file.
const DIRECTORIES: [&str; 3] = ["store", "logs", "processes"];

/// A data directory that is ours until dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    // The system lets go of the lock when the file is closed, whatever ends the process.
    _lock: File,
}

/// The data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be made or read.
    #[error("cannot use {path} as data directory")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another platform runs on it.
    #[error("another platform uses {path}; stop it first, or choose another data directory")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Another user may have made or changed what is in it.
    #[error("cannot use {path} as data directory")]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        #[source]
        source: Distrust,
    },
    /// It is in use for something else.
    #[error(
        "{path} holds other files, and a data directory is closed to other users; name a directory \
         that is empty or does not exist"
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
}

// === impl DataDir ===

impl DataDir {
    /// Makes the directory if it is missing, and locks it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |source| DataDirError::Unusable {
            path: path.to_owned(),
            source,
        };
        let untrusted = |source| DataDirError::Untrusted {
            path: path.to_owned(),
            source,
        };
        let real = place(path, &untrusted, &unusable)?;
        let dir = Dir::open(&real).map_err(unusable)?;
        let about = trust::own_directory(&real).map_err(untrusted)?;
        let names = dir.names().map_err(unusable)?;
        known_files(&real).map_err(untrusted)?;
        let private = about.mode() & trust::NOT_OWNER == 0;
        if !private && !names.is_empty() && !names.iter().any(|name| name == LOCK) {
            return Err(DataDirError::NotOurs { path: real });
        }
        dir.give(0o700, Owner::default()).map_err(unusable)?;
        let mut lock = lock_file(&real).map_err(untrusted)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::InUse { path: real }),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        // For people who wonder which process holds it.
        lock.set_len(0).map_err(unusable)?;
        writeln!(lock, "{}", std::process::id()).map_err(unusable)?;
        Ok(Self {
            path: real,
            _lock: lock,
        })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Opens a file that only its owner may read and write, whatever the umask says; makes it if it is
/// missing. One that was made with a wider mode is narrowed. A symbolic link is refused.
pub fn private_file(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Writes a file of a data directory in one step, mode 0600.
pub fn write(data: &Path, name: &str, text: &str) -> io::Result<()> {
    Dir::open(data)?.replace(name, text.as_bytes(), 0o600, Owner::default())
}

/// The real path of the data directory, made with the missing directories above it.
fn place(
    path: &Path,
    untrusted: &impl Fn(Distrust) -> DataDirError,
    unusable: &impl Fn(io::Error) -> DataDirError,
) -> Result<PathBuf, DataDirError> {
    let absolute = std::path::absolute(path).map_err(unusable)?;
    let mut missing = Vec::new();
    let mut existing = absolute.as_path();
    while fs::symlink_metadata(existing).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    {
        let (Some(parent), Some(name)) = (existing.parent(), existing.file_name()) else {
            break;
        };
        missing.push(name);
        existing = parent;
    }
    if missing.is_empty() {
        trust::own_directory(existing).map_err(untrusted)?;
    }
    let mut real = trust::directory(existing).map_err(untrusted)?;
    for name in missing.into_iter().rev() {
        real.push(name);
        let made = fs::DirBuilder::new().mode(0o700).create(&real);
        made.map_err(unusable)?;
    }
    Ok(real)
}

/// Looks at what is there before any of it is read or written.
fn known_files(dir: &Path) -> Result<(), Distrust> {
    for (name, privacy) in FILES {
        trust::file(&dir.join(name), privacy)?;
    }
    for name in DIRECTORIES {
        let below = dir.join(name);
        if fs::symlink_metadata(&below).is_err() {
            continue;
        }
        trust::own_directory(&below)?;
        let entries = fs::read_dir(&below).map_err(|source| Distrust::Unreadable {
            path: below.clone(),
            source,
        })?;
        for entry in entries.flatten() {
            trust::file(&entry.path(), Privacy::Readable)?;
        }
    }
    Ok(())
}

fn lock_file(dir: &Path) -> Result<File, Distrust> {
    let path = dir.join(LOCK);
    let mut create = fs::OpenOptions::new();
    create.write(true).create_new(true).mode(0o600);
    match create.open(&path) {
        Ok(made) => return Ok(made),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(Distrust::Unreadable { path, source }),
    }
    let opened = trust::open_with(&path, fs::OpenOptions::new().write(true), Privacy::Readable)?;
    opened.ok_or_else(|| Distrust::Unreadable {
        path,
        source: io::ErrorKind::NotFound.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use nix::unistd::Uid;

    use super::*;

    fn refusal(path: &Path) -> String {
        crate::causes::chain(&DataDir::open(path).unwrap_err())
    }

    #[test]
    fn a_directory_is_private_and_has_one_user_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("deep/data");
        let held = DataDir::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700);
        let refused = DataDir::open(&path).unwrap_err();
        assert!(matches!(refused, DataDirError::InUse { .. }), "{refused}");
        drop(held);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_file_is_private_from_its_beginning_and_a_wider_one_is_narrowed() {
        let parent = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let fresh = parent.path().join("fresh");
        drop(private_file(&fresh).unwrap());
        assert_eq!(mode(&fresh), 0o600);
        let wide = parent.path().join("store.redb");
        fs::write(&wide, "4711\n").unwrap();
        fs::set_permissions(&wide, fs::Permissions::from_mode(0o666)).unwrap();
        drop(private_file(&wide).unwrap());
        assert_eq!(mode(&wide), 0o600);
        let linked = parent.path().join("linked");
        symlink(&wide, &linked).unwrap();
        assert!(private_file(&linked).is_err());
    }

    #[test]
    fn a_file_in_its_place_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        fs::write(&path, "").unwrap();
        let error = refusal(&path);
        assert!(error.contains("data is not a directory"), "{error}");
    }

    #[test]
    fn a_linked_lock_truncates_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let (path, victim) = (parent.path().join("data"), parent.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        fs::create_dir(&path).unwrap();
        symlink(&victim, path.join("lock")).unwrap();
        let error = refusal(&path);
        assert!(error.contains("lock is a symbolic link"), "{error}");
        fs::remove_file(path.join("lock")).unwrap();
        fs::hard_link(&victim, path.join("lock")).unwrap();
        let error = refusal(&path);
        assert!(error.contains("another name elsewhere"), "{error}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn planted_files_and_links_are_named_before_anything_is_read() {
        for name in ["token", "apiserver-ca.key", "kubeconfig", "store", "logs"] {
            let parent = tempfile::tempdir().unwrap();
            let path = parent.path().join("data");
            fs::create_dir(&path).unwrap();
            symlink(parent.path(), path.join(name)).unwrap();
            let error = refusal(&path);
            assert!(
                error.contains(&format!("{name} is a symbolic link")),
                "{error}"
            );
            assert!(
                error.contains("remove it") || error.contains("choose"),
                "{error}"
            );
        }
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("token"), "known to others").unwrap();
        fs::set_permissions(path.join("token"), fs::Permissions::from_mode(0o644)).unwrap();
        let error = refusal(&path);
        assert!(
            error.contains("token") && error.contains("not believed"),
            "{error}"
        );
        fs::remove_file(path.join("token")).unwrap();
        fs::create_dir(path.join("store")).unwrap();
        symlink(parent.path(), path.join("store/objects")).unwrap();
        let error = refusal(&path);
        assert!(error.contains("objects is a symbolic link"), "{error}");
    }

    #[test]
    fn a_link_in_the_place_of_the_directory_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("real")).unwrap();
        symlink("real", parent.path().join("data")).unwrap();
        let error = refusal(&parent.path().join("data"));
        assert!(error.contains("data is a symbolic link"), "{error}");
    }

    #[test]
    fn a_directory_of_another_user_or_below_one_is_refused() {
        if !Uid::effective().is_root() {
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("theirs");
        fs::create_dir(&path).unwrap();
        chown(&path, Some(4_242), None).unwrap();
        for place in [path.clone(), path.join("data")] {
            let error = refusal(&place);
            assert!(error.contains("theirs belongs to user 4242"), "{error}");
        }
        assert!(!path.join("data").exists());
    }

    #[test]
    fn a_directory_in_use_for_something_else_keeps_its_permissions() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("shared");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("somebodys"), "file").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let refused = DataDir::open(&path).unwrap_err();
        assert!(matches!(refused, DataDirError::NotOurs { .. }), "{refused}");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o755);
    }
}
