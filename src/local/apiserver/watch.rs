//! Watches: what is there, then every change, one JSON line each.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::Stream;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::ApiServer;
use super::admit::forbidden;
use super::call::Call;
use super::error::ApiError;
use super::present::{Form, served};
use super::selector::Selector;
use crate::instants::Shift;
use crate::local::store::{Change, ChangeKind, Subscription};

/// A watch without `timeoutSeconds` ends after this, so that no forgotten watcher stays for ever.
const WATCH_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// Longest watch, whatever `timeoutSeconds` says.
const WATCH_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How often a quiet watcher is told the revision it has seen, as Kubernetes does.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// Where a watch begins.
enum Start {
    /// After this revision.
    After(u64),
    /// With what is there now.
    Objects,
}

impl ApiServer {
    /// `GET …?watch=true`.
    pub(super) fn watch(&self, call: &Call, form: Form) -> Result<Response, ApiError> {
        let follower = self.follower(call, form)?;
        let stream = lines(follower);
        let mut response = Response::new(Body::from_stream(stream));
        let json = http::HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        Ok(response)
    }

    fn follower(&self, call: &Call, form: Form) -> Result<Follower, ApiError> {
        let query = &call.query;
        if self.inner.options.without_watch_list && query.initial_events().is_some() {
            return Err(ApiError::Invalid {
                group: "meta.k8s.io".to_owned(),
                kind: "ListOptions".to_owned(),
                name: String::new(),
                errors: vec![forbidden(
                    "sendInitialEvents",
                    "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
                )],
            });
        }
        let start = match (query.revision()?, query.initial_events()) {
            (_, Some(true)) | (None, None) => Start::Objects,
            (Some(revision), _) => Start::After(revision),
            (None, Some(false)) => Start::After(self.inner.store.revision()),
        };
        let selector = call.selector()?;
        let collection = call.collection();
        let mut listed = VecDeque::new();
        let from = match start {
            Start::After(revision) => revision,
            Start::Objects => {
                let listing = self.inner.store.list(&collection);
                let objects = listing.objects.into_iter().map(|(_, object)| object);
                listed.extend(objects.filter(|object| selector.matches(object)));
                listing.revision
            }
        };
        let subscription = self.inner.store.subscribe(from)?;
        let timeout = query.timeout_seconds.filter(|seconds| *seconds > 0);
        let now = Instant::now();
        let marks_end = query.initial_events() == Some(true) && query.bookmarks();
        Ok(Follower {
            server: self.clone(),
            call: call.clone(),
            form,
            selector,
            collection,
            subscription,
            lines: VecDeque::new(),
            changes: VecDeque::new(),
            until: now.plus(
                timeout
                    .map_or(WATCH_DEFAULT, Duration::from_secs)
                    .min(WATCH_MAX),
            ),
            bookmark_at: now.plus(BOOKMARK_EVERY),
            ended: false,
            listed,
            marks_end,
        })
    }
}

/// One watcher. What it has not taken yet is at most one batch of the history; a watcher that is
/// too slow for the history gets 410 and is closed.
struct Follower {
    server: ApiServer,
    call: Call,
    form: Form,
    selector: Selector,
    collection: crate::local::store::Scope,
    subscription: Subscription,
    lines: VecDeque<Bytes>,
    /// Changes that are not written out yet.
    changes: VecDeque<Arc<Change>>,
    until: Instant,
    bookmark_at: Instant,
    ended: bool,
    /// What was there when it began, and has not been shown yet: written out one by one.
    listed: VecDeque<Arc<Value>>,
    /// Whether the end of these is still to be marked.
    marks_end: bool,
}

fn lines(follower: Follower) -> impl Stream<Item = Result<Bytes, Infallible>> {
    futures::stream::unfold(follower, |mut follower| async move {
        let line = follower.next().await?;
        Some((Ok(line), follower))
    })
}

impl Follower {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if let Some(object) = self.listed.pop_front() {
                self.push("ADDED", &object);
                continue;
            }
            if std::mem::take(&mut self.marks_end) {
                self.push_bookmark(Some("k8s.io/initial-events-end"));
                continue;
            }
            // One by one: what a slow reader has not taken is one line, not a batch of them.
            if let Some(change) = self.changes.pop_front() {
                self.take(&change);
                continue;
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                changes = self.subscription.next() => match changes {
                    Ok(changes) => self.changes.extend(changes),
                    Err(error) => {
                        self.ended = true;
                        self.push_line("ERROR", &ApiError::from(error).status());
                    }
                },
                () = sleep_until(self.bookmark_at), if self.call.query.bookmarks() => {
                    self.bookmark_at = Instant::now().plus(BOOKMARK_EVERY);
                    self.push_bookmark(None);
                }
                () = sleep_until(self.until) => self.ended = true,
            }
        }
    }

    /// What a change means to somebody who sees only what the selector lets through.
    fn take(&mut self, change: &Change) {
        if !self.collection.holds(&change.key) {
            return;
        }
        let before = change
            .before
            .as_ref()
            .is_some_and(|object| self.selector.matches(object));
        let after = change.kind != ChangeKind::Deleted && self.selector.matches(&change.object);
        match (before, after) {
            (false, false) => {}
            (false, true) => self.push("ADDED", &change.object),
            (true, true) => self.push("MODIFIED", &change.object),
            (true, false) => self.push("DELETED", &change.object),
        }
    }

    fn push(&mut self, kind: &str, object: &Value) {
        let now = self.server.inner.options.clock.now();
        let object = self.form.object(&self.call.resource, object, now);
        self.push_line(kind, &object);
    }

    fn push_bookmark(&mut self, annotation: Option<&str>) {
        let revision = self.subscription.revision().to_string();
        let mut object = served(
            &self.call.resource,
            &json!({ "metadata": { "resourceVersion": revision, "creationTimestamp": null } }),
        );
        if let Some(annotation) = annotation {
            object["metadata"]["annotations"] = json!({ annotation: "true" });
        }
        self.push_line("BOOKMARK", &object);
    }

    fn push_line(&mut self, kind: &str, object: &Value) {
        let mut line = json!({ "type": kind, "object": object }).to_string();
        line.push('\n');
        self.lines.push_back(Bytes::from(line));
    }
}
