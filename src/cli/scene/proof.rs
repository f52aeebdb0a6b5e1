//! Our own look at every pod: does it serve what the request asked for?

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;

use super::cast::{NAMESPACE, POOLER, PORT, named};
use crate::api::{PgBouncer, PgBouncerOpsRequest};
use crate::cluster::Cluster;
use crate::names::Fingerprint;
use crate::pgbouncer::probe;
use crate::pki::facts;

/// Bound of one handshake.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// What was seen.
pub(in crate::cli) struct Proof {
    /// Pods that serve what the request asked for.
    pub(in crate::cli) proved: usize,
    /// What the other pods serve.
    pub(in crate::cli) complaints: Vec<String>,
}

/// What every pod has to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Wanted {
    /// The leaf of the server Secret.
    Published,
    /// No TLS.
    Plaintext,
}

impl Wanted {
    /// What has to be served after `request` has succeeded.
    pub(in crate::cli) fn after(request: &PgBouncerOpsRequest) -> Self {
        match request.spec.tls.as_ref().and_then(|tls| tls.remove) {
            Some(true) => Self::Plaintext,
            Some(false) | None => Self::Published,
        }
    }
}

/// Shakes hands with every pod.
pub(in crate::cli) async fn look(cluster: &Cluster, wanted: Wanted) -> anyhow::Result<Proof> {
    let wanted = match wanted {
        Wanted::Plaintext => None,
        Wanted::Published => Some(published(cluster).await?),
    };
    let labels = format!("app.kubernetes.io/instance={POOLER}");
    let pods: Vec<Pod> = cluster.list(NAMESPACE, &labels).await?;
    let mut proof = Proof {
        proved: 0,
        complaints: Vec::new(),
    };
    for pod in &pods {
        match served(pod).await {
            Ok(seen) if seen == wanted => proof.proved += 1,
            Ok(seen) => {
                let (seen, wanted) = (words(seen), words(wanted));
                let name = pod.name_any();
                let complaint = format!("pod {name} serves {seen}, not {wanted}");
                proof.complaints.push(complaint);
            }
            Err(error) => proof
                .complaints
                .push(format!("{}: {error}", pod.name_any())),
        }
    }
    let pooler: Option<PgBouncer> = cluster.get(&named(POOLER)).await?;
    let asked = pooler.and_then(|pooler| pooler.spec.replicas).unwrap_or(1);
    if usize::try_from(asked) != Ok(pods.len()) {
        let complaint = format!("there are {} pods, not {asked}", pods.len());
        proof.complaints.push(complaint);
    }
    Ok(proof)
}

/// The leaf in the server Secret.
pub(in crate::cli) async fn published(cluster: &Cluster) -> anyhow::Result<Fingerprint> {
    let at = named(format!("{POOLER}-server-cert"));
    let secret: Option<Secret> = cluster.get(&at).await?;
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let pem = data
        .get("tls.crt")
        .ok_or_else(|| anyhow::anyhow!("Secret {at} has no tls.crt"))?;
    let chain = facts::read_chain(std::str::from_utf8(&pem.0)?)?;
    let leaf = chain.first();
    leaf.map(|leaf| leaf.fingerprint)
        .ok_or_else(|| anyhow::anyhow!("tls.crt of Secret {at} is empty"))
}

async fn served(pod: &Pod) -> anyhow::Result<Option<Fingerprint>> {
    let seen = probe::probe(address(pod)?, None, PROBE_TIMEOUT).await?;
    Ok(seen.fingerprint())
}

/// Where a pod listens.
pub(in crate::cli) fn address(pod: &Pod) -> anyhow::Result<SocketAddr> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let ip: IpAddr = ip.ok_or_else(|| anyhow::anyhow!("no address"))?.parse()?;
    Ok(SocketAddr::new(ip, PORT))
}

fn words(leaf: Option<Fingerprint>) -> String {
    leaf.map_or_else(|| "plaintext".to_owned(), |print| format!("leaf {print}"))
}
