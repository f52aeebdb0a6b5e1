//! The demo's own look at every pod: does it serve what the request asked for?

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;

use super::cast::{NAMESPACE, POOLER, PORT, REPLICAS, named};
use crate::api::PgBouncerOpsRequest;
use crate::cluster::Cluster;
use crate::names::Fingerprint;
use crate::pgbouncer::probe;
use crate::pki::facts;

/// Bound of one handshake.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// What was seen.
pub(super) struct Proof {
    /// Pods that serve what the request asked for.
    pub(super) proved: usize,
    /// What the other pods serve.
    pub(super) complaints: Vec<String>,
}

/// Shakes hands with every pod. After a removal every pod has to answer that it has no TLS; after
/// anything else it has to serve the leaf of the server Secret.
pub(super) async fn look(
    cluster: &Cluster,
    request: &PgBouncerOpsRequest,
) -> anyhow::Result<Proof> {
    let removed = request.spec.tls.as_ref().and_then(|tls| tls.remove) == Some(true);
    let wanted = if removed {
        None
    } else {
        Some(published(cluster).await?)
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
    if pods.len() != REPLICAS {
        let complaint = format!("there are {} pods, not {REPLICAS}", pods.len());
        proof.complaints.push(complaint);
    }
    Ok(proof)
}

/// The leaf in the server Secret.
async fn published(cluster: &Cluster) -> anyhow::Result<Fingerprint> {
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
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let ip: IpAddr = ip.ok_or_else(|| anyhow::anyhow!("no address"))?.parse()?;
    let seen = probe::probe(SocketAddr::new(ip, PORT), None, PROBE_TIMEOUT).await?;
    Ok(seen.fingerprint())
}

fn words(leaf: Option<Fingerprint>) -> String {
    leaf.map_or_else(|| "plaintext".to_owned(), |print| format!("leaf {print}"))
}
