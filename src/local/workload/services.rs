//! The controller of Services: gives each its address and keeps the EndpointSlice of its pods.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use serde_json::json;

use super::selector::selected;
use super::slices::{MANAGED_BY, MANAGER, slices};
use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterError, EventKind, Reporter};
use crate::local::addresses::Addresses;
use crate::local::informer::{Informer, key_of};
use crate::local::queue::Queue;
use crate::local::runner::dns::SERVICE_NAME;
use crate::names::ObjectRef;

/// When a Service that got no address tries again.
const RETRY_ADDRESS: Duration = Duration::from_secs(5);

/// The controller.
pub struct ServiceController {
    cluster: Cluster,
    reporter: Reporter,
    clock: Clock,
    addresses: Addresses,
    services: Arc<Informer<Service>>,
    slices: Arc<Informer<EndpointSlice>>,
    pods: Arc<Informer<Pod>>,
    queue: Arc<Queue<ObjectRef>>,
}

/// The copies that the controller reads.
#[derive(Clone)]
pub struct Copies {
    /// Services.
    pub services: Arc<Informer<Service>>,
    /// Their slices.
    pub slices: Arc<Informer<EndpointSlice>>,
    /// Pods.
    pub pods: Arc<Informer<Pod>>,
}

// === impl ServiceController ===

impl ServiceController {
    /// Subscribes; to be called before the informers run.
    pub fn new(cluster: Cluster, clock: Clock, addresses: Addresses, copies: Copies) -> Arc<Self> {
        let Copies {
            services,
            slices,
            pods,
        } = copies;
        let queue: Arc<Queue<ObjectRef>> = Arc::default();
        let (to, pool) = (queue.clone(), addresses.clone());
        services.on_change(move |change| {
            let Some(service) = change.newest() else {
                return;
            };
            if let Some(address) = address_of(service) {
                let owner = owner_of(service);
                if change.after.is_some() {
                    pool.claim(address, &owner);
                } else {
                    pool.release(address, &owner);
                }
            }
            to.add(key_of(&**service));
        });
        let (to, known) = (queue.clone(), services.clone());
        pods.on_change(move |change| {
            let Some(pod) = change.newest() else { return };
            let namespace = pod.namespace().unwrap_or_default();
            for service in known.list(&namespace) {
                let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
                let touched = [change.before, change.after]
                    .into_iter()
                    .flatten()
                    .any(|pod| selected(selector, Some(pod.labels())));
                if touched {
                    to.add(key_of(&*service));
                }
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
            reporter: Reporter::new(cluster.clone(), "local-services"),
            cluster,
            clock,
            addresses,
            services,
            slices,
            pods,
            queue,
        })
    }

    /// Runs until dropped.
    pub async fn run(self: Arc<Self>) {
        let queue = self.queue.clone();
        let work = move |key| {
            let this = self.clone();
            async move { this.reconcile(&key).await }
        };
        queue.run("services", work).await;
    }

    async fn reconcile(&self, key: &ObjectRef) -> Result<Option<Duration>, ClusterError> {
        let Some(service) = self.services.get(key) else {
            return Ok(None);
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let again = self.give_address(key, &service).await?;
        let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
        if selector.is_some_and(|s| !s.is_empty()) {
            self.keep_slices(key, &service).await?;
        }
        Ok(again)
    }

    async fn give_address(
        &self,
        key: &ObjectRef,
        service: &Service,
    ) -> Result<Option<Duration>, ClusterError> {
        let spec = service.spec.clone().unwrap_or_default();
        let external = spec.type_.as_deref() == Some("ExternalName");
        if external || spec.cluster_ip.is_some_and(|ip| !ip.is_empty()) {
            return Ok(None);
        }
        let ports: Vec<u16> = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| u16::try_from(port.port).ok())
            .collect();
        let owner = owner_of(service);
        match self.addresses.take(&owner, &format!("svc/{key}"), &ports) {
            Ok(address) => {
                let uid = service.uid();
                let patch = json!({
                    "metadata": {"uid": uid},
                    "spec": {"clusterIP": address, "clusterIPs": [address]}
                });
                let result = self.cluster.patch::<Service>(key, &patch).await;
                if result.is_err() {
                    self.addresses.release(address, &owner);
                }
                match result {
                    Err(error) if !error.is_not_found() => Err(error),
                    _ => Ok(None),
                }
            }
            Err(error) => {
                self.reporter
                    .report(
                        service,
                        EventKind::Warning,
                        "NoAddress",
                        &error.to_string(),
                        self.clock.now(),
                    )
                    .await;
                Ok(Some(RETRY_ADDRESS))
            }
        }
    }

    async fn keep_slices(&self, key: &ObjectRef, service: &Service) -> Result<(), ClusterError> {
        let known: BTreeMap<String, Arc<EndpointSlice>> = self
            .slices
            .list(&key.namespace)
            .into_iter()
            .filter(|slice| {
                slice.labels().get(SERVICE_NAME) == Some(&key.name)
                    && slice.labels().get(MANAGED_BY).is_some_and(|m| m == MANAGER)
            })
            .map(|slice| (slice.name_any(), slice))
            .collect();
        let wanted = slices(service, &self.pods.list(&key.namespace));
        let names: HashSet<String> = wanted.iter().map(ResourceExt::name_any).collect();
        for mut slice in wanted {
            match known.get(&slice.name_any()) {
                Some(there) if same(there, &slice) => {}
                Some(there) => {
                    // Of the former form, so that a lagging copy is refused and tried again.
                    slice.metadata.resource_version = there.resource_version();
                    self.cluster.replace(&slice).await?;
                }
                None => match self.cluster.create(&slice).await {
                    Err(error) if !error.is_already_exists() => return Err(error),
                    _ => {}
                },
            }
        }
        for (name, slice) in &known {
            if !names.contains(name) {
                self.cluster.delete_read(&**slice).await?;
            }
        }
        Ok(())
    }
}

/// The Service's own address.
pub fn address_of(service: &Service) -> Option<Ipv4Addr> {
    service.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok()
}

fn owner_of(service: &Service) -> String {
    format!("svc/{}", service.uid().unwrap_or_default())
}

fn same(there: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    let list = |slice: &EndpointSlice| slice.endpoints.clone().unwrap_or_default();
    let ports = |slice: &EndpointSlice| slice.ports.clone().unwrap_or_default();
    list(there) == list(wanted)
        && ports(there) == ports(wanted)
        && there.labels() == wanted.labels()
}
