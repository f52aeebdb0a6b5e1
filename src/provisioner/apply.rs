//! Writing the objects, in the order in which they need each other.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;

use super::validate::Blocked;
use super::{Provisioner, is_paused};
use crate::api::{PetSet, PgBouncer};
use crate::blueprint::{Inputs, Resources, Workload, WorkloadKind, names, throttling_defaults};
use crate::cluster::{Cluster, ClusterError, EventKind, reference};
use crate::names::ObjectRef;

impl Provisioner {
    /// States all objects (server-side apply): what is there already stays as it is.
    pub(super) async fn apply(
        &self,
        bouncer: &PgBouncer,
        inputs: &Inputs,
        resources: Resources,
    ) -> Result<(), Blocked> {
        self.check_still_ours(bouncer).await?;
        let is_first = !workload_exists(&self.cluster, bouncer, &resources.workload).await?;
        let kind = resources.workload.kind();
        Box::pin(apply_all(&self.cluster, bouncer, resources)).await?;
        if is_first {
            self.tell_created(bouncer, inputs, kind).await;
        }
        Ok(())
    }

    /// A request may have taken the object since it was read. What it writes must not be undone by
    /// what was built before.
    async fn check_still_ours(&self, bouncer: &PgBouncer) -> Result<(), Blocked> {
        let now: Option<PgBouncer> = self.cluster.get(&reference(bouncer)).await?;
        match now {
            Some(now)
                if !is_paused(&now)
                    && now.uid() == bouncer.uid()
                    && now.metadata.generation == bouncer.metadata.generation =>
            {
                Ok(())
            }
            _ => Err(Blocked::TakenOver),
        }
    }

    async fn tell_created(&self, bouncer: &PgBouncer, inputs: &Inputs, kind: WorkloadKind) {
        let kind = kind.to_string();
        for what in ["governing service", "Service", "AppBinding", &kind] {
            let message = format!("Successfully created {what}");
            self.event(bouncer, EventKind::Normal, "Successful", &message)
                .await;
        }
        let throttling: Vec<String> = throttling_defaults(inputs.ini(), bouncer)
            .into_iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        if !throttling.is_empty() {
            let message = format!(
                "the defaults {} throttle each database to that many server connections; set \
                 spec.connectionPool.maxDBConnections and maxUserConnections to change them",
                throttling.join(", ")
            );
            self.event(bouncer, EventKind::Warning, "ThrottlingDefaults", &message)
                .await;
        }
    }
}

async fn apply_all(
    cluster: &Cluster,
    bouncer: &PgBouncer,
    resources: Resources,
) -> Result<(), ClusterError> {
    let name = bouncer.name_any();
    let here = |name: String| ObjectRef::new(bouncer.namespace().unwrap_or_default(), name);
    let Resources {
        service_account,
        governing,
        primary,
        stats,
        backend,
        config,
        disruption_budget,
        binding,
        mut workload,
    } = resources;
    cluster.apply(&service_account).await?;
    cluster.apply(&governing).await?;
    cluster.apply(&primary).await?;
    if let Some(stats) = stats {
        cluster.apply(&stats).await?;
    } else {
        let at = here(names::stats_service(&name));
        cluster.delete::<Service>(&at, None).await?;
    }
    let backend = cluster.apply(&backend).await?;
    cluster.apply(&config).await?;
    if let Some(budget) = disruption_budget {
        cluster.apply(&budget).await?;
    } else {
        cluster
            .delete::<PodDisruptionBudget>(&here(name), None)
            .await?;
    }
    cluster.apply(&binding).await?;
    if let Some(version) = backend.resource_version() {
        workload.set_backend_secret_version(&version);
    }
    match workload {
        Workload::PetSet(set) => drop(cluster.apply(set.as_ref()).await?),
        Workload::StatefulSet(set) => drop(cluster.apply(set.as_ref()).await?),
    }
    Ok(())
}

async fn workload_exists(
    cluster: &Cluster,
    bouncer: &PgBouncer,
    workload: &Workload,
) -> Result<bool, ClusterError> {
    let at = reference(bouncer);
    Ok(match workload {
        Workload::PetSet(_) => cluster.get::<PetSet>(&at).await?.is_some(),
        Workload::StatefulSet(_) => cluster
            .get::<k8s_openapi::api::apps::v1::StatefulSet>(&at)
            .await?
            .is_some(),
    })
}
