//! A local copy of one kind of object, kept in step by a watch, and the handlers that turn its
//! changes into keys of work.
//!
//! One watch per kind serves all controllers of the platform. Copies lag behind the API by a watch
//! event, so a handler that acts on a fact that must be current (a template, a Secret) reads it again.
//!
//! kube's `reflector` keeps such a copy too, but tells of a change without the former object, by which the
//! address of a Service is released and a pod's former Services are found, and has no list by namespace.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt as _;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::names::ObjectRef;
use crate::opaque;

/// What happened to an object: what was known before, what is known now.
pub struct Change<'a, K> {
    /// The object as known before; `None` when it is new.
    pub before: Option<&'a Arc<K>>,
    /// The object now; `None` when it is gone.
    pub after: Option<&'a Arc<K>>,
}

type Handler<K> = Box<dyn Fn(&Change<'_, K>) + Send + Sync>;
type Namespace<K> = BTreeMap<String, Arc<K>>;

/// The copy of all objects of one kind.
pub struct Informer<K> {
    objects: RwLock<HashMap<String, Namespace<K>>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

/// What woke a handler, whichever of the two is there.
impl<'a, K> Change<'a, K> {
    /// The newest form of the object.
    pub fn newest(&self) -> Option<&'a Arc<K>> {
        self.after.or(self.before)
    }
}

impl<K> Default for Informer<K> {
    fn default() -> Self {
        Self {
            objects: RwLock::default(),
            handlers: RwLock::default(),
            synced: watch::Sender::new(false),
        }
    }
}

impl<K> Informer<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Calls `handler` on every later change; to be called before [`Self::run`].
    pub fn on_change(&self, handler: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        write(&self.handlers).push(Box::new(handler));
    }

    /// The object of that name, as far as known.
    pub fn get(&self, key: &ObjectRef) -> Option<Arc<K>> {
        read(&self.objects)
            .get(&key.namespace)
            .and_then(|names| names.get(&key.name))
            .cloned()
    }

    /// All objects of a namespace, by name.
    pub fn list(&self, namespace: &str) -> Vec<Arc<K>> {
        read(&self.objects)
            .get(namespace)
            .map(|names| names.values().cloned().collect())
            .unwrap_or_default()
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<K>> {
        let objects = read(&self.objects);
        objects
            .values()
            .flat_map(|names| names.values().cloned())
            .collect()
    }

    /// Returns once the first full list has been taken in.
    pub async fn wait_synced(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Follows the API until dropped. A broken watch is taken up again after a pause; an object
    /// that is not of its kind's form is passed over, so that it cannot hold up the others.
    pub async fn run(&self, client: Client) {
        let api: Api<DynamicObject> = Api::all_with(client, &ApiResource::erase::<K>(&()));
        let mut events = Box::pin(watcher(api, watcher::Config::default()).default_backoff());
        let mut listed: HashMap<String, Namespace<K>> = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    let Some(object) = typed::<K>(object) else {
                        continue;
                    };
                    let key = key_of(&object);
                    listed
                        .entry(key.namespace)
                        .or_default()
                        .insert(key.name, Arc::new(object));
                }
                Ok(watcher::Event::InitDone) => {
                    self.replace(&std::mem::take(&mut listed));
                    self.synced.send_replace(true);
                }
                Ok(watcher::Event::Apply(object)) => {
                    if let Some(object) = typed(object) {
                        self.apply(object);
                    }
                }
                Ok(watcher::Event::Delete(object)) => {
                    let namespace = object.namespace().unwrap_or_default();
                    self.remove(&ObjectRef::new(namespace, object.name_any()));
                }
                Err(error) => {
                    tracing::debug!(kind = %K::kind(&()), %error, "watch interrupted");
                }
            }
        }
    }

    fn replace(&self, listed: &HashMap<String, Namespace<K>>) {
        let before = std::mem::replace(&mut *write(&self.objects), listed.clone());
        for (namespace, names) in listed {
            for (name, after) in names {
                let before = before.get(namespace).and_then(|names| names.get(name));
                self.tell(&Change {
                    before,
                    after: Some(after),
                });
            }
        }
        for (namespace, names) in &before {
            for (name, object) in names {
                if !listed.get(namespace).is_some_and(|n| n.contains_key(name)) {
                    self.tell(&Change {
                        before: Some(object),
                        after: None,
                    });
                }
            }
        }
    }

    fn apply(&self, object: K) {
        let key = key_of(&object);
        let after = Arc::new(object);
        let before = write(&self.objects)
            .entry(key.namespace)
            .or_default()
            .insert(key.name, after.clone());
        self.tell(&Change {
            before: before.as_ref(),
            after: Some(&after),
        });
    }

    fn remove(&self, key: &ObjectRef) {
        let before = write(&self.objects)
            .get_mut(&key.namespace)
            .and_then(|names| names.remove(&key.name));
        self.tell(&Change {
            before: before.as_ref(),
            after: None,
        });
    }

    fn tell(&self, change: &Change<'_, K>) {
        for handler in read(&self.handlers).iter() {
            handler(change);
        }
    }
}

fn typed<K: Resource<DynamicType = ()> + DeserializeOwned>(object: DynamicObject) -> Option<K> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    match serde_json::to_value(object).and_then(serde_json::from_value) {
        Ok(object) => Some(object),
        Err(error) => {
            let (kind, error) = (K::kind(&()), opaque::shape(&error));
            tracing::warn!(%kind, namespace, name, error, "object passed over");
            None
        }
    }
}

/// Namespace and name of an object.
pub fn key_of<K: Resource<DynamicType = ()>>(object: &K) -> ObjectRef {
    ObjectRef::new(object.namespace().unwrap_or_default(), object.name_any())
}

// A handler that panicked leaves the maps whole: every change is one insert or remove.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
