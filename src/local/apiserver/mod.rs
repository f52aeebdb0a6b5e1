//! The Kubernetes API on one machine.
//!
//! ```text
//!   kubectl ── TLS, token ──┐
//!                           ├─► router ─► path, query, body ─► verbs ─► admit ─► store
//!   kube::Client ── tower ──┘                                    └─► apply, patch, delete, evict
//! ```
//!
//! Everything that changes an object is one synchronous function from the stored object to the next
//! one, repeated while somebody else was faster, and ends in one compare-and-swap in the store. The
//! in-process client and `kubectl` go through the same router; the client merely has no socket.
//!
//! Guarantees: an answered write is on disk; a watch delivers every change after its revision in
//! order or ends with 410; one object's `resourceVersion` only grows. Not offered: protobuf
//! (but for reading what `kubectl create secret` and its like send), admission webhooks, conversion
//! between versions of a custom resource other than renaming.

// What is served.
pub mod builtin;
pub mod definitions;
mod discovery;
pub mod kinds;
pub mod reviews;

// Who may.
pub mod access;

// From the wire to a call.
pub mod body;
pub mod bounds;
mod call;
pub mod credentials;
mod doorway;
pub mod faults;
pub mod path;
pub mod protobuf;
pub mod query;
mod route;
pub mod serve;

// Verbs.
mod create;
mod delete;
mod eviction;
mod logs;
mod patch;
mod read;
mod scale;
mod shares;
mod tokens;
mod update;
mod watch;

// What happens to an object on its way in.
pub mod admit;
pub mod admit_pod;
pub mod admit_workload;
pub mod apply;
pub mod events;
pub mod meta;
pub mod schema;
pub mod selector;
pub mod strategic;

// On its way out.
pub mod error;
pub mod openapi;
pub mod present;
pub mod table;

// By itself.
mod gc;

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use axum::Router;
use ring::rand::SystemRandom;
use ring::signature::EcdsaKeyPair;
use serde_json::{Value, json};
use tower::Layer;

use crate::clock::Clock;
use crate::local::store::{Expect, Key, Scope, Store, StoreError};
use access::SharedLedger;
use builtin::DEFINITIONS_GROUP;
use faults::Faults;
use kinds::Registry;
use shares::Shares;

pub use error::ApiError;
pub use logs::{LogError, LogRequest, LogStream, PodLogs};

/// Namespaces that are always there.
const FIRST_NAMESPACES: &[&str] = &["default", "kube-system"];

/// What the server is given.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the time comes from.
    pub clock: Clock,
    /// Does as a server whose feature `WatchList` is off: no list comes as a stream.
    pub without_watch_list: bool,
}

/// The API server. Cheap to clone; all clones are one server.
#[derive(Clone, Debug)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    registry: RwLock<Arc<Registry>>,
    options: Options,
    random: SystemRandom,
    /// Held while an eviction counts and deletes.
    evicting: Mutex<()>,
    logs: OnceLock<Arc<dyn PodLogs>>,
    /// Signs the tokens of ServiceAccounts.
    token_key: OnceLock<EcdsaKeyPair>,
    ledger: SharedLedger,
    shares: Shares,
}

impl ApiServer {
    /// A server over `store`, with the first namespaces in it.
    pub fn new(store: Store, options: Options) -> Result<Self, StoreError> {
        let inner = Inner {
            ledger: SharedLedger::default(),
            store: Arc::new(store),
            registry: RwLock::default(),
            options,
            random: SystemRandom::new(),
            evicting: Mutex::new(()),
            logs: OnceLock::new(),
            token_key: OnceLock::new(),
            shares: Shares::default(),
        };
        let server = Self {
            inner: Arc::new(inner),
        };
        server.reload_definitions();
        for name in FIRST_NAMESPACES {
            server.ensure_namespace(name)?;
        }
        Ok(server)
    }

    /// The HTTP service, without authentication: for the in-process client and for `serve`, which
    /// puts TLS and tokens in front of it. Who sends no [`access::Identity`] along is the
    /// administrator.
    pub fn router(&self) -> Router {
        Router::new()
            .fallback(route::dispatch)
            .with_state(self.clone())
    }

    /// A client that reaches this server without a socket. Call it inside a tokio runtime.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.router(), "default")
    }

    /// A client that meets `faults` on its way to this server.
    pub fn client_through(&self, faults: &Faults) -> kube::Client {
        kube::Client::new(faults.layer(self.router()), "default")
    }

    /// The store behind the server, for the parts of the platform that read everything.
    pub fn store(&self) -> &Arc<Store> {
        &self.inner.store
    }

    fn registry(&self) -> Arc<Registry> {
        Arc::clone(
            &self
                .inner
                .registry
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Serves what the stored definitions say now.
    fn reload_definitions(&self) {
        // Held while reading the store, so that of two reloads the later one wins.
        let mut registry = self
            .inner
            .registry
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let scope = Scope {
            group: DEFINITIONS_GROUP.to_owned(),
            resource: "customresourcedefinitions".to_owned(),
            namespace: None,
        };
        let listing = self.inner.store.list(&scope);
        let definitions = listing.objects.into_iter().map(|(_, object)| object);
        let fresh = Registry::new(definitions, &registry);
        *registry = Arc::new(fresh);
    }

    fn now(&self) -> String {
        meta::timestamp(self.inner.options.clock.now())
    }

    fn ensure_namespace(&self, name: &str) -> Result<(), StoreError> {
        let key = namespace_key(name);
        if self.inner.store.get(&key).is_some() {
            return Ok(());
        }
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": name, "uid": meta::uid(&self.inner.random),
                "creationTimestamp": self.now(),
                "labels": { "kubernetes.io/metadata.name": name },
            },
            "spec": { "finalizers": ["kubernetes"] },
            "status": { "phase": "Active" },
        });
        self.inner
            .store
            .put(&key, namespace, Expect::Absent)
            .map(drop)
    }

    /// The stored namespace object.
    fn namespace(&self, name: &str) -> Option<Arc<Value>> {
        self.inner.store.get(&namespace_key(name))
    }
}

fn namespace_key(name: &str) -> Key {
    Key {
        group: String::new(),
        resource: "namespaces".to_owned(),
        namespace: String::new(),
        name: name.to_owned(),
    }
}
