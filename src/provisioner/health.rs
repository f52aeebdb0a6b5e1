//! Looking at the pods: are they there, are they ready, do they answer (CONTRACT 4.2, G12)?
//!
//! The look is a TCP connection, an `SSLRequest` and, where TLS is on, a handshake. It never logs
//! in: a pooler with `max_user_connections=2` has no connection to spare for its operator, and a
//! look is possible in every `sslMode`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::{ProvisionError, Provisioner};
use crate::api::PgBouncer;
use crate::blueprint::{labels, loaded, names, port, serves_tls};
use crate::causes::chain;
use crate::pgbouncer::probe::{self, Served};

/// Longest look at one pod, whatever the object allows.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// What was seen of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodSeen {
    /// Its name.
    pub(super) name: String,
    /// Whether the kubelet calls it ready.
    pub(super) is_ready: bool,
    /// Whether it has loaded an earlier configuration or material.
    pub(super) is_stale: bool,
    /// Why it does not answer as it should; `None` if it does.
    pub(super) trouble: Option<String>,
}

impl Provisioner {
    /// Looks at the pods that the object asks for. `digest` is what pods made now would carry.
    pub(super) async fn health(
        &self,
        bouncer: &PgBouncer,
        digest: Option<&str>,
    ) -> Result<Vec<PodSeen>, ProvisionError> {
        let (name, namespace) = (bouncer.name_any(), bouncer.namespace().unwrap_or_default());
        let selector = labels::to_selector_text(&labels::selector(&name));
        let mut pods: Vec<Pod> = self.cluster.list(&namespace, &selector).await?;
        let ours = |pod: &Pod| {
            (0..bouncer.spec.replicas.unwrap_or(1)).any(|n| pod.name_any() == names::pod(&name, n))
        };
        pods.retain(|pod| ours(pod) && pod.metadata.deletion_timestamp.is_none());
        pods.sort_by_key(ResourceExt::name_any);
        Ok(join_all(pods.iter().map(|pod| look(bouncer, pod, digest))).await)
    }
}

async fn look(bouncer: &PgBouncer, pod: &Pod, digest: Option<&str>) -> PodSeen {
    let (name, is_ready) = (pod.name_any(), is_ready(pod));
    // A pod with an earlier configuration answers by that configuration.
    let is_stale = digest.is_some() && loaded::digest_of(pod) != digest;
    let trouble = if is_ready {
        let is_current = digest.is_some() && !is_stale;
        look_closer(bouncer, pod, is_current).await.err()
    } else {
        None
    };
    PodSeen {
        name,
        is_ready,
        is_stale,
        trouble,
    }
}

/// Connects to a ready pod; the error is a sentence for people.
async fn look_closer(bouncer: &PgBouncer, pod: &Pod, is_current: bool) -> Result<(), String> {
    let ip = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.as_deref());
    let ip: IpAddr = ip
        .and_then(|ip| ip.parse().ok())
        .ok_or_else(|| "it has no address".to_owned())?;
    let port = u16::try_from(port(bouncer)).map_err(|_| "its port is out of range".to_owned())?;
    let host = names::pod_host(
        &bouncer.name_any(),
        &bouncer.namespace().unwrap_or_default(),
        &pod.name_any(),
    );
    let seconds = bouncer
        .spec
        .health_checker
        .timeout_seconds
        .max(1)
        .unsigned_abs();
    let bound = Duration::from_secs(u64::from(seconds)).min(LOOK_MAX);
    let served = probe::probe(SocketAddr::new(ip, port), Some(&host), bound)
        .await
        .map_err(|error| chain(&error))?;
    match served {
        Served::Plaintext if is_current && serves_tls(bouncer) => {
            Err("it answers without TLS although its configuration asks for TLS".to_owned())
        }
        Served::Plaintext | Served::Tls(_) => Ok(()),
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
