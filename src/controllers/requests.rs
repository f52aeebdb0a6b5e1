//! Requests: woken by themselves, by what they queue behind, and by the PgBouncer they wait for.
//!
//! A request that runs is one long look; the engine never looks at the same object twice at a time.

use std::sync::Arc;

use futures::TryStreamExt;
use kube::ResourceExt;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Scope;
use super::backlog::{Backlog, Looks};
use super::engine::{self, Trouble};
use super::metrics::ReconcileMetrics;
use super::watched::{Meta, copied, heard, slim};
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::cluster::{Cluster, reference, within};
use crate::names;
use crate::ops::{Next, Operator, OpsError};
use crate::retry::Retry;

/// Most of its time a request waits, for pods or for an issuer: many that wait in vain shall not keep
/// others from beginning.
const AT_ONCE: Looks = Looks {
    listed: 96,
    others: 32,
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
    metrics: ReconcileMetrics,
    cancel: CancellationToken,
) {
    let client = cluster.client();
    let backlog = Backlog::new(AT_ONCE);
    let listed = Arc::clone(&backlog);
    let requests = within::<PgBouncerOpsRequest>(client, scope.own());
    let (requests, store) = copied(requests, cluster.every(), slim, move |all| {
        listed.fill(all);
    });
    let (gone, deleted) = mpsc::channel(DELETED_MAX);
    let kept = store.clone();
    let requests = requests.inspect_ok(move |request| {
        // The copy has taken the event in before it comes here.
        if kept.get(&ObjectRef::from_obj(request)).is_none() {
            // Where there are too many at once, the sweep finds the rest.
            let _left_to_the_sweep = gone.try_send(reference(request));
        }
    });
    let bouncers = within::<Meta<PgBouncer>>(client, scope.own());
    let (listed, all) = (Arc::clone(&backlog), store.clone());
    let bouncers = heard(bouncers, cluster.every(), |_| (), move || listed.fill(&all));
    let known = store.clone();
    let controller = Controller::for_stream(requests, store)
        .watches_stream(bouncers, move |bouncer| waiting(&bouncer, &known));
    let work = (controller, backlog);
    let forgetting = forget(Arc::clone(&operator), deleted);
    let running = engine::run("requests", work, metrics, cancel, move |at| {
        let operator = Arc::clone(&operator);
        async move {
            Box::pin(operator.reconcile(&at))
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

/// Deletes the journals of requests that are deleted, for as long as it is polled.
async fn forget(operator: Arc<Operator>, mut deleted: mpsc::Receiver<names::ObjectRef>) {
    while let Some(at) = deleted.recv().await {
        if let Err(error) = Box::pin(operator.forget_journal(&at)).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(ops.request = %at, error, "journal left to the sweep");
        }
    }
    std::future::pending::<()>().await;
}

/// The requests of a PgBouncer that have not ended.
fn waiting(
    bouncer: &Meta<PgBouncer>,
    known: &Store<PgBouncerOpsRequest>,
) -> Vec<ObjectRef<PgBouncerOpsRequest>> {
    let mut found = known.state();
    found.retain(|request| {
        let phase = request.status.as_ref().and_then(|status| status.phase);
        request.namespace() == bouncer.namespace()
            && request.spec.database_ref.name == bouncer.name_any()
            && !phase.is_some_and(crate::api::RequestPhase::is_terminal)
    });
    found
        .iter()
        .map(|request| ObjectRef::from_obj(request.as_ref()))
        .collect()
}
