//! One pod at a time: out of the Service, drained, evicted; its successor ready, proved, in service.
//!
//! ```text
//!  others serve ─► label off ─► seen out of the EndpointSlices ─► drained ─► evicted ─► gone
//!                     ▲                                              │ refused
//!                     └───────────── put back: resumed, label on ◄───┘
//!  successor ready ─► shows the leaf ─► (canary: login) ─► seen in the EndpointSlices
//! ```
//!
//! What has been done is read from the pod itself (its digest, its UID, its label), so an act that
//! was cut anywhere goes on from there.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::{Instant, sleep};

use super::look::{Look, OFTEN, SELDOM};
use super::pods::{Serving, is_labelled, is_leaving, is_ready, trouble};
use super::{Bench, Side, StepError};
use crate::blueprint::loaded::digest_of;
use crate::cluster::Eviction;
use crate::ops::journal::Closed;
use crate::ops::request::Change;
use crate::pgbouncer::console::ConsoleError;
use crate::pgbouncer::drain::{self, EndedBy, Limits};
use crate::retry::Retry;

/// Pause after an eviction that a disruption budget refused.
const REFUSED: Duration = Duration::from_secs(1);

impl Bench<'_> {
    /// Replaces a pod by one of the target side.
    pub(super) async fn roll(&self, name: &str) -> Result<(), StepError> {
        let planned = self.plan.pod(name).and_then(|pod| pod.uid.as_deref());
        let restart = self.plan.change == Change::Restart;
        self.replace(name, planned.filter(|_| restart), Side::Target)
            .await
    }

    /// Replaces several pods at the same time. All come to their end before the first that failed is
    /// told, so that none is left in the middle.
    pub(super) async fn roll_together(&self, names: &[String]) -> Result<(), StepError> {
        let rolling = names.iter().map(|name| Box::pin(self.roll(name)));
        let ended = futures::future::join_all(rolling).await;
        ended.into_iter().collect()
    }

    /// Puts several pods back into service, as far as they can be.
    pub(super) async fn put_all_back(&self, names: &[String]) -> Result<(), StepError> {
        let mut ended = Ok(());
        for name in names {
            ended = ended.and(self.put_back(name).await);
        }
        ended
    }

    /// Replaces a pod by one of that side, unless it is one already. `not` is a UID that it must not
    /// have.
    pub(super) async fn replace(
        &self,
        name: &str,
        not: Option<&str>,
        side: Side,
    ) -> Result<(), StepError> {
        let digest = self.wanted_digest(side).await?;
        if let Some(pod) = self.pod(name).await?
            && is_stale(Some(&pod), &digest, not)
        {
            self.take_out(&pod, side).await?;
        }
        Box::pin(self.bring_in(name, &digest, side)).await
    }

    /// Puts a pod that is still there back into service: what undoing a roll owes.
    pub(super) async fn put_back(&self, name: &str) -> Result<(), StepError> {
        let Some(pod) = self.pod(name).await?.filter(|pod| !is_leaving(pod)) else {
            return Ok(());
        };
        if is_labelled(&pod) {
            return Ok(());
        }
        self.release(&pod).await?;
        self.label(&pod, Serving::Yes).await
    }

    /// Puts all pods back into service, resumed, and then resumes the PgBouncer.
    pub(in crate::ops) async fn put_everything_back(&self) -> Result<(), StepError> {
        for pod in self.pods().await? {
            if !is_leaving(&pod) {
                self.release(&pod).await?;
                self.label(&pod, Serving::Yes).await?;
            }
        }
        self.resume().await
    }

    /// Starts one pod more and proves it.
    pub(super) async fn surge(&self, side: Side) -> Result<(), StepError> {
        let name = self.plan.surge_pod();
        self.wanted_digest(side).await?;
        if self.set().await?.replicas <= self.plan.replicas {
            self.scale(self.plan.replicas + 1).await?;
        }
        self.replace(&name, None, side).await
    }

    /// Takes the surge pod away.
    pub(super) async fn unsurge(&self, side: Side) -> Result<(), StepError> {
        let name = self.plan.surge_pod();
        if self.set().await?.replicas > self.plan.replicas {
            if let Some(pod) = self.pod(&name).await?.filter(|pod| is_ready(pod)) {
                self.await_company(&pod, side).await?;
                let drained = Box::pin(self.drain(&pod)).await?;
                self.closed(&name, drained);
            }
            self.scale(self.plan.replicas).await?;
        }
        if let Some(pod) = self.pod(&name).await? {
            self.await_gone(&pod).await?;
        }
        Ok(())
    }

    /// Takes a pod out of service and evicts it.
    async fn take_out(&self, pod: &Pod, side: Side) -> Result<(), StepError> {
        if is_leaving(pod) {
            return self.await_gone(pod).await;
        }
        if !is_ready(pod) {
            // Nobody is served by it, so nobody has to leave it, and no budget protects anybody.
            if let Eviction::Refused { .. } = self.cluster.evict(pod).await? {
                self.cluster.delete_read(pod).await?;
            }
            return self.await_gone(pod).await;
        }
        loop {
            self.await_company(pod, side).await?;
            self.await_budget(pod).await?;
            let drained = Box::pin(self.drain(pod)).await?;
            match self.cluster.evict(pod).await {
                Ok(Eviction::Evicted | Eviction::Gone) => {
                    self.closed(&pod.name_any(), drained);
                    return self.await_gone(pod).await;
                }
                Ok(Eviction::Refused { message }) => {
                    tracing::info!(pod = %pod.name_any(), message, "eviction refused");
                    self.not_gone(&pod.name_any(), drained).await?;
                    sleep(REFUSED).await;
                }
                Err(error) => {
                    self.not_gone(&pod.name_any(), drained).await?;
                    return Err(error.into());
                }
            }
        }
    }

    /// Takes a pod out of the Service and lets its clients finish.
    async fn drain(&self, pod: &Pod) -> Result<Drained, StepError> {
        if !is_labelled(pod) {
            // An earlier attempt may have left it paused.
            self.release(pod).await?;
        }
        self.label(pod, Serving::No).await?;
        self.await_service(pod, Serving::No).await?;
        let limits = Limits {
            leave: self.plan.drain.leave.to_std().unwrap_or_default(),
            quiesce: self.plan.drain.quiesce.to_std().unwrap_or_default(),
        };
        let target = match Box::pin(self.console(&self.live().await?, pod)).await {
            Ok(target) => target,
            Err(error) => return self.undrainable(pod, &limits, &error).await,
        };
        let began = Instant::now();
        let report = match Box::pin(drain::drain(&target, &limits)).await {
            Ok(report) => report,
            Err(source) if is_shut_out(&source) => {
                return self.undrainable(pod, &limits, &source).await;
            }
            Err(source) => {
                return Err(StepError::console(
                    format!("pod {}", pod.name_any()),
                    source,
                ));
            }
        };
        let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
        tracing::info!(
            pod = %pod.name_any(),
            clients.left = report.clients_left_by_themselves,
            clients.asked = report.clients_asked_to_leave,
            clients.closed_between_transactions = report.closed_between_transactions,
            clients.cut_in_transaction = report.cut_in_transaction,
            ended_by = ?report.ended_by,
            "drained"
        );
        Ok(Drained {
            closed: Closed {
                between_transactions: count(report.closed_between_transactions),
                in_transactions: count(report.cut_in_transaction),
                asked_to_leave: count(report.clients_asked_to_leave),
                drained_ms: u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX),
            },
            ended_by: report.ended_by,
        })
    }

    /// The pod goes, and with it those who were still there.
    fn closed(&self, name: &str, drained: Drained) {
        self.tally.add(name, drained.closed);
        drained.forget();
    }

    /// The pod stays after all. Where its process has ended, so have the connections.
    async fn not_gone(&self, name: &str, drained: Drained) -> Result<(), StepError> {
        if matches!(drained.ended_by, EndedBy::ShutDown) {
            self.tally.add(name, drained.closed);
        }
        drained.forget();
        self.put_back(name).await
    }

    /// A pod whose console lets nobody in (an expired certificate is the usual reason) cannot be
    /// asked; its clients get the time to leave, and no more can be done for them.
    async fn undrainable(
        &self,
        pod: &Pod,
        limits: &Limits,
        error: &(dyn std::error::Error + Send + Sync + 'static),
    ) -> Result<Drained, StepError> {
        tracing::warn!(pod = %pod.name_any(), error, "console out of reach; not drained");
        sleep(limits.leave).await;
        Ok(Drained {
            closed: Closed::default(),
            ended_by: EndedBy::StillOpen,
        })
    }

    /// Lifts a pause that a drain of ours has left. Who cannot get in now could not pause it then.
    pub(super) async fn release(&self, pod: &Pod) -> Result<(), StepError> {
        if !is_ready(pod) {
            return Ok(());
        }
        let bouncer = self.live().await?;
        let name = pod.name_any();
        let target = match Box::pin(self.console(&bouncer, pod)).await {
            Ok(target) => target,
            Err(StepError::Probe { .. } | StepError::NoAddress(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        match drain::release(&target).await {
            Ok(()) => Ok(()),
            Err(error) if is_shut_out(&error) => Ok(()),
            Err(source) => Err(StepError::console(format!("pod {name}"), source)),
        }
    }

    /// Waits for the pod that follows, proves it, and sees it in service.
    pub(super) async fn bring_in(
        &self,
        name: &str,
        digest: &str,
        side: Side,
    ) -> Result<(), StepError> {
        let never_served = self.plan.pod(name).is_some_and(|planned| !planned.ready);
        if side == Side::Former && never_served {
            return Ok(());
        }
        loop {
            let pod = self.await_ready(name, digest).await?;
            let proved = tokio::select! {
                proved = Box::pin(self.prove_in_service(&pod, digest, side)) => proved,
                () = self.loss(&pod) => Ok(()),
            };
            // Somebody may have deleted it. Its address never answers again, and no Service ever leads
            // to it: the pod that follows is proved instead.
            if !self.is_lost(&pod).await? {
                return proved;
            }
            tracing::info!(pod = %name, "pod gone before it served");
        }
    }

    /// Proves a pod that is ready, and sees it in service.
    async fn prove_in_service(&self, pod: &Pod, digest: &str, side: Side) -> Result<(), StepError> {
        let (name, bouncer) = (pod.name_any(), self.bouncer(side).await?);
        self.prove_leaf(&bouncer, pod, side).await?;
        self.mark(pod, digest).await?;
        if side == Side::Target && self.plan.is_canary(&name) {
            Box::pin(self.prove_login(&bouncer, pod)).await?;
        }
        self.label(pod, Serving::Yes).await?;
        self.await_service(pod, Serving::Yes).await?;
        tracing::info!(pod = %name, digest, "pod serves");
        Ok(())
    }

    /// Comes back when the pod is no longer there. Trouble in looking is the proof's to tell.
    async fn loss(&self, pod: &Pod) {
        while !matches!(self.is_lost(pod).await, Ok(true)) {
            sleep(SELDOM).await;
        }
    }

    async fn is_lost(&self, pod: &Pod) -> Result<bool, StepError> {
        let found = self.pod(&pod.name_any()).await?;
        Ok(found.is_none_or(|found| found.uid() != pod.uid() || is_leaving(&found)))
    }

    async fn await_ready(&self, name: &str, digest: &str) -> Result<Box<Pod>, StepError> {
        self.waiting
            .until(OFTEN, || async {
                let Some(pod) = self.pod(name).await?.filter(|pod| !is_leaving(pod)) else {
                    // Nobody makes it if what it is made for has gone.
                    self.live().await?;
                    return Ok(Look::Missing(format!("pod {name} to be made")));
                };
                if digest_of(&pod) != Some(digest) {
                    return Ok(Look::Missing(format!("pod {name} to be made anew")));
                }
                if is_ready(&pod) {
                    return Ok(Look::Found(pod));
                }
                match trouble(&pod) {
                    (word, true) => Err(StepError::Broken(word)),
                    (word, false) => Ok(Look::Missing(word)),
                }
            })
            .await
    }

    async fn await_gone(&self, pod: &Pod) -> Result<(), StepError> {
        let (name, uid) = (pod.name_any(), pod.uid());
        self.waiting
            .until(OFTEN, || async {
                let found = self.pod(&name).await?;
                if found.is_none_or(|found| found.uid() != uid) {
                    return Ok(Look::Found(()));
                }
                Ok(Look::Missing(format!("pod {name} to end")))
            })
            .await
    }
}

/// Whether a pod has to be replaced. One that is missing has been.
pub(super) fn is_stale(pod: Option<&Pod>, digest: &str, not: Option<&str>) -> bool {
    pod.is_some_and(|pod| {
        digest_of(pod) != Some(digest) || (not.is_some() && pod.uid().as_deref() == not)
    })
}

/// A pod that has been drained.
struct Drained {
    closed: Closed,
    ended_by: EndedBy,
}

impl Drained {
    /// The pod goes, or is put back by somebody who resumes it.
    fn forget(self) {
        match self.ended_by {
            EndedBy::Paused(quiesced) => quiesced.deleted(),
            EndedBy::ShutDown | EndedBy::StillOpen => {}
        }
    }
}

/// Whether the console refuses us for what we are, and not for what it is busy with.
pub(super) const fn is_shut_out(error: &ConsoleError) -> bool {
    matches!(error.retry(), Retry::WhenChanged)
}
