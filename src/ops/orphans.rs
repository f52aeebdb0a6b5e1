//! Poolers that a request has left paused or out of service, and that no request owes any more: its
//! finalizer was taken off while no daemon ran, or a person was told to delete it. They are put back
//! (I2).
//!
//! An orphan is known by the PgBouncer's condition `Paused` that names a request which has ended or
//! is gone, or by a pod that the Service does not lead to. A PgBouncer with a request in progress has
//! no orphans: that request puts back what it has taken.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::context::Context;
use super::error::OpsError;
use super::ledger;
use super::operator::Operator;
use super::putback::put_back;
use super::turns::in_turns;
use super::work::lock::{Held, held};
use crate::api::PgBouncer;
use crate::api::annotations::SERVING_LABEL;
use crate::blueprint::labels;
use crate::cluster::{Namespaced, reference};
use crate::names::ObjectRef;

/// What panics are counted under.
const PART: &str = "orphans";
/// Namespaces whose PgBouncers are put back at the same time.
const AT_ONCE: usize = 32;

impl Operator {
    /// Puts back what requests have left behind. That one PgBouncer cannot be helped now does not
    /// keep those of other namespaces waiting. Only in `namespaces`, unless there are none.
    pub async fn put_orphans_back(&self, namespaces: &[String]) -> Result<(), OpsError> {
        let bouncers: Vec<PgBouncer> = self.all(namespaces, "").await?;
        let bouncers = bouncers.into_iter().filter(|found| self.looks_after(found));
        let out = format!("{},!{SERVING_LABEL}", labels::OURS);
        let out: Vec<Pod> = self.all(namespaces, &out).await?;
        let out: HashSet<ObjectRef> = out
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter_map(|pod| {
                let name = pod.labels().get(labels::INSTANCE)?;
                Some(ObjectRef::new(pod.namespace()?, name))
            })
            .collect();
        let suspects = bouncers.filter(|bouncer| {
            let is_suspect = || match held(bouncer) {
                Held::Request { .. } => true,
                Held::Nobody => out.contains(&reference(bouncer)),
                // Whoever has paused it may have taken its pods out, too.
                Held::Other => false,
            };
            let is_suspect = self.errors.guard(PART, is_suspect).unwrap_or_default();
            is_suspect && bouncer.metadata.deletion_timestamp.is_none()
        });
        let suspects = suspects.map(|bouncer| reference(&bouncer));
        Box::pin(in_turns(suspects, AT_ONCE, |at| async move {
            self.help(&at).await;
        }))
        .await;
        Ok(())
    }

    /// Puts one PgBouncer back, or says why not. One that panics is counted, and tried again with the
    /// next round.
    async fn help(&self, at: &ObjectRef) {
        let putting = Box::pin(put_back(&self.context, at));
        let done = self.errors.guarded(PART, putting).await;
        if let Ok(Err(error)) = done {
            tracing::warn!(
                pgbouncer = %at,
                error = &error as &dyn std::error::Error,
                "left paused or out of service"
            );
        }
    }

    /// Deletes the journal of the request that had that UID, unless it is still being undone: then its
    /// execution does so in the end.
    pub async fn forget_journal(&self, uid: &str) -> Result<(), OpsError> {
        if self.context.hands.requests().contains(uid) {
            return Ok(());
        }
        Ok(ledger::forget(&self.context.cluster, &self.context.home, uid).await?)
    }

    /// Deletes the journals of requests that are gone; only of `namespaces`, unless there are none.
    pub async fn sweep_journals(&self, namespaces: &[String]) -> Result<(), OpsError> {
        let Context {
            cluster,
            home,
            hands,
            ..
        } = &self.context;
        let running = || hands.requests();
        let deleted = ledger::sweep(cluster, home, namespaces, running).await?;
        if deleted > 0 {
            tracing::info!(deleted, "journals of requests that are gone deleted");
        }
        Ok(())
    }

    async fn all<K: Namespaced>(
        &self,
        namespaces: &[String],
        selector: &str,
    ) -> Result<Vec<K>, OpsError> {
        if namespaces.is_empty() {
            return Ok(self.context.cluster.list_all(selector).await?);
        }
        let mut all = Vec::new();
        for namespace in namespaces {
            match self.context.cluster.list(namespace, selector).await {
                Ok(found) => all.extend(found),
                // One that cannot be looked at keeps no other from being.
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(namespace, error, "not looked at");
                }
            }
        }
        Ok(all)
    }
}
