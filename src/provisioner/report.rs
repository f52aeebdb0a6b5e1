//! Writing what was seen, if it is news, and telling it.

use serde_json::json;

use super::Provisioner;
use super::conditions::{
    Health, PROVISIONED, PROVISIONING_STARTED, RECONCILED, Seen, started, status,
};
use super::validate::compare_and_swap;
use crate::api::common::{find_condition, set_condition};
use crate::api::pgbouncer::PgBouncerStatus;
use crate::api::{PgBouncer, Phase};
use crate::cluster::{ClusterError, EventKind, reference};

/// Looks in a row that find an object unhealthy before it is looked at in full again; then after twice
/// as many each time.
pub(super) const LOOKS_BEFORE_DOUBT: i32 = 8;

impl Provisioner {
    /// Says that work has begun, once.
    pub(super) async fn report_started(
        &self,
        bouncer: PgBouncer,
    ) -> Result<PgBouncer, ClusterError> {
        let mut status = bouncer.status.clone().unwrap_or_default();
        if find_condition(&status.conditions, PROVISIONING_STARTED).is_some() {
            return Ok(bouncer);
        }
        set_condition(&mut status.conditions, started(&bouncer, self.clock.now()));
        self.write_status(&bouncer, status).await
    }

    /// Writes what was seen, if it is news. Says whether the object is ready.
    pub(super) async fn report(
        &self,
        bouncer: &PgBouncer,
        seen: &Seen,
    ) -> Result<bool, ClusterError> {
        let is_healthy = Health::of(bouncer, seen).is_ready();
        let failed_looks = self.memory.looked(&reference(bouncer), is_healthy);
        let was = bouncer.status.clone().unwrap_or_default();
        if failed_looks >= LOOKS_BEFORE_DOUBT && failed_looks.count_ones() == 1 {
            // Something that no watch tells of may be in the way of its pods.
            self.memory.changed(&reference(bouncer));
        }
        let is_patient = failed_looks < bouncer.spec.health_checker.failure_threshold;
        if !is_healthy && is_patient && was.phase == Some(Phase::Ready) && seen.blocked.is_none() {
            return Ok(false);
        }
        let status = status(bouncer, seen, self.clock.now());
        if status != was {
            self.write_status(bouncer, status.clone()).await?;
            self.tell(bouncer, &was, &status).await;
        }
        Ok(status.phase == Some(Phase::Ready) && seen.blocked.is_none())
    }

    async fn tell(&self, bouncer: &PgBouncer, was: &PgBouncerStatus, is: &PgBouncerStatus) {
        tracing::info!(pgbouncer = %reference(bouncer), phase = ?is.phase, "status written");
        let news = |type_: &str| {
            let now = find_condition(&is.conditions, type_)?;
            let before = find_condition(&was.conditions, type_);
            (before.map(|before| &before.message) != Some(&now.message)).then_some(now)
        };
        if let Some(blocked) = news(RECONCILED) {
            self.event(
                bouncer,
                EventKind::Warning,
                &blocked.reason,
                &blocked.message,
            )
            .await;
        }
        if let Some(provisioned) = news(PROVISIONED) {
            self.event(
                bouncer,
                EventKind::Normal,
                "Successful",
                &provisioned.message,
            )
            .await;
        }
    }

    /// Status is written only on the version that was read: conditions of other writers (`Paused`)
    /// stand in the same list.
    async fn write_status(
        &self,
        bouncer: &PgBouncer,
        status: PgBouncerStatus,
    ) -> Result<PgBouncer, ClusterError> {
        let patch = compare_and_swap(bouncer, json!({ "status": status }));
        self.cluster.patch_status(&reference(bouncer), &patch).await
    }
}
