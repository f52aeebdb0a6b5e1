//! Bringing a pod's process down, and what goes with it.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use rustix::process::Signal;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::super::STOP_GRACE;
use super::super::process;
use super::super::status::CONTAINER;
use super::Worker;
use crate::cluster::EventKind;
use crate::retry::BACKOFF_FIRST;

// === impl Worker ===

impl Worker {
    pub(super) fn terminate(&mut self, now: OffsetDateTime) {
        if let Some(stopping) = &mut self.stopping {
            stopping.terminated_at = Some(now);
        }
        self.signal(Signal::TERM);
        self.events.push((
            EventKind::Normal,
            "Killing",
            format!("Stopping container {CONTAINER}"),
        ));
    }

    pub(super) fn kill(&mut self) {
        let grace = self.stopping.map_or(0.0, |s| s.grace.as_seconds_f64());
        if let Some(stopping) = &mut self.stopping {
            stopping.killed = true;
        }
        self.signal(Signal::KILL);
        tracing::warn!(pod = %self.key, grace_s = grace, "pooler killed after its grace period");
        self.events.push((
            EventKind::Warning,
            "Killing",
            format!("Container {CONTAINER} exceeded its grace period of {grace} s and was ended by SIGKILL"),
        ));
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process
            && let Err(error) = process.signal(signal)
        {
            tracing::error!(pod = %self.key, pid = process.pid(), %error, "signal not sent");
        }
    }

    /// The process is gone: gives everything back and removes the object.
    pub(super) async fn remove(&mut self, stop: &CancellationToken) {
        if self.removed && !self.gone {
            // A finalizer holds the object back: whoever removes it wakes us.
            tokio::select! {
                () = self.wake.notify.notified() => {}
                () = stop.cancelled() => {}
            }
            return;
        }
        if !self.events.is_empty() {
            self.report(self.node.clock.now()).await;
        }
        self.give_back();
        if self.gone {
            self.removed = true;
            return;
        }
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let api: Api<Pod> =
            Api::namespaced(self.node.cluster.client().clone(), &self.key.namespace);
        let done = match api.delete(&self.key.name, &params).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) => matches!(status.code, 404 | 409),
            Err(error) => {
                tracing::debug!(pod = %self.key, %error, "pod not removed");
                false
            }
        };
        self.removed = done;
        // Either the copy shows soon that the pod is gone, or a finalizer holds it back.
        tokio::select! {
            () = self.wake.notify.notified() => {}
            () = stop.cancelled() => {}
            () = tokio::time::sleep(BACKOFF_FIRST) => {}
        }
    }

    pub(super) fn give_back(&mut self) {
        let dirs = &self.node.dirs;
        if let Some(identity) = dirs.identity(&self.uid) {
            let left = process::kill_all_of(identity.uid);
            if left > 0 {
                tracing::warn!(pod = %self.key, left, "processes that the pooler had started ended");
            }
        }
        for removed in [
            dirs.remove_pod(&self.uid),
            dirs.records().forget(&self.uid),
            std::fs::remove_file(&self.dirs.log),
        ] {
            if let Err(error) = removed
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(pod = %self.key, %error, "files of the pod not removed");
            }
        }
        if let Some(address) = self.address.take() {
            self.node.addresses.release(address, &self.uid);
        }
    }

    /// Ends the process with the platform, within a bound; the pod object stays.
    pub(super) async fn shut_down(&mut self) {
        let Some(process) = &mut self.process else {
            return;
        };
        for (signal, patience) in [(Signal::TERM, STOP_GRACE), (Signal::KILL, STOP_GRACE)] {
            if let Err(error) = process.signal(signal) {
                tracing::error!(pod = %self.key, %error, "signal not sent");
            }
            if tokio::time::timeout(patience, process.wait()).await.is_ok() {
                return;
            }
        }
    }
}
