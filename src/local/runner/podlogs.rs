//! `kubectl logs`: answers the API server from the log files of pods.
//!
//! A pod has one log for all runs of its process. Lines of `PgBouncer` begin with their time, in UTC
//! because the runner sets it so; a line without one belongs to the line before.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use super::dirs::Dirs;
use super::logs;
use super::status::CONTAINER;
use crate::clock::Clock;
use crate::local::apiserver::{LogError, LogRequest, LogStream, PodLogs};
use crate::local::informer::Informer;
use crate::names::ObjectRef;

const LINE_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]");
/// Length of a line's time.
const LINE_TIME_LEN: usize = 23;

/// The logs of the pods of this node.
pub struct NodeLogs {
    /// The copy of all pods.
    pub pods: Arc<Informer<Pod>>,
    /// Where logs are.
    pub dirs: Dirs,
    /// Time.
    pub clock: Clock,
}

impl std::fmt::Debug for NodeLogs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeLogs").finish_non_exhaustive()
    }
}

impl PodLogs for NodeLogs {
    fn open(&self, request: LogRequest) -> BoxFuture<'_, Result<LogStream, LogError>> {
        std::future::ready(self.read(&request)).boxed()
    }
}

// === impl NodeLogs ===

impl NodeLogs {
    fn read(&self, request: &LogRequest) -> Result<LogStream, LogError> {
        let not_there = |why: &str| LogError::NotThere {
            container: request.container.clone(),
            pod: request.pod.clone(),
            why: why.to_owned(),
        };
        let key = ObjectRef::new(&*request.namespace, &*request.pod);
        let uid = self.pods.get(&key).and_then(|pod| pod.uid());
        if request.container != CONTAINER {
            return Err(not_there("not run on the local platform"));
        }
        let path = uid
            .map(|uid| self.dirs.pod(&uid).log)
            .filter(|path| path.exists())
            .ok_or_else(|| not_there("not started yet"))?;
        let failed = |source| LogError::Read {
            pod: key.to_string(),
            source,
        };
        let timestamps = request.timestamps;
        if request.follow {
            let stream = logs::follow(&path, request.tail_lines.map(|n| n as u64));
            return Ok(stream
                .map(move |part: io::Result<Bytes>| part.map(|p| shown(p, timestamps)))
                .boxed());
        }
        let mut text = logs::tail(&path, request.tail_lines.map(|n| n as u64)).map_err(failed)?;
        if let Some(seconds) = request.since_seconds {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            let since = self
                .clock
                .now()
                .saturating_sub(time::Duration::seconds(seconds));
            text.drain(..first_since(&text, since));
        }
        let mut text = shown(text.into(), timestamps);
        if let Some(limit) = request.limit_bytes {
            text.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        Ok(futures::stream::once(std::future::ready(Ok(text))).boxed())
    }
}

/// Where the first line that is not older than `since` begins.
fn first_since(text: &[u8], since: OffsetDateTime) -> usize {
    let mut start = 0;
    for line in text.split_inclusive(|b| *b == b'\n') {
        if line_time(line).is_some_and(|at| at >= since) {
            return start;
        }
        start += line.len();
    }
    text.len()
}

/// The text, with each line's time in front as Kubernetes writes it if that is wanted.
fn shown(text: Bytes, timestamps: bool) -> Bytes {
    if !timestamps {
        return text;
    }
    let mut out = Vec::with_capacity(text.len() + text.len() / 2);
    let mut last = None;
    for line in text.split_inclusive(|b| *b == b'\n') {
        last = line_time(line).or(last);
        if let Some(at) = last {
            out.extend(crate::api::common::rfc3339_seconds(at).into_bytes());
            out.push(b' ');
        }
        out.extend(line);
    }
    out.into()
}

fn line_time(line: &[u8]) -> Option<OffsetDateTime> {
    let text = std::str::from_utf8(line.get(..LINE_TIME_LEN)?).ok()?;
    let time = PrimitiveDateTime::parse(text, LINE_TIME).ok()?;
    Some(time.assume_utc())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const TEXT: &[u8] = b"2031-05-04 12:00:00.250 UTC [9] LOG one\n2031-05-04 12:00:09.000 UTC [9] LOG two\n  more\n";

    #[test]
    fn lines_are_chosen_by_their_time() {
        let from = first_since(TEXT, datetime!(2031-05-04 12:00:05 UTC));
        assert!(TEXT[from..].ends_with(b"LOG two\n  more\n"));
        assert_eq!(from, 40);
        assert_eq!(
            first_since(TEXT, datetime!(2031-05-04 13:00 UTC)),
            TEXT.len()
        );
    }

    #[test]
    fn a_line_without_a_time_has_that_of_the_line_before() {
        let out = shown(Bytes::from_static(TEXT), true);
        let out = String::from_utf8(out.to_vec()).unwrap();
        assert!(out.ends_with("2031-05-04T12:00:09Z   more\n"), "{out}");
    }
}
