//! Poolers that a request has left paused or out of service, and that no request owes any more: its
//! finalizer was taken off while no daemon ran, or a person was told to delete it. They are put back
//! (I2).
//!
//! An orphan is known by the PgBouncer's condition `Paused` that names a request which has ended or
//! is gone, or by a pod that the Service does not lead to. A PgBouncer with a request in progress has
//! no orphans: that request puts back what it has taken.

use std::collections::HashSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::timeout;

use super::admit::phase;
use super::error::{OpsError, PlanError};
use super::ledger;
use super::operator::Operator;
use super::plan::Subject;
use super::planner;
use super::steps::{Bench, Held, Maker, Tally, Waiting, held};
use super::turns::in_turns;
use crate::api::annotations::SERVING_LABEL;
use crate::api::{PgBouncer, PgBouncerOpsRequest, RequestPhase};
use crate::blueprint::labels;
use crate::causes::chain;
use crate::cluster::{EventKind, Namespaced, reference};
use crate::names::ObjectRef;

/// What panics are counted under.
const PART: &str = "orphans";
/// Bound of putting one PgBouncer's pods back.
const PUT_BACK: Duration = Duration::from_secs(30);
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
        let done = self.errors.guarded(PART, Box::pin(self.put_back(at))).await;
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
        if self.hands.requests().contains(uid) {
            return Ok(());
        }
        Ok(ledger::forget(&self.cluster, &self.home, uid).await?)
    }

    /// Deletes the journals of requests that are gone; only of `namespaces`, unless there are none.
    pub async fn sweep_journals(&self, namespaces: &[String]) -> Result<(), OpsError> {
        let deleted = {
            let running = || self.hands.requests();
            ledger::sweep(&self.cluster, &self.home, namespaces, running).await?
        };
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
            return Ok(self.cluster.list_all(selector).await?);
        }
        let mut all = Vec::new();
        for namespace in namespaces {
            match self.cluster.list(namespace, selector).await {
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

    /// Puts a PgBouncer back, unless a request has it in hand, or owes that.
    async fn put_back(&self, at: &ObjectRef) -> Result<(), OpsError> {
        // No request touches it meanwhile, so none in progress is overlooked.
        let Some(_in_hand) = self.hands.take(at, "") else {
            return Ok(());
        };
        self.put_back_for(at, "").await
    }

    /// Puts back the PgBouncer that `request` has in hand and has not touched itself, or touches no
    /// more.
    pub(super) async fn put_back_in_hand(
        &self,
        at: &ObjectRef,
        request: &PgBouncerOpsRequest,
    ) -> Result<(), OpsError> {
        let uid = request.uid().unwrap_or_default();
        self.put_back_for(at, &uid).await
    }

    /// Puts a PgBouncer back, unless another request than the one with that UID owes it.
    async fn put_back_for(&self, at: &ObjectRef, own: &str) -> Result<(), OpsError> {
        let requests: Vec<PgBouncerOpsRequest> = self.cluster.list(&at.namespace, "").await?;
        let owed = requests.iter().any(|request| {
            request.spec.database_ref.name == at.name
                && request.uid().as_deref() != Some(own)
                && phase(request) == Some(RequestPhase::Progressing)
        });
        let Some(bouncer) = self.cluster.get::<PgBouncer>(at).await?.filter(|_| !owed) else {
            return Ok(());
        };
        let uid = match held(&bouncer) {
            Held::Request { uid } => uid,
            Held::Nobody => String::new(),
            Held::Other => return Ok(()),
        };
        let gone = Subject {
            name: String::new(),
            uid,
        };
        let plan = match planner::nothing(&self.cluster, self.kind, gone, &bouncer).await {
            Ok(plan) => plan,
            Err(PlanError::Cluster(error)) => return Err(error.into()),
            Err(error @ (PlanError::Refused(_) | PlanError::Unworkable(_))) => {
                tracing::warn!(pgbouncer = %at, error = &error as &dyn std::error::Error,
                    "cannot be put back");
                return Ok(());
            }
        };
        let bench = Bench {
            cluster: &self.cluster,
            materials: &self.materials,
            kind: self.kind,
            clock: &self.clock,
            plan: &plan,
            waiting: &Waiting::default(),
            tally: &Tally::default(),
            maker: &Maker::default(),
        };
        let why = match timeout(PUT_BACK, Box::pin(bench.put_everything_back())).await {
            Ok(Ok(())) => {
                tracing::warn!(pgbouncer = %at, "was left paused or out of service; put back");
                let message = "a request that is gone had left it paused or pods of it out of \
                               service; it is resumed and they are back";
                let kind = EventKind::Warning;
                self.reporter
                    .report(&bouncer, kind, "PutBack", message, self.now())
                    .await;
                return Ok(());
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => format!("not done within {} s", PUT_BACK.as_secs()),
        };
        tracing::warn!(pgbouncer = %at, why, "left paused or out of service");
        Ok(())
    }
}
