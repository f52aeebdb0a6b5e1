//! Switch: the moment from which a new pod is a changed pod. The server's material is published, and
//! configuration and pod template are written; the configuration has been parsed and checked by
//! then ([`crate::blueprint::Inputs`] is the only way to it), because a bad one turns TLS off.
//!
//! Undoing it publishes what was there before and brings every pod back to it.

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;

use super::pods::{Serving, is_ready};
use super::reload::is_unmoved;
use super::roll::is_stale;
use super::{Bench, Side, StepError};
use crate::api::PgBouncer;
use crate::blueprint::{Inputs, Workload, build, labels, mounts_material, names};
use crate::names::Alias;
use crate::ops::plan::{PlannedPod, Step, Way};
use crate::ops::request::Change;

impl Bench<'_> {
    /// Publishes the server's material, configuration and pod template.
    pub(super) async fn switch(&self) -> Result<(), StepError> {
        if self.issues_server() {
            self.publish(Alias::Server).await?;
        }
        Box::pin(self.apply(Side::Target)).await.map(drop)
    }

    /// Publishes what was there before and brings every pod to it.
    pub(super) async fn switch_back(&self) -> Result<(), StepError> {
        self.publish_back().await?;
        self.converge(Side::Former).await?;
        // The pods that used it are gone.
        self.withdraw_if_new(Alias::Server).await
    }

    /// Publishes what was there before.
    pub(super) async fn publish_back(&self) -> Result<(), StepError> {
        if self.issues_server() && self.plan.published.contains_key(&Alias::Server) {
            let trust = self.former_trust(Alias::Server)?;
            self.publish_former(Alias::Server, &trust).await?;
        }
        if self.plan.steps.contains(&Step::Stage) {
            // The pods' own bundle only, for their digest. Clients trust both issuers until no pod
            // serves the new one's certificate any more, and that is undone with the stage.
            self.unstage_of(Alias::Server).await?;
        }
        Box::pin(self.apply(Side::Former)).await.map(drop)
    }

    /// The digest that pods of one side carry. What somebody else has written over the workload in
    /// the meantime (a reconciliation that had begun before the pause) is put right first, and so is
    /// a configuration that an earlier daemon has written without its marker.
    pub(super) async fn wanted_digest(&self, side: Side) -> Result<String, StepError> {
        let set = self.set().await?;
        if self.plan.change == Change::Restart {
            return Ok(set.digest.unwrap_or_default());
        }
        let (bouncer, inputs) = self.inputs(side).await?;
        let digest = inputs.digest();
        if set.digest.as_ref() == Some(&digest) && self.is_published(&bouncer, &inputs).await? {
            return Ok(digest);
        }
        // Boxed: building all objects takes much room, and is done now and then only.
        Box::pin(self.apply(side)).await
    }

    /// Whether the configuration Secret holds what the inputs stand for.
    async fn is_published(&self, bouncer: &PgBouncer, inputs: &Inputs) -> Result<bool, StepError> {
        let at = self.beside(names::config_secret(bouncer));
        let secret: Option<Secret> = self.cluster.get(&at).await?;
        let data = secret.and_then(|secret| secret.data).unwrap_or_default();
        let held = data.get(names::INI_KEY);
        Ok(held.is_some_and(|held| held.0 == inputs.configuration().as_bytes()))
    }

    /// Writes configuration and pod template of one side; returns the digest of its pods. The number
    /// of pods stays what it is.
    async fn apply(&self, side: Side) -> Result<String, StepError> {
        let set = match self.set().await {
            // It has never come up: the provisioner will make it from what is committed.
            Err(StepError::NoWorkload(_)) if self.plan.replicas == 0 => return Ok(String::new()),
            set => set?,
        };
        let (bouncer, inputs) = self.inputs(side).await?;
        let resources = build(&inputs)?;
        let mut workload = resources.workload;
        let heir = labels::heir(&bouncer);
        let write = |secret| self.cluster.read_and_apply::<Secret>(&heir, secret);
        let backend = write(&resources.backend).await?;
        if let Some(version) = backend.resource_version() {
            workload.set_backend_secret_version(&version);
        }
        set_replicas(&mut workload, set.replicas);
        // A pod may start at any time. With material mounted and not yet asked for it works, and so
        // it does with material no longer asked for and still mounted.
        if mounts_material(&bouncer) {
            self.apply_workload(&workload).await?;
            write(&resources.config).await?;
        } else {
            write(&resources.config).await?;
            self.apply_workload(&workload).await?;
        }
        Ok(inputs.digest())
    }

    async fn apply_workload(&self, workload: &Workload) -> Result<(), StepError> {
        let (cluster, owner, maker) = (self.cluster, self.owner(), self.maker().clone());
        let known = Some(maker.as_str()).filter(|uid| !uid.is_empty());
        cluster.apply_workload(&owner, workload, known).await?;
        Ok(())
    }

    /// Brings every pod to one side, those that do not serve first, and takes a surge pod away. In
    /// the end every pod that served before has been seen to serve what that side serves.
    async fn converge(&self, side: Side) -> Result<(), StepError> {
        if self.plan.replicas == 0 {
            return Ok(());
        }
        if self.plan.choice.way == Way::Reload {
            return Box::pin(self.converge_by_reload()).await;
        }
        let digest = self.wanted_digest(side).await?;
        let mut stale: Vec<(bool, &PlannedPod, Option<String>)> = Vec::new();
        for planned in &self.plan.pods {
            let found = self.pod(&planned.name).await?;
            // One that has restarted by itself meanwhile has loaded who knows which side.
            let moved = found
                .as_deref()
                .filter(|pod| is_ready(pod) && !is_unmoved(planned, pod))
                .and_then(ResourceExt::uid);
            if is_stale(found.as_deref(), &digest, moved.as_deref()) {
                let ready = found.as_deref().is_some_and(is_ready);
                stale.push((ready, planned, moved));
            } else if let Some(pod) = found.filter(|pod| is_ready(pod)) {
                if self.serves_other(&pod, side).await? {
                    stale.push((true, planned, pod.uid()));
                } else {
                    self.label(&pod, Serving::Yes).await?;
                }
            }
        }
        stale.sort_by_key(|(ready, ..)| *ready);
        let single = self.plan.replicas == 1;
        if single
            && stale
                .iter()
                .any(|(ready, planned, _)| *ready && planned.ready)
        {
            self.surge(side).await?;
        }
        for (_, planned, moved) in stale {
            self.replace(&planned.name, moved.as_deref(), side).await?;
        }
        if self.set().await?.replicas > self.plan.replicas {
            self.unsurge(side).await?;
        }
        for planned in &self.plan.pods {
            Box::pin(self.bring_in(&planned.name, &digest, side)).await?;
        }
        Ok(())
    }

    /// Whether a pod with the right digest serves something else all the same: its process has
    /// started anew while other files were published.
    async fn serves_other(&self, pod: &Pod, side: Side) -> Result<bool, StepError> {
        let bouncer = self.bouncer(side).await?;
        match self.prove_leaf(&bouncer, pod, side).await {
            Ok(()) => Ok(false),
            Err(StepError::Serves { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn issues_server(&self) -> bool {
        self.plan
            .issue
            .iter()
            .any(|issuance| issuance.alias == Alias::Server)
    }
}

fn set_replicas(workload: &mut Workload, replicas: u32) {
    workload.set_replicas(i32::try_from(replicas).ok());
}
