//! From a specification to its objects, as they are to be written. What they need first is made here: the
//! auth Secret, and material where TLS is on.

use super::Provisioner;
use super::blocked::Blocked;
use super::observe::Found;
use crate::api::Located;
use crate::api::PgBouncer;
use crate::blueprint::{self, Inputs, InputsError, WorkloadKind, throttling_defaults};
use crate::cluster::{ClusterError, Foreign};
use crate::surroundings;

/// The objects of a PgBouncer, in a stage of their making.
pub(super) struct Resources<S> {
    /// What their pods are to carry.
    pub(super) digest: String,
    pub(super) stage: S,
}

/// They are built, and not written yet.
pub(super) struct Prepared {
    pub(super) objects: blueprint::Resources,
    /// Defaults that throttle each database, with their values.
    pub(super) throttling: Vec<(&'static str, String)>,
}

/// They are in the cluster.
pub(super) struct Applied {
    /// Foreign objects that the pooler works without.
    pub(super) spared: Vec<Foreign>,
}

impl Provisioner {
    /// Builds the objects of a validated specification. `bouncer` is always as it was last written,
    /// also when this fails.
    pub(super) async fn build(
        &self,
        bouncer: &mut PgBouncer,
        found: Found,
    ) -> Result<Resources<Prepared>, Blocked> {
        self.ensure_auth(bouncer, found.auth).await?;
        let namespace = bouncer.home();
        let kind = self.workload_kind(&namespace).await?;
        surroundings::check_references(&self.cluster, bouncer, self.references).await?;
        let mut around = surroundings::read(&self.cluster, bouncer, kind).await?;
        // Text that cannot be written is refused before a certificate or an object is made for it.
        blueprint::examine(bouncer, &around).map_err(InputsError::from)?;
        if self
            .ensure_certificates(bouncer, &around.load_balancer)
            .await?
        {
            around = surroundings::read(&self.cluster, bouncer, kind).await?;
        }
        let inputs = Inputs::new(bouncer, &around)?;
        let throttling = throttling_defaults(inputs.ini(), bouncer);
        Ok(Resources {
            digest: inputs.digest(),
            stage: Prepared {
                objects: blueprint::build(&inputs)?,
                throttling,
            },
        })
    }

    async fn workload_kind(&self, namespace: &str) -> Result<WorkloadKind, ClusterError> {
        self.workload
            .get_or_try_init(|| surroundings::workload_kind(&self.cluster, namespace))
            .await
            .copied()
    }
}
