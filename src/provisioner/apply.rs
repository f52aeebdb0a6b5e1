//! Writing the objects, in the order in which they need each other.

use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;

use super::around::Kind;
use super::blocked::Blocked;
use super::build::{Applied, Prepared, Resources};
use super::copies::{Claim, Copies};
use super::health::PodState;
use super::report::LOOKS_BEFORE_DOUBT;
use super::{Provisioner, is_paused};
use crate::api::Located;
use crate::api::PgBouncer;
use crate::blueprint::{self, Workload, WorkloadKind, labels, names};
use crate::cluster::{
    Cluster, ClusterError, EventKind, Foreign, Namespaced, Owner, Standing, reference,
};
use crate::names::ObjectRef;

/// Missing pods whose names are looked up: all of a workload are missing for one reason.
const SQUATTERS_MAX: usize = 3;

impl Provisioner {
    /// Writes all objects, in the order in which they need each other.
    pub(super) async fn apply(
        &self,
        bouncer: &PgBouncer,
        prepared: Resources<Prepared>,
        copies: &Copies,
    ) -> Result<Resources<Applied>, Blocked> {
        let Resources { digest, stage } = prepared;
        self.check_still_ours(bouncer).await?;
        let kind = stage.objects.workload.kind();
        let is_first = !workload_exists(&self.cluster, bouncer, kind, copies).await?;
        let writing = Writing::new(&self.cluster, bouncer, copies);
        let spared = Box::pin(writing.all(stage.objects)).await?;
        if is_first {
            self.tell_created(bouncer, kind, &stage.throttling).await;
        }
        Ok(Resources {
            digest,
            stage: Applied { spared },
        })
    }

    /// Pods that have the names of missing ones and that the workload has not made: they are in its
    /// way. A few are named, because all have one reason.
    pub(super) async fn squatters(
        &self,
        bouncer: &PgBouncer,
        pods: &[PodState],
        copies: &Copies,
    ) -> Result<Vec<Foreign>, ClusterError> {
        let at = reference(bouncer);
        // Pods take their time, and mostly nothing is in their way.
        let is_late = self.memory.has_failed(&at, LOOKS_BEFORE_DOUBT);
        let Claim::Ours(workload) = copies.claim(Kind::Workload, &at, bouncer) else {
            return Ok(Vec::new());
        };
        if !is_late {
            return Ok(Vec::new());
        }
        let owner = Owner::of(bouncer).through(Some(workload.to_string()));
        let wanted = (0..bouncer.spec.replicas.unwrap_or(1)).map(|n| names::pod(&at.name, n));
        let missing = wanted.filter(|name| pods.iter().all(|pod| pod.name != *name));
        let mut found = Vec::new();
        for name in missing.take(SQUATTERS_MAX) {
            let at = ObjectRef::new(&at.namespace, name);
            let standing = self.cluster.standing::<Pod>(&owner, &at).await?;
            if let Standing::Foreign(foreign) = standing {
                found.push(*foreign);
            }
        }
        Ok(found)
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

    async fn tell_created(
        &self,
        bouncer: &PgBouncer,
        kind: WorkloadKind,
        throttling: &[(&'static str, String)],
    ) {
        let kind = kind.to_string();
        for what in ["governing service", "Service", "AppBinding", &kind] {
            let message = format!("Successfully created {what}");
            self.event(bouncer, EventKind::Normal, "Successful", &message)
                .await;
        }
        let throttling: Vec<String> = throttling
            .iter()
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

/// The objects of one PgBouncer, as they are written.
struct Writing<'a> {
    cluster: &'a Cluster,
    bouncer: &'a PgBouncer,
    owner: Owner,
    copies: &'a Copies,
    /// Objects that are not ours, at names that the pooler cannot do without.
    needed: Vec<Foreign>,
    /// The same, of those that it works without.
    spared: Vec<Foreign>,
}

impl<'a> Writing<'a> {
    fn new(cluster: &'a Cluster, bouncer: &'a PgBouncer, copies: &'a Copies) -> Self {
        Self {
            cluster,
            bouncer,
            owner: Owner::of(bouncer),
            copies,
            needed: Vec::new(),
            spared: Vec::new(),
        }
    }

    /// Writes all objects but the workload while one of the others is foreign: pods would start
    /// with the files, or behind the Service, of another.
    async fn all(mut self, objects: blueprint::Resources) -> Result<Vec<Foreign>, Blocked> {
        let blueprint::Resources {
            service_account,
            governing,
            primary,
            stats,
            backend,
            config,
            disruption_budget,
            binding,
            mut workload,
        } = objects;
        self.one(Kind::ServiceAccount, &service_account).await?;
        self.one(Kind::Service, &governing).await?;
        self.one(Kind::Service, &primary).await?;
        let backend = self.secret(&backend).await?;
        self.secret(&config).await?;
        self.one(Kind::AppBinding, &binding).await?;
        self.stats(stats).await?;
        self.budget(disruption_budget).await?;
        if let Some(version) = backend.and_then(|backend| backend.resource_version()) {
            workload.set_backend_secret_version(&version);
        }
        if self.needed.is_empty() {
            self.workload(&workload).await?;
        } else {
            self.look_at_workload(workload.kind()).await?;
        }
        if self.needed.is_empty() {
            return Ok(self.spared);
        }
        self.needed.append(&mut self.spared);
        Err(Blocked::Foreign(self.needed))
    }

    /// Writes an object; `None` if a foreign one has its name.
    async fn one<K: Namespaced>(
        &mut self,
        kind: Kind,
        object: &K,
    ) -> Result<Option<K>, ClusterError> {
        let owner = self.owner.clone();
        let written = self.write(&owner, kind, object).await;
        sort_out(written, &mut self.needed)
    }

    async fn workload(&mut self, workload: &Workload) -> Result<(), ClusterError> {
        let (owner, known) = (
            &self.owner,
            self.known(Kind::Workload, &self.bouncer.name_any()),
        );
        let written = self
            .cluster
            .apply_workload(owner, workload, known.as_deref());
        sort_out(written.await, &mut self.needed).map(drop)
    }

    /// Writes a Secret. One that an earlier PgBouncer of that name has left is taken up again.
    async fn secret(&mut self, secret: &Secret) -> Result<Option<Secret>, ClusterError> {
        let owner = labels::heir(self.bouncer);
        let written = self.write(&owner, Kind::Secret, secret).await;
        sort_out(written, &mut self.needed)
    }

    async fn stats(&mut self, stats: Option<Service>) -> Result<(), ClusterError> {
        let owner = self.owner.clone();
        if let Some(stats) = stats {
            let written = self.write(&owner, Kind::Service, &stats).await;
            return sort_out(written, &mut self.spared).map(drop);
        }
        let name = names::stats_service(&self.bouncer.name_any());
        self.remove::<Service>(&owner, Kind::Service, name).await
    }

    async fn budget(&mut self, budget: Option<PodDisruptionBudget>) -> Result<(), ClusterError> {
        let (kind, name) = (Kind::DisruptionBudget, self.bouncer.name_any());
        // KubeDB's budgets are its workload's.
        let workload = self.known(Kind::Workload, &name);
        let owner = self.owner.clone().through(workload);
        if let Some(budget) = budget {
            let written = self.write(&owner, kind, &budget).await;
            return sort_out(written, &mut self.spared).map(drop);
        }
        self.remove::<PodDisruptionBudget>(&owner, kind, name).await
    }

    /// Says whose the workload is, without writing it.
    async fn look_at_workload(&mut self, kind: WorkloadKind) -> Result<(), ClusterError> {
        let at = reference(self.bouncer);
        let standing = self
            .cluster
            .workload_standing(kind, &self.owner, &at)
            .await?;
        if let Standing::Foreign(foreign) = standing {
            self.needed.push(*foreign);
        }
        Ok(())
    }

    async fn write<K: Namespaced>(
        &self,
        owner: &Owner,
        kind: Kind,
        object: &K,
    ) -> Result<K, ClusterError> {
        let known = self.known(kind, &object.name_any());
        self.cluster
            .apply_owned(owner, object, known.as_deref())
            .await
    }

    /// Deletes an object that is no longer asked for, if it is ours.
    async fn remove<K: Namespaced>(
        &self,
        owner: &Owner,
        kind: Kind,
        name: String,
    ) -> Result<(), ClusterError> {
        if self.claim(kind, &name) == Claim::Absent {
            return Ok(());
        }
        let at = self.beside(name);
        self.cluster.delete_owned::<K>(owner, &at).await.map(drop)
    }

    /// UID of an object that is known to be ours.
    fn known(&self, kind: Kind, name: &str) -> Option<String> {
        match self.claim(kind, name) {
            Claim::Ours(uid) => Some(uid.to_string()),
            Claim::Unknown | Claim::Absent | Claim::Unproved => None,
        }
    }

    fn claim(&self, kind: Kind, name: &str) -> Claim {
        self.copies.claim(kind, &self.beside(name), self.bouncer)
    }

    fn beside(&self, name: impl Into<String>) -> ObjectRef {
        self.bouncer.beside(name)
    }
}

/// Puts what is foreign aside.
fn sort_out<K>(
    written: Result<K, ClusterError>,
    foreign: &mut Vec<Foreign>,
) -> Result<Option<K>, ClusterError> {
    match written {
        Err(ClusterError::Foreign(found)) => {
            foreign.push(*found);
            Ok(None)
        }
        written => written.map(Some),
    }
}

async fn workload_exists(
    cluster: &Cluster,
    bouncer: &PgBouncer,
    kind: WorkloadKind,
    copies: &Copies,
) -> Result<bool, ClusterError> {
    let at = reference(bouncer);
    if matches!(copies.claim(Kind::Workload, &at, bouncer), Claim::Ours(_)) {
        return Ok(true);
    }
    let owner = Owner::of(bouncer);
    let standing = cluster.workload_standing(kind, &owner, &at).await?;
    Ok(matches!(standing, Standing::Ours { .. }))
}
