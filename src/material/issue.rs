//! Issues a revision: a key, the issuer's signature, the proof, the Secret.
//!
//! An issuer that takes its time must be asked again with the same key, also after a crash: while
//! the answer is pending the key waits in a Secret of its own, which goes when the revision is there
//! or taken back.

use k8s_openapi::api::core::v1::Secret;
use kube::{Resource, ResourceExt};

use super::profile::leaf_profile;
use super::sealed::Staged;
use super::season::{Season, season};
use super::{IssueOutcome, MaterialError, Materials, Revisioned, policy_request, secret};
use crate::api::PgBouncer;
use crate::blueprint::certificates::Wanted;
use crate::blueprint::choices::RotationPolicy;
use crate::cluster::{EventKind, Owner, Reporter, reference};
use crate::issuer::{Issuance, Outcome, SigningRequest};
use crate::names::{Alias, Revision};
use crate::pki::chain::{Expectation, KeyedChain};
use crate::pki::key::PrivateKey;
use crate::pki::profile::LeafProfile;
use crate::policy::Request;
use crate::redacted::Wiped;

/// Where a revision's key comes from.
enum Origin {
    /// Made just now, or the former revision's.
    New,
    /// It waited for an answer.
    Waited,
}

impl Materials {
    pub(super) async fn issue_or_fail(
        &self,
        owner: &PgBouncer,
        wanted: &Wanted,
        revision: Revision,
    ) -> Result<IssueOutcome, MaterialError> {
        if self.seal.is_none() {
            return Err(MaterialError::NoSeal);
        }
        let alias = wanted.alias;
        let at = secret::revision_ref(owner, alias, revision);
        if let Some(found) = self.cluster.get_secret(&at).await? {
            let found = self.adopt(owner, (alias, revision), &found).await?;
            self.forget(owner, alias, revision).await?;
            return Ok(IssueOutcome::Issued(Box::new(found)));
        }
        let namespace = owner.namespace().unwrap_or_default();
        let (key, origin) = self.key(owner, wanted, revision).await?;
        // The key that waited may be of another kind than is wanted by now.
        let asked = Request {
            key: key.kind(),
            ..policy_request(&namespace, wanted)
        };
        if let Some(reason) = self.gate.refusal(&self.cluster, asked).await? {
            return Ok(IssueOutcome::Denied { reason });
        }
        let profile = leaf_profile(wanted);
        let name = secret::revision_ref(owner, alias, revision).name;
        let owner_reference = owner.controller_owner_ref(&());
        let request = SigningRequest {
            issuer: &wanted.issuer,
            namespace: &namespace,
            name: &name,
            owner: owner_reference.as_ref(),
            profile: &profile,
            key: &key,
        };
        let issued = match self.issuers.sign(&request).await {
            Outcome::Issued(issued) => *issued,
            Outcome::Pending { on } => {
                if matches!(origin, Origin::New) {
                    let key = secret::waiting_key(owner, alias, revision, &key, wanted.encoding);
                    let mut made = Wiped::from(key);
                    let staged = Staged::waiting_key(alias, revision);
                    self.seal_made(owner, staged, &mut made)?;
                    let kept = Wiped::from(self.cluster.create_or_get(&*made).await?);
                    self.check_ours(owner, staged, &kept)?;
                }
                return Ok(IssueOutcome::Pending { on });
            }
            Outcome::Denied { reason } => return Ok(IssueOutcome::Denied { reason }),
            Outcome::Failed(source) => {
                return Err(MaterialError::Issue {
                    alias,
                    source: Box::new(source),
                });
            }
        };
        let kept = self
            .keep(owner, wanted, revision, (key, &profile, issued))
            .await?;
        if matches!(origin, Origin::Waited) {
            self.forget(owner, alias, revision).await?;
        }
        self.announce(owner, wanted, &kept).await;
        Ok(IssueOutcome::Issued(Box::new(kept)))
    }

    /// Forgets what was kept while an issuer took its time.
    pub(super) async fn forget(
        &self,
        owner: &PgBouncer,
        alias: Alias,
        revision: Revision,
    ) -> Result<(), MaterialError> {
        let at = secret::revision_ref(owner, alias, revision);
        self.issuers.forget(&Owner::of(owner), &at).await?;
        let key = secret::waiting_key_ref(owner, alias, revision);
        if let Some(kept) = self.cluster.get_secret(&key).await?
            && self.is_ours(owner, Staged::waiting_key(alias, revision), &kept)
        {
            self.cluster.delete_read(&*kept).await?;
        }
        Ok(())
    }

    /// Proves the answer and writes the revision's Secret.
    async fn keep(
        &self,
        owner: &PgBouncer,
        wanted: &Wanted,
        revision: Revision,
        (key, profile, issued): (PrivateKey, &LeafProfile, Issuance),
    ) -> Result<Revisioned, MaterialError> {
        let alias = wanted.alias;
        let clamped = issued.clamped;
        let keyed = KeyedChain::from_parts(issued.chain, key, wanted.encoding)
            .map_err(|source| MaterialError::NotOurKey { alias, source })?;
        let expected = Expectation::of(profile, self.clock.now());
        let verified = keyed.verify(&issued.anchors, &expected).map_err(|source| {
            MaterialError::Unverified {
                alias,
                source: Box::new(source),
            }
        })?;
        let mut made = Wiped::from(secret::revision(owner, wanted, revision, verified));
        if clamped {
            secret::mark_clamped(&mut made);
        }
        self.seal_made(owner, Staged::revision(alias, revision), &mut made)?;
        let kept = Wiped::from(self.cluster.create_or_get(&*made).await?);
        self.adopt(owner, (alias, revision), &kept).await
    }

    /// Reads a revision that is kept. It must be valid by the API server's clock too: what is not is
    /// waited for where that is soon, and else taken away again.
    async fn adopt(
        &self,
        owner: &PgBouncer,
        (alias, revision): (Alias, Revision),
        kept: &Secret,
    ) -> Result<Revisioned, MaterialError> {
        self.check_ours(owner, Staged::revision(alias, revision), kept)?;
        let read = secret::read_revision(kept, alias, revision)?;
        let Some(created) = secret::created(kept) else {
            return Ok(read);
        };
        match season(&read.facts, created) {
            Season::In => Ok(read),
            Season::Early(wait) => {
                tokio::time::sleep(wait).await;
                Ok(read)
            }
            Season::Out => {
                self.cluster.delete_read(kept).await?;
                Err(MaterialError::OutOfSeason {
                    alias,
                    not_before: read.facts.not_before,
                    not_after: read.facts.not_after,
                    created,
                })
            }
        }
    }

    /// The key of ours that waits for an answer, else the former revision's where it is to be certified
    /// again, else a new one.
    async fn key(
        &self,
        owner: &PgBouncer,
        wanted: &Wanted,
        revision: Revision,
    ) -> Result<(PrivateKey, Origin), MaterialError> {
        let alias = wanted.alias;
        let at = secret::waiting_key_ref(owner, alias, revision);
        // A foreign key is not used: whoever planted it knows it.
        if let Some(kept) = self.cluster.get_secret(&at).await?
            && self.is_ours(owner, Staged::waiting_key(alias, revision), &kept)
        {
            return Ok((secret::read_waiting_key(&kept, &at)?, Origin::Waited));
        }
        if wanted.rotation == RotationPolicy::Never
            && let Some(former) = self.former_key(owner, wanted, revision).await?
        {
            return Ok((former, Origin::New));
        }
        let key = PrivateKey::generate(wanted.algorithm)
            .map_err(|source| MaterialError::MakeKey { alias, source })?;
        Ok((key, Origin::New))
    }

    /// The key of the newest revision, if it is of the wanted kind.
    async fn former_key(
        &self,
        owner: &PgBouncer,
        wanted: &Wanted,
        revision: Revision,
    ) -> Result<Option<PrivateKey>, MaterialError> {
        let kept = self.revisions(owner, wanted.alias).await?;
        let former = kept
            .iter()
            .filter(|secret| secret::revision_of(secret) < Some(revision))
            .max_by_key(|secret| secret::revision_of(secret));
        let Some(former) = former else {
            return Ok(None);
        };
        let key = secret::read_keyed(former, &reference(&**former))?.into_key();
        Ok(Some(key).filter(|key| key.kind() == wanted.algorithm.kind()))
    }

    async fn announce(&self, owner: &PgBouncer, wanted: &Wanted, kept: &Revisioned) {
        tracing::info!(
            pgbouncer = %reference(owner),
            alias = %kept.alias,
            certificate.revision = %kept.revision,
            certificate.serial = %kept.facts.serial,
            certificate.not_after = %kept.facts.not_after,
            issuer = %wanted.issuer.name,
            "certificate issued"
        );
        let reporter = Reporter::new(self.cluster.clone(), "bouncert");
        let warn = async |reason, message: String| {
            let what = (reason, message.as_str());
            reporter
                .report(owner, EventKind::Warning, what, self.clock.now())
                .await;
        };
        if kept.clamped {
            let message = format!(
                "The {} certificate ends at {}, earlier than its duration says: {} {} does not sign for longer",
                kept.alias, kept.facts.not_after, wanted.issuer.kind, wanted.issuer.name
            );
            warn("CertificateClamped", message).await;
        }
        let remarks = kept.chain.remarks(&kept.anchors);
        if !remarks.is_empty() {
            let message = format!("The {} certificate: {}", kept.alias, remarks.join("; "));
            warn("UnusualAuthority", message).await;
        }
    }
}
