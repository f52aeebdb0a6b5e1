//! Where pods keep their files.
//!
//! The data directory is 0700, but poolers of a root platform run as other users, and the path of a
//! Unix socket may not pass 107 bytes. So the files of pods live in a short runtime directory that
//! belongs to the data directory by a hash of its path. It holds nothing that a restart cannot make
//! again; logs stay in the data directory.
//!
//! ```text
//!   /run/bouncert/<hash>/<pod>            root:<pod> 0750    the group is the record of the pod's id
//!   /run/bouncert/<hash>/<pod>/volumes    root:<pod> 0750    written by the platform alone
//!   /run/bouncert/<hash>/<pod>/run       <pod>:<pod> 0750    socket, process id, temporary files
//! ```

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use rustix::fs::OFlags;

use super::identity::{self, Identity, UidRange};
use super::records::Records;
use crate::local::beneath::{Dir, Owner, is_entry};
use crate::local::hash;

/// The lock under which ids are given out.
const IDS_LOCK: &str = "ids.lock";

/// The directories of one platform.
#[derive(Clone, Debug)]
pub struct Dirs {
    base: PathBuf,
    hash: String,
    runtime: PathBuf,
    logs: PathBuf,
    records: Records,
    uids: UidRange,
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

/// The open directory of one pod, and the user that its process runs as.
#[derive(Debug)]
pub struct Home {
    /// Paths, for the pooler and for people.
    pub paths: PodDirs,
    /// The handle that all files are made through.
    pub root: Dir,
    /// The pod's own user; `None` where the platform is not root's.
    pub identity: Option<Identity>,
}

impl Dirs {
    /// Makes the directories that belong to `data` (an absolute, existing path).
    pub fn create(data: &Path, uids: UidRange) -> io::Result<Self> {
        let logs = data.join("logs");
        private_dir(&logs, 0o700)?;
        let records = data.join("processes");
        private_dir(&records, 0o700)?;
        let mode = if identity::separates() { 0o711 } else { 0o700 };
        let hash = hash::short(data.as_os_str().as_encoded_bytes(), 4);
        let mut refused = None;
        for base in bases() {
            let runtime = base.join(&hash);
            match private_dir(&base, mode).and_then(|()| private_dir(&runtime, mode)) {
                Ok(()) => {
                    return Ok(Self {
                        base,
                        hash,
                        runtime,
                        logs,
                        records: Records::new(records),
                        uids,
                    });
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or_else(|| io::Error::other("no directory to choose from")))
    }

    /// The directory under which each pod has one named after its uid.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// What is known of the processes of pods.
    pub const fn records(&self) -> &Records {
        &self.records
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

    /// Opens the directory of the pod `uid`, or makes it with a user of its own.
    pub fn home(&self, uid: &str) -> io::Result<Home> {
        let runtime = Dir::open(&self.runtime)?;
        if !identity::separates() {
            return Ok(Home {
                paths: self.pod(uid),
                root: runtime.make(uid, 0o750, Owner::default())?,
                identity: None,
            });
        }
        let (root, id) = match self.settled(&runtime, uid)? {
            Some(settled) => settled,
            None => self.settle(&runtime, uid)?,
        };
        Ok(Home {
            paths: self.pod(uid),
            root,
            identity: Some(Identity { uid: id, gid: id }),
        })
    }

    /// The user of the pod `uid`, if it has a directory.
    pub fn identity(&self, uid: &str) -> Option<Identity> {
        let runtime = Dir::open(&self.runtime).ok()?;
        let (_, id) = self.settled(&runtime, uid).ok()??;
        identity::separates().then_some(Identity { uid: id, gid: id })
    }

    /// Removes the files of the pod `uid`, or of whatever else has that name.
    pub fn remove_pod(&self, uid: impl AsRef<OsStr>) -> io::Result<()> {
        Dir::open(&self.runtime)?.remove(uid)
    }

    /// The names of all directories of pods.
    pub fn pods(&self) -> io::Result<Vec<String>> {
        let names = Dir::open(&self.runtime)?.names()?;
        let text = |name: std::ffi::OsString| name.into_string().ok();
        Ok(names.into_iter().filter_map(text).collect())
    }

    /// Removes everything that only serves running pods.
    pub fn remove(&self) -> io::Result<()> {
        match Dir::open(&self.base) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            opened => opened?.remove(&*self.hash),
        }
    }

    /// The directory of a pod that root made, and the id that it records.
    fn settled(&self, runtime: &Dir, uid: &str) -> io::Result<Option<(Dir, u32)>> {
        let root = match runtime.enter(uid) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let facts = root.facts()?;
        let recorded = facts.uid == 0 && self.uids.holds(facts.gid);
        Ok(recorded.then_some((root, facts.gid)))
    }

    /// Makes the directory of a pod with an id that no pod of any platform here has.
    fn settle(&self, runtime: &Dir, uid: &str) -> io::Result<(Dir, u32)> {
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(self.base.join(IDS_LOCK))?;
        lock.lock()?;
        let used = self.used_ids()?;
        let seed = hash::short(uid.as_bytes(), 4);
        let seed = u32::from_str_radix(&seed, 16).unwrap_or(0);
        let mut free = self.uids.from_seed(seed);
        let id = free
            .find(|id| !used.contains(id) && !identity::is_account(*id))
            .ok_or_else(|| io::Error::other("all user ids of --pod-uid-range are in use"))?;
        let owner = Owner {
            uid: Some(0),
            gid: Some(id),
        };
        Ok((runtime.make(uid, 0o750, owner)?, id))
    }

    fn used_ids(&self) -> io::Result<Vec<u32>> {
        let base = Dir::open(&self.base)?;
        let mut used = Vec::new();
        for name in base.names()? {
            let Ok(runtime) = base.enter(&name) else {
                continue;
            };
            for name in runtime.names()? {
                if let Ok(facts) = runtime.enter(&name).and_then(|pod| pod.facts()) {
                    used.push(facts.gid);
                }
            }
        }
        Ok(used)
    }
}

// === impl Home ===

impl Home {
    /// The owner of what the platform writes and the pod reads.
    pub fn read_only(&self) -> Owner {
        Owner {
            uid: self.identity.map(|_| 0),
            gid: self.identity.map(|id| id.gid),
        }
    }

    /// The owner of what the pod writes.
    pub fn writable(&self) -> Owner {
        Owner {
            uid: self.identity.map(|id| id.uid),
            gid: self.identity.map(|id| id.gid),
        }
    }
}

/// Whether a pod's uid can be the name of its directory. The API server makes uids; an object that
/// came from elsewhere may hold anything.
pub fn names_a_directory(uid: &str) -> bool {
    is_entry(OsStr::new(uid)) && uid.len() <= 63 && !uid.starts_with('.')
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
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let refused = || {
        io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is not a directory of ours", path.display()),
        )
    };
    let dir = Dir::open(path).map_err(|_| refused())?;
    if dir.facts()?.uid != Uid::effective().as_raw() {
        return Err(refused());
    }
    // Whatever the umask left out.
    dir.give(mode, Owner::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_a_pod_fits_into_a_socket_path() {
        let data = tempfile::tempdir().unwrap();
        let deep = data.path().join("a-very-long-directory-name".repeat(8));
        fs::create_dir_all(&deep).unwrap();
        let dirs = Dirs::create(&deep, UidRange::default()).unwrap();
        let pod = dirs.pod("11111111-2222-3333-4444-555555555555");
        assert!(pod.run.join(".s.PGSQL.65535").as_os_str().len() < 107);
        dirs.remove().unwrap();
        assert!(!dirs.runtime().exists());
    }

    #[test]
    fn a_symlink_in_the_place_of_a_directory_is_refused() {
        let data = tempfile::tempdir().unwrap();
        let planted = data.path().join("planted");
        std::os::unix::fs::symlink(data.path(), &planted).unwrap();
        assert!(private_dir(&planted, 0o700).is_err());
    }

    #[test]
    fn each_pod_of_each_platform_has_a_user_of_its_own_and_keeps_it() {
        if !identity::separates() {
            return;
        }
        let data = tempfile::tempdir().unwrap();
        let range: UidRange = "1900070000-1900070003".parse().unwrap();
        let platforms = ["one", "two"].map(|name| {
            fs::create_dir(data.path().join(name)).unwrap();
            Dirs::create(&data.path().join(name), range).unwrap()
        });
        let mut ids = Vec::new();
        for (n, dirs) in [0, 1, 0, 1].into_iter().zip(platforms.iter().cycle()) {
            let home = dirs.home(&format!("pod-{n}-{}", ids.len())).unwrap();
            let id = home.identity.unwrap();
            assert_eq!((home.root.facts().unwrap().gid, id.uid), (id.gid, id.gid));
            ids.push(id.uid);
        }
        let again = platforms[0].home("pod-0-0").unwrap();
        assert_eq!(again.identity.unwrap().uid, ids[0]);
        assert!(platforms[0].home("one-too-many").is_err());
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 4);
        for dirs in &platforms {
            dirs.remove().unwrap();
        }
    }
}
