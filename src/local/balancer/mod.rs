//! Service addresses that work: a listener per port of every Service that has an address of its
//! own, leading to its ready endpoints in turn.
//!
//! A connection belongs to the endpoint it reached: it goes on when that endpoint leaves the
//! Service, and ends when one of its sides ends it.

pub mod backends;
pub mod proxy;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::backends::backends;
use crate::local::informer::{Informer, key_of};
use crate::local::queue::Queue;
use crate::local::runner::dns::SERVICE_NAME;
use crate::local::workload::services::address_of;
use crate::names::ObjectRef;

/// A port of a Service could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for Service {service}")]
pub struct ListenError {
    /// The Service.
    pub service: ObjectRef,
    /// Its address and port.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

struct Listening {
    endpoints: watch::Sender<Arc<Vec<SocketAddr>>>,
    // Dropped with the entry, which closes the listener and leaves connections alone.
    _stop: DropGuard,
}

type Listeners = HashMap<SocketAddr, Listening>;

/// The balancer.
pub struct Balancer {
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
    queue: Arc<Queue<ObjectRef>>,
    listeners: Mutex<HashMap<ObjectRef, Listeners>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

// === impl Balancer ===

impl Balancer {
    /// Subscribes to Services and their slices; to be called before the informers run.
    pub fn new(
        services: Arc<Informer<Service>>,
        slices: Arc<Informer<EndpointSlice>>,
    ) -> Arc<Self> {
        let queue: Arc<Queue<ObjectRef>> = Arc::default();
        let to = queue.clone();
        services.on_change(move |change| {
            if let Some(service) = change.newest() {
                to.add(key_of(&**service));
            }
        });
        let to = queue.clone();
        slices.on_change(move |change| {
            let Some(slice) = change.newest() else { return };
            if let Some(name) = slice.labels().get(SERVICE_NAME) {
                to.add(ObjectRef::new(
                    slice.namespace().unwrap_or_default(),
                    &**name,
                ));
            }
        });
        Arc::new(Self {
            services,
            slices,
            queue,
            listeners: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Runs until `stop`; then closes all listeners and connections.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let this = self.clone();
        let work = move |key: ObjectRef| {
            let this = this.clone();
            async move { this.reconcile(&key).await }
        };
        tokio::select! {
            () = self.queue.clone().run("balancer", work) => {}
            () = stop.cancelled() => {}
        }
        self.stop.cancel();
        self.lock().clear();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn reconcile(&self, key: &ObjectRef) -> Result<Option<Duration>, String> {
        let service = self.services.get(key);
        let wanted = service.map(|s| self.wanted(key, &s)).unwrap_or_default();
        let missing: Vec<SocketAddr> = {
            let mut all = self.lock();
            let listeners = all.entry(key.clone()).or_default();
            listeners.retain(|address, _| wanted.contains_key(address));
            for (address, listening) in listeners.iter() {
                let endpoints = &wanted[address];
                listening.endpoints.send_if_modified(|held| {
                    let differs = **held != *endpoints;
                    if differs {
                        *held = Arc::new(endpoints.clone());
                    }
                    differs
                });
            }
            let missing = wanted.keys().filter(|a| !listeners.contains_key(a));
            missing.copied().collect()
        };
        if wanted.is_empty() {
            self.lock().remove(key);
        }
        for address in missing {
            self.listen(key, address, &wanted[&address])
                .await
                .map_err(|error| {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no listener");
                    error.to_string()
                })?;
        }
        Ok(None)
    }

    async fn listen(
        &self,
        key: &ObjectRef,
        address: SocketAddr,
        endpoints: &[SocketAddr],
    ) -> Result<(), ListenError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ListenError {
                service: key.clone(),
                address,
                source,
            })?;
        let (sender, receiver) = watch::channel(Arc::new(endpoints.to_vec()));
        let stop = self.stop.child_token();
        let accept = proxy::listen(listener, receiver, self.tasks.clone(), self.stop.clone());
        let stopped = stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = accept => {}
                () = stopped.cancelled() => {}
            }
        });
        let listening = Listening {
            endpoints: sender,
            _stop: stop.drop_guard(),
        };
        self.lock()
            .entry(key.clone())
            .or_default()
            .insert(address, listening);
        Ok(())
    }

    /// The addresses that `service` should listen on, and where they lead.
    fn wanted(&self, key: &ObjectRef, service: &Service) -> HashMap<SocketAddr, Vec<SocketAddr>> {
        let Some(own) = address_of(service) else {
            return HashMap::new();
        };
        let slices: Vec<Arc<EndpointSlice>> = self
            .slices
            .list(&key.namespace)
            .into_iter()
            .filter(|slice| slice.labels().get(SERVICE_NAME) == Some(&key.name))
            .collect();
        let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
        ports
            .filter(|port| port.protocol.as_deref().is_none_or(|p| p == "TCP"))
            .filter_map(|port| {
                let number = u16::try_from(port.port).ok()?;
                let address = SocketAddr::from((own, number));
                Some((address, backends(port, &slices)))
            })
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectRef, Listeners>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
