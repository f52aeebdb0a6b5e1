//! The verbs for what makes the pods of a PgBouncer, for both of its kinds.

use k8s_openapi::api::apps::v1::StatefulSet;
use serde_json::Value;

use super::{Cluster, ClusterError, Owner, Standing};
use crate::api::PetSet;
use crate::api::workload::{Workload, WorkloadKind};
use crate::names::ObjectRef;

/// Does the same for either kind, of which `$set` is the type.
macro_rules! of_kind {
    ($kind:expr, $set:ident => $done:expr) => {
        match $kind {
            WorkloadKind::PetSet => {
                type $set = PetSet;
                $done
            }
            WorkloadKind::StatefulSet => {
                type $set = StatefulSet;
                $done
            }
        }
    };
}

impl Cluster {
    /// Reads the owner's workload; `None` before there is one.
    ///
    /// # Errors
    /// [`ClusterError::Foreign`] for a workload of that name that is not the owner's.
    pub async fn owned_workload(
        &self,
        kind: WorkloadKind,
        owner: &Owner,
        at: &ObjectRef,
    ) -> Result<Option<Workload>, ClusterError> {
        of_kind!(kind, Set => {
            let set: Option<Set> = self.get(at).await?;
            set.as_ref().map_or(Ok(()), |set| owner.check(set))?;
            Ok(set.map(Workload::from))
        })
    }

    /// Whose the workload at a name is.
    pub async fn workload_standing(
        &self,
        kind: WorkloadKind,
        owner: &Owner,
        at: &ObjectRef,
    ) -> Result<Standing, ClusterError> {
        of_kind!(kind, Set => self.standing::<Set>(owner, at).await)
    }

    /// States the fields of the owner's workload; `known` is its UID, where that has been read.
    pub async fn apply_workload(
        &self,
        owner: &Owner,
        workload: &Workload,
        known: Option<&str>,
    ) -> Result<(), ClusterError> {
        match workload {
            Workload::PetSet(set) => self.apply_owned(owner, &**set, known).await.map(drop),
            Workload::StatefulSet(set) => self.apply_owned(owner, &**set, known).await.map(drop),
        }
    }

    /// Changes a workload by a merge patch.
    pub async fn patch_workload(
        &self,
        kind: WorkloadKind,
        at: &ObjectRef,
        patch: &Value,
    ) -> Result<(), ClusterError> {
        of_kind!(kind, Set => self.patch::<Set>(at, patch).await.map(drop))
    }
}
