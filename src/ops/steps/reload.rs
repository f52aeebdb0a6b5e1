//! A pod that goes on running and reads its files again.
//!
//! The pod stays in the Service, its established sessions stay as they are, and what it has taken up
//! is seen from outside ([`super::takeup`]).
//!
//! What has been proved is marked on the pod ([`crate::blueprint::loaded`]), and before the first
//! reload that nothing is; an act that was cut anywhere goes on from there. A pause that was left by
//! one is lifted by the next, by undoing, and when the daemon stops. A reload that spoils a pod is
//! taken back at once, through the console that is still open.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use tokio::time::sleep;

use super::pods::{Serving, is_labelled, is_ready};
use super::roll::is_shut_out;
use super::{Bench, Side, StepError};
use crate::api::annotations::{FILES_ASKED_AT, LOADED};
use crate::blueprint::loaded;
use crate::names::Alias;
use crate::ops::journal::NoReload;
use crate::ops::plan::{PlannedPod, Way};
use crate::ops::request::Strategy;
use crate::pgbouncer::console::{Console, ConsoleError};
use crate::pgbouncer::reload::BETWEEN_RELOADS;

impl Bench<'_> {
    /// Has a pod take up the target side; tells why it was restarted instead, if it was.
    pub(super) async fn reload(&self, name: &str) -> Result<Option<NoReload>, StepError> {
        self.switch_holds().await?;
        let digest = self.wanted_digest(Side::Target).await?;
        let pod = self.pod(name).await?;
        let mut restarted = None;
        match pod.filter(|pod| is_ready(pod) && loaded::digest_of(pod) != Some(&digest)) {
            Some(pod) => match Box::pin(self.reload_pod(&pod, &digest, Side::Target)).await {
                Ok(()) => {}
                Err(StepError::NoReload { why, .. })
                    if self.plan.settings.strategy == Strategy::Auto =>
                {
                    tracing::warn!(pod = name, %why, "restarted instead of reloaded");
                    Box::pin(self.restart_instead(name, Side::Target)).await?;
                    restarted = Some(why);
                }
                Err(error) => return Err(error),
            },
            // It is about to be made, or has been, or does not serve anybody; or it is done.
            None => Box::pin(self.replace(name, None, Side::Target)).await?,
        }
        if self.set().await?.replicas > self.plan.replicas {
            self.unsurge(Side::Target).await?;
        }
        Ok(restarted)
    }

    /// Has a pod serve what was there before; publishes that first.
    pub(super) async fn unreload(&self, name: &str) -> Result<(), StepError> {
        self.unpause(name).await?;
        self.publish_back().await?;
        let digest = self.wanted_digest(Side::Former).await?;
        match self.plan.pod(name) {
            Some(planned) => Box::pin(self.bring_back(planned, &digest)).await,
            None => Ok(()),
        }
    }

    /// Brings every pod back to the former side by reloads, those that do not serve first.
    pub(super) async fn converge_by_reload(&self) -> Result<(), StepError> {
        let digest = self.wanted_digest(Side::Former).await?;
        for planned in &self.plan.pods {
            Box::pin(self.bring_back(planned, &digest)).await?;
        }
        if self.set().await?.replicas > self.plan.replicas {
            self.unsurge(Side::Former).await?;
        }
        Ok(())
    }

    /// Lets transactions start again in a pod that a reload of ours may have left paused.
    pub(super) async fn unpause(&self, name: &str) -> Result<(), StepError> {
        if self.plan.choice.way != Way::Reload {
            return Ok(());
        }
        match self.pod(name).await? {
            Some(pod) => self.release(&pod).await,
            None => Ok(()),
        }
    }

    /// Writes down on the pod what it was seen to have loaded.
    pub(super) async fn mark(&self, pod: &Pod, digest: &str) -> Result<(), StepError> {
        self.annotate(pod, LOADED, &loaded::mark(pod, digest)).await
    }

    /// Publishes the target again if that was taken back: an undo that was cut, or somebody else.
    async fn switch_holds(&self) -> Result<(), StepError> {
        let Some(secret) = self.plan.target.secret_name(self.name(), Alias::Server) else {
            return Ok(());
        };
        let live = self.live().await?;
        let published = self
            .materials
            .published(&live, Alias::Server, &secret)
            .await?;
        let revision = published.and_then(|published| published.revision);
        if revision == self.plan.target_revision(Alias::Server) {
            return Ok(());
        }
        self.switch().await
    }

    async fn bring_back(&self, planned: &PlannedPod, digest: &str) -> Result<(), StepError> {
        let name = &planned.name;
        let Some(pod) = self.pod(name).await?.filter(|pod| is_ready(pod)) else {
            return self.replace(name, None, Side::Former).await;
        };
        let holds = loaded::digest_of(&pod) == Some(digest) && is_unmoved(planned, &pod);
        if !holds {
            match Box::pin(self.reload_pod(&pod, digest, Side::Former)).await {
                Ok(()) => {}
                // What was there before matters more than how it is brought back.
                Err(StepError::NoReload { why, .. }) => {
                    tracing::warn!(pod = %name, %why, "restarted to go back");
                    return self.restart_instead(name, Side::Former).await;
                }
                Err(error) => return Err(error),
            }
        }
        if !is_labelled(&pod) {
            self.label(&pod, Serving::Yes).await?;
        }
        Ok(())
    }

    /// Restarts a pod that cannot be reloaded; a single one gets company.
    async fn restart_instead(&self, name: &str, side: Side) -> Result<(), StepError> {
        if self.plan.replicas == 1 {
            self.surge(side).await?;
        }
        let uid = self.pod(name).await?.and_then(|pod| pod.uid());
        self.replace(name, uid.as_deref(), side).await
    }

    /// Reloads a pod until it shows what that side wants.
    async fn reload_pod(&self, pod: &Pod, digest: &str, side: Side) -> Result<(), StepError> {
        let name = pod.name_any();
        let target = self.console(&self.live().await?, pod).await?;
        let console = Console::connect(&target).await;
        let mut console = console.map_err(|error| no_console(&name, error))?;
        self.preflight(&name, &console, side).await?;
        self.keep_distance(pod).await;
        self.mark(pod, loaded::UNKNOWN).await?;
        let done = self.take_up(pod, &mut console, side).await;
        if let (Err(StepError::Spoilt { why, .. }), Side::Target) = (&done, side) {
            tracing::error!(pod = %name, why, "reload spoilt the pod; going back");
            Box::pin(self.save(pod, &mut console)).await;
        }
        done?;
        console.close().await;
        self.waiting.clear();
        self.mark(pod, digest).await?;
        tracing::info!(pod = %name, digest, "pod has reloaded and serves");
        Ok(())
    }

    /// Reloads of one pod keep their distance also when an earlier attempt made the last one.
    async fn keep_distance(&self, pod: &Pod) {
        if loaded::digest_of(pod) != Some(loaded::UNKNOWN) {
            return;
        }
        let asked = pod.annotations().get(FILES_ASKED_AT);
        let asked: Option<i128> = asked.and_then(|text| text.parse().ok());
        let since = self.now_ms() - asked.unwrap_or_default();
        let since = Duration::from_millis(u64::try_from(since).unwrap_or_default());
        sleep(BETWEEN_RELOADS.saturating_sub(since)).await;
    }

    pub(super) fn now_ms(&self) -> i128 {
        self.clock.now().unix_timestamp_nanos() / 1_000_000
    }

    /// Puts back what was there before, through the console that is still open: who has read a
    /// broken file may let in nobody else, not even its administrator. Undoing does the same once
    /// more, with whatever means there are.
    async fn save(&self, pod: &Pod, console: &mut Console) {
        let saved = async {
            self.publish_back().await?;
            self.wanted_digest(Side::Former).await?;
            self.take_up(pod, console, Side::Former).await
        };
        if let Err(error) = saved.await {
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::error!(pod = %pod.name_any(), error, "not put back yet");
        }
    }

    pub(super) async fn annotate(
        &self,
        pod: &Pod,
        key: &str,
        value: &str,
    ) -> Result<(), StepError> {
        let patch = json!({ "metadata": { "uid": pod.uid(), "annotations": { key: value } } });
        let at = self.beside(pod.name_any());
        Ok(self.cluster.patch::<Pod>(&at, &patch).await.map(drop)?)
    }
}

/// Whether what a pod's annotations say still holds: its process is the one that was there when the
/// plan was made, or one that was proved since.
pub(super) fn is_unmoved(planned: &PlannedPod, pod: &Pod) -> bool {
    let same =
        pod.uid() == planned.uid && loaded::container_of(pod) == planned.container.as_deref();
    same || loaded::is_witnessed(pod)
}

fn no_console(name: &str, error: ConsoleError) -> StepError {
    if is_shut_out(&error) {
        return StepError::NoReload {
            name: name.to_owned(),
            why: NoReload::ShutOut,
        };
    }
    StepError::console(format!("pod {name}"), error)
}
