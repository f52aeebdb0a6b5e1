//! Looking at the pods: are they there, are they ready, do they answer?
//! See docs/kubedb-compatibility.md, "Health checks".
//!
//! The look is a TCP connection, an `SSLRequest` and, where TLS is on, a handshake. It never logs
//! in: a pooler with `max_user_connections=2` has no connection to spare for its operator, and a
//! look is possible in every `sslMode`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::around::{Kind, Uid, controller_of};
use super::copies::{Claim, Copies};
use crate::api::Located;
use crate::api::PgBouncer;
use crate::api::pod::is_ready;
use crate::blueprint::bounds::REPLICAS_MAX;
use crate::blueprint::{labels, loaded, names, port, serves_tls};
use crate::causes::chain;
use crate::cluster::reference;
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

/// What is known of a pod without looking at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PodState {
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) ip: Option<String>,
    /// Whether the kubelet calls it ready.
    pub(super) is_ready: bool,
    /// Whether it has loaded an earlier configuration or material.
    pub(super) is_stale: bool,
}

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodKnown {
    uid: Option<String>,
    ip: Option<String>,
    is_ready: bool,
    digest: Option<String>,
    /// The PgBouncer that it says it is of.
    instance: String,
    /// What makes it.
    controller: Option<Uid>,
}

impl PodKnown {
    /// `None` for a pod that is none of ours, and for one that is on its way out.
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        let instance = labels::instance(pod.labels())?;
        let is_ours = labels::selector(instance)
            .iter()
            .all(|(key, value)| pod.labels().get(key) == Some(value));
        if !is_ours || pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let status = pod.status.as_ref();
        Some(Self {
            uid: pod.uid(),
            ip: status.and_then(|status| status.pod_ip.clone()),
            is_ready: is_ready(pod),
            digest: loaded::digest_of(pod).map(ToOwned::to_owned),
            instance: instance.to_owned(),
            controller: controller_of(pod),
        })
    }

    fn state(self, name: String, digest: Option<&str>) -> PodState {
        PodState {
            name,
            is_stale: digest.is_some() && self.digest.as_deref() != digest,
            uid: self.uid,
            ip: self.ip,
            is_ready: self.is_ready,
        }
    }
}

/// The pods that the object asks for, as far as its workload has made them. `digest` is what pods made
/// now would carry.
pub(super) fn pods(bouncer: &PgBouncer, digest: Option<&str>, copies: &Copies) -> Vec<PodState> {
    let (name, namespace) = (bouncer.name_any(), bouncer.home());
    let workload = copies.claim(Kind::Workload, &reference(bouncer), bouncer);
    let is_made_by_it = |known: &PodKnown| match workload {
        Claim::Ours(uid) => known.controller == Some(uid),
        // Without a list of workloads the labels have to do.
        Claim::Unknown => known.controller.is_some(),
        Claim::Absent | Claim::Unproved => false,
    };
    // More are refused; their pods are none of ours.
    let replicas = bouncer.spec.replicas.unwrap_or(1).min(REPLICAS_MAX);
    (0..replicas)
        .map(|n| names::pod(&name, n))
        .filter_map(|pod| {
            let known = copies.pod(&namespace, &pod)?;
            let is_ours = known.instance == name && is_made_by_it(&known);
            is_ours.then(|| known.state(pod, digest))
        })
        .collect()
}

/// Looks at pods. `digest` is what pods made now would carry.
pub(super) async fn look_at(
    bouncer: &PgBouncer,
    pods: &[PodState],
    digest: Option<&str>,
) -> Vec<PodSeen> {
    let looks = pods.iter().map(|pod| look(bouncer, pod, digest.is_some()));
    join_all(looks).await
}

async fn look(bouncer: &PgBouncer, pod: &PodState, is_known: bool) -> PodSeen {
    // A pod with an earlier configuration answers by that configuration.
    let is_current = is_known && !pod.is_stale;
    let trouble = if pod.is_ready {
        look_closer(bouncer, pod, is_current).await.err()
    } else {
        None
    };
    PodSeen {
        name: pod.name.clone(),
        is_ready: pod.is_ready,
        is_stale: pod.is_stale,
        trouble,
    }
}

/// Connects to a ready pod; the error is a sentence for people.
async fn look_closer(bouncer: &PgBouncer, pod: &PodState, is_current: bool) -> Result<(), String> {
    let ip: IpAddr = pod
        .ip
        .as_ref()
        .and_then(|ip| ip.parse().ok())
        .ok_or_else(|| "it has no address".to_owned())?;
    let port = u16::try_from(port(bouncer)).map_err(|_| "its port is out of range".to_owned())?;
    let host = names::pod_host(&bouncer.name_any(), &bouncer.home(), &pod.name);
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
