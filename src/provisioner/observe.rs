//! The first look: finalizer, stored defaults, the first condition.

use kube::ResourceExt;

use super::validate::{self, Blocked};
use super::{ProvisionError, Provisioner};
use crate::api::PgBouncer;
use crate::blueprint::defaults::{self, IssuerKind};
use crate::cluster::reference;
use crate::surroundings;

impl Provisioner {
    /// Puts our finalizer on the object and says that work has begun.
    pub(super) async fn begin(&self, bouncer: PgBouncer) -> Result<PgBouncer, ProvisionError> {
        let at = reference(&bouncer);
        let bouncer = match validate::finalizer(&bouncer) {
            Some(patch) => self.cluster.patch(&at, &patch).await?,
            None => bouncer,
        };
        self.report_started(bouncer).await
    }

    /// Writes back what the specification leaves open, as an admission webhook would (CONTRACT 3.1).
    pub(super) async fn complete(&self, bouncer: &mut PgBouncer) -> Result<(), Blocked> {
        let issuer = self.issuer_kind(bouncer).await?;
        let completed = defaults::complete(&bouncer.spec, &bouncer.name_any(), issuer);
        if let Some(patch) = validate::completion(bouncer, &completed) {
            *bouncer = self.cluster.patch(&reference(bouncer), &patch).await?;
        }
        Ok(())
    }

    /// The common issuer's kind; it is looked up only where the list of certificates is incomplete.
    async fn issuer_kind(&self, bouncer: &PgBouncer) -> Result<IssuerKind, Blocked> {
        let Some(tls) = &bouncer.spec.tls else {
            return Ok(IssuerKind::Private);
        };
        let mut completed = tls.clone();
        defaults::complete_tls(&mut completed, &bouncer.name_any(), IssuerKind::Private);
        match &tls.issuer_ref {
            Some(issuer) if completed != *tls => {
                let namespace = bouncer.namespace().unwrap_or_default();
                Ok(surroundings::issuer_kind(&self.cluster, &namespace, issuer).await?)
            }
            _ => Ok(IssuerKind::Private),
        }
    }
}
