//! Text in pieces: what is megabytes is not copied as it grows.

use std::convert::Infallible;
use std::fmt;

use axum::body::Body;
use bytes::Bytes;

/// Size of a piece, about.
const CHUNK: usize = 64 * 1024;

/// Text that has been written so far.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    full: Vec<Bytes>,
    last: String,
}

impl fmt::Write for Chunks {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.last.len() + text.len() > CHUNK {
            self.full.push(std::mem::take(&mut self.last).into());
            self.last.reserve(CHUNK);
        }
        self.last.push_str(text);
        Ok(())
    }
}

impl From<Chunks> for Body {
    fn from(text: Chunks) -> Self {
        let chunks = text.full.into_iter().chain([text.last.into()]);
        let chunks = chunks.map(Ok::<_, Infallible>);
        Self::from_stream(futures::stream::iter(chunks))
    }
}
