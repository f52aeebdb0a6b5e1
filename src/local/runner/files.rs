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
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, symlink,
};
use std::path::{Path, PathBuf};

use super::identity::Identity;
use super::payload::{File, Files};

/// Makes a directory that belongs to the pod.
pub fn make_dir(path: &Path, mode: u32, identity: Option<Identity>) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    give(path, identity)
}

/// Writes `contents` to `path` by temporary file and rename.
pub fn replace_file(path: &Path, file: &File, identity: Option<Identity>) -> io::Result<()> {
    let temporary = path.with_extension("new");
    remove_if_there(&temporary)?;
    write_file(&temporary, file, identity)?;
    fs::rename(&temporary, path)
}

/// Makes the volume at `dir` hold exactly `files`. Does nothing if it does already; answers
/// whether it changed.
pub fn write_volume(dir: &Path, files: &Files, identity: Option<Identity>) -> io::Result<bool> {
    make_dir(dir, 0o750, identity)?;
    let data = dir.join("..data");
    if data.exists() && same(&data, files)? {
        return Ok(false);
    }
    let before = fs::read_link(&data).ok();
    let version = next_version(before.as_deref());
    let fresh = dir.join(&version);
    remove_if_there(&fresh)?;
    make_dir(&fresh, 0o750, identity)?;
    for (name, file) in files {
        let path = fresh.join(name);
        make_parents(&fresh, name, identity)?;
        write_file(&path, file, identity)?;
    }
    let swap = dir.join("..data_new");
    remove_if_there(&swap)?;
    symlink(&version, &swap)?;
    fs::rename(&swap, &data)?;
    link_names(dir, files)?;
    if let Some(before) = before.filter(|b| b.as_os_str() != version.as_str()) {
        remove_if_there(&dir.join(before))?;
    }
    Ok(true)
}

/// Reads `path` (relative to the volume) as the process would.
pub fn same(data: &Path, files: &Files) -> io::Result<bool> {
    let mut seen = BTreeSet::new();
    list(data, Path::new(""), &mut seen)?;
    if seen.len() != files.len() {
        return Ok(false);
    }
    for (name, file) in files {
        if !seen.contains(Path::new(name)) {
            return Ok(false);
        }
        let path = data.join(name);
        let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
        if mode != file.mode || fs::read(&path)? != file.contents {
            return Ok(false);
        }
    }
    Ok(true)
}

fn list(root: &Path, below: &Path, seen: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, seen)?;
        } else {
            seen.insert(path);
        }
    }
    Ok(())
}

fn next_version(before: Option<&Path>) -> String {
    let number = before
        .and_then(Path::to_str)
        .and_then(|name| name.strip_prefix("..r"))
        .and_then(|n| n.parse::<u64>().ok())
        .unwrap_or(0);
    format!("..r{}", number + 1)
}

/// Keeps one symlink per top-level name, and drops those of names that are gone.
fn link_names(dir: &Path, files: &Files) -> io::Result<()> {
    let tops: BTreeSet<&str> = files
        .keys()
        .filter_map(|name| name.split('/').next())
        .collect();
    for top in &tops {
        let link = dir.join(top);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(top), &link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !tops.contains(&*name) {
            remove_if_there(&dir.join(&*name))?;
        }
    }
    Ok(())
}

fn make_parents(root: &Path, name: &str, identity: Option<Identity>) -> io::Result<()> {
    let mut path = root.to_owned();
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in parts {
        path.push(part);
        make_dir(&path, 0o750, identity)?;
    }
    Ok(())
}

fn write_file(path: &Path, file: &File, identity: Option<Identity>) -> io::Result<()> {
    let mut out = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    out.write_all(&file.contents)?;
    give(path, identity)?;
    fs::set_permissions(path, fs::Permissions::from_mode(file.mode))
}

/// The process owns its files, so that it can read even a 0600 key.
fn give(path: &Path, identity: Option<Identity>) -> io::Result<()> {
    match identity {
        Some(id) => chown(path, Some(id.uid), Some(id.fs_group)),
        None => Ok(()),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if found.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_new_version_replaces_the_old_in_one_step_and_leaves_nothing_behind() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("keys");
        let first = files(&[("tls.key", "one", 0o600), ("deep/ca.crt", "ca", 0o640)]);
        assert!(write_volume(&dir, &first, None).unwrap());
        assert!(!write_volume(&dir, &first, None).unwrap(), "no change");
        let held = fs::canonicalize(dir.join("tls.key")).unwrap();
        let mode = fs::metadata(&held).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);

        let second = files(&[("tls.key", "two", 0o600), ("extra", "x", 0o644)]);
        assert!(write_volume(&dir, &second, None).unwrap());
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
        write_volume(&dir, &files(&[("ca.crt", "whole", 0o644)]), None).unwrap();
        assert_eq!(fs::read_to_string(dir.join("ca.crt")).unwrap(), "whole");
        assert!(!dir.join("half").exists());
    }
}
