//! TLS towards PostgreSQL: a change of it is proven before a pooler is told.
//!
//! `surroundings` builds with what is published until then, so that a wrong CA in an AppBinding stops
//! nothing else. Only here is what is wanted put in its place, so requests carry what is published
//! into their pods and never something that nobody has tried.

use super::Provisioner;
use super::copies::Copies;
use super::health;
use super::validate::Blocked;
use crate::api::PgBouncer;
use crate::blueprint::{Inputs, Surroundings};
use crate::surroundings::prove_backend;

impl Provisioner {
    /// Puts what is wanted in force if it is proven. The outer error ends the look: nothing is in
    /// force before it, so there is nothing to build. The inner one is for its end.
    ///
    /// A PostgreSQL that cannot be asked is not waited for where nothing is in force: a PgBouncer may
    /// be created before its PostgreSQL runs, and its poolers verify by themselves.
    pub(super) async fn prove_backend(
        &self,
        around: &mut Surroundings,
    ) -> Result<Result<(), Blocked>, Blocked> {
        let Some(wanted) = around.unproven.take() else {
            return Ok(Ok(()));
        };
        let is_new = wanted == around.backend;
        let Err(source) = prove_backend(&self.cluster, &wanted, self.clock.now()).await else {
            around.backend = wanted;
            return Ok(Ok(()));
        };
        if is_new && source.is_verdict() {
            let consequence = "nothing is made that could not connect";
            return Err(Blocked::Backend {
                consequence,
                source,
            });
        }
        if is_new {
            let error = &source as &dyn std::error::Error;
            tracing::warn!(error, "TLS towards PostgreSQL is not proven yet");
            return Ok(Ok(()));
        }
        let consequence = "the former configuration stays in force";
        Ok(Err(Blocked::Backend {
            consequence,
            source,
        }))
    }

    /// Leaves files of former configurations out once every pod has taken up this one.
    pub(super) fn without_needless_files(
        &self,
        bouncer: &PgBouncer,
        inputs: Inputs,
        copies: &Copies,
    ) -> Inputs {
        let pods = health::pods(bouncer, Some(&inputs.digest()), copies);
        let wanted = bouncer.spec.replicas.unwrap_or(1);
        let are_all = i32::try_from(pods.len()).is_ok_and(|there| there >= wanted);
        if are_all && pods.iter().all(|pod| !pod.is_stale) {
            return inputs.without_former_files();
        }
        inputs
    }
}
