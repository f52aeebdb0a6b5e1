//! Reads what a plan needs to know, and has it judged ([`super::plan::judge`]). Nothing is written here:
//! the same plan can be shown to a person who only asks what would happen.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::error::PlanError;
use super::ledger;
use super::plan::judge::{Asked, RunningPod, Seen, judge, read};
use super::plan::{Holding, Plan};
use super::request::{Change, TlsState, target_state};
use super::work::pods::{Set, is_ready, workload_of};
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::blueprint::defaults::IssuerKind;
use crate::blueprint::{Surroundings, WorkloadKind, labels};
use crate::causes::chain;
use crate::cluster::{Cluster, ClusterError};
use crate::material::{MaterialError, Materials};
use crate::names::{Alias, Revision};
use crate::surroundings::{self, SurroundingsError};

/// What a plan is made with.
#[derive(Clone, Copy)]
pub struct Planner<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Key material.
    pub materials: &'a Materials,
    /// What makes pods here.
    pub kind: WorkloadKind,
}

impl Planner<'_> {
    /// Makes the plan of `request` for `database`: reads first, then judges.
    pub async fn plan(
        &self,
        request: &PgBouncerOpsRequest,
        database: &PgBouncer,
    ) -> Result<Plan, PlanError> {
        let asked = read(request, database)?;
        let seen = self.observe(&asked, database).await?;
        let plan = judge(request, database, asked, seen)?;
        ledger::check_room(&plan)?;
        Ok(plan)
    }

    /// Reads all that the plan of what is asked for depends on.
    async fn observe(&self, asked: &Asked, database: &PgBouncer) -> Result<Seen, PlanError> {
        let signer = self.signer(database, &asked.change).await?;
        let name = database.name_any();
        let target = target_state(&name, &database.spec, &asked.change, signer);
        let set = self.workload(database).await?;
        Ok(Seen {
            around: self.around(database).await?,
            running: self.running(database, set.as_ref()).await?,
            replicas: replicas(database, set.as_ref()),
            published: self.published(database).await?,
            next: self.next(database, &target).await?,
            unwritable: self.unwritable(database, &target).await?,
            target,
        })
    }

    /// What is around the PgBouncer; `None` where that is incomplete.
    async fn around(&self, database: &PgBouncer) -> Result<Option<Surroundings>, PlanError> {
        match surroundings::read(self.cluster, database, self.kind).await {
            Ok(around) => Ok(Some(around)),
            Err(SurroundingsError::Cluster(error)) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }

    /// What is known of the issuer after the change. One that is not there yet signs, presumably.
    pub(super) async fn signer(
        &self,
        database: &PgBouncer,
        change: &Change,
    ) -> Result<IssuerKind, PlanError> {
        let present = database.spec.tls.as_ref();
        let present = present.and_then(|tls| tls.issuer_ref.as_ref());
        let issuer = match change {
            Change::Add { issuer, .. } | Change::ChangeIssuer { issuer, .. } => Some(issuer),
            Change::UpdateCertificates { .. }
            | Change::Rotate { .. }
            | Change::Remove { .. }
            | Change::Mode(_)
            | Change::Restart
            | Change::NoOp => present,
        };
        let Some(issuer) = issuer else {
            return Ok(IssuerKind::Private);
        };
        let namespace = database.namespace().unwrap_or_default();
        match surroundings::issuer_kind(self.cluster, &namespace, issuer).await {
            Ok(kind) => Ok(kind),
            Err(SurroundingsError::Cluster(error)) => Err(error.into()),
            Err(_) => Ok(IssuerKind::Private),
        }
    }

    /// Why material of the aliases that the target has could not be published where it belongs.
    async fn unwritable(
        &self,
        database: &PgBouncer,
        target: &TlsState,
    ) -> Result<BTreeMap<Alias, String>, PlanError> {
        let mut all = BTreeMap::new();
        for alias in target.aliases() {
            let Some(secret) = target.secret_name(&database.name_any(), alias) else {
                continue;
            };
            match self.materials.check_writable(database, &secret).await {
                Ok(()) => {}
                Err(MaterialError::Cluster(error)) => return Err(error.into()),
                Err(error) => drop(all.insert(alias, chain(&error))),
            }
        }
        Ok(all)
    }

    async fn published(&self, database: &PgBouncer) -> Result<BTreeMap<Alias, Holding>, PlanError> {
        let state = TlsState::of(&database.spec);
        let mut held = BTreeMap::new();
        for alias in state.aliases() {
            let Some(secret) = state.secret_name(&database.name_any(), alias) else {
                continue;
            };
            let found = match self.materials.published(database, alias, &secret).await {
                Ok(found) => found,
                Err(MaterialError::Cluster(error)) => return Err(error.into()),
                Err(error) => {
                    // What cannot be read cannot be put back either; it is issued anew.
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(alias = %alias, error, "published material is unreadable");
                    None
                }
            };
            if let Some(found) = found
                && let Some(revision) = found.revision
                && self.is_kept(database, alias, revision).await?
            {
                let trust = found.bundle.to_pem();
                held.insert(alias, Holding { revision, trust });
            }
        }
        Ok(held)
    }

    /// Whether a revision is there and ours. One that is not cannot be put back, and is issued anew.
    async fn is_kept(
        &self,
        database: &PgBouncer,
        alias: Alias,
        revision: Revision,
    ) -> Result<bool, PlanError> {
        match self.materials.revision(database, alias, revision).await {
            Ok(found) => Ok(found.is_some()),
            Err(MaterialError::Cluster(error)) => Err(error.into()),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(alias = %alias, error, "published revision is not ours");
                Ok(false)
            }
        }
    }

    async fn next(
        &self,
        database: &PgBouncer,
        target: &TlsState,
    ) -> Result<BTreeMap<Alias, Revision>, PlanError> {
        let mut numbers = BTreeMap::new();
        for alias in target.aliases() {
            let number = match self.materials.next_revision(database, alias).await {
                Ok(number) => number,
                Err(MaterialError::Cluster(error)) => return Err(error.into()),
                Err(error) => return Err(PlanError::Unworkable(chain(&error))),
            };
            numbers.insert(alias, number);
        }
        Ok(numbers)
    }

    /// The workload of the PgBouncer.
    pub(super) async fn workload(&self, database: &PgBouncer) -> Result<Option<Set>, PlanError> {
        match workload_of(self.cluster, self.kind, database).await {
            Err(ClusterError::Foreign(foreign)) => Err(PlanError::Unworkable(foreign.to_string())),
            found => Ok(found?),
        }
    }

    /// The pods that the workload has made.
    async fn running(
        &self,
        database: &PgBouncer,
        set: Option<&Set>,
    ) -> Result<Vec<RunningPod>, PlanError> {
        let Some(set) = set else {
            return Ok(Vec::new());
        };
        let selector = labels::to_selector_text(&labels::selector(&database.name_any()));
        let namespace = database.namespace().unwrap_or_default();
        let pods: Vec<Pod> = self.cluster.list(&namespace, &selector).await?;
        let made = pods.into_iter().filter(|pod| set.has_made(pod));
        let running = made.map(|pod| RunningPod {
            is_ready: is_ready(&pod),
            pod,
        });
        Ok(running.collect())
    }
}

/// How many pods there should be: none before there is a workload, and none of a halted one.
pub(super) fn replicas(database: &PgBouncer, set: Option<&Set>) -> u32 {
    if set.is_none_or(|set| set.replicas == 0) {
        return 0;
    }
    u32::try_from(database.spec.replicas.unwrap_or(1)).unwrap_or(1)
}
