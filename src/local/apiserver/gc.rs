//! What goes because something else went: dependents, contents of namespaces, objects of
//! definitions, old events.
//!
//! A sweep looks at everything and is right whatever happened before it, so a crash or a missed
//! change costs nothing but the time until the next sweep. Changes that can make work wake it.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;

use super::ApiServer;
use super::builtin::DEFINITIONS_GROUP;
use super::call::Call;
use super::create::Ownership;
use super::definitions::CLEANUP_FINALIZER;
use super::delete::{DeleteOptions, FOREGROUND, ORPHAN, Preconditions, instances};
use super::error::ApiError;
use super::meta;
use crate::instants::{Shift, signed};
use crate::local::store::{Change, ChangeKind, Key, revision_of};

/// How long events are kept, as in Kubernetes.
const EVENT_TTL: Duration = Duration::from_secs(60 * 60);
/// A sweep happens at least this often, for the events.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

type Object = (Key, Arc<Value>);

impl ApiServer {
    /// Collects garbage until `stop`.
    pub async fn collect_garbage(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            // Subscribed before the sweep: what happens during it wakes the next one.
            let follower = self.inner.store.subscribe(self.inner.store.revision());
            let server = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || server.sweep()).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a sweep ended early"
                );
            }
            let Ok(mut follower) = follower else { continue };
            let work = async {
                while let Ok(changes) = follower.next().await {
                    if changes.iter().any(|change| makes_work(change)) {
                        break;
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tokio::time::timeout(SWEEP_EVERY, work) => {}
            }
        }
    }

    /// One look at everything.
    fn sweep(&self) {
        let objects = self.inner.store.list_all().objects;
        let owners = Owners::new(&objects);
        for object in &objects {
            // One object that cannot be looked at must not keep the others.
            let look = AssertUnwindSafe(|| self.sweep_one(object, &objects, &owners));
            let outcome = catch_unwind(look)
                .unwrap_or_else(|_| Err(ApiError::Internal("the sweep panicked".to_owned())));
            match outcome {
                // Changed or gone since the list was taken: the change wakes the next sweep.
                Ok(()) | Err(ApiError::NotFound(_) | ApiError::Conflict { .. }) => {}
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    resource = object.0.resource,
                    name = object.0.name,
                    "cannot collect an object"
                ),
            }
        }
    }

    fn sweep_one(
        &self,
        object: &Object,
        objects: &[Object],
        owners: &Owners<'_>,
    ) -> Result<(), ApiError> {
        let (key, value) = object;
        if meta::is_deleting(value) {
            self.release(object, objects, owners)?;
            if key.resource == "namespaces" && key.group.is_empty() {
                self.empty_namespace(object, objects)?;
            }
            return Ok(());
        }
        if key.resource == "events" && key.group.is_empty() && self.is_old(value) {
            return self.remove(object, None);
        }
        match owners.verdict(key, value) {
            Verdict::Keep => Ok(()),
            Verdict::Forget(uids) => self.forget(key, &uids),
            Verdict::Collect => {
                let policy = if meta::finalizers(value).contains(&ORPHAN) {
                    "Orphan"
                } else if owners.has_dependents(value) && owners.awaited(key, value) {
                    "Foreground"
                } else {
                    "Background"
                };
                self.remove(object, Some(policy))
            }
        }
    }

    /// Takes the server's own finalizers off an object whose deletion waited for others.
    fn release(
        &self,
        (key, value): &Object,
        objects: &[Object],
        owners: &Owners<'_>,
    ) -> Result<(), ApiError> {
        let finalizers = meta::finalizers(value);
        let uid = meta::text(value, "uid");
        let dependents = owners.dependents.get(uid).map_or(&[][..], Vec::as_slice);
        if finalizers.contains(&ORPHAN) {
            for &at in dependents
                .iter()
                .filter(|at| is_within(key, &objects[**at].0))
            {
                self.forget(&objects[at].0, &[uid.to_owned()])?;
            }
            self.take_finalizer(key, ORPHAN)?;
        }
        if finalizers.contains(&FOREGROUND) {
            let blocks = |&at: &usize| {
                is_within(key, &objects[at].0)
                    && references(&objects[at].1)
                        .any(|owner| owner["uid"] == uid && owner["blockOwnerDeletion"] == true)
            };
            if !dependents.iter().any(blocks) {
                self.take_finalizer(key, FOREGROUND)?;
            }
        }
        if finalizers.contains(&CLEANUP_FINALIZER) && key.group == DEFINITIONS_GROUP {
            let collection = instances(value);
            let mut left = objects
                .iter()
                .filter(|(key, _)| collection.holds(key))
                .peekable();
            if left.peek().is_none() {
                self.take_finalizer(key, CLEANUP_FINALIZER)?;
            }
            for object in left.filter(|(_, object)| !meta::is_deleting(object)) {
                self.remove(object, None)?;
            }
        }
        Ok(())
    }

    fn empty_namespace(&self, (key, value): &Object, objects: &[Object]) -> Result<(), ApiError> {
        let mut inside = objects
            .iter()
            .filter(|(inner, _)| inner.namespace == key.name)
            .peekable();
        if inside.peek().is_none() && meta::finalizers(value).is_empty() {
            // A create that saw the namespace alive would have bumped no revision of it, so look
            // once more: nothing can be created in a namespace that is being deleted.
            let all = self.inner.store.list_all().objects;
            if all.iter().all(|(inner, _)| inner.namespace != key.name) {
                self.inner.store.delete(key, revision_of(value))?;
            }
        }
        for object in inside.filter(|(_, object)| !meta::is_deleting(object)) {
            self.remove(object, None)?;
        }
        Ok(())
    }

    fn remove(&self, (key, value): &Object, policy: Option<&str>) -> Result<(), ApiError> {
        let Some(call) = self.internal(key) else {
            self.inner.store.delete(key, revision_of(value))?;
            return Ok(());
        };
        let options = DeleteOptions {
            preconditions: Some(Preconditions {
                uid: Some(meta::text(value, "uid").to_owned()),
                resource_version: Some(meta::text(value, "resourceVersion").to_owned()),
            }),
            propagation_policy: policy.map(ToOwned::to_owned),
            ..DeleteOptions::default()
        };
        self.delete(&call, &options).map(drop)
    }

    /// Takes owner references off an object.
    fn forget(&self, key: &Key, uids: &[String]) -> Result<(), ApiError> {
        self.touch(key, |object| {
            let left: Vec<Value> = references(object)
                .filter(|owner| !uids.iter().any(|uid| owner["uid"] == *uid.as_str()))
                .cloned()
                .collect();
            meta::set(
                object,
                "ownerReferences",
                (!left.is_empty()).then(|| json!(left)),
            );
        })
    }

    fn take_finalizer(&self, key: &Key, finalizer: &str) -> Result<(), ApiError> {
        self.touch(key, |object| meta::remove_finalizer(object, finalizer))
    }

    fn touch(&self, key: &Key, step: impl Fn(&mut Value)) -> Result<(), ApiError> {
        let Some(call) = self.internal(key) else {
            return Ok(());
        };
        let changed = self.change(&call, Ownership::Applied, |stored| {
            let mut next = stored.clone();
            step(&mut next);
            Ok(next)
        });
        changed.map(drop)
    }

    fn is_old(&self, event: &Value) -> bool {
        let times = [
            event["series"]["lastObservedTime"].as_str(),
            event["lastTimestamp"].as_str(),
            event["metadata"]["creationTimestamp"].as_str(),
        ];
        let times = times.into_iter().flatten();
        let newest = times
            .filter_map(|text| OffsetDateTime::parse(text, &Rfc3339).ok())
            .max();
        newest.is_some_and(|newest| newest.plus(signed(EVENT_TTL)) < self.inner.options.clock.now())
    }

    fn internal(&self, key: &Key) -> Option<Call> {
        let resource = self.registry().stored(&key.group, &key.resource)?;
        Some(Call::internal(resource, key, "garbage-collector"))
    }
}

/// Whether a change can make work for a sweep.
fn makes_work(change: &Change) -> bool {
    change.kind == ChangeKind::Deleted
        || references(&change.object).next().is_some() && change.kind == ChangeKind::Added
        || (meta::is_deleting(&change.object)
            && (!meta::finalizers(&change.object).is_empty()
                || change.key.resource == "namespaces"))
}

/// Whether an object may be owned by one at `owner`: by one of no namespace, or of its own.
fn is_within(owner: &Key, key: &Key) -> bool {
    owner.namespace.is_empty() || owner.namespace == key.namespace
}

fn references(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
}

/// What becomes of an object that has owners.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// Some owners are gone, others are there: drop the references to those.
    Forget(Vec<String>),
    Collect,
}

/// Who owns whom.
struct Owners<'a> {
    /// Every uid, where its object is, and whether that waits for its dependents to go.
    alive: HashMap<&'a str, (&'a Key, bool)>,
    /// Uid → places of the dependents in the list.
    dependents: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Owners<'a> {
    fn new(objects: &'a [Object]) -> Self {
        let mut alive = HashMap::new();
        let mut dependents: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, (key, object)) in objects.iter().enumerate() {
            let waits = meta::is_deleting(object) && meta::finalizers(object).contains(&FOREGROUND);
            alive.insert(meta::text(object, "uid"), (key, waits));
            for owner in references(object) {
                dependents
                    .entry(owner["uid"].as_str().unwrap_or_default())
                    .or_default()
                    .push(at);
            }
        }
        Self { alive, dependents }
    }

    fn verdict(&self, key: &Key, object: &Value) -> Verdict {
        let uids: HashSet<&str> = references(object)
            .filter_map(|owner| owner["uid"].as_str())
            .collect();
        if uids.is_empty() {
            return Verdict::Keep;
        }
        let (solid, loose): (Vec<&str>, Vec<&str>) = uids
            .into_iter()
            .partition(|uid| self.waits(key, uid) == Some(false));
        match (solid.is_empty(), loose.is_empty()) {
            (true, _) => Verdict::Collect,
            (false, true) => Verdict::Keep,
            (false, false) => Verdict::Forget(loose.into_iter().map(ToOwned::to_owned).collect()),
        }
    }

    fn has_dependents(&self, object: &Value) -> bool {
        self.dependents.contains_key(meta::text(object, "uid"))
    }

    /// Whether the owner `uid` of the object at `key` waits for its dependents to go; `None` where
    /// there is no such owner. An object of another namespace owns nothing here.
    fn waits(&self, key: &Key, uid: &str) -> Option<bool> {
        let (owner, waits) = self.alive.get(uid)?;
        is_within(owner, key).then_some(*waits)
    }

    /// Whether an owner waits for this object to go.
    fn awaited(&self, key: &Key, object: &Value) -> bool {
        references(object)
            .filter_map(|owner| owner["uid"].as_str())
            .any(|uid| self.waits(key, uid) == Some(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, owners: &[&str]) -> Object {
        let owners: Vec<Value> = owners.iter().map(|uid| json!({"uid": uid})).collect();
        let key = Key {
            group: String::new(),
            resource: "configmaps".into(),
            namespace: "books".into(),
            name: name.into(),
        };
        let value = json!({"metadata": {"name": name, "uid": name, "ownerReferences": owners}});
        (key, Arc::new(value))
    }

    #[test]
    fn an_object_goes_when_all_its_owners_are_gone() {
        let objects = [
            object("a", &[]),
            object("b", &["a"]),
            object("c", &["x"]),
            object("d", &["a", "x"]),
        ];
        let owners = Owners::new(&objects);
        let verdicts: Vec<Verdict> = objects.iter().map(|(k, o)| owners.verdict(k, o)).collect();
        assert_eq!(
            verdicts,
            [
                Verdict::Keep,
                Verdict::Keep,
                Verdict::Collect,
                Verdict::Forget(vec!["x".into()])
            ]
        );
    }

    #[test]
    fn an_object_of_another_namespace_owns_nothing() {
        let mut objects = [object("a", &[]), object("b", &["a"]), object("c", &["a"])];
        objects[2].0.namespace = "shops".to_owned();
        let owners = Owners::new(&objects);
        assert_eq!(owners.verdict(&objects[1].0, &objects[1].1), Verdict::Keep);
        assert_eq!(
            owners.verdict(&objects[2].0, &objects[2].1),
            Verdict::Collect
        );
        objects[0].0.namespace = String::new();
        let owners = Owners::new(&objects);
        assert_eq!(owners.verdict(&objects[2].0, &objects[2].1), Verdict::Keep);
    }
}
