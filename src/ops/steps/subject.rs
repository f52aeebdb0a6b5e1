//! The PgBouncer of the plan, as it was and as it will be, and what follows from either.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use super::{Bench, Side, StepError};
use crate::api::PgBouncer;
use crate::blueprint::certificates::{Wanted, wanted};
use crate::blueprint::defaults::{IssuerKind, complete};
use crate::blueprint::{Inputs, Surroundings};
use crate::cluster::Owner;
use crate::names::{Alias, ObjectRef};
use crate::ops::request::{TlsState, with_state};
use crate::pki::bundle::TrustBundle;
use crate::surroundings;

impl Bench<'_> {
    /// Names an object beside the PgBouncer.
    pub(super) fn beside(&self, name: impl Into<String>) -> ObjectRef {
        self.plan.beside(name)
    }

    /// The PgBouncer's name.
    pub(super) fn name(&self) -> &str {
        &self.plan.database.name
    }

    /// The three fields, on one side.
    pub(super) fn state(&self, side: Side) -> &TlsState {
        match side {
            Side::Former => &self.plan.former,
            Side::Target => &self.plan.target,
        }
    }

    /// Whose objects the request may touch.
    pub(super) fn owner(&self) -> Owner {
        let database = &self.plan.database;
        Owner::named::<PgBouncer>(&database.name, &database.uid)
    }

    /// The PgBouncer as it stands in the cluster: the very one of the plan.
    pub(super) async fn live(&self) -> Result<PgBouncer, StepError> {
        let at = self.plan.database_at();
        let found: Option<PgBouncer> = self.cluster.get(&at).await?;
        found
            .filter(|live| live.uid().as_deref() == Some(&self.plan.database.uid))
            .ok_or(StepError::Gone(at))
    }

    /// The PgBouncer with the fields of one side, completed.
    pub(super) async fn bouncer(&self, side: Side) -> Result<PgBouncer, StepError> {
        let mut live = self.live().await?;
        if let Some(database) = &self.plan.backend {
            live.spec.database.clone_from(database);
        }
        let spec = with_state(&live.spec, self.state(side));
        // The list of certificates is complete in both states; `Acme` adds nothing to it.
        live.spec = complete(&spec, self.name(), IssuerKind::Acme);
        Ok(live)
    }

    /// What is around the PgBouncer of one side.
    pub(super) async fn around(&self, bouncer: &PgBouncer) -> Result<Surroundings, StepError> {
        // Boxed, because every step's future would contain it.
        let read = surroundings::read(self.cluster, bouncer, self.kind);
        Ok(Box::pin(read).await?)
    }

    /// The input of all objects of one side, with the PgBouncer they are for.
    pub(super) async fn inputs(&self, side: Side) -> Result<(PgBouncer, Inputs), StepError> {
        let bouncer = self.bouncer(side).await?;
        let around = self.around(&bouncer).await?;
        let inputs = Inputs::new(&bouncer, &around)?;
        Ok((bouncer, inputs))
    }

    /// The certificates that one side wants, by alias.
    pub(super) async fn wanted(
        &self,
        bouncer: &PgBouncer,
    ) -> Result<BTreeMap<Alias, Wanted>, StepError> {
        let service: Option<Service> = self.cluster.get(&self.plan.database_at()).await?;
        let service = service.filter(|service| self.owner().check(service).is_ok());
        let outside = service.as_ref().map(surroundings::load_balancer);
        let all = wanted(bouncer, &outside.unwrap_or_default())?;
        Ok(all
            .into_iter()
            .map(|wanted| (wanted.alias, wanted))
            .collect())
    }

    /// The bundle that stood beside an alias before.
    pub(super) fn former_trust(&self, alias: Alias) -> Result<TrustBundle, StepError> {
        let Some(held) = self.plan.published.get(&alias) else {
            return Ok(TrustBundle::default());
        };
        TrustBundle::from_pem(&held.trust)
            .map_err(|source| StepError::FormerTrust { alias, source })
    }
}
