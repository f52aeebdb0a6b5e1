//! Directory handles that no name can leave.
//!
//! Each operation works on one entry of an open directory: a name without `/` that is neither `.`
//! nor `..`. The kernel refuses to resolve a symbolic link or to leave the directory (`openat2` with
//! `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS` and `RESOLVE_NO_XDEV`, Linux 5.6). Where `openat2` is
//! missing or forbidden, `openat` with `O_NOFOLLOW` opens the same single entry.
//!
//! Symbolic links are made and replaced here, and read as text. They are never followed.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use rustix::fs::{
    AtFlags, Mode, OFlags, RenameFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat,
    renameat, renameat_with, symlinkat, unlinkat,
};
use rustix::io::Errno;

/// Entries read from a directory in one go while it is emptied.
const BATCH: usize = 1024;
/// Rounds of emptying, after which a process that keeps adding entries has won.
const ROUNDS_MAX: usize = 100_000;

/// Where a file is written before it is renamed. No key of `data` begins with two dots.
const FILE_BESIDE: &str = "..file_new";
/// Where a link is made before it is renamed.
const LINK_BESIDE: &str = "..link_new";

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
}

/// User and group that an entry is given; `None` leaves them as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: Option<u32>,
    /// Group id.
    pub gid: Option<u32>,
}

/// Kind, owner and permissions of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
}

/// Whether `name` is one entry of a directory.
pub fn is_entry(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !matches!(bytes, b"" | b"." | b"..")
        && bytes.len() <= 255
        && !bytes.iter().any(|byte| matches!(byte, b'/' | 0))
}

fn entry<N: AsRef<OsStr> + ?Sized>(name: &N) -> io::Result<&OsStr> {
    let name = name.as_ref();
    if is_entry(name) {
        Ok(name)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not a file name", name.display()),
        ))
    }
}

// === impl Dir ===

impl Dir {
    /// Opens the directory at `path`, whose parents are trusted; the directory itself may not be a
    /// symbolic link.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { fd })
    }

    /// Opens the directory `name`.
    pub fn enter(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let fd = self.open_entry(
            entry(&name)?,
            OFlags::DIRECTORY | OFlags::RDONLY,
            Mode::empty(),
        )?;
        Ok(Self { fd })
    }

    /// Makes the directory `name`, or opens the one that is there, and gives it owner and mode.
    pub fn make(&self, name: impl AsRef<OsStr>, mode: u32, owner: Owner) -> io::Result<Self> {
        let name = entry(&name)?;
        match mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let dir = self.enter(name)?;
        dir.give(mode, owner)?;
        Ok(dir)
    }

    /// Gives this directory owner and mode.
    pub fn give(&self, mode: u32, owner: Owner) -> io::Result<()> {
        let there = self.facts()?;
        give(&self.fd, there, mode, owner)
    }

    /// Owner and permissions of this directory.
    pub fn facts(&self) -> io::Result<Facts> {
        facts(&self.fd)
    }

    /// Writes a new file; an entry of that name is an error.
    pub fn create(
        &self,
        name: impl AsRef<OsStr>,
        contents: &[u8],
        mode: u32,
        owner: Owner,
    ) -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
        let fd = self.open_entry(entry(&name)?, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(fd);
        file.write_all(contents)?;
        let there = facts(&file)?;
        give(&file, there, mode, owner)
    }

    /// Writes a file beside `name` and renames it there.
    pub fn replace(&self, name: &str, contents: &[u8], mode: u32, owner: Owner) -> io::Result<()> {
        entry(name)?;
        self.remove(FILE_BESIDE)?;
        self.create(FILE_BESIDE, contents, mode, owner)?;
        self.rename(FILE_BESIDE, name)
    }

    /// The contents of the regular file `name` of at most `max` bytes.
    pub fn read(&self, name: impl AsRef<OsStr>, max: u64) -> io::Result<Vec<u8>> {
        let fd = self.open_entry(
            entry(&name)?,
            OFlags::RDONLY | OFlags::NONBLOCK,
            Mode::empty(),
        )?;
        read_regular(&File::from(fd), max)
    }

    /// Owner and permissions of the regular file `name`.
    pub fn file_facts(&self, name: impl AsRef<OsStr>) -> io::Result<Facts> {
        let fd = self.open_entry(
            entry(&name)?,
            OFlags::RDONLY | OFlags::NONBLOCK,
            Mode::empty(),
        )?;
        let file = File::from(fd);
        if !file.metadata()?.is_file() {
            return Err(not_regular());
        }
        facts(&file)
    }

    /// Makes the symbolic link `name`, in place of whatever file or link is there.
    pub fn link(&self, target: &str, name: &str) -> io::Result<()> {
        let name = entry(name)?;
        self.remove(LINK_BESIDE)?;
        symlinkat(target, &self.fd, LINK_BESIDE)?;
        if self.enter(name).is_ok() {
            // A rename does not replace a directory.
            self.remove(name)?;
        }
        self.rename(LINK_BESIDE, name)
    }

    /// The target of the symbolic link `name`; `None` where `name` is missing or no link.
    pub fn link_target(&self, name: &str) -> Option<String> {
        let target = readlinkat(&self.fd, entry(name).ok()?, Vec::new()).ok()?;
        target.into_string().ok()
    }

    /// The names of all entries.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        self.some_names(usize::MAX)
    }

    /// Removes `name` with all that is in it. A missing entry is a success.
    pub fn remove(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        let name = entry(&name)?;
        if self.unlink(name)? {
            return Ok(());
        }
        self.enter(name)?.clear()?;
        self.remove_empty(name)
    }

    /// Removes all entries. Directories are emptied from the top: what is deeper is moved up first,
    /// so that neither stack nor open files grow with the depth.
    pub fn clear(&self) -> io::Result<()> {
        let mut moved = 0_u64;
        for _ in 0..ROUNDS_MAX {
            let names = self.some_names(BATCH)?;
            if names.is_empty() {
                return Ok(());
            }
            for name in names {
                if !self.unlink(&name)? {
                    self.flatten(&name, &mut moved)?;
                }
            }
        }
        Err(io::Error::other("entries are added faster than removed"))
    }

    fn flatten(&self, name: &OsStr, moved: &mut u64) -> io::Result<()> {
        let child = self.enter(name)?;
        for _ in 0..ROUNDS_MAX {
            let names = child.some_names(BATCH)?;
            if names.is_empty() {
                return self.remove_empty(name);
            }
            for inner in names {
                if !child.unlink(&inner)? {
                    self.take_over(&child, &inner, moved)?;
                }
            }
        }
        Err(io::Error::other("entries are added faster than removed"))
    }

    /// Moves `inner` out of `child` under a name that is free here.
    fn take_over(&self, child: &Self, inner: &OsStr, moved: &mut u64) -> io::Result<()> {
        for _ in 0..ROUNDS_MAX {
            *moved += 1;
            let free = format!("..gone-{moved}");
            match renameat_with(&child.fd, inner, &self.fd, &*free, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(()),
            }
        }
        Err(io::Error::other("no free name"))
    }

    fn rename(&self, from: &str, to: impl AsRef<OsStr>) -> io::Result<()> {
        renameat(&self.fd, from, &self.fd, entry(&to)?)?;
        Ok(())
    }

    /// Removes an entry that is not a directory; false if it is one.
    fn unlink(&self, name: &OsStr) -> io::Result<bool> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::ISDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn remove_empty(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn some_names(&self, most: usize) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for found in rustix::fs::Dir::read_from(&self.fd)? {
            let found = found?;
            let name = OsString::from_vec(found.file_name().to_bytes().to_vec());
            if is_entry(&name) {
                names.push(name);
            }
            if names.len() >= most {
                break;
            }
        }
        Ok(names)
    }

    fn open_entry(&self, name: &OsStr, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        match openat2(&self.fd, name, flags, mode, resolve) {
            Err(Errno::NOSYS | Errno::PERM) => Ok(openat(&self.fd, name, flags, mode)?),
            opened => Ok(opened?),
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens `path` below `dir` for reading. Symbolic links are followed as long as they stay below
/// `dir`. The kernel must know `openat2`, because nothing else gives that guarantee.
pub fn open_within(dir: &Dir, path: &Path, flags: OFlags) -> io::Result<File> {
    let mut flags = flags | OFlags::CLOEXEC;
    if !flags.contains(OFlags::PATH) {
        // A FIFO must not hold up the caller.
        flags |= OFlags::NONBLOCK;
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    Ok(File::from(openat2(
        &dir.fd,
        path,
        flags,
        Mode::empty(),
        resolve,
    )?))
}

/// The contents of an open regular file of at most `max` bytes.
pub fn read_regular(file: &File, max: u64) -> io::Result<Vec<u8>> {
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(not_regular());
    }
    if about.len() > max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {max} bytes"),
        ));
    }
    let mut contents = Vec::new();
    file.take(max).read_to_end(&mut contents)?;
    Ok(contents)
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

fn facts(of: impl AsFd) -> io::Result<Facts> {
    let file = File::from(of.as_fd().try_clone_to_owned()?);
    let about = file.metadata()?;
    Ok(Facts {
        uid: about.uid(),
        gid: about.gid(),
        mode: about.mode() & 0o7777,
        size: about.len(),
    })
}

/// The owner comes before the mode, because a change of owner clears bits of the mode.
fn give(of: impl AsFd, there: Facts, mode: u32, owner: Owner) -> io::Result<()> {
    let uid = owner.uid.filter(|uid| *uid != there.uid);
    let gid = owner.gid.filter(|gid| *gid != there.gid);
    if uid.is_some() || gid.is_some() {
        fchown(of.as_fd(), uid, gid)?;
    }
    let file = File::from(of.as_fd().try_clone_to_owned()?);
    file.set_permissions(Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests;
