//! Material of a PgBouncer that is created with TLS: issued and published before there are pods.
//!
//! Only what is missing is made. Material that is published is never renewed or exchanged here:
//! that is a request's work, which carries it into the pods.

use kube::ResourceExt;

use super::Provisioner;
use super::blocked::Blocked;
use crate::api::PgBouncer;
use crate::blueprint::certificates::{LoadBalancer, Wanted, wanted};
use crate::blueprint::names;
use crate::causes::chain;
use crate::cluster::{ClusterError, EventKind};
use crate::material::{IssueOutcome, MaterialError, Published, Revisioned};
use crate::names::Alias;
use crate::pki::bundle::TrustBundle;
use crate::retry::Retry;

impl Provisioner {
    /// Makes and publishes the material that is missing; says whether anything was published.
    ///
    /// All aliases are issued before the first is published, so that a failure leaves nothing half
    /// done, and so that the bundle beside each holds the anchors of all.
    pub(super) async fn ensure_certificates(
        &self,
        bouncer: &PgBouncer,
        outside: &LoadBalancer,
    ) -> Result<bool, Blocked> {
        let (missing, present) = self.missing(bouncer, wanted(bouncer, outside)?).await?;
        if missing.is_empty() {
            return Ok(false);
        }
        self.materials
            .take_stock(bouncer)
            .await
            .map_err(|error| failed(Alias::Server, error))?;
        let mut issued = Vec::with_capacity(missing.len());
        for wanted in missing {
            let revisioned = self.issue(bouncer, &wanted).await?;
            issued.push((wanted, revisioned));
        }
        let fresh = union(issued.iter().map(|(_, revisioned)| &revisioned.anchors));
        let former = union(present.iter().map(|published| &published.bundle));
        let trust = self
            .materials
            .trust(bouncer, &fresh, &former)
            .await
            .map_err(|error| failed(Alias::Server, error))?;
        for published in &present {
            let secret = names::certificate_secret(bouncer, published.alias);
            self.materials
                .stage(bouncer, &secret, &trust)
                .await
                .map_err(|error| failed(published.alias, error))?;
        }
        for (wanted, revisioned) in &issued {
            self.materials
                .publish(bouncer, wanted, revisioned.revision, &trust)
                .await
                .map_err(|error| failed(wanted.alias, error))?;
        }
        let message = format!("Successfully issued {} certificates", issued.len());
        self.event(bouncer, EventKind::Normal, "Successful", &message)
            .await;
        tracing::info!(pgbouncer = %bouncer.name_any(), count = issued.len(), "certificates published");
        Ok(true)
    }

    /// Parts what is wanted into what is missing and what is published.
    async fn missing(
        &self,
        bouncer: &PgBouncer,
        all: Vec<Wanted>,
    ) -> Result<(Vec<Wanted>, Vec<Published>), Blocked> {
        let (mut missing, mut present) = (Vec::new(), Vec::new());
        for wanted in all {
            let found = self
                .materials
                .published(bouncer, wanted.alias, &wanted.secret_name)
                .await;
            match found.map_err(|error| failed(wanted.alias, error))? {
                Some(published) => present.push(published),
                None => missing.push(wanted),
            }
        }
        Ok((missing, present))
    }

    /// Issues one certificate, or adopts the newest revision if it is still good: it is what a
    /// former attempt, or a Secret that somebody deleted, left.
    async fn issue(&self, bouncer: &PgBouncer, wanted: &Wanted) -> Result<Revisioned, Blocked> {
        let alias = wanted.alias;
        let newest = self.materials.newest(bouncer, alias).await;
        if let Some(found) = newest.map_err(|error| failed(alias, error))?
            && found.facts.not_after > self.clock.now()
        {
            return Ok(found);
        }
        let next = self
            .materials
            .next_revision(bouncer, alias)
            .await
            .map_err(|error| failed(alias, error))?;
        match self.materials.issue(bouncer, wanted, next).await {
            IssueOutcome::Issued(revisioned) => Ok(*revisioned),
            IssueOutcome::Pending { on } => Err(Blocked::CertificatePending { on }),
            IssueOutcome::Denied { reason } => Err(Blocked::CertificateDenied { alias, reason }),
            IssueOutcome::Failed(error) => Err(failed(alias, error)),
        }
    }
}

/// Trouble of the API server passes; all else waits for somebody, and is said.
fn failed(alias: Alias, error: MaterialError) -> Blocked {
    match error {
        MaterialError::Cluster(error) if is_passing(&error) => Blocked::Passing(error),
        error => Blocked::CertificateFailed {
            alias,
            reason: chain(&error),
        },
    }
}

fn is_passing(error: &ClusterError) -> bool {
    error.retry() == Retry::Backoff
}

fn union<'a>(bundles: impl Iterator<Item = &'a TrustBundle>) -> TrustBundle {
    bundles.fold(TrustBundle::default(), |all, bundle| all.union(bundle))
}
