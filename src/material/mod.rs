//! Revisions of the TLS material of one PgBouncer: issue, stage, publish, take back.
//!
//! A *revision* is an immutable Secret `<db>-<alias>-cert-r<N>` with a key that was made here and
//! the chain that an issuer signed for it. *Publishing* copies a revision into the contract Secret
//! (`<db>-<alias>-cert`) by compare-and-swap, after the chain has been verified once more against
//! the very bundle that is published beside it (invariant I1). *Staging* publishes trust alone: the
//! bundle grows before the first leaf that needs it appears, and shrinks only when no known live
//! certificate needs an anchor any more (invariant I6). Undo is publishing the former revision.
//!
//! What is staged is sealed (`sealed`): a Secret that others have made is never taken for a revision.
//! Policies are asked before any issuer is. Every act may be repeated: what is there already is read
//! and adopted.

mod error;
mod gate;
mod issue;
mod metrics;
mod profile;
mod sealed;
mod season;
mod secret;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use time::OffsetDateTime;

pub use self::error::MaterialError;
use self::gate::Gate;
pub use self::gate::policy_request;
pub use self::metrics::IssuanceMetrics;
use self::profile::leaf_profile;
use self::sealed::Staged;
pub use self::sealed::{SealError, seal_of};
use crate::api::PgBouncer;
use crate::blueprint::certificates::Wanted;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::issuer::{Issuers, VaultNetworks};
use crate::names::{Alias, ObjectRef, Revision};
use crate::pki::bundle::TrustBundle;
use crate::pki::chain::{CertificateChain, Expectation};
use crate::pki::facts::CertificateFacts;
use crate::policy::Policies;
use crate::redacted::Wiped;
use crate::seal::Seal;

/// Revisions of one alias that are kept at the most. Those of the past tell which certificates
/// clients may still hold; more than this many in their lifetime is not a rotation but a loop.
pub const REVISIONS_KEPT_MAX: usize = 16;
/// Revisions that are kept whatever their age: the present one and the one to go back to.
const REVISIONS_KEPT_MIN: usize = 2;

/// A revision as it was issued.
#[derive(Clone, Debug)]
pub struct Revisioned {
    /// What it is for.
    pub alias: Alias,
    /// Its number.
    pub revision: Revision,
    /// What its leaf says.
    pub facts: CertificateFacts,
    /// Its leaf and intermediates.
    pub chain: CertificateChain,
    /// The anchors that its issuer named.
    pub anchors: TrustBundle,
    /// Whether its leaf ends earlier than asked for, because its CA does.
    pub clamped: bool,
}

/// What the contract Secret of an alias holds.
#[derive(Clone, Debug)]
pub struct Published {
    /// What it is for.
    pub alias: Alias,
    /// The revision it was copied from; none for a Secret that somebody else wrote.
    pub revision: Option<Revision>,
    /// What its leaf says.
    pub facts: CertificateFacts,
    /// The bundle beside it.
    pub bundle: TrustBundle,
}

/// What came of asking for a certificate.
#[derive(Debug)]
pub enum IssueOutcome {
    /// It is there, verified, in its revision Secret.
    Issued(Box<Revisioned>),
    /// Not yet: ask again when `on` has changed.
    Pending {
        /// Whom or what we wait for.
        on: String,
    },
    /// The issuer, or a policy, says no.
    Denied {
        /// Why.
        reason: String,
    },
    /// It cannot be issued as things stand.
    Failed(MaterialError),
}

/// The material of all PgBouncers.
#[derive(Clone)]
pub struct Materials {
    cluster: Cluster,
    issuers: Issuers,
    gate: Gate,
    clock: Clock,
    metrics: IssuanceMetrics,
    seal: Option<Seal>,
}

impl Materials {
    /// Keeps material in `cluster`; the Secrets of ClusterIssuers are in
    /// `cluster_resource_namespace`. Without a seal ([`Materials::with_seal`]) nothing can be issued or
    /// published; it can only be told what would be.
    pub fn new(cluster: Cluster, clock: Clock, cluster_resource_namespace: &str) -> Self {
        let issuers = Issuers::new(cluster.clone(), clock.clone(), cluster_resource_namespace);
        Self {
            cluster,
            issuers,
            gate: Gate::new(Policies::builtin()),
            clock,
            metrics: IssuanceMetrics::default(),
            seal: None,
        }
    }

    /// Seals what is staged, and believes nothing else.
    #[must_use]
    pub fn with_seal(self, seal: Seal) -> Self {
        Self {
            seal: Some(seal),
            ..self
        }
    }

    /// The seal.
    pub const fn seal(&self) -> Option<&Seal> {
        self.seal.as_ref()
    }

    /// Issues only what `policies` allow, in place of those that are built in.
    #[must_use]
    pub fn with_policies(mut self, policies: Policies) -> Self {
        self.gate = Gate::new(policies);
        self
    }

    /// Asks Vault servers in `networks` only.
    #[must_use]
    pub fn with_vault_networks(mut self, networks: VaultNetworks) -> Self {
        self.issuers = self.issuers.with_vault_networks(networks);
        self
    }

    /// Counts in `metrics`.
    #[must_use]
    pub fn with_metrics(mut self, metrics: IssuanceMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Makes a key, has it signed, verifies the answer and keeps it as `revision`. A revision that
    /// is there already is adopted: this is what a repeat after a crash finds.
    pub async fn issue(
        &self,
        owner: &PgBouncer,
        wanted: &Wanted,
        revision: Revision,
    ) -> IssueOutcome {
        let issued = self.issue_or_fail(owner, wanted, revision).await;
        let outcome = issued.unwrap_or_else(IssueOutcome::Failed);
        let namespace = owner.namespace().unwrap_or_default();
        self.metrics.count(namespace, &wanted.issuer, &outcome);
        outcome
    }

    /// Reads a revision; `None` if it is not there. One that a daemon with our key has not staged is
    /// refused.
    pub async fn revision(
        &self,
        owner: &PgBouncer,
        alias: Alias,
        revision: Revision,
    ) -> Result<Option<Revisioned>, MaterialError> {
        let at = secret::revision_ref(owner, alias, revision);
        let Some(found) = self.cluster.get_secret(&at).await? else {
            return Ok(None);
        };
        self.check_ours(owner, Staged::revision(alias, revision), &found)?;
        secret::read_revision(&found, alias, revision).map(Some)
    }

    /// The newest revision of `alias`; `None` if there is none.
    pub async fn newest(
        &self,
        owner: &PgBouncer,
        alias: Alias,
    ) -> Result<Option<Revisioned>, MaterialError> {
        let kept = self.revisions(owner, alias).await?;
        let numbered = kept
            .iter()
            .filter_map(|secret| Some((secret::revision_of(secret)?, secret)));
        let newest = numbered.max_by_key(|(number, _)| *number);
        newest
            .map(|(number, secret)| secret::read_revision(secret, alias, number))
            .transpose()
    }

    /// What the contract Secret of an alias holds; `None` if there is no Secret, or no material in
    /// it.
    pub async fn published(
        &self,
        owner: &PgBouncer,
        alias: Alias,
        secret_name: &str,
    ) -> Result<Option<Published>, MaterialError> {
        let found = self.cluster.get_secret(&at(owner, secret_name)).await?;
        match found {
            Some(found) => secret::read_published(&found, alias),
            None => Ok(None),
        }
    }

    /// Refuses a contract Secret that nothing could be published in, because somebody else holds it.
    pub async fn check_writable(
        &self,
        owner: &PgBouncer,
        secret_name: &str,
    ) -> Result<(), MaterialError> {
        let at = at(owner, secret_name);
        match self.cluster.get_secret(&at).await? {
            Some(found) => secret::check_writable(&found, owner, &at),
            None => Ok(()),
        }
    }

    /// The bundle to publish beside `fresh`: its anchors first, then of `former` those that a known
    /// live certificate still needs. Known are all kept revisions; a client may hold any that has
    /// not expired. Readers that trust one of them by `fresh` or `former` alone trust it by the whole.
    pub async fn trust(
        &self,
        owner: &PgBouncer,
        fresh: &TrustBundle,
        former: &TrustBundle,
    ) -> Result<TrustBundle, MaterialError> {
        let mut live = Vec::new();
        for alias in Alias::ALL {
            for kept in self.revisions(owner, alias).await? {
                if let Some(revision) = secret::revision_of(&kept) {
                    live.push(secret::read_revision(&kept, alias, revision)?.chain);
                }
            }
        }
        let now = self.clock.now();
        let all = fresh.union(former).retain_needed(fresh, &live, now).kept;
        all.ordered_for(&[fresh, former], &live, now)
            .map_err(MaterialError::Trust)
    }

    /// Publishes trust alone: replaces `ca.crt` beside the material that is there. Without a Secret
    /// there is nobody to tell.
    pub async fn stage(
        &self,
        owner: &PgBouncer,
        secret_name: &str,
        trust: &TrustBundle,
    ) -> Result<(), MaterialError> {
        let at = at(owner, secret_name);
        let found = self.cluster.get_secret(&at).await?;
        let Some(mut found) = found else {
            return Ok(());
        };
        secret::check_writable(&found, owner, &at)?;
        if secret::set_bundle(&mut found, trust) {
            drop(Wiped::from(self.cluster.replace(&*found).await?));
        }
        Ok(())
    }

    /// Publishes `revision` with `trust` beside it, after verifying it against that very bundle.
    pub async fn publish(
        &self,
        owner: &PgBouncer,
        wanted: &Wanted,
        revision: Revision,
        trust: &TrustBundle,
    ) -> Result<Published, MaterialError> {
        self.publish_as(owner, wanted, revision, trust, Life::Now)
            .await
    }

    /// Publishes what was published before, to undo a change. That it has expired meanwhile, or that
    /// a clock says it is not valid yet, is no reason to leave something else in its place; all else
    /// is verified as ever.
    pub async fn publish_again(
        &self,
        owner: &PgBouncer,
        wanted: &Wanted,
        revision: Revision,
        trust: &TrustBundle,
    ) -> Result<Published, MaterialError> {
        self.publish_as(owner, wanted, revision, trust, Life::Once)
            .await
    }

    async fn publish_as(
        &self,
        owner: &PgBouncer,
        wanted: &Wanted,
        revision: Revision,
        trust: &TrustBundle,
        life: Life,
    ) -> Result<Published, MaterialError> {
        let from = secret::revision_ref(owner, wanted.alias, revision);
        let source = self.cluster.get_secret(&from).await?;
        let source = source.ok_or_else(|| MaterialError::NoRevision {
            secret: from.clone(),
        })?;
        if self.seal.is_none() {
            return Err(MaterialError::NoSeal);
        }
        self.check_ours(owner, Staged::revision(wanted.alias, revision), &source)?;
        let keyed = secret::read_keyed(&source, &from)?;
        let now = match life {
            Life::Now => self.clock.now(),
            Life::Once => keyed.within_life(self.clock.now()),
        };
        let expected = Expectation::of(&leaf_profile(wanted), now);
        let verified =
            keyed
                .verify(trust, &expected)
                .map_err(|source| MaterialError::Unverified {
                    alias: wanted.alias,
                    source: Box::new(source),
                })?;
        let facts = verified.facts().clone();
        let to = at(owner, &wanted.secret_name);
        let present = self.cluster.get_secret(&to).await?;
        if let Some(present) = &present {
            secret::check_writable(present, owner, &to)?;
        }
        let mut next = Wiped::from(secret::contract(owner, wanted, revision, verified));
        secret::mark_issued(&mut next, &source);
        match present {
            None => drop(Wiped::from(self.cluster.create(&*next).await?)),
            Some(present) => {
                secret::keep_identity(&present, &mut next);
                if !secret::holds_the_same(&present, &next) {
                    drop(Wiped::from(self.cluster.replace(&*next).await?));
                }
            }
        }
        Ok(Published {
            alias: wanted.alias,
            revision: Some(revision),
            facts,
            bundle: trust.clone(),
        })
    }

    /// Deletes a contract Secret that is ours; that it is gone already is success. One that a user has
    /// made, or that cert-manager writes, stays.
    pub async fn withdraw(
        &self,
        owner: &PgBouncer,
        secret_name: &str,
    ) -> Result<(), MaterialError> {
        let at = at(owner, secret_name);
        let found = self.cluster.get_secret(&at).await?;
        let is_ours = |found: &Secret| {
            secret::is_owned_by(found, owner) && secret::check_writable(found, owner, &at).is_ok()
        };
        match found.filter(|found| is_ours(found)) {
            Some(found) => Ok(self.cluster.delete_read(&*found).await?),
            None => Ok(()),
        }
    }

    /// Takes a revision away: the undo of [`Materials::issue`]. A Secret of that name that is not ours
    /// stays.
    pub async fn discard(
        &self,
        owner: &PgBouncer,
        alias: Alias,
        revision: Revision,
    ) -> Result<(), MaterialError> {
        let at = secret::revision_ref(owner, alias, revision);
        if let Some(found) = self.cluster.get_secret(&at).await?
            && self.is_ours(owner, Staged::revision(alias, revision), &found)
        {
            self.cluster.delete_read(&*found).await?;
        }
        self.forget(owner, alias, revision).await
    }

    /// Takes every revision of every alias away: TLS has been removed.
    pub async fn discard_all(&self, owner: &PgBouncer) -> Result<(), MaterialError> {
        for alias in Alias::ALL {
            for kept in self.revisions(owner, alias).await? {
                self.cluster.delete_read(&*kept).await?;
            }
        }
        Ok(())
    }

    /// Takes away the revisions that nobody can need: expired, or too many, but never `published`
    /// or the newest two.
    pub async fn prune(
        &self,
        owner: &PgBouncer,
        alias: Alias,
        published: Option<Revision>,
    ) -> Result<(), MaterialError> {
        let now = self.clock.now();
        let mut kept = self.revisions(owner, alias).await?;
        kept.sort_by_key(|secret| std::cmp::Reverse(secret::revision_of(secret)));
        for (age, revision) in kept.iter().enumerate().skip(REVISIONS_KEPT_MIN) {
            let is_published = published.is_some() && secret::revision_of(revision) == published;
            if !is_published && (age >= REVISIONS_KEPT_MAX || !is_live(revision, now)) {
                self.cluster.delete_read(&**revision).await?;
            }
        }
        Ok(())
    }

    /// The revisions of an alias that are ours.
    async fn revisions(
        &self,
        owner: &PgBouncer,
        alias: Alias,
    ) -> Result<Vec<Wiped>, MaterialError> {
        let mut found = self.labelled(owner, alias).await?;
        found.retain(|secret| {
            let number = secret::revision_of(secret);
            number
                .is_some_and(|number| self.is_ours(owner, Staged::revision(alias, number), secret))
        });
        Ok(found)
    }

    /// All Secrets that carry the labels of an alias' revisions.
    async fn labelled(&self, owner: &PgBouncer, alias: Alias) -> Result<Vec<Wiped>, MaterialError> {
        let namespace = owner.namespace().unwrap_or_default();
        let selector = secret::revision_selector(owner, alias);
        Ok(self.cluster.list_secrets(&namespace, &selector).await?)
    }
}

/// When a certificate has to be valid.
#[derive(Clone, Copy, Debug)]
enum Life {
    /// Now.
    Now,
    /// It is enough that it was, or will be.
    Once,
}

/// Names a Secret beside `owner`.
fn at(owner: &PgBouncer, secret_name: &str) -> ObjectRef {
    ObjectRef::new(owner.namespace().unwrap_or_default(), secret_name)
}

/// Whether a client may still use the leaf of a revision. One that cannot be read is kept: it may
/// be the only evidence of what went wrong.
fn is_live(revision: &Secret, now: OffsetDateTime) -> bool {
    secret::leaf_of(revision).is_none_or(|facts| facts.not_after > now)
}
