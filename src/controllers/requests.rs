//! Requests: woken by themselves, by what they queue behind, and by the PgBouncer they wait for.
//!
//! A request that runs is one long look; the engine never looks at the same object twice at a time.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use kube::ResourceExt;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::backlog::{Backlog, Looks};
use super::engine::{self, Trouble};
use super::metrics::ReconcileMetrics;
use super::queues::{self, Queues};
use super::wakes::Wakes;
use super::watched::{Meta, copied, heard, slim};
use super::{Bystander, Scope};
use crate::api::{PgBouncer, PgBouncerOpsRequest, RequestPhase};
use crate::cluster::{Cluster, reference, within};
use crate::names;
use crate::ops::admit::{Place, Queue, phase};
use crate::ops::{Next, Operator, OpsError};
use crate::retry::Retry;

/// Most of its time a request waits, for pods or for an issuer: many that wait in vain shall not keep
/// others from beginning.
///
/// One namespace alone gets three quarters of all ([`super::slots`]), 126.
const AT_ONCE: Looks = Looks {
    listed: 96,
    others: 72,
};

/// Deleted requests whose journals wait to be deleted.
const DELETED_MAX: usize = 1_024;

impl Trouble for OpsError {
    fn retry(&self) -> Retry {
        Self::retry(self)
    }
}

/// Runs the controller of requests until it is told to stop.
pub async fn run(
    cluster: Cluster,
    operator: Arc<Operator>,
    scope: Scope,
    metrics: (ReconcileMetrics, Bystander),
    cancel: CancellationToken,
) {
    let client = cluster.client();
    let backlog = Backlog::new(AT_ONCE);
    let listed = Arc::clone(&backlog);
    let requests = within::<PgBouncerOpsRequest>(client, scope.own());
    let names = Arc::default();
    let hear = queues::teller(&names);
    let (requests, store) = copied(requests, cluster.every(), kept, hear, move |all| {
        listed.fill(all);
    });
    let queues = Queues::new(store.clone(), names);
    let (gone, deleted) = mpsc::channel(DELETED_MAX);
    let known = queues.clone();
    let requests = requests.inspect_ok(move |request| {
        // The copy has taken the event in before it comes here.
        if !known.has(request) {
            // Where there are too many at once, the sweep finds the rest.
            let _left_to_the_sweep = gone.try_send(request.uid().unwrap_or_default());
        }
    });
    let bouncers = within::<Meta<PgBouncer>>(client, scope.own());
    let (listed, all) = (Arc::clone(&backlog), store.clone());
    let bouncers = heard(bouncers, cluster.every(), |_| (), move || listed.fill(&all));
    let wakes = Wakes::new();
    let (told, known, errors) = (Arc::clone(&wakes), queues.clone(), metrics.1.errors.clone());
    // Whom a change of a request concerns is known before it is looked at itself.
    let requests = requests.inspect_ok(move |request: &PgBouncerOpsRequest| {
        let concerned = errors.guard("requests", || behind(request, &known));
        told.extend(concerned.unwrap_or_default());
    });
    let (known, errors) = (queues.clone(), metrics.1.errors.clone());
    let woken = wakes.stream();
    let woken = woken.map(|at| ObjectRef::new(&at.name).within(&at.namespace));
    let controller = Controller::for_stream(requests, store)
        .watches_stream(bouncers, move |bouncer| {
            let concerned = errors.guard("requests", || waiting(&bouncer, &known));
            concerned.unwrap_or_default()
        })
        .reconcile_on(woken);
    let work = (controller, backlog);
    let forgetting = forget(Arc::clone(&operator), deleted);
    let running = engine::run("requests", work, metrics, cancel, move |at| {
        let operator = Arc::clone(&operator);
        let known = queues.beside(&at);
        async move {
            Box::pin(operator.reconcile(&at, &known))
                .await
                .map(|next| match next {
                    Next::Again(after) => Action::requeue(after),
                    Next::Wait => Action::await_change(),
                })
        }
    });
    tokio::select! {
        () = running => {}
        () = forgetting => {}
    }
}

/// What is kept of a request: who it is for, its type and its phase. The rest is a tenant's to fill.
fn kept(request: &mut PgBouncerOpsRequest) {
    slim(request);
    request.metadata.annotations = None;
    request.metadata.labels = None;
    request.spec.tls = None;
    if let Some(status) = &mut request.status {
        status.conditions.clear();
    }
}

/// Deletes the journals, for as long as it is polled.
async fn forget(operator: Arc<Operator>, mut deleted: mpsc::Receiver<String>) {
    while let Some(uid) = deleted.recv().await {
        if let Err(error) = Box::pin(operator.forget_journal(&uid)).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(request.uid = uid, error, "journal left to the sweep");
        }
    }
    std::future::pending::<()>().await;
}

/// The requests that a change of `request` lets begin, or makes pointless. `known` has it already as it
/// is now, or no longer.
fn behind(request: &PgBouncerOpsRequest, known: &Queues) -> Vec<names::ObjectRef> {
    // One that waits for a person, or runs, lets nobody begin, and none is skipped for it.
    let is_waiting = matches!(
        phase(request),
        None | Some(RequestPhase::Pending | RequestPhase::Approved)
    );
    let is_over = phase(request).is_some_and(RequestPhase::is_terminal) || !known.has(request);
    if !is_waiting && !is_over {
        return Vec::new();
    }
    let bouncer = names::ObjectRef::new(
        request.namespace().unwrap_or_default(),
        &request.spec.database_ref.name,
    );
    let all = known.of(&bouncer);
    let queue = Queue::of(&all);
    let waits = |other: &&Arc<PgBouncerOpsRequest>| {
        matches!(
            phase(other),
            Some(RequestPhase::Pending | RequestPhase::Approved)
        )
    };
    let is_concerned = |other: &&Arc<PgBouncerOpsRequest>| {
        other.metadata.name != request.metadata.name
            && (is_over || other.spec.type_ == request.spec.type_)
            && !matches!(queue.place(other), Place::Behind(_))
    };
    let concerned = all.iter().filter(waits).filter(is_concerned);
    concerned.map(|other| reference(other.as_ref())).collect()
}

/// The requests of a PgBouncer that have not ended.
fn waiting(bouncer: &Meta<PgBouncer>, known: &Queues) -> Vec<ObjectRef<PgBouncerOpsRequest>> {
    let mut found = known.of(&reference(bouncer));
    found.retain(|request| !phase(request).is_some_and(RequestPhase::is_terminal));
    found
        .iter()
        .map(|request| ObjectRef::from_obj(request.as_ref()))
        .collect()
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;

    fn request(name: &str, (type_, bouncer): (&str, &str), phase: &str) -> PgBouncerOpsRequest {
        serde_json::from_value(json!({
            "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PgBouncerOpsRequest",
            "metadata": {
                "name": name, "namespace": "shop", "creationTimestamp": "2031-05-06T07:00:00Z",
            },
            "spec": { "databaseRef": { "name": bouncer }, "type": type_, "tls": {} },
            "status": { "phase": phase },
        }))
        .unwrap()
    }

    fn concerned(changed: &PgBouncerOpsRequest, others: &[PgBouncerOpsRequest]) -> Vec<String> {
        let all = others.iter().chain([changed]);
        let queues = queues::tests::told(all.map(|known| Event::Apply(known.clone())));
        let all = behind(changed, &queues).into_iter();
        let mut all: Vec<String> = all.map(|at| at.name).collect();
        all.sort();
        all
    }

    #[test]
    fn the_end_of_a_request_wakes_those_that_may_begin_now_and_a_new_one_those_that_it_replaces() {
        let waiting = [
            request("restart", ("Restart", "till"), "Pending"),
            request("approved", ("UpdateVersion", "till"), "Approved"),
            request("old", ("ReconfigureTLS", "till"), "Pending"),
            request("elsewhere", ("Restart", "desk"), "Pending"),
            request("over", ("Restart", "till"), "Failed"),
        ];
        let over = request("first", ("Reconfigure", "till"), "Successful");
        // One of them goes first, by the rules of admission; of the same second the smaller name is newer.
        assert_eq!(concerned(&over, &waiting), ["restart"]);
        let runs = request("first", ("Reconfigure", "till"), "Progressing");
        assert!(concerned(&runs, &waiting).is_empty());
        let new = request("a-new", ("ReconfigureTLS", "till"), "Pending");
        assert_eq!(concerned(&new, &waiting), ["old"]);
        let asks = request("a-new", ("ReconfigureTLS", "till"), "WaitingForApproval");
        assert!(concerned(&asks, &waiting).is_empty());
    }
}
