//! Files and directories that no other user can have made or can change.
//!
//! A path is trusted if root or this process's user owns every directory on it, and no other user
//! may rename an entry of it: OpenSSH asks the same of `authorized_keys`. Symbolic links on the way
//! are followed if root or this user made them.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::OFlags;

/// Symbolic links on one path, as many as the kernel follows.
const LINKS_MAX: u32 = 40;
/// Permission of other users to write.
const OTHERS_WRITE: u32 = 0o002;
/// Permission of the group to write.
const GROUP_WRITES: u32 = 0o020;
/// In such a directory only an entry's owner renames or removes it.
const STICKY: u32 = 0o1000;
/// Permissions of group and other users.
pub const NOT_OWNER: u32 = 0o077;

/// A file or directory is not used, because another user may have made or changed it.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// It is not what it should be.
    #[error("{} {problem}; {remedy}", path.display())]
    Suspect {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// It cannot be looked at.
    #[error("cannot look at {}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

const CHOOSE: &str = "choose a place below directories that root or you own and no other user may \
     write to, such as one in your home directory";
const REMOVE: &str = "find out which user made it, then remove it and start again";

/// What other users may do with a private file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// Nothing: it holds a secret.
    Secret,
    /// Read it.
    Readable,
    /// What its mode says.
    Own,
}

fn suspect(path: &Path, problem: impl Into<String>, remedy: &'static str) -> Distrust {
    Distrust::Suspect {
        path: path.to_owned(),
        problem: problem.into(),
        remedy,
    }
}

fn unreadable(path: &Path, source: io::Error) -> Distrust {
    Distrust::Unreadable {
        path: path.to_owned(),
        source,
    }
}

/// The real path of the existing directory `path`, if all directories on it are trusted.
pub fn directory(path: &Path) -> Result<PathBuf, Distrust> {
    let absolute = std::path::absolute(path).map_err(|error| unreadable(path, error))?;
    let mut real = PathBuf::from("/");
    trusted_directory(&real, &look(&real)?)?;
    let mut rest: VecDeque<OsString> = steps(&absolute).collect();
    let mut links = 0;
    while let Some(step) = rest.pop_front() {
        if step == ".." {
            real.pop();
            continue;
        }
        let next = real.join(&step);
        let found = look(&next)?;
        if !found.is_symlink() {
            trusted_directory(&next, &found)?;
            real = next;
            continue;
        }
        links += 1;
        if !ours_or_roots(found.uid()) || links > LINKS_MAX {
            let problem = format!("is a symbolic link of {}", user(found.uid()));
            return Err(suspect(&next, problem, CHOOSE));
        }
        let target = fs::read_link(&next).map_err(|error| unreadable(&next, error))?;
        if target.is_absolute() {
            real = PathBuf::from("/");
        }
        for step in steps(&target).collect::<Vec<_>>().into_iter().rev() {
            rest.push_front(step);
        }
    }
    Ok(real)
}

/// The directory at `path` itself, which must be ours and no link.
pub fn own_directory(path: &Path) -> Result<Metadata, Distrust> {
    let found = look(path)?;
    if found.is_symlink() {
        return Err(suspect(path, "is a symbolic link", CHOOSE));
    }
    if !found.is_dir() {
        return Err(suspect(path, "is not a directory", CHOOSE));
    }
    if found.uid() != Uid::effective().as_raw() {
        let problem = format!("belongs to {}", user(found.uid()));
        return Err(suspect(path, problem, CHOOSE));
    }
    Ok(found)
}

/// Opens a file of ours for reading; `None` if it does not exist.
pub fn open(path: &Path, privacy: Privacy) -> Result<Option<File>, Distrust> {
    open_with(path, OpenOptions::new().read(true), privacy)
}

/// Opens a file of ours with `options`, never through a link.
pub fn open_with(
    path: &Path,
    options: &mut OpenOptions,
    privacy: Privacy,
) -> Result<Option<File>, Distrust> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match options.custom_flags(flags.bits().cast_signed()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // ELOOP: the last part of the path is a link.
        Err(error) if look(path).is_ok_and(|found| found.is_symlink()) => {
            tracing::debug!(%error, "link not followed");
            return Err(suspect(path, "is a symbolic link", REMOVE));
        }
        Err(error) => return Err(unreadable(path, error)),
    };
    let found = file.metadata().map_err(|error| unreadable(path, error))?;
    own_file(path, &found, privacy)?;
    Ok(Some(file))
}

/// Whether a file that is already there is ours; a missing one is.
pub fn file(path: &Path, privacy: Privacy) -> Result<(), Distrust> {
    match fs::symlink_metadata(path) {
        Ok(found) => own_file(path, &found, privacy),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unreadable(path, error)),
    }
}

fn own_file(path: &Path, found: &Metadata, privacy: Privacy) -> Result<(), Distrust> {
    if found.is_symlink() {
        return Err(suspect(path, "is a symbolic link", REMOVE));
    }
    if !found.is_file() {
        return Err(suspect(path, "is not a regular file", REMOVE));
    }
    if found.uid() != Uid::effective().as_raw() {
        let problem = format!("belongs to {}", user(found.uid()));
        return Err(suspect(path, problem, REMOVE));
    }
    if found.nlink() > 1 {
        return Err(suspect(path, "has another name elsewhere", REMOVE));
    }
    if privacy == Privacy::Secret && found.mode() & NOT_OWNER != 0 {
        let problem = format!(
            "may be read or written by other users (mode {:04o}, should be 0600), so what it holds \
             is not believed",
            found.mode() & 0o7777
        );
        return Err(suspect(path, problem, REMOVE));
    }
    if privacy != Privacy::Own && found.mode() & (OTHERS_WRITE | GROUP_WRITES) != 0 {
        let problem = format!(
            "may be written by other users (mode {:04o})",
            found.mode() & 0o7777
        );
        return Err(suspect(path, problem, REMOVE));
    }
    Ok(())
}

fn trusted_directory(path: &Path, found: &Metadata) -> Result<(), Distrust> {
    if !found.is_dir() {
        return Err(suspect(path, "is not a directory", CHOOSE));
    }
    if !ours_or_roots(found.uid()) {
        let problem = format!("belongs to {}", user(found.uid()));
        return Err(suspect(path, problem, CHOOSE));
    }
    let mode = found.mode();
    if mode & STICKY != 0 {
        return Ok(());
    }
    if mode & OTHERS_WRITE != 0 {
        return Err(suspect(path, "may be written by every user", CHOOSE));
    }
    if mode & GROUP_WRITES != 0 && !own_group(found.gid()) {
        let problem = format!("may be written by the group {}", found.gid());
        return Err(suspect(path, problem, CHOOSE));
    }
    Ok(())
}

/// Root's group, or the group that distributions make for one user.
fn own_group(gid: u32) -> bool {
    if gid == 0 {
        return true;
    }
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    let user = User::from_uid(Uid::effective()).ok().flatten();
    matches!((group, user), (Some(group), Some(user)) if group.name == user.name)
}

fn ours_or_roots(uid: u32) -> bool {
    uid == 0 || uid == Uid::effective().as_raw()
}

fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)).ok().flatten() {
        Some(user) => format!("user {} ({uid})", user.name),
        None => format!("user {uid}"),
    }
}

fn look(path: &Path) -> Result<Metadata, Distrust> {
    fs::symlink_metadata(path).map_err(|error| unreadable(path, error))
}

fn steps(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused_with_what_lies_below() {
        let tmp = tempfile::tempdir().unwrap();
        let (open, below) = (tmp.path().join("open"), tmp.path().join("open/below"));
        fs::create_dir_all(&below).unwrap();
        directory(&below).unwrap();
        mode(&open, 0o777);
        let error = directory(&below).unwrap_err().to_string();
        assert!(
            error.contains("open may be written by every user"),
            "{error}"
        );
        mode(&open, 0o1777);
        directory(&below).unwrap();
    }

    #[test]
    fn links_are_followed_where_they_are_ours_and_judged_where_they_end() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("a/real")).unwrap();
        symlink("a", root.join("alias")).unwrap();
        symlink(root.join("alias/real"), root.join("whole")).unwrap();
        assert_eq!(directory(&root.join("whole")).unwrap(), root.join("a/real"));
        assert_eq!(
            directory(&root.join("whole/../real")).unwrap(),
            root.join("a/real")
        );
        mode(&root.join("a"), 0o777);
        assert!(directory(&root.join("whole")).is_err());
        symlink("loop", root.join("loop")).unwrap();
        assert!(directory(&root.join("loop")).is_err());
        assert!(own_directory(&root.join("whole")).is_err());
    }

    #[test]
    fn a_directory_of_another_user_is_named_with_its_owner() {
        if !Uid::effective().is_root() {
            return;
        }
        let tmp = tempfile::tempdir().unwrap();
        let theirs = tmp.path().join("theirs");
        fs::create_dir_all(theirs.join("data")).unwrap();
        chown(&theirs, Some(4_242), None).unwrap();
        let error = directory(&theirs.join("data")).unwrap_err().to_string();
        assert!(error.contains("theirs belongs to user 4242"), "{error}");
        assert!(own_directory(&theirs).is_err());
    }

    #[test]
    fn a_secret_that_others_could_have_written_or_read_is_not_believed() {
        let tmp = tempfile::tempdir().unwrap();
        let token = tmp.path().join("token");
        assert!(open(&token, Privacy::Secret).unwrap().is_none());
        fs::write(&token, "known to others").unwrap();
        for (bits, privacy) in [
            (0o644, Privacy::Secret),
            (0o620, Privacy::Secret),
            (0o666, Privacy::Readable),
        ] {
            mode(&token, bits);
            let error = open(&token, privacy).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{bits:04o}")) && error.contains("remove it"),
                "{error}"
            );
        }
        mode(&token, 0o600);
        assert!(open(&token, Privacy::Secret).unwrap().is_some());
        fs::hard_link(&token, tmp.path().join("second")).unwrap();
        assert!(open(&token, Privacy::Secret).is_err());
        let link = tmp.path().join("link");
        symlink(&token, &link).unwrap();
        let error = open(&link, Privacy::Readable).unwrap_err().to_string();
        assert!(error.contains("is a symbolic link"), "{error}");
        if Uid::effective().is_root() {
            fs::remove_file(tmp.path().join("second")).unwrap();
            chown(&token, Some(4_242), None).unwrap();
            let error = open(&token, Privacy::Secret).unwrap_err().to_string();
            assert!(error.contains("belongs to user 4242"), "{error}");
        }
    }
}
