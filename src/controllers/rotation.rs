//! Scheduled rotation: woken by what is stored, and by the time at which something is due.
//!
//! One loop over all PgBouncers, because the limits are about all of them. State decides and the
//! timer only wakes: whatever was missed while nobody ran is seen in the first look.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt, select_all};
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Bystander, SchedulerMetrics};
use crate::api::{ClusterIssuer, Issuer, PgBouncer, PgBouncerOpsRequest};
use crate::blueprint::labels::OURS;
use crate::cluster::{Cluster, within};
use crate::instants::{Shift, Since, Within};
use crate::inventory::Inventory;
use crate::names::{Area, ObjectRef};
use crate::rotation::index::Kind;
use crate::rotation::{Note, Object, PART, RotationOptions, Rotator, Troubles};

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
    bystander: Bystander,
    metrics: SchedulerMetrics,
    cancel: CancellationToken,
) {
    let clock = bystander.clock.clone();
    let mut notes = notes(&cluster, rotator.options());
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
            for at in inventory.astray() {
                rotator.suspect(&at, began);
            }
        }
        // Boxed: it is large, and one for the daemon's whole life.
        let wake = Box::pin(rotator.settle()).await;
        Box::pin(tell(&bystander, rotator.troubles())).await;
        // What was not yet due, or due at no time, is not late.
        let since = due.filter(|due| *due <= began).unwrap_or(began);
        metrics.passed(since, began, timer.elapsed());
        let now = clock.now();
        // What had to wait for something else than the time is not late by what it waited.
        due = wake.map(|wake| wake.max(now));
        pause = wake.map_or(SLEEP_MAX, |wake| until(wake, now));
    }
    tracing::info!(controller = "rotation", "stopped");
}

/// Says on PgBouncers that deciding or acting on them panicked, or no longer does.
async fn tell(bystander: &Bystander, troubles: Troubles) {
    for (at, panicked) in &troubles.panicked {
        bystander.tell::<PgBouncer>(PART, at, panicked).await;
    }
    for at in &troubles.healed {
        bystander.take_back::<PgBouncer>(at, PART).await;
    }
}

/// Takes notice of everything that comes within [`DEBOUNCE`].
async fn gather(notes: &mut BoxStream<'static, Note>, rotator: &Rotator) {
    let end = Instant::now().plus(DEBOUNCE);
    while let Ok(Some(note)) = tokio::time::timeout_at(end, notes.next()).await {
        rotator.note(note);
    }
}

fn until(wake: OffsetDateTime, now: OffsetDateTime) -> Duration {
    let pause = Duration::try_from(wake.since(now)).unwrap_or(Duration::ZERO);
    pause.within(DEBOUNCE, SLEEP_MAX)
}

/// Everything that is taken notice of, in each area that `options` name.
fn notes(cluster: &Cluster, options: &RotationOptions) -> BoxStream<'static, Note> {
    let (client, every) = (cluster.client(), || cluster.every());
    let mut all = Vec::new();
    for area in Area::covering(&options.namespaces) {
        let at = |kind| Some((kind, area.clone()));
        let bouncers = within::<PgBouncer>(client, &area);
        let requests = within::<PgBouncerOpsRequest>(client, &area);
        let issuers = within::<Issuer>(client, &area);
        all.extend([
            watched(every(), bouncers, at(Kind::Bouncers), |object| {
                Object::Bouncer(Box::new(object))
            }),
            watched(every(), requests, at(Kind::Requests), |object| {
                Object::Request(Box::new(object))
            }),
            secrets(cluster, &area),
            services(cluster, &area),
            namespaces(cluster, &area),
            watched(every(), issuers, None, |object| {
                Object::Issuer(Box::new(object))
            }),
        ]);
    }
    // The keys of ClusterIssuers are looked at as well.
    let keys = &options.cluster_resource_namespace;
    if !options.namespaces.is_empty() && !options.namespaces.contains(keys) {
        all.push(secrets(cluster, &Area::Namespace(keys.clone())));
    }
    let cluster_issuers = Api::<ClusterIssuer>::all(client.clone());
    all.push(watched(every(), cluster_issuers, None, |object| {
        Object::ClusterIssuer(Box::new(object))
    }));
    select_all(all).boxed()
}

fn secrets(cluster: &Cluster, area: &Area) -> BoxStream<'static, Note> {
    let list = Some((Kind::Secrets, area.clone()));
    let api = within::<Secret>(cluster.client(), area);
    watched(cluster.secrets(), api, list, |object| {
        Object::Secret(Box::new(object))
    })
}

/// The Services of PgBouncers that a load balancer may give addresses to.
fn services(cluster: &Cluster, area: &Area) -> BoxStream<'static, Note> {
    let config = cluster
        .every()
        .labels(OURS)
        .fields("spec.type=LoadBalancer");
    let api = within::<Service>(cluster.client(), area);
    watched(config, api, None, |object| {
        Object::Service(Box::new(object))
    })
}

fn namespaces(cluster: &Cluster, area: &Area) -> BoxStream<'static, Note> {
    let config = super::watched::namespaces_of(cluster, area);
    let api = Api::<Namespace>::all(cluster.client().clone());
    let list = Some((Kind::Namespaces, area.clone()));
    watched(config, api, list, |object| {
        Object::Namespace(Box::new(object))
    })
}

/// One kind; after each fresh list it is told what there is of it.
fn watched<K>(
    config: watcher::Config,
    api: Api<K>,
    list: Option<(Kind, Area)>,
    object: fn(K) -> Object,
) -> BoxStream<'static, Note>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut seen = BTreeSet::new();
    let mut told = false;
    let events = watch(api, config).default_backoff();
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
                    let list = list.clone();
                    list.map(|(kind, area)| Note::Listed(kind, area, seen))
                }
                Ok(Event::Apply(found)) => Some(Note::Set(object(found))),
                Ok(Event::Delete(found)) => Some(Note::Gone(object(found))),
                Err(error) => {
                    let bars = barred(&error, list.as_ref());
                    let (error, kind) = (&error as &dyn std::error::Error, K::kind(&()));
                    if bars.is_some() && !told {
                        told = true;
                        tracing::warn!(%kind, error, "annotations there do not count");
                    } else {
                        tracing::debug!(%kind, error, "watch interrupted");
                    }
                    bars
                }
            };
            std::future::ready(note)
        })
        .boxed()
}

/// Whoever may not read Namespaces works without their annotations. Everything else is waited for.
fn barred(error: &watcher::Error, list: Option<&(Kind, Area)>) -> Option<Note> {
    let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error else {
        return None;
    };
    match list {
        Some((Kind::Namespaces, area)) if status.code == 403 => {
            Some(Note::Barred(Kind::Namespaces, area.clone()))
        }
        _ => None,
    }
}

fn named<K: Resource>(object: &K) -> ObjectRef {
    ObjectRef::new(object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(code: u16) -> watcher::Error {
        let status = serde_json::from_value(json!({"status": "Failure", "code": code}));
        watcher::Error::InitialListFailed(kube::Error::Api(status.unwrap()))
    }

    #[test]
    fn only_namespaces_that_may_not_be_read_are_not_waited_for() {
        let list = |kind| (kind, Area::Namespace("books".to_owned()));
        let namespaces = list(Kind::Namespaces);
        assert!(matches!(
            barred(&refused(403), Some(&namespaces)),
            Some(Note::Barred(Kind::Namespaces, area)) if area == namespaces.1
        ));
        assert!(barred(&refused(503), Some(&namespaces)).is_none());
        assert!(barred(&refused(403), Some(&list(Kind::Secrets))).is_none());
        assert!(barred(&refused(403), None).is_none());
    }
}
