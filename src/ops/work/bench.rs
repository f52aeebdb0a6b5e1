//! What the steps of one request work with, and the two sides of the PgBouncer that its plan knows.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::Service;

use super::StepError;
use super::ground::{ContractSecret, Ground};
use crate::api::PgBouncer;
use crate::blueprint::Inputs;
use crate::blueprint::certificates::{Wanted, wanted};
use crate::blueprint::defaults::{IssuerKind, complete};
use crate::clock::Clock;
use crate::material::Materials;
use crate::names::Alias;
use crate::ops::journal::{Closed, NoReload, Note};
use crate::ops::plan::Plan;
use crate::ops::request::{TlsState, with_state};
use crate::pki::bundle::TrustBundle;
use crate::surroundings;

/// What steps work with.
pub(in crate::ops) struct Bench<'a> {
    /// The PgBouncer in its cluster.
    pub(in crate::ops) ground: Ground<'a>,
    /// Key material.
    pub(in crate::ops) materials: &'a Materials,
    /// Time.
    pub(in crate::ops) clock: &'a Clock,
    /// The plan.
    pub(in crate::ops) plan: &'a Plan,
    /// What the step has to tell.
    pub(in crate::ops) tally: &'a Tally,
}

/// What a step has to tell when it has succeeded; kept over its tries.
#[derive(Debug, Default)]
pub(in crate::ops) struct Tally(Mutex<Note>);

/// Which of two states of the PgBouncer is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Side {
    /// As it was before the request.
    Former,
    /// As the request wants it.
    Target,
}

// === impl Tally ===

impl Tally {
    /// Adds what a pod closed.
    pub(super) fn add(&self, pod: &str, closed: Closed) {
        self.note(|note| note.add(pod, closed));
    }

    /// Notes why a pod was restarted that was to be reloaded.
    pub(in crate::ops) fn restarted(&self, why: NoReload) {
        self.note(|note| note.restarted = Some(why));
    }

    /// Takes all of it.
    pub(in crate::ops) fn take(&self) -> Note {
        self.note(std::mem::take)
    }

    fn note<T>(&self, change: impl FnOnce(&mut Note) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Bench ===

impl Bench<'_> {
    /// The contract Secrets that a login may use during `plan`, the best first.
    pub(in crate::ops) fn secrets(plan: &Plan) -> Vec<ContractSecret> {
        Self::secrets_of(&plan.database.name, &[&plan.target, &plan.former])
    }

    /// The contract Secrets that a login may use where the PgBouncer is in one of these states: a
    /// client's before the server's, whose bundle is all that is of use.
    pub(in crate::ops) fn secrets_of(database: &str, states: &[&TlsState]) -> Vec<ContractSecret> {
        let aliases = [Alias::Client, Alias::Server].into_iter();
        let named = aliases.flat_map(|alias| states.iter().map(move |state| (alias, state)));
        named
            .filter_map(|(alias, state)| {
                let name = state.secret_name(database, alias)?;
                Some(ContractSecret { alias, name })
            })
            .collect()
    }

    /// The three fields, on one side.
    pub(in crate::ops) const fn state(&self, side: Side) -> &TlsState {
        match side {
            Side::Former => &self.plan.former,
            Side::Target => &self.plan.target,
        }
    }

    /// Name of the contract Secret of an alias, on one side.
    pub(in crate::ops) fn secret_name(&self, side: Side, alias: Alias) -> Option<String> {
        self.state(side).secret_name(self.ground.name(), alias)
    }

    /// The PgBouncer with the fields of one side, completed.
    pub(in crate::ops) async fn bouncer(&self, side: Side) -> Result<PgBouncer, StepError> {
        let mut live = self.ground.live().await?;
        if let Some(database) = &self.plan.backend {
            live.spec.database.clone_from(database);
        }
        let spec = with_state(&live.spec, self.state(side));
        // The list of certificates is complete in both states; `Acme` adds nothing to it.
        live.spec = complete(&spec, self.ground.name(), IssuerKind::Acme);
        Ok(live)
    }

    /// The input of all objects of a PgBouncer of one side.
    pub(in crate::ops) async fn inputs(&self, bouncer: &PgBouncer) -> Result<Inputs, StepError> {
        // Boxed, because the future of every step would contain it.
        let read = Box::pin(surroundings::read(
            self.ground.cluster,
            bouncer,
            self.ground.kind,
        ));
        Ok(Inputs::new(bouncer, &read.await?)?)
    }

    /// The certificates that a PgBouncer of one side wants, by alias.
    pub(in crate::ops) async fn wanted(
        &self,
        bouncer: &PgBouncer,
    ) -> Result<BTreeMap<Alias, Wanted>, StepError> {
        let service: Option<Service> = self.ground.cluster.get(&self.ground.at()).await?;
        let owner = self.ground.owner();
        let service = service.filter(|service| owner.check(service).is_ok());
        let outside = service.as_ref().map(surroundings::load_balancer);
        let all = wanted(bouncer, &outside.unwrap_or_default())?;
        let all = all.into_iter();
        Ok(all.map(|wanted| (wanted.alias, wanted)).collect())
    }

    /// The bundle that stood beside an alias before.
    pub(in crate::ops) fn former_trust(&self, alias: Alias) -> Result<TrustBundle, StepError> {
        let Some(held) = self.plan.published.get(&alias) else {
            return Ok(TrustBundle::default());
        };
        TrustBundle::from_pem(&held.trust)
            .map_err(|source| StepError::FormerTrust { alias, source })
    }
}
