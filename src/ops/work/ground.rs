//! One PgBouncer in its cluster, as steps reach it: its names, the live object, its workload, pods and
//! Service. What puts back an orphan has this much and no plan.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use super::StepError;
use super::look::Waiting;
use super::pods::Maker;
use crate::api::PgBouncer;
use crate::blueprint::{WorkloadKind, names};
use crate::cluster::{Cluster, Owner};
use crate::names::{Alias, ObjectRef};
use crate::ops::plan::Subject;

/// One PgBouncer in its cluster.
pub(in crate::ops) struct Ground<'a> {
    /// The cluster.
    pub(in crate::ops) cluster: &'a Cluster,
    /// What makes pods here.
    pub(in crate::ops) kind: WorkloadKind,
    /// Namespace of the PgBouncer and of everything made for it.
    pub(in crate::ops) namespace: &'a str,
    /// The PgBouncer.
    pub(in crate::ops) database: &'a Subject,
    /// The contract Secrets that a login may use, the best first.
    pub(in crate::ops) secrets: Vec<ContractSecret>,
    /// What is waited for.
    pub(in crate::ops) waiting: &'a Waiting,
    /// What makes the pods.
    pub(in crate::ops) maker: &'a Maker,
}

/// A contract Secret.
#[derive(Clone, Debug)]
pub(in crate::ops) struct ContractSecret {
    /// Whose material it holds.
    pub(in crate::ops) alias: Alias,
    /// Its name.
    pub(in crate::ops) name: String,
}

impl Ground<'_> {
    /// Names an object beside the PgBouncer.
    pub(super) fn beside(&self, name: impl Into<String>) -> ObjectRef {
        ObjectRef::new(self.namespace, name)
    }

    /// Namespace and name of the PgBouncer, and of what carries its name.
    pub(in crate::ops) fn at(&self) -> ObjectRef {
        self.beside(self.name())
    }

    /// The PgBouncer's name.
    pub(in crate::ops) fn name(&self) -> &str {
        &self.database.name
    }

    /// The owner of all objects that may be touched.
    pub(super) fn owner(&self) -> Owner {
        Owner::named::<PgBouncer>(&self.database.name, &self.database.uid)
    }

    /// The PgBouncer as it stands in the cluster: the very one that is meant.
    pub(in crate::ops) async fn live(&self) -> Result<PgBouncer, StepError> {
        let at = self.at();
        let found: Option<PgBouncer> = self.cluster.get(&at).await?;
        found
            .filter(|live| live.uid().as_deref() == Some(&self.database.uid))
            .ok_or(StepError::Gone(at))
    }

    /// The host name by which clients know the Service.
    pub(super) fn service_host(&self) -> String {
        names::service_host(self.name(), self.namespace)
    }

    /// The address that clients go to; `None` for a Service without an address of its own. Credentials
    /// are not taken through a Service that is not the PgBouncer's.
    pub(in crate::ops) async fn service_address(&self) -> Result<Option<SocketAddr>, StepError> {
        let service: Option<Service> = self.cluster.get(&self.at()).await?;
        if let Some(service) = &service {
            self.owner().check(service)?;
        }
        let spec = service.and_then(|service| service.spec);
        Ok(spec.and_then(|spec| {
            let ip = spec.cluster_ip?.parse().ok()?;
            let port = spec.ports?.first()?.port;
            Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
        }))
    }
}
