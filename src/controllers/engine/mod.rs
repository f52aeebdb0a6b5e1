//! Running one controller: spans, pauses after errors, a fair share of places, a clean end.
//!
//! A look that panics costs its object and nobody else: see [`crate::panics`].

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
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
use super::slots::{Slot, Slots};
use super::trouble::{Bystander, Subject};
use crate::cluster::reference;
use crate::instants::{Shift, Since};
use crate::names::ObjectRef;
use crate::panics::Panicked;
use crate::retry::{BACKOFF_MAX, Retry, backoff};

/// How long events of one object are gathered before it is looked at.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Looks beyond the places: they end at once, because they are parked.
const PARKING: u16 = 16;
/// First pause after a panic, which doubles each time.
const PANIC_FIRST: Duration = Duration::from_secs(5);
/// Longest pause after a panic.
const PANIC_MAX: Duration = Duration::from_secs(300);

/// Trouble that says whether trying again may help.
pub(super) trait Trouble: Error + Send + 'static {
    /// Whether trying again may help.
    fn retry(&self) -> Retry;
}

/// What came of a look that did not succeed.
#[derive(Debug, thiserror::Error)]
enum Failed<E: Trouble> {
    #[error(transparent)]
    Trouble(E),
    #[error(transparent)]
    Panicked(Panicked),
}

/// How often in a row the objects of a controller have failed. What succeeds, or goes, is forgotten.
#[derive(Default)]
struct Attempts(Mutex<HashMap<ObjectRef, Failures>>);

#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    errors: u32,
    panics: u32,
    /// Until when the object is left alone after a panic, and which generation of it.
    rests: Option<(Instant, Option<i64>)>,
}

impl Attempts {
    fn failed(&self, at: &ObjectRef) -> u32 {
        self.with(at, |failures| {
            let before = failures.errors;
            failures.errors = before.saturating_add(1);
            before
        })
    }

    /// Notes a panic; how long the object is left alone.
    fn panicked(&self, at: &ObjectRef, generation: Option<i64>, now: Instant) -> Duration {
        self.with(at, |failures| {
            let factor = 1_u32
                .checked_shl(failures.panics.min(16))
                .unwrap_or(u32::MAX);
            let pause = PANIC_FIRST.saturating_mul(factor).min(PANIC_MAX);
            failures.panics = failures.panics.saturating_add(1);
            failures.rests = Some((now.plus(pause), generation));
            pause
        })
    }

    /// How long to wait until the object is tried again.
    fn pause<E: Trouble>(
        &self,
        at: &ObjectRef,
        generation: Option<i64>,
        failed: &Failed<E>,
    ) -> Duration {
        match failed {
            Failed::Panicked(_) => self.panicked(at, generation, Instant::now()),
            Failed::Trouble(error) => match error.retry() {
                Retry::Backoff => backoff(self.failed(at)),
                // Whatever it waits for wakes it; a timer is the net under a lost event.
                Retry::WhenChanged | Retry::Never => BACKOFF_MAX,
            },
        }
    }

    /// How long the object is still left alone, unless it has been changed since.
    fn rests(&self, at: &ObjectRef, generation: Option<i64>, now: Instant) -> Option<Duration> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, panicked) = all.get(at)?.rests?;
        let rest = until.since(now);
        (panicked == generation && !rest.is_zero()).then_some(rest)
    }

    /// Forgets failures; whether there was a panic among them.
    fn succeeded(&self, at: &ObjectRef) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(at).is_some_and(|failures| failures.panics > 0)
    }

    fn with<T>(&self, at: &ObjectRef, change: impl FnOnce(&mut Failures) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(at.clone()).or_default())
    }
}

/// What all looks of a controller share.
#[derive(Clone)]
struct Desk {
    name: &'static str,
    metrics: ReconcileMetrics,
    bystander: Bystander,
    backlog: Arc<Backlog>,
    slots: Arc<Slots>,
}

/// A look that begins, or does not.
enum Begun<Fut> {
    /// It has a place; what was done before its first wait may have panicked.
    Look(Slot, Result<Pin<Box<Fut>>, Panicked>),
    /// Not now.
    Later(Action),
}

impl Desk {
    fn begin<K: Subject, Fut>(
        &self,
        object: &K,
        attempts: &Attempts,
        reconcile: impl FnOnce(ObjectRef) -> Fut,
    ) -> Begun<Fut> {
        let at = reference(object);
        if let Some(rest) = attempts.rests(&at, object.meta().generation, Instant::now()) {
            return Begun::Later(Action::requeue(rest));
        }
        let Some(slot) = self.slots.take(&at) else {
            return Begun::Later(Action::await_change());
        };
        let errors = &self.bystander.errors;
        let look = errors.guard(self.name, || Box::pin(reconcile(at)));
        Begun::Look(slot, look)
    }

    async fn look<K: Subject, E: Trouble>(
        &self,
        object: &K,
        attempts: &Attempts,
        begun: Begun<impl Future<Output = Result<Action, E>> + Send>,
    ) -> Result<Action, Failed<E>> {
        let (name, at, from) = (self.name, reference(object), Instant::now());
        self.backlog.begin(&at);
        let (slot, look) = match begun {
            Begun::Look(slot, look) => (slot, look),
            Begun::Later(action) => {
                self.backlog.end(&at);
                return Ok(action);
            }
        };
        let looked = match look {
            Ok(look) => self.bystander.errors.guarded(name, look).await,
            Err(panicked) => Err(panicked),
        };
        self.backlog.end(&at);
        let looked = match looked {
            Ok(looked) => looked.map_err(Failed::Trouble),
            Err(panicked) => Err(Failed::Panicked(panicked)),
        };
        self.metrics.count(name, &looked, from.elapsed());
        match &looked {
            Ok(_) => {
                if attempts.succeeded(&at) || Bystander::is_told(object, name) {
                    self.bystander.take_back::<K>(&at, name).await;
                }
            }
            Err(Failed::Panicked(panicked)) => {
                self.bystander.tell::<K>(name, &at, panicked).await;
            }
            Err(Failed::Trouble(_)) => {}
        }
        drop(slot);
        looked
    }
}

/// Runs `controller` until it is told to stop; objects that are being looked at are looked at to
/// the end. What lists have shown is in `backlog`, and does not come by any other way; a look that
/// panics is told by `bystander`.
pub(super) async fn run<K, F, Fut, E>(
    name: &'static str,
    (controller, backlog): (Controller<K>, Arc<Backlog>),
    (metrics, bystander): (ReconcileMetrics, Bystander),
    cancel: CancellationToken,
    reconcile: F,
) where
    K: Subject,
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
    let places = backlog.looks().at_once();
    let desk = Desk {
        name,
        metrics,
        bystander,
        slots: Slots::new(usize::from(places)),
        backlog,
    };
    let config = Config::default()
        .debounce(DEBOUNCE)
        .concurrency(places.saturating_add(PARKING));
    let reference_to = |at: ObjectRef| reflector::ObjectRef::new(&at.name).within(&at.namespace);
    let listed = Arc::clone(&desk.backlog).stream().map(reference_to);
    let parked = Arc::clone(&desk.slots).stream().map(reference_to);
    let (gone, forgotten) = (desk.clone(), Arc::clone(&attempts));
    let looks = controller
        .reconcile_on(listed)
        .reconcile_on(parked)
        .with_config(config)
        .graceful_shutdown_on(cancel.cancelled_owned())
        .run(
            move |object: Arc<K>, attempts: Arc<Attempts>| {
                let at = reference(object.as_ref());
                let span = tracing::info_span!("reconcile", controller = name, object = %at);
                let begun = desk.begin(object.as_ref(), &attempts, &reconcile);
                let desk = desk.clone();
                async move { desk.look(object.as_ref(), &attempts, begun).await }.instrument(span)
            },
            move |object: Arc<K>, failed: &Failed<E>, attempts: Arc<Attempts>| {
                let at = reference(object.as_ref());
                let pause = attempts.pause(&at, object.meta().generation, failed);
                tracing::debug!(
                    controller = name,
                    object = %at,
                    pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                    error = failed as &dyn Error,
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
                let at = ObjectRef::new(at.namespace.unwrap_or_default(), at.name);
                gone.backlog.end(&at);
                gone.slots.forget(&at);
                forgotten.succeeded(&at);
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

#[cfg(test)]
mod tests;
