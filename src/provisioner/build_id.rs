//! Which build of the program runs: two builds may make something else of the same specification.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read as _, Seek as _};
use std::path::Path;
use std::sync::LazyLock;

use object::Object as _;
use object::read::ReadCache;
use ring::digest::{Context, SHA256};

/// The running program. It stays the one that was started when another takes its name.
const RUNNING: &str = "/proc/self/exe";

/// Names this build. The size and the time of the executable would not: a reproducible build gives both
/// to every version.
pub(super) fn build_id() -> &'static [u8] {
    static BUILD: LazyLock<Vec<u8>> = LazyLock::new(|| {
        // A program that cannot read itself is like no other, so it believes no note.
        let unlike_any = || RandomState::new().hash_one(()).to_be_bytes().to_vec();
        identify(Path::new(RUNNING)).unwrap_or_else(|_| unlike_any())
    });
    &BUILD
}

/// The build ID that the linker has written into an executable; where there is none, the SHA-256 of the
/// file.
fn identify(executable: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(executable)?;
    if let Some(linked) = linked_id(&file) {
        return Ok(linked);
    }
    file.rewind()?;
    let (mut sum, mut part) = (Context::new(&SHA256), vec![0; 1 << 16]);
    loop {
        match file.read(&mut part)? {
            0 => return Ok(sum.finish().as_ref().to_vec()),
            read => sum.update(&part[..read]),
        }
    }
}

fn linked_id(file: &File) -> Option<Vec<u8>> {
    let sections = ReadCache::new(file);
    let executable = object::File::parse(&sections).ok()?;
    let linked = executable.build_id().ok()??;
    Some(linked.to_vec()).filter(|linked| !linked.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn executables_of_one_size_and_time_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1))
                .unwrap();
            identify(&path).unwrap()
        };
        let first = put("first", b"#!/bin/sh\nexit 0\n");
        assert_eq!(put("copy", b"#!/bin/sh\nexit 0\n"), first);
        assert_ne!(put("second", b"#!/bin/sh\nexit 1\n"), first);
        assert!(identify(&dir.path().join("none")).is_err());
    }

    #[test]
    fn the_linkers_id_names_a_build() {
        let running = identify(Path::new(RUNNING)).unwrap();
        assert_eq!(build_id(), running);
        let linked = linked_id(&File::open(RUNNING).unwrap());
        assert!(linked.is_none_or(|linked| linked == running));
    }
}
