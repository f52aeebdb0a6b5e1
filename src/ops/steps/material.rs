//! Issue, stage, hand out, retire: the steps that are about material alone.
//!
//! One bundle stands beside all aliases: whoever verifies a client and whoever verifies the server
//! trusts the issuers of both, old and new, newest first. That is more than each needs and never
//! less, which is what matters when aliases have issuers of their own
//! (docs/kubedb-compatibility.md, "Trust in several issuers").

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::look::{Look, SELDOM};
use super::{Bench, Side, StepError};
use crate::api::PgBouncer;
use crate::causes::chain;
use crate::instants::Scale;
use crate::material::{IssueOutcome, MaterialError};
use crate::names::Alias;
use crate::ops::plan::Issuance;
use crate::ops::request::Change;
use crate::pki::bundle::TrustBundle;
use crate::retry::Retry;

/// An issuer that fails or does not answer is waited for no longer than this part of the life of what
/// it is to sign: where lives are short, the step's bound would be longer than what is left of the
/// former one.
const PATIENCE_DIVISOR: i32 = 20;

impl Bench<'_> {
    /// Issues the planned revision. An issuer that is not there, or not ready, may come: that is
    /// waited for until the step's bound, or for a twentieth of the life.
    pub(super) async fn issue(&self, alias: Alias) -> Result<(), StepError> {
        let bouncer = self.bouncer(Side::Target).await?;
        let wanted = self.wanted(&bouncer).await?;
        let wanted = wanted.get(&alias).ok_or(StepError::NotWanted(alias))?;
        let planned = self.planned(alias).ok_or(StepError::NotWanted(alias))?;
        let patience = Duration::try_from(wanted.profile.duration.part(PATIENCE_DIVISOR));
        let (began, patience) = (Instant::now(), patience.unwrap_or_default());
        self.waiting
            .until(SELDOM, || async {
                let outcome = self.materials.issue(&bouncer, wanted, planned.revision);
                let last = match outcome.await {
                    IssueOutcome::Issued(_) => return Ok(Look::Found(())),
                    IssueOutcome::Denied { reason } => {
                        return Err(StepError::Denied { alias, reason });
                    }
                    IssueOutcome::Failed(error) if error.retry() == Retry::Never => {
                        return Err(error.into());
                    }
                    IssueOutcome::Failed(error) => chain(&error),
                    IssueOutcome::Pending { on } => on,
                };
                if began.elapsed() < patience {
                    return Ok(Look::Missing(last));
                }
                let seconds = began.elapsed().as_secs();
                Err(StepError::NotIssued {
                    alias,
                    seconds,
                    last,
                })
            })
            .await
    }

    /// Takes the planned revision away.
    pub(super) async fn discard(&self, alias: Alias) -> Result<(), StepError> {
        let live = self.live().await?;
        if let Some(planned) = self.planned(alias) {
            self.materials
                .discard(&live, alias, planned.revision)
                .await?;
        }
        Ok(())
    }

    /// Publishes trust in old and new issuers beside everything that is published.
    pub(super) async fn stage(&self) -> Result<(), StepError> {
        let bouncer = self.bouncer(Side::Target).await?;
        let trust = self.trust(&bouncer).await?;
        for alias in self.plan.published.keys() {
            if let Some(secret) = self.plan.former.secret_name(self.name(), *alias) {
                self.materials.stage(&bouncer, &secret, &trust).await?;
            }
        }
        Ok(())
    }

    /// Publishes the former bundles again.
    pub(super) async fn unstage(&self) -> Result<(), StepError> {
        for alias in self.plan.published.keys() {
            self.unstage_of(*alias).await?;
        }
        Ok(())
    }

    /// Publishes the former bundle of one alias again.
    pub(super) async fn unstage_of(&self, alias: Alias) -> Result<(), StepError> {
        let secret = self.plan.former.secret_name(self.name(), alias);
        if let Some(secret) = secret.filter(|_| self.plan.published.contains_key(&alias)) {
            let trust = self.former_trust(alias)?;
            let live = self.live().await?;
            self.materials.stage(&live, &secret, &trust).await?;
        }
        Ok(())
    }

    /// Publishes the new material of clients and exporter.
    pub(super) async fn hand_out(&self) -> Result<(), StepError> {
        for alias in self.handed_out() {
            self.publish(alias).await?;
        }
        Ok(())
    }

    /// Publishes the former material of clients and exporter again, or none where there was none.
    pub(super) async fn take_back(&self) -> Result<(), StepError> {
        // Pods serve what the new issuer has signed until the switch is undone; until then clients
        // trust both.
        let both = self.trust(&self.bouncer(Side::Target).await?).await?;
        for alias in self.handed_out() {
            self.publish_former(alias, &both).await?;
            self.withdraw_if_new(alias).await?;
        }
        Ok(())
    }

    /// Publishes the planned revision of an alias, with trust in old and new issuers.
    pub(super) async fn publish(&self, alias: Alias) -> Result<(), StepError> {
        let bouncer = self.bouncer(Side::Target).await?;
        let wanted = self.wanted(&bouncer).await?;
        let trust = self.trust(&bouncer).await?;
        if let (Some(planned), Some(wanted)) = (self.planned(alias), wanted.get(&alias)) {
            self.materials
                .publish(&bouncer, wanted, planned.revision, &trust)
                .await?;
        }
        Ok(())
    }

    /// Publishes what was published before, with `trust` beside it.
    pub(super) async fn publish_former(
        &self,
        alias: Alias,
        trust: &TrustBundle,
    ) -> Result<(), StepError> {
        let Some(held) = self.plan.published.get(&alias) else {
            return Ok(());
        };
        let bouncer = self.bouncer(Side::Former).await?;
        let wanted = self.wanted(&bouncer).await?;
        if let Some(wanted) = wanted.get(&alias) {
            self.materials
                .publish_again(&bouncer, wanted, held.revision, trust)
                .await?;
        }
        Ok(())
    }

    /// Takes the new contract Secret of an alias away, unless the former state has it too.
    pub(super) async fn withdraw_if_new(&self, alias: Alias) -> Result<(), StepError> {
        let target = self.plan.target.secret_name(self.name(), alias);
        let kept = self.secret_names(Side::Former);
        if let Some(secret) = target.filter(|secret| !kept.contains(secret)) {
            self.materials
                .withdraw(&self.live().await?, &secret)
                .await?;
        }
        Ok(())
    }

    /// Takes away what nobody needs any more: contract Secrets that the spec no longer names, old
    /// revisions, and everything once TLS is gone.
    pub(super) async fn retire(&self) -> Result<(), StepError> {
        let live = self.live().await?;
        let kept = self.secret_names(Side::Target);
        for secret in self.secret_names(Side::Former) {
            if !kept.contains(&secret) {
                self.materials.withdraw(&live, &secret).await?;
            }
        }
        if matches!(self.plan.change, Change::Remove { .. }) {
            return Ok(self.materials.discard_all(&live).await?);
        }
        for alias in self.plan.target.aliases() {
            let published = self.plan.target_revision(alias);
            self.materials.prune(&live, alias, published).await?;
        }
        Ok(())
    }

    /// The aliases that are issued for somebody else than the pooler itself.
    fn handed_out(&self) -> Vec<Alias> {
        let issued = self.plan.issue.iter().map(|issuance| issuance.alias);
        issued.filter(|alias| *alias != Alias::Server).collect()
    }

    fn planned(&self, alias: Alias) -> Option<&Issuance> {
        self.plan
            .issue
            .iter()
            .find(|issuance| issuance.alias == alias)
    }

    fn secret_names(&self, side: Side) -> BTreeSet<String> {
        let state = self.state(side);
        let aliases = state.aliases().into_iter();
        aliases
            .filter_map(|alias| state.secret_name(self.name(), alias))
            .collect()
    }

    /// The bundle of old and new issuers.
    async fn trust(&self, bouncer: &PgBouncer) -> Result<TrustBundle, StepError> {
        let mut fresh = TrustBundle::default();
        for alias in self.plan.target.aliases() {
            let Some(revision) = self.plan.target_revision(alias) else {
                continue;
            };
            match self.materials.revision(bouncer, alias, revision).await {
                Ok(Some(found)) => fresh = fresh.union(&found.anchors),
                Ok(None) => {}
                Err(error @ MaterialError::Cluster(_)) => return Err(error.into()),
                // Its anchors are in the former bundle too.
                Err(error) => {
                    tracing::warn!(alias = %alias, error = &error as &dyn std::error::Error,
                        "revision left out of the bundle");
                }
            }
        }
        let mut former = TrustBundle::default();
        for alias in self.plan.published.keys() {
            former = former.union(&self.former_trust(*alias)?);
        }
        Ok(self.materials.trust(bouncer, &fresh, &former).await?)
    }
}
