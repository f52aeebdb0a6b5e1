//! What pods of one side should come to: read once, published where it is not, and handed on.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;

use super::ground::Ground;
use super::pods::{Set, annotate, set};
use super::{Bench, Side, StepError};
use crate::api::PgBouncer;
use crate::api::annotations::LOADED;
use crate::blueprint::{Inputs, Workload, build, labels, loaded, mounts_material, names};
use crate::ops::request::Change;

/// What pods of one side should come to.
pub(in crate::ops) struct Goal {
    /// The side.
    pub(in crate::ops) side: Side,
    /// The digest that its pods carry.
    pub(in crate::ops) digest: String,
    /// The PgBouncer of that side.
    pub(in crate::ops) bouncer: PgBouncer,
}

/// A goal, and what its objects are made from.
pub(in crate::ops) struct Recipe {
    /// The goal.
    pub(in crate::ops) goal: Goal,
    /// What its objects are made from.
    pub(super) inputs: Inputs,
}

/// Reads the goal of one side. A restart takes the workload as it is, and needs nothing around it.
pub(in crate::ops) async fn goal(bench: &Bench<'_>, side: Side) -> Result<Goal, StepError> {
    if bench.plan.change != Change::Restart {
        return Ok(recipe(bench, side).await?.goal);
    }
    let set = set(&bench.ground).await?;
    Ok(Goal {
        side,
        digest: set.digest.unwrap_or_default(),
        bouncer: bench.bouncer(side).await?,
    })
}

/// Reads the goal of one side, and what its objects are made from. What has been written over the
/// workload in the meantime (a reconciliation that had begun before the pause) is put right first, and
/// so is a configuration that an earlier daemon has written without its marker.
pub(in crate::ops) async fn recipe(bench: &Bench<'_>, side: Side) -> Result<Recipe, StepError> {
    let set = set(&bench.ground).await?;
    let recipe = read(bench, side).await?;
    let is_current = set.digest.as_ref() == Some(&recipe.goal.digest)
        && is_published(&bench.ground, &recipe).await?;
    if !is_current {
        Box::pin(write(&bench.ground, &set, &recipe)).await?;
    }
    Ok(recipe)
}

/// Publishes configuration and pod template of one side. The number of pods stays what it is.
pub(in crate::ops) async fn publish(bench: &Bench<'_>, side: Side) -> Result<(), StepError> {
    let set = match set(&bench.ground).await {
        // It has never come up: the provisioner will make it from what is committed.
        Err(StepError::NoWorkload(_)) if bench.plan.replicas == 0 => return Ok(()),
        set => set?,
    };
    let recipe = read(bench, side).await?;
    Box::pin(write(&bench.ground, &set, &recipe)).await
}

/// Marks a pod with the digest that it was seen to have loaded.
pub(super) async fn mark(ground: &Ground<'_>, pod: &Pod, digest: &str) -> Result<(), StepError> {
    annotate(ground, pod, LOADED, &loaded::mark(pod, digest)).await
}

async fn read(bench: &Bench<'_>, side: Side) -> Result<Recipe, StepError> {
    let bouncer = bench.bouncer(side).await?;
    let inputs = bench.inputs(&bouncer).await?;
    let goal = Goal {
        side,
        digest: inputs.digest(),
        bouncer,
    };
    Ok(Recipe { goal, inputs })
}

/// Whether the configuration Secret holds what the inputs stand for.
async fn is_published(ground: &Ground<'_>, recipe: &Recipe) -> Result<bool, StepError> {
    let at = ground.beside(names::config_secret(&recipe.goal.bouncer));
    let secret: Option<Secret> = ground.cluster.get(&at).await?;
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let held = data.get(names::INI_KEY);
    Ok(held.is_some_and(|held| held.0 == recipe.inputs.configuration().as_bytes()))
}

async fn write(ground: &Ground<'_>, set: &Set, recipe: &Recipe) -> Result<(), StepError> {
    let bouncer = &recipe.goal.bouncer;
    let resources = build(&recipe.inputs)?;
    let mut workload = resources.workload;
    let heir = labels::heir(bouncer);
    let write = |secret| ground.cluster.read_and_apply::<Secret>(&heir, secret);
    let backend = write(&resources.backend).await?;
    if let Some(version) = backend.resource_version() {
        workload.set_backend_secret_version(&version);
    }
    set_replicas(&mut workload, set.replicas);
    // A pod may start at any time. With material mounted and not yet asked for it works, and so
    // it does with material no longer asked for and still mounted.
    if mounts_material(bouncer) {
        apply(ground, &workload).await?;
        write(&resources.config).await?;
    } else {
        write(&resources.config).await?;
        apply(ground, &workload).await?;
    }
    Ok(())
}

async fn apply(ground: &Ground<'_>, workload: &Workload) -> Result<(), StepError> {
    let (cluster, owner, maker) = (ground.cluster, ground.owner(), ground.maker.uid().clone());
    let known = Some(maker.as_str()).filter(|uid| !uid.is_empty());
    match workload {
        Workload::PetSet(set) => drop(cluster.apply_owned(&owner, &**set, known).await?),
        Workload::StatefulSet(set) => drop(cluster.apply_owned(&owner, &**set, known).await?),
    }
    Ok(())
}

fn set_replicas(workload: &mut Workload, replicas: u32) {
    let replicas = i32::try_from(replicas).ok();
    match workload {
        Workload::PetSet(set) => set.spec.replicas = replicas,
        Workload::StatefulSet(set) => set.spec.replicas = replicas,
    }
}
