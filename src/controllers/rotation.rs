//! Scheduled rotation: woken by what is stored, and by the time at which something is due.
//!
//! One loop over all PgBouncers, because the limits are about all of them. State decides and the
//! timer only wakes: whatever was missed while nobody ran is seen in the first look.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt, select_all};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::SchedulerMetrics;
use crate::api::{ClusterIssuer, Issuer, PgBouncer, PgBouncerOpsRequest};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::inventory::Inventory;
use crate::names::ObjectRef;
use crate::rotation::index::Kind;
use crate::rotation::{Note, Object, Rotator};

/// How long notes are gathered before anything is decided.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Longest sleep: a timer is the net under a lost event, and clocks are set. With the inventory's
/// period it makes less than a minute until a pod that went astray is looked at.
const SLEEP_MAX: Duration = Duration::from_secs(15);
/// How often the inventory is asked who went astray.
const HINTS: Duration = Duration::from_secs(5);

/// Runs scheduled rotation until it is told to stop.
pub async fn run(
    cluster: Cluster,
    (rotator, inventory): (Arc<Rotator>, Inventory),
    clock: Clock,
    metrics: SchedulerMetrics,
    cancel: CancellationToken,
) {
    let mut notes = notes(&cluster);
    let mut pause = SLEEP_MAX;
    let mut due = None;
    let mut hinted = Instant::now();
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            note = notes.next() => {
                let Some(note) = note else { break };
                rotator.note(note);
                gather(&mut notes, &rotator).await;
            }
            () = tokio::time::sleep(pause) => {}
        }
        let (began, timer) = (clock.now(), Instant::now());
        if hinted.elapsed() >= HINTS {
            hinted = timer;
            let astray = inventory.astray();
            astray.iter().for_each(|at| rotator.suspect(at, began));
        }
        // Boxed: it is large, and one for the daemon's whole life.
        let wake = Box::pin(rotator.settle()).await;
        // What was not yet due, or due at no time, is not late.
        let since = due.filter(|due| *due <= began).unwrap_or(began);
        metrics.passed(since, began, timer.elapsed());
        due = wake;
        pause = wake.map_or(SLEEP_MAX, |wake| until(wake, clock.now()));
    }
    tracing::info!(controller = "rotation", "stopped");
}

/// Takes notice of everything that comes within [`DEBOUNCE`].
async fn gather(notes: &mut BoxStream<'static, Note>, rotator: &Rotator) {
    let end = Instant::now() + DEBOUNCE;
    while let Ok(Some(note)) = tokio::time::timeout_at(end, notes.next()).await {
        rotator.note(note);
    }
}

fn until(wake: OffsetDateTime, now: OffsetDateTime) -> Duration {
    let pause = Duration::try_from(wake - now).unwrap_or(Duration::ZERO);
    pause.clamp(DEBOUNCE, SLEEP_MAX)
}

/// Everything that is taken notice of.
fn notes(cluster: &Cluster) -> BoxStream<'static, Note> {
    let client = cluster.client();
    let bouncers = Api::<PgBouncer>::all(client.clone());
    let requests = Api::<PgBouncerOpsRequest>::all(client.clone());
    let secrets = Api::<Secret>::all(client.clone());
    let namespaces = Api::<Namespace>::all(client.clone());
    let issuers = Api::<Issuer>::all(client.clone());
    let cluster_issuers = Api::<ClusterIssuer>::all(client.clone());
    select_all([
        watched(bouncers, Some(Kind::Bouncers), |object| {
            Object::Bouncer(Box::new(object))
        }),
        watched(requests, Some(Kind::Requests), |object| {
            Object::Request(Box::new(object))
        }),
        watched(secrets, Some(Kind::Secrets), |object| {
            Object::Secret(Box::new(object))
        }),
        watched(namespaces, None, |object| {
            Object::Namespace(Box::new(object))
        }),
        watched(issuers, None, |object| Object::Issuer(Box::new(object))),
        watched(cluster_issuers, None, |object| {
            Object::ClusterIssuer(Box::new(object))
        }),
    ])
    .boxed()
}

/// One kind; after each fresh list it is told what there is of it.
fn watched<K>(api: Api<K>, kind: Option<Kind>, object: fn(K) -> Object) -> BoxStream<'static, Note>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let events = watch(api, watcher::Config::default()).default_backoff();
    let mut seen = BTreeSet::new();
    events
        .filter_map(move |event| {
            let note = match event {
                Ok(Event::Init) => {
                    seen.clear();
                    None
                }
                Ok(Event::InitApply(found)) => {
                    seen.insert(named(&found));
                    Some(Note::Set(object(found)))
                }
                Ok(Event::InitDone) => {
                    let seen = std::mem::take(&mut seen);
                    kind.map(|kind| Note::Listed(kind, seen))
                }
                Ok(Event::Apply(found)) => Some(Note::Set(object(found))),
                Ok(Event::Delete(found)) => Some(Note::Gone(object(found))),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(kind = %K::kind(&()), error, "watch interrupted");
                    None
                }
            };
            std::future::ready(note)
        })
        .boxed()
}

fn named<K: Resource>(object: &K) -> ObjectRef {
    ObjectRef::new(object.namespace().unwrap_or_default(), object.name_any())
}
