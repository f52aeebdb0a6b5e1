//! The log of a pod: bounded on disk, read from its end, followed.
//!
//! The process appends to the file itself, so that its log outlives the daemon. When the file
//! passes its bound, the older part is dropped in place: an appending writer goes on at the new end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;

/// Largest size of one log. A pooler writes some 100 bytes per connection.
pub const LOG_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// What is kept when a log passes its bound.
pub const LOG_KEPT_BYTES: u64 = 2 * 1024 * 1024;
const _: () = assert!(LOG_KEPT_BYTES < LOG_MAX_BYTES);
/// How often a followed log is looked at.
const FOLLOW_PERIOD: Duration = Duration::from_millis(200);
/// Bytes read in one go.
const CHUNK: usize = 64 * 1024;

/// Drops the older part of the log if it is too long.
pub fn bound(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().read(true).append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    if length <= LOG_MAX_BYTES {
        return Ok(());
    }
    file.seek(SeekFrom::Start(length - LOG_KEPT_BYTES))?;
    let mut kept = Vec::new();
    file.read_to_end(&mut kept)?;
    let line = kept.iter().position(|b| *b == b'\n').map_or(0, |n| n + 1);
    file.set_len(0)?;
    file.write_all(&kept[line..])
}

/// The last `lines` lines of the log, or all of it; empty if there is none yet.
pub fn tail(path: &Path, lines: Option<u64>) -> io::Result<Vec<u8>> {
    let mut text = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    if let Some(lines) = lines {
        let body = text.strip_suffix(b"\n").unwrap_or(&text);
        let from = match usize::try_from(lines).unwrap_or(usize::MAX) {
            0 => text.len(),
            n => body
                .iter()
                .enumerate()
                .rev()
                .filter(|(_, b)| **b == b'\n')
                .nth(n - 1)
                .map_or(0, |(at, _)| at + 1),
        };
        text.drain(..from);
    }
    Ok(text)
}

/// The last `lines` lines, then everything written later, until dropped.
pub fn follow(path: &Path, lines: Option<u64>) -> impl Stream<Item = io::Result<Bytes>> + use<> {
    let path = path.to_owned();
    let first = tail(&path, lines);
    let at = std::fs::metadata(&path).map_or(0, |found| found.len());
    let start = futures::stream::once(async move { first.map(Bytes::from) });
    let rest = futures::stream::unfold((path, at), |(path, mut at)| async move {
        loop {
            tokio::time::sleep(FOLLOW_PERIOD).await;
            match read_from(&path, &mut at) {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return Some((Ok(Bytes::from(text)), (path, at))),
                // The log goes with its pod: the end of the stream.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
                Err(error) => return Some((Err(error), (path, at))),
            }
        }
    });
    futures::StreamExt::chain(start, rest)
}

fn read_from(path: &Path, at: &mut u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    // The log was cut: what is left was sent already, most of it.
    if length < *at {
        *at = length;
    }
    file.seek(SeekFrom::Start(*at))?;
    let mut text = Vec::new();
    file.take(CHUNK as u64).read_to_end(&mut text)?;
    *at += text.len() as u64;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[test]
    fn the_tail_counts_lines_and_a_missing_log_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        assert!(tail(&path, None).unwrap().is_empty());
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&path, Some(2)).unwrap(), b"two\nthree\n");
        assert_eq!(tail(&path, Some(0)).unwrap(), b"");
        assert_eq!(tail(&path, Some(9)).unwrap(), b"one\ntwo\nthree\n");
    }

    #[test]
    fn a_log_that_grew_too_long_keeps_its_newest_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let mut writer = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..=LOG_MAX_BYTES / 1024 {
            writer.write_all(line.as_bytes()).unwrap();
        }
        bound(&path).unwrap();
        writer.write_all(b"last\n").unwrap();
        let text = std::fs::read(&path).unwrap();
        assert!(text.len() as u64 <= LOG_KEPT_BYTES + 5);
        assert!(text.starts_with(b"x") && text.ends_with(b"x\nlast\n"));
        assert_eq!((text.len() - 5) % 1024, 0, "whole lines only");
    }

    #[tokio::test]
    async fn following_sends_what_is_there_and_what_comes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        std::fs::write(&path, "old\nnew\n").unwrap();
        let mut stream = Box::pin(follow(&path, Some(1)));
        assert_eq!(stream.next().await.unwrap().unwrap(), "new\n");
        let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
        writer.write_all(b"newer\n").unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "newer\n");
        std::fs::remove_file(&path).unwrap();
        assert!(stream.next().await.is_none());
    }
}
