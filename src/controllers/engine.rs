//! Running one controller: spans, pauses after errors, a clean end.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::ready;
use futures::{FutureExt, StreamExt};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::backlog::Backlog;
use super::metrics::ReconcileMetrics;
use crate::cluster::{Namespaced, reference};
use crate::names::ObjectRef;
use crate::retry::{BACKOFF_MAX, Retry, backoff};

/// How long events of one object are gathered before it is looked at.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// Trouble that says whether trying again may help.
pub(super) trait Trouble: Error + Send + 'static {
    /// Whether trying again may help.
    fn retry(&self) -> Retry;
}

/// How often in a row the objects of a controller have failed.
#[derive(Default)]
struct Attempts(Mutex<HashMap<ObjectRef, u32>>);

impl Attempts {
    fn failed(&self, at: &ObjectRef) -> u32 {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(at.clone()).or_default();
        let before = *count;
        *count = count.saturating_add(1);
        before
    }

    fn succeeded(&self, at: &ObjectRef) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(at);
    }
}

/// Runs `controller` until it is told to stop; objects that are being looked at are looked at to
/// the end. What lists have shown is in `backlog`, and does not come by any other way.
pub(super) async fn run<K, F, Fut, E>(
    name: &'static str,
    (controller, backlog): (Controller<K>, Arc<Backlog>),
    metrics: ReconcileMetrics,
    cancel: CancellationToken,
    reconcile: F,
) where
    K: Namespaced,
    F: Fn(ObjectRef) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Action, E>> + Send + 'static,
    E: Trouble,
{
    let attempts = Arc::new(Attempts::default());
    let never_began = {
        let (store, cancel) = (controller.store(), cancel.clone());
        async move {
            cancel.cancelled().await;
            // It looks at nothing before it has seen everything once, and without this it would wait
            // for that even when nobody tells it any more.
            if store.wait_until_ready().now_or_never().is_some() {
                std::future::pending::<()>().await;
            }
        }
    };
    let config = Config::default()
        .debounce(DEBOUNCE)
        .concurrency(backlog.looks().at_once());
    let listed = Arc::clone(&backlog).stream();
    let listed = listed.map(|at| reflector::ObjectRef::new(&at.name).within(&at.namespace));
    let gone = Arc::clone(&backlog);
    let looks = controller
        .reconcile_on(listed)
        .with_config(config)
        .graceful_shutdown_on(cancel.cancelled_owned())
        .run(
            move |object: Arc<K>, attempts: Arc<Attempts>| {
                let at = reference(object.as_ref());
                let span = tracing::info_span!("reconcile", controller = name, object = %at);
                let look = reconcile(at.clone());
                let metrics = metrics.clone();
                let backlog = Arc::clone(&backlog);
                async move {
                    let began = Instant::now();
                    backlog.begin(&at);
                    let looked = look.await;
                    backlog.end(&at);
                    metrics.count(name, &looked, began.elapsed());
                    let action = looked?;
                    attempts.succeeded(&at);
                    Ok(action)
                }
                .instrument(span)
            },
            move |object: Arc<K>, error: &E, attempts: Arc<Attempts>| {
                let at = reference(object.as_ref());
                let pause = match error.retry() {
                    Retry::Backoff => backoff(attempts.failed(&at)),
                    // Whatever it waits for wakes it; a timer is the net under a lost event.
                    Retry::WhenChanged | Retry::Never => BACKOFF_MAX,
                };
                tracing::debug!(
                    controller = name,
                    object = %at,
                    pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                    error = error as &dyn Error,
                    "to be tried again"
                );
                Action::requeue(pause)
            },
            attempts,
        );
    let looking = looks.for_each(|look| {
        match look {
            Ok(_) => {}
            // An event of a child may come after its owner has gone.
            Err(kube::runtime::controller::Error::ObjectNotFound(at)) => {
                gone.end(&ObjectRef::new(at.namespace.unwrap_or_default(), at.name));
            }
            Err(error) => {
                tracing::debug!(
                    controller = name,
                    error = &error as &dyn Error,
                    "look failed"
                );
            }
        }
        ready(())
    });
    tokio::select! {
        () = looking => {}
        () = never_began => {}
    }
    tracing::info!(controller = name, "stopped");
}

impl fmt::Debug for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attempts")
    }
}
