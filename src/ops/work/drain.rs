//! Taking a pod out of service so that no transaction is cut, and putting it back.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::{Instant, sleep};

use super::ground::Ground;
use super::pods::{is_leaving, is_ready, pod, pods};
use super::proof::console;
use super::service::{Serving, await_service, is_labelled, label};
use super::{Bench, StepError, lock};
use crate::api::PgBouncer;
use crate::ops::journal::Closed;
use crate::ops::plan::Way;
use crate::pgbouncer::console::ConsoleError;
use crate::pgbouncer::drain::{self, EndedBy, Limits};
use crate::retry::Retry;

/// A pod that has been drained.
pub(super) struct Drained {
    closed: Closed,
    ended_by: EndedBy,
}

/// Takes a pod out of the Service and lets its clients finish.
pub(super) async fn drain(
    bench: &Bench<'_>,
    bouncer: &PgBouncer,
    pod: &Pod,
) -> Result<Drained, StepError> {
    let ground = &bench.ground;
    if !is_labelled(pod) {
        // An earlier attempt may have left it paused.
        release(ground, bouncer, pod).await?;
    }
    label(ground, pod, Serving::No).await?;
    await_service(ground, pod, Serving::No).await?;
    let limits = Limits {
        leave: bench.plan.drain.leave.to_std().unwrap_or_default(),
        quiesce: bench.plan.drain.quiesce.to_std().unwrap_or_default(),
    };
    let target = match console(ground, bouncer, pod).await {
        Ok(target) => target,
        Err(error) => return undrainable(pod, &limits, &error).await,
    };
    let began = Instant::now();
    let report = match Box::pin(drain::drain(&target, &limits)).await {
        Ok(report) => report,
        Err(source) if is_shut_out(&source) => return undrainable(pod, &limits, &source).await,
        Err(source) => {
            let name = format!("pod {}", pod.name_any());
            return Err(StepError::console(name, source));
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

/// A pod whose console lets nobody in (an expired certificate is the usual reason) cannot be
/// asked; its clients get the time to leave, and no more can be done for them.
async fn undrainable(
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

impl Drained {
    /// The pod goes, and with it the clients that were still there.
    pub(super) fn count(self, bench: &Bench<'_>, name: &str) {
        bench.tally.add(name, self.closed);
        self.forget();
    }

    /// The pod stays after all. Where its process has ended, so have the connections.
    pub(super) async fn take_back(self, bench: &Bench<'_>, name: &str) -> Result<(), StepError> {
        if matches!(self.ended_by, EndedBy::ShutDown) {
            bench.tally.add(name, self.closed);
        }
        self.forget();
        put_back(&bench.ground, name).await
    }

    /// The pod goes, or is put back, which resumes it.
    fn forget(self) {
        match self.ended_by {
            EndedBy::Paused(quiesced) => quiesced.deleted(),
            EndedBy::ShutDown | EndedBy::StillOpen => {}
        }
    }
}

/// Puts a pod that is still there back into service.
pub(in crate::ops) async fn put_back(ground: &Ground<'_>, name: &str) -> Result<(), StepError> {
    let Some(pod) = pod(ground, name).await?.filter(|pod| !is_leaving(pod)) else {
        return Ok(());
    };
    if is_labelled(&pod) {
        return Ok(());
    }
    resume(ground, &pod).await?;
    label(ground, &pod, Serving::Yes).await
}

/// Puts all pods back into service, resumed, and then releases the pause that the request with that UID
/// has left.
pub(in crate::ops) async fn put_all_back(ground: &Ground<'_>, uid: &str) -> Result<(), StepError> {
    let bouncer = ground.live().await?;
    for pod in pods(ground).await? {
        if !is_leaving(&pod) {
            release(ground, &bouncer, &pod).await?;
            label(ground, &pod, Serving::Yes).await?;
        }
    }
    lock::release(ground, uid).await
}

/// Lets transactions start again in a pod that a reload of ours may have left paused.
pub(in crate::ops) async fn unpause(bench: &Bench<'_>, name: &str) -> Result<(), StepError> {
    if bench.plan.choice.way != Way::Reload {
        return Ok(());
    }
    match pod(&bench.ground, name).await? {
        Some(pod) => resume(&bench.ground, &pod).await,
        None => Ok(()),
    }
}

/// Leaves no pod paused or out of service, as far as that can be done in a moment; returns whether it
/// could. The daemon stops, and the next one may be long in coming; or an undo is given up.
pub(in crate::ops) async fn calm(bench: &Bench<'_>) -> bool {
    let mut is_calm = true;
    let pods = bench.plan.pods.iter().map(|pod| pod.name.clone());
    for pod in pods.chain([bench.plan.surge_pod()]) {
        let calmed = async {
            unpause(bench, &pod).await?;
            put_back(&bench.ground, &pod).await
        };
        if let Err(error) = calmed.await {
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::warn!(pod, error, "left out of service");
            is_calm = false;
        }
    }
    is_calm
}

/// Lifts a pause that ours has left, if the pod is ready.
pub(super) async fn resume(ground: &Ground<'_>, pod: &Pod) -> Result<(), StepError> {
    if !is_ready(pod) {
        return Ok(());
    }
    release(ground, &ground.live().await?, pod).await
}

/// Lifts a pause that a drain of ours has left. A console that lets us not in now did not then.
pub(super) async fn release(
    ground: &Ground<'_>,
    bouncer: &PgBouncer,
    pod: &Pod,
) -> Result<(), StepError> {
    if !is_ready(pod) {
        return Ok(());
    }
    let target = match console(ground, bouncer, pod).await {
        Ok(target) => target,
        Err(StepError::Probe { .. } | StepError::NoAddress(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    match drain::release(&target).await {
        Ok(()) => Ok(()),
        Err(error) if is_shut_out(&error) => Ok(()),
        Err(source) => Err(StepError::console(
            format!("pod {}", pod.name_any()),
            source,
        )),
    }
}

/// Whether the console refuses us for what we are, and not for what it is busy with.
pub(super) const fn is_shut_out(error: &ConsoleError) -> bool {
    matches!(error.retry(), Retry::WhenChanged)
}
