//! Events that people read in `kubectl describe`.
//!
//! One line per change of state: an event of the same object, kind, reason and message raises the
//! count of the one that is there, because its name derives from them. Many different messages of
//! one reason become one line, and nobody gets to flood an object with lines: see [`super::correlate`].

use std::sync::PoisonError;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{Resource, ResourceExt};
use serde_json::json;
use time::OffsetDateTime;

use super::correlate::{About, Subject, Verdict};
use super::{Cluster, ClusterError};
use crate::api::Located;
use crate::api::common::rfc3339_seconds;
use crate::names::ObjectRef;
use crate::printable::printable;

/// Whether an event is news or trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// News.
    Normal,
    /// Trouble.
    Warning,
}

impl EventKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Longest message of an event, in bytes: the API server refuses a longer note.
const MESSAGE_MAX: usize = 1_024;
/// What a line says that stands for many; client-go's words.
const COMBINED: &str = "(combined from similar events)";

/// Writes events in the name of one component.
#[derive(Clone)]
pub struct Reporter {
    cluster: Cluster,
    component: &'static str,
}

/// One event, in words.
struct Line<'a> {
    kind: EventKind,
    reason: &'a str,
    /// What tells it from others of its reason.
    series: &'a str,
    message: &'a str,
}

impl Reporter {
    /// Reports as `component`.
    pub const fn new(cluster: Cluster, component: &'static str) -> Self {
        Self { cluster, component }
    }

    /// Reports on `object`. An event that cannot be written is logged and forgotten: it must never
    /// stop the work it tells about.
    pub async fn report<K>(
        &self,
        object: &K,
        kind: EventKind,
        reason: &str,
        message: &str,
        now: OffsetDateTime,
    ) where
        K: Resource<DynamicType = ()>,
    {
        let message = &printable(message, MESSAGE_MAX - COMBINED.len() - 2);
        let subject = Subject {
            about: About {
                component: self.component,
                identity: identity(object),
            },
            reason: (kind.as_str(), reason.to_owned()),
        };
        let verdict = {
            let told = &self.cluster.told;
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            told.judge(&subject, hash(&[message]), now)
        };
        let line = |series, message| Line {
            kind,
            reason,
            series,
            message,
        };
        let event = match verdict {
            Verdict::Tell => self.event(object, &line(message, message), now),
            Verdict::Combine => {
                let combined = format!("{COMBINED}: {message}");
                self.event(object, &line(COMBINED, &combined), now)
            }
            Verdict::Drop => {
                let object = object.name_any();
                tracing::debug!(object, reason, message, "event left out: too many of late");
                return;
            }
        };
        if let Err(error) = self.write(event, now).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                reason,
                "event not written"
            );
        }
    }

    async fn write(&self, event: Event, now: OffsetDateTime) -> Result<(), ClusterError> {
        let at = super::reference(&event);
        let Some(former) = self.cluster.get::<Event>(&at).await? else {
            return match self.cluster.create(&event).await {
                Err(error) if !error.is_already_exists() => Err(error),
                _ => Ok(()),
            };
        };
        let count = former.count.unwrap_or(1).saturating_add(1);
        let patch = json!({ "count": count, "lastTimestamp": rfc3339_seconds(now),
            "message": event.message });
        self.cluster.patch::<Event>(&at, &patch).await.map(drop)
    }

    fn event<K>(&self, object: &K, line: &Line<'_>, now: OffsetDateTime) -> Event
    where
        K: Resource<DynamicType = ()>,
    {
        let about = ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: object.meta().name.clone(),
            namespace: object.meta().namespace.clone(),
            uid: object.meta().uid.clone(),
            ..ObjectReference::default()
        };
        let type_ = line.kind.as_str();
        let identity = [
            object.meta().uid.as_deref().unwrap_or(""),
            type_,
            line.reason,
            line.series,
        ];
        let at = ObjectRef::new(
            object.namespace().unwrap_or_else(|| "default".to_owned()),
            format!("{}.{}", object.name_any(), short_hash(&identity)),
        );
        let time: Option<Time> = serde_json::from_value(json!(rfc3339_seconds(now))).ok();
        Event {
            metadata: ObjectMeta {
                name: Some(at.name),
                namespace: Some(at.namespace),
                ..ObjectMeta::default()
            },
            involved_object: about,
            type_: Some(type_.to_owned()),
            reason: Some(line.reason.to_owned()),
            message: Some(line.message.to_owned()),
            source: Some(EventSource {
                component: Some(self.component.to_owned()),
                ..EventSource::default()
            }),
            reporting_component: Some(self.component.to_owned()),
            count: Some(1),
            first_timestamp: time.clone(),
            last_timestamp: time,
            ..Event::default()
        }
    }
}

/// What tells an object from all others.
fn identity<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let meta = object.meta();
    meta.uid.clone().unwrap_or_else(|| {
        let namespace = object.home();
        format!("{} {namespace}/{}", K::kind(&()), object.name_any())
    })
}

/// 16 hexadecimal digits that stand for `parts`.
fn short_hash(parts: &[&str]) -> String {
    format!("{:016x}", hash(parts))
}

fn hash(parts: &[&str]) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, parts.join("\u{1f}").as_bytes());
    let leading = digest.as_ref().iter().take(8);
    leading.fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
}
