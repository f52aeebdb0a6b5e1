//! Writes volumes as a kubelet does: a new directory with all files, then one symlink swap.
//!
//! ```text
//!   volumes/server-cert/tls.crt  ─►  ..data/tls.crt
//!   volumes/server-cert/..data   ─►  ..r17            (replaced by rename)
//!   volumes/server-cert/..r17/tls.crt
//! ```
//!
//! A reader that opens through `..data` therefore sees all files of one version, never a mix.

use std::collections::BTreeSet;
use std::io;

use super::payload::{File, Files};
use crate::local::beneath::{Dir, Owner};

/// The link that is swapped.
const DATA: &str = "..data";
/// Mode of directories in a volume.
const DIR_MODE: u32 = 0o750;

/// Makes `volume` hold exactly `files`. Does nothing if it does already; returns whether it
/// changed.
pub fn write_volume(volume: &Dir, files: &Files, owner: Owner) -> io::Result<bool> {
    let before = volume.link_target(DATA).and_then(|name| version(&name));
    if before.is_some_and(|number| same(volume, number, files, owner).unwrap_or(false)) {
        // Links may have been lost, or replaced by a process of the same user.
        link_names(volume, files)?;
        return Ok(false);
    }
    let number = before.unwrap_or(0).wrapping_add(1);
    let name = version_name(number);
    volume.remove(&name)?;
    let fresh = volume.make(&name, DIR_MODE, owner)?;
    for (path, file) in files {
        write_file(&fresh, path, file, owner)?;
    }
    volume.link(&name, DATA)?;
    link_names(volume, files)?;
    remove_others(volume, &name)?;
    Ok(true)
}

/// The number of a version's directory.
fn version(name: &str) -> Option<u64> {
    let number: u64 = name.strip_prefix("..r")?.parse().ok()?;
    (version_name(number) == name).then_some(number)
}

fn version_name(number: u64) -> String {
    format!("..r{number}")
}

/// Whether the version holds exactly `files`.
fn same(volume: &Dir, number: u64, files: &Files, owner: Owner) -> io::Result<bool> {
    let root = volume.enter(version_name(number))?;
    let mut left: BTreeSet<&str> = files.keys().map(String::as_str).collect();
    let mut dirs = vec![(String::new(), root)];
    while let Some((below, dir)) = dirs.pop() {
        for name in dir.names()? {
            let Some(name) = name.to_str() else {
                return Ok(false);
            };
            let path = format!("{below}{name}");
            if let Some(file) = files.get(&path) {
                left.remove(path.as_str());
                if !holds(&dir, name, file, owner)? {
                    return Ok(false);
                }
            } else if files.keys().any(|key| is_below(key, &path)) {
                dirs.push((format!("{path}/"), dir.enter(name)?));
            } else {
                return Ok(false);
            }
        }
    }
    Ok(left.is_empty())
}

fn is_below(key: &str, path: &str) -> bool {
    key.strip_prefix(path)
        .is_some_and(|rest| rest.starts_with('/'))
}

fn holds(dir: &Dir, name: &str, file: &File, owner: Owner) -> io::Result<bool> {
    let there = dir.file_facts(name)?;
    let is_owners = owner.uid.is_none_or(|uid| uid == there.uid)
        && owner.gid.is_none_or(|gid| gid == there.gid);
    let size = file.contents.len() as u64;
    if !is_owners || there.mode != mode(file, owner) || there.size != size {
        return Ok(false);
    }
    Ok(dir.read(name, size)? == file.contents)
}

/// The mode of a file. The process reads it as the group of the platform's file, so a mode for the
/// owner alone would hide a key from its pooler: a kubelet adds the same bits for an `fsGroup`.
fn mode(file: &File, owner: Owner) -> u32 {
    if owner.gid.is_some() {
        (file.mode | 0o440) & !0o022
    } else {
        file.mode
    }
}

/// Writes a file of a fresh version, with the directories above it.
fn write_file(fresh: &Dir, path: &str, file: &File, owner: Owner) -> io::Result<()> {
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut dir = None;
    for part in parents.split('/').filter(|part| !part.is_empty()) {
        let next = dir.as_ref().unwrap_or(fresh).make(part, DIR_MODE, owner)?;
        dir = Some(next);
    }
    let dir = dir.as_ref().unwrap_or(fresh);
    dir.create(name, &file.contents, mode(file, owner), owner)
}

/// Keeps one symlink per top-level name, each into the present version, and drops all else.
fn link_names(volume: &Dir, files: &Files) -> io::Result<()> {
    let tops: BTreeSet<&str> = files
        .keys()
        .filter_map(|name| name.split('/').next())
        .collect();
    for top in &tops {
        let target = format!("{DATA}/{top}");
        if volume.link_target(top).as_ref() != Some(&target) {
            volume.link(&target, top)?;
        }
    }
    for name in volume.names()? {
        let kept = name
            .to_str()
            .is_some_and(|name| name.starts_with("..") || tops.contains(name));
        if !kept {
            volume.remove(&name)?;
        }
    }
    Ok(())
}

/// Removes former versions, and what a crash has left.
fn remove_others(volume: &Dir, present: &str) -> io::Result<()> {
    for name in volume.names()? {
        let other = name
            .to_str()
            .is_some_and(|name| name.starts_with("..") && name != DATA && name != present);
        if other {
            volume.remove(&name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;

    fn files(entries: &[(&str, &str, u32)]) -> Files {
        let file = |contents: &str, mode| File {
            mode,
            contents: contents.as_bytes().to_vec(),
        };
        entries
            .iter()
            .map(|(name, contents, mode)| ((*name).to_owned(), file(contents, *mode)))
            .collect()
    }

    fn volume(path: &Path) -> Dir {
        fs::create_dir_all(path).unwrap();
        Dir::open(path).unwrap()
    }

    fn write(volume: &Dir, files: &Files) -> bool {
        write_volume(volume, files, Owner::default()).unwrap()
    }

    #[test]
    fn a_new_version_replaces_the_old_in_one_step_and_leaves_nothing_behind() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("keys");
        let keys = volume(&dir);
        let first = files(&[("tls.key", "one", 0o600), ("deep/ca.crt", "ca", 0o640)]);
        assert!(write(&keys, &first));
        assert!(!write(&keys, &first), "no change");
        let held = fs::canonicalize(dir.join("tls.key")).unwrap();
        let mode = fs::metadata(&held).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);

        let second = files(&[("tls.key", "two", 0o600), ("extra", "x", 0o644)]);
        assert!(write(&keys, &second));
        assert_eq!(fs::read_to_string(dir.join("tls.key")).unwrap(), "two");
        assert_eq!(fs::read_to_string(dir.join("extra")).unwrap(), "x");
        assert!(fs::symlink_metadata(dir.join("deep")).is_err());
        assert!(!held.exists(), "the old version is removed");
        assert!(
            fs::read_link(dir.join("tls.key"))
                .unwrap()
                .starts_with("..data")
        );
    }

    #[test]
    fn a_crash_before_the_swap_is_repaired_by_the_next_write() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("keys");
        fs::create_dir_all(dir.join("..r1")).unwrap();
        fs::write(dir.join("..r1/half"), "written").unwrap();
        symlink("..r1", dir.join("..data_new")).unwrap();
        write(&volume(&dir), &files(&[("ca.crt", "whole", 0o644)]));
        assert_eq!(fs::read_to_string(dir.join("ca.crt")).unwrap(), "whole");
        assert!(!dir.join("half").exists());
        let mut names: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["..data", "..r1", "ca.crt"]);
    }

    #[test]
    fn links_that_a_process_planted_are_replaced_and_what_they_lead_to_stays() {
        let tmp = tempfile::tempdir().unwrap();
        let (dir, victim) = (tmp.path().join("keys"), tmp.path().join("victim"));
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("tls.key"), "precious").unwrap();
        let keys = volume(&dir);
        let wanted = files(&[("tls.key", "own", 0o600), ("deep/ca.crt", "ca", 0o640)]);
        for (target, name) in [
            ("../victim", "..data"),
            ("../victim", "..r1"),
            ("../victim/tls.key", "tls.key"),
            ("../victim", "..link_new"),
        ] {
            fs::remove_dir_all(&dir).unwrap();
            let keys = volume(&dir);
            symlink(target, dir.join(name)).unwrap();
            assert!(write(&keys, &wanted), "{name}");
            assert_eq!(fs::read_to_string(dir.join("tls.key")).unwrap(), "own");
        }
        // Also in a volume that is up to date, and in its version.
        let keys = {
            drop(keys);
            volume(&dir)
        };
        fs::remove_file(dir.join("tls.key")).unwrap();
        symlink("../victim/tls.key", dir.join("tls.key")).unwrap();
        write(&keys, &wanted);
        assert_eq!(fs::read_to_string(dir.join("tls.key")).unwrap(), "own");
        let version = fs::read_link(dir.join("..data")).unwrap();
        fs::remove_dir_all(dir.join(&version).join("deep")).unwrap();
        symlink("../../victim", dir.join(&version).join("deep")).unwrap();
        assert!(write(&keys, &wanted));
        assert_eq!(fs::read_to_string(dir.join("deep/ca.crt")).unwrap(), "ca");
        assert_eq!(
            fs::read_to_string(victim.join("tls.key")).unwrap(),
            "precious"
        );
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    }
}
