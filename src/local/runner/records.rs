//! Which process belongs to which pod, for the next platform.
//!
//! A command line can be written by any process, so it proves nothing. The platform notes the
//! process that it has started in its own directory: boot, process id and start time together name
//! one process for ever.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::local::beneath::{Dir, Owner};

/// Larger than any record.
const RECORD_MAX_BYTES: u64 = 4096;

/// The records of one platform.
#[derive(Clone, Debug)]
pub struct Records {
    dir: PathBuf,
}

/// What is known of a pod's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Record {
    /// It was about to be started.
    Starting,
    /// It was started.
    Running(Birth),
}

/// One process of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Birth {
    /// Identifies the boot of the machine.
    pub boot: String,
    /// Process id.
    pub pid: i32,
    /// Clock ticks from boot to the start of the process.
    pub start: u64,
}

// === impl Records ===

impl Records {
    /// The records below `dir`.
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Writes the record of the pod `uid`.
    pub fn write(&self, uid: &str, record: &Record) -> io::Result<()> {
        let text = serde_json::to_vec(record)?;
        Dir::open(&self.dir)?.replace(uid, &text, 0o600, Owner::default())
    }

    /// The record of the pod `uid`; `None` where there is none that can be read.
    pub fn read(&self, uid: &str) -> Option<Record> {
        let text = Dir::open(&self.dir).ok()?.read(uid, RECORD_MAX_BYTES);
        serde_json::from_slice(&text.ok()?).ok()
    }

    /// The uids of all pods with a record.
    pub fn uids(&self) -> Vec<String> {
        let names = Dir::open(&self.dir).and_then(|dir| dir.names());
        let text = |name: std::ffi::OsString| name.into_string().ok();
        names.into_iter().flatten().filter_map(text).collect()
    }

    /// Removes the record of the pod `uid`.
    pub fn forget(&self, uid: &str) -> io::Result<()> {
        Dir::open(&self.dir)?.remove(uid)
    }
}

// === impl Birth ===

impl Birth {
    /// The process that has the id `pid` now; `None` if no process does.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self {
            boot: boot.trim().to_owned(),
            pid,
            start: start_time(&stat)?,
        })
    }
}

/// Field 22 of `/proc/<pid>/stat`. The second field is the program's name in parentheses, which the
/// program chooses; no later field has a parenthesis.
fn start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_time_is_read_whatever_the_program_is_called() {
        let stat = |name: &str| {
            format!("7 ({name}) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 9 9")
        };
        assert_eq!(start_time(&stat("pgbouncer")), Some(4242));
        assert_eq!(start_time(&stat("a) S 1 2 (b")), Some(4242));
        assert_eq!(start_time("7 (x) S 1"), None);
    }

    #[test]
    fn a_record_is_read_back_and_noise_is_none() {
        let tmp = tempfile::tempdir().unwrap();
        let records = Records::new(tmp.path().to_owned());
        let own = Birth::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert_eq!(records.read("a"), None);
        records.write("a", &Record::Starting).unwrap();
        assert_eq!(records.read("a"), Some(Record::Starting));
        records.write("a", &Record::Running(own.clone())).unwrap();
        assert_eq!(records.read("a"), Some(Record::Running(own)));
        assert_eq!(records.uids(), ["a"]);
        fs::write(tmp.path().join("a"), "{\"running\": 7}").unwrap();
        assert_eq!(records.read("a"), None);
        records.forget("a").unwrap();
        records.forget("a").unwrap();
        assert!(records.uids().is_empty());
    }
}
