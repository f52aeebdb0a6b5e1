//! Publishing material, before and after: what several steps, and undoing them, have in common.
//!
//! One bundle stands beside all aliases: whatever verifies a client and whatever verifies the server
//! trusts the issuers of both, old and new, newest first. That is more than each needs and never
//! less, which is what matters when aliases have issuers of their own
//! (docs/kubedb-compatibility.md, "Trust in several issuers").

use std::collections::BTreeSet;

use super::goal::publish as publish_objects;
use super::{Bench, Side, StepError};
use crate::api::PgBouncer;
use crate::material::MaterialError;
use crate::names::Alias;
use crate::ops::plan::{Issuance, Step};
use crate::pki::bundle::TrustBundle;

/// The PgBouncer after the change, with all that publishing for it needs.
pub(in crate::ops) struct Edition {
    /// The PgBouncer.
    pub(in crate::ops) bouncer: PgBouncer,
    /// The bundle of old and new issuers.
    pub(in crate::ops) trust: TrustBundle,
}

/// Reads the edition.
pub(in crate::ops) async fn edition(bench: &Bench<'_>) -> Result<Edition, StepError> {
    let bouncer = bench.bouncer(Side::Target).await?;
    let trust = trust(bench, &bouncer).await?;
    Ok(Edition { bouncer, trust })
}

/// Publishes the planned revisions of some aliases, with trust in old and new issuers.
pub(in crate::ops) async fn publish(bench: &Bench<'_>, aliases: &[Alias]) -> Result<(), StepError> {
    if aliases.is_empty() {
        return Ok(());
    }
    let Edition { bouncer, trust } = edition(bench).await?;
    let wanted = bench.wanted(&bouncer).await?;
    for alias in aliases {
        if let (Some(planned), Some(wanted)) = (planned(bench, *alias), wanted.get(alias)) {
            let materials = bench.materials;
            materials
                .publish(&bouncer, wanted, planned.revision, &trust)
                .await?;
        }
    }
    Ok(())
}

/// Publishes what was published before, with `trust` beside it.
pub(in crate::ops) async fn publish_former(
    bench: &Bench<'_>,
    alias: Alias,
    trust: &TrustBundle,
) -> Result<(), StepError> {
    let Some(held) = bench.plan.published.get(&alias) else {
        return Ok(());
    };
    let bouncer = bench.bouncer(Side::Former).await?;
    let wanted = bench.wanted(&bouncer).await?;
    if let Some(wanted) = wanted.get(&alias) {
        let materials = bench.materials;
        materials
            .publish_again(&bouncer, wanted, held.revision, trust)
            .await?;
    }
    Ok(())
}

/// Publishes the server's material, the configuration and the pod template of before.
pub(in crate::ops) async fn publish_back(bench: &Bench<'_>) -> Result<(), StepError> {
    if issues(bench, Alias::Server) && bench.plan.published.contains_key(&Alias::Server) {
        let trust = bench.former_trust(Alias::Server)?;
        publish_former(bench, Alias::Server, &trust).await?;
    }
    if bench.plan.steps.contains(&Step::Stage) {
        // The pods' own bundle only, for their digest. Clients trust both issuers until no pod
        // serves the new one's certificate any more, and that is undone with the stage.
        unstage(bench, Alias::Server).await?;
    }
    publish_objects(bench, Side::Former).await
}

/// Publishes the former bundle of one alias again.
pub(in crate::ops) async fn unstage(bench: &Bench<'_>, alias: Alias) -> Result<(), StepError> {
    let secret = bench.secret_name(Side::Former, alias);
    if let Some(secret) = secret.filter(|_| bench.plan.published.contains_key(&alias)) {
        let trust = bench.former_trust(alias)?;
        let live = bench.ground.live().await?;
        bench.materials.stage(&live, &secret, &trust).await?;
    }
    Ok(())
}

/// Takes the new contract Secret of an alias away, unless the former state has it too.
pub(in crate::ops) async fn withdraw_if_new(
    bench: &Bench<'_>,
    alias: Alias,
) -> Result<(), StepError> {
    let target = bench.secret_name(Side::Target, alias);
    let kept = secret_names(bench, Side::Former);
    if let Some(secret) = target.filter(|secret| !kept.contains(secret)) {
        let live = bench.ground.live().await?;
        bench.materials.withdraw(&live, &secret).await?;
    }
    Ok(())
}

/// The revision that is to be issued for an alias.
pub(in crate::ops) fn planned<'a>(bench: &Bench<'a>, alias: Alias) -> Option<&'a Issuance> {
    let mut planned = bench.plan.issue.iter();
    planned.find(|issuance| issuance.alias == alias)
}

/// Whether an alias is issued.
pub(in crate::ops) fn issues(bench: &Bench<'_>, alias: Alias) -> bool {
    planned(bench, alias).is_some()
}

/// The contract Secrets of one side.
pub(in crate::ops) fn secret_names(bench: &Bench<'_>, side: Side) -> BTreeSet<String> {
    let aliases = bench.state(side).aliases().into_iter();
    aliases
        .filter_map(|alias| bench.secret_name(side, alias))
        .collect()
}

/// The bundle of old and new issuers.
async fn trust(bench: &Bench<'_>, bouncer: &PgBouncer) -> Result<TrustBundle, StepError> {
    let mut fresh = TrustBundle::default();
    for alias in bench.plan.target.aliases() {
        let Some(revision) = bench.plan.target_revision(alias) else {
            continue;
        };
        match bench.materials.revision(bouncer, alias, revision).await {
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
    for alias in bench.plan.published.keys() {
        former = former.union(&bench.former_trust(*alias)?);
    }
    Ok(bench.materials.trust(bouncer, &fresh, &former).await?)
}
