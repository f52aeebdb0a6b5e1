//! Deleting a PgBouncer (docs/kubedb-compatibility.md, "Deletion policies"). Owner references take
//! the objects away; what is to stay is taken off that list first.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::json;

use super::blocked::Reason;
use super::validate::compare_and_swap;
use super::{ProvisionError, Provisioner};
use crate::api::Located;
use crate::api::annotations::FINALIZER;
use crate::api::common::{ConditionStatus, set_condition};
use crate::api::pgbouncer::DeletionPolicy;
use crate::api::{Condition, PgBouncer};
use crate::blueprint::names;
use crate::cluster::{ClusterError, EventKind, reference};
use crate::retry::Next;

/// Said while `DoNotTerminate` holds a deletion up.
const DELETION: &str = "Deletion";

impl Provisioner {
    /// Does what the deletion policy says, then lets the object go.
    pub(super) async fn finalize(&self, bouncer: &PgBouncer) -> Result<Next, ProvisionError> {
        if !bouncer
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == FINALIZER)
        {
            return Ok(Next::Wait);
        }
        match bouncer.spec.deletion_policy.unwrap_or_default() {
            DeletionPolicy::DoNotTerminate => {
                self.hold_up(bouncer).await?;
                return Ok(Next::Wait);
            }
            DeletionPolicy::Halt | DeletionPolicy::Delete => {
                for secret in persistent_secrets(bouncer) {
                    self.disown(bouncer, &secret).await?;
                }
            }
            DeletionPolicy::WipeOut => {
                let auth = names::auth_secret(bouncer);
                if self.is_shared(bouncer, &auth).await? {
                    self.disown(bouncer, &auth).await?;
                }
            }
        }
        let rest: Vec<&String> = bouncer
            .finalizers()
            .iter()
            .filter(|finalizer| *finalizer != FINALIZER)
            .collect();
        let patch = compare_and_swap(bouncer, json!({ "metadata": { "finalizers": rest } }));
        match self
            .cluster
            .patch::<PgBouncer>(&reference(bouncer), &patch)
            .await
        {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => {
                tracing::info!(pgbouncer = %reference(bouncer), "released for deletion");
                Ok(Next::Wait)
            }
        }
    }

    /// There is no webhook to refuse the deletion, so it waits here and says why.
    async fn hold_up(&self, bouncer: &PgBouncer) -> Result<(), ClusterError> {
        let message = format!(
            "PgBouncer \"{}\" can't be terminated. To delete, change spec.DeletionPolicy",
            reference(bouncer)
        );
        let mut status = bouncer.status.clone().unwrap_or_default();
        let held_up = Condition::new(
            DELETION,
            ConditionStatus::False,
            Reason::DoNotTerminate.as_str(),
            message.clone(),
            self.clock.now(),
        );
        if set_condition(&mut status.conditions, held_up) {
            let patch = compare_and_swap(bouncer, json!({ "status": status }));
            self.cluster
                .patch_status::<PgBouncer>(&reference(bouncer), &patch)
                .await?;
            self.event(
                bouncer,
                EventKind::Warning,
                Reason::DoNotTerminate.as_str(),
                &message,
            )
            .await;
        }
        Ok(())
    }

    /// Takes our owner reference off a Secret, so that it survives us.
    async fn disown(&self, bouncer: &PgBouncer, name: &str) -> Result<(), ClusterError> {
        let at = bouncer.beside(name);
        let Some(secret) = self.cluster.get::<Secret>(&at).await? else {
            return Ok(());
        };
        let uid = bouncer.uid().unwrap_or_default();
        let others: Vec<_> = secret
            .owner_references()
            .iter()
            .filter(|owner| owner.uid != uid)
            .collect();
        if others.len() == secret.owner_references().len() {
            return Ok(());
        }
        let patch = json!({ "metadata": {
            "ownerReferences": others,
            "resourceVersion": secret.metadata.resource_version,
        } });
        self.cluster.patch::<Secret>(&at, &patch).await.map(drop)
    }

    /// Whether another PgBouncer of the namespace uses the same auth Secret.
    async fn is_shared(&self, bouncer: &PgBouncer, auth: &str) -> Result<bool, ClusterError> {
        let namespace = bouncer.home();
        let all: Vec<PgBouncer> = self.cluster.list(&namespace, "").await?;
        Ok(all
            .iter()
            .any(|other| other.uid() != bouncer.uid() && names::auth_secret(other) == auth))
    }
}

/// What `Halt` and `Delete` leave.
fn persistent_secrets(bouncer: &PgBouncer) -> [String; 3] {
    [
        names::auth_secret(bouncer),
        names::backend_secret(&bouncer.name_any()),
        names::config_secret(bouncer),
    ]
}
