//! Telling the API what became of a pod.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use time::OffsetDateTime;

use super::super::pod::{Process, Restart};
use super::super::status::{Shown, State, status};
use super::Worker;
use crate::retry::BACKOFF_FIRST;

// === impl Worker ===

impl Worker {
    pub(super) fn shown(&self) -> Shown {
        let state = match (&self.process, self.phase, &self.last) {
            (Some(process), ..) => State::Running {
                since: self.started_at,
                pid: process.pid(),
            },
            (None, Process::Exited { .. }, Some(last))
                if self.observed().restart == Restart::Never =>
            {
                State::Ended(last.clone())
            }
            _ => State::Waiting(self.waiting.0, self.waiting.1.clone()),
        };
        Shown {
            ready: self.probe.as_ref().is_some_and(|(_, r)| r.ready()),
            state,
            last: self.last.clone(),
            restarts: self.restarts,
            address: self.address,
            version: self
                .node
                .poolers
                .of_image(self.image())
                .map_or_else(|_| String::new(), |pooler| pooler.version.clone()),
        }
    }

    /// Writes status and events, if they changed.
    pub(super) async fn report(&mut self, now: OffsetDateTime) {
        if self.gone || self.removed {
            return;
        }
        let status = status(&self.pod, &self.shown(), &self.reported, now);
        if status != self.reported {
            let patch = json!({"metadata": {"uid": self.uid}, "status": status});
            match self
                .node
                .cluster
                .patch_status::<Pod>(&self.key, &patch)
                .await
            {
                Ok(_) => self.reported = status,
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::debug!(pod = %self.key, error = &error as &dyn std::error::Error, "status not written");
                    self.wake.notify.notify_one();
                    tokio::time::sleep(BACKOFF_FIRST).await;
                }
            }
        }
        for (kind, reason, message) in std::mem::take(&mut self.events) {
            self.node
                .reporter
                .report(&*self.pod, kind, reason, &message, now)
                .await;
        }
    }
}
