//! With real poolers on the local platform, and the whole daemon.

use std::net::SocketAddr;
use std::path::PathBuf;

use bouncert::api::common::Phase;
use bouncert::daemon::{self, DaemonOptions};
use bouncert::local::platform::{Platform, PlatformOptions};
use bouncert::local::runner::process::find_running;
use bouncert::pgbouncer::probe::{Served, fingerprint, probe};
use bouncert::pki::pem::read_certificates;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::support::eventually;

/// A platform and the daemon on it.
pub(super) struct Rig {
    pub(super) client: Client,
    tasks: JoinSet<()>,
    stop: CancellationToken,
    runtime: PathBuf,
    _data: TempDir,
}

impl Drop for Rig {
    /// A test that failed leaves no pooler behind.
    fn drop(&mut self) {
        for found in find_running(&self.runtime) {
            let pid = rustix::process::Pid::from_raw(found.pid);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

impl Rig {
    pub(super) async fn start() -> Self {
        let data = TempDir::new().unwrap();
        let mut options = PlatformOptions::new(data.path().join("data"));
        options.definitions = definitions();
        let platform = Platform::start(options).await.unwrap();
        let (client, runtime) = (platform.client(), platform.runtime_dir().to_owned());
        furnish(&client).await;
        backend(&client).await;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(platform.run(stop.clone()));
        let daemon = daemon::run(client.clone(), DaemonOptions::default(), stop.clone());
        tasks.spawn(async move { daemon.await.unwrap() });
        Self {
            client,
            tasks,
            stop,
            runtime,
            _data: data,
        }
    }

    pub(super) async fn is_ready(&self, name: &str) -> PgBouncer {
        eventually(SOON, async || {
            let object: PgBouncer = get(&self.client, name).await.unwrap();
            let phase = object.status.as_ref().and_then(|status| status.phase);
            if phase == Some(Phase::Ready) {
                Ok(object)
            } else {
                Err(conditions(&object))
            }
        })
        .await
    }

    pub(super) async fn address(&self, pod: &str) -> SocketAddr {
        let pod: Pod = get(&self.client, pod).await.unwrap();
        let ip = pod.status.unwrap().pod_ip.unwrap();
        SocketAddr::new(ip.parse().unwrap(), 5432)
    }

    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = tokio::time::timeout(SOON, self.tasks.join_next())
            .await
            .unwrap()
        {
            ended.unwrap();
        }
    }
}

#[tokio::test]
async fn a_plain_pooler_comes_up_and_loses_and_regains_its_readiness() {
    let rig = Rig::start().await;
    create(&rig.client, bouncer("billing", json!({ "replicas": 2 }))).await;
    let object = rig.is_ready("billing").await;
    let status = object.status.unwrap();
    let types: Vec<_> = status
        .conditions
        .iter()
        .map(|it| it.type_.as_str())
        .collect();
    assert_eq!(
        types,
        [
            "ProvisioningStarted",
            "ReplicaReady",
            "AcceptingConnection",
            "Ready",
            "Provisioned"
        ]
    );
    let served = probe(rig.address("billing-1").await, None, SOON)
        .await
        .unwrap();
    assert_eq!(served, Served::Plaintext);

    let pods: Api<Pod> = Api::namespaced(rig.client.clone(), NAMESPACE);
    // Held by a finalizer, the pod is away for as long as it takes somebody to look.
    let hold = |finalizers: Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    let params = PatchParams::default();
    pods.patch("billing-1", &params, &hold(json!(["example.org/held"])))
        .await
        .unwrap();
    pods.delete("billing-1", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    eventually(SOON, async || {
        let object: PgBouncer = get(&rig.client, "billing").await.unwrap();
        let phase = object.status.and_then(|status| status.phase);
        if phase == Some(Phase::Critical) {
            Ok(())
        } else {
            Err(phase)
        }
    })
    .await;
    pods.patch("billing-1", &params, &hold(Value::Null))
        .await
        .unwrap();
    rig.is_ready("billing").await;

    // An edit is written, and the pods that do not have it yet are named.
    let api: Api<PgBouncer> = Api::namespaced(rig.client.clone(), NAMESPACE);
    let edit = async |spec: Value| {
        let patch = Patch::Merge(json!({ "spec": spec }));
        api.patch("billing", &PatchParams::default(), &patch)
            .await
            .unwrap();
    };
    let told = async |words: &str| {
        eventually(SOON, async || {
            let told = conditions(&get(&rig.client, "billing").await.unwrap());
            if told.iter().any(|it| it.contains(words)) {
                Ok(())
            } else {
                Err(told)
            }
        })
        .await;
    };
    edit(json!({ "connectionPool": { "poolMode": "transaction" } })).await;
    told("RestartPending: billing-0, billing-1 run with an earlier configuration").await;
    rig.is_ready("billing").await;

    // TLS is a request's business.
    edit(json!({ "sslMode": "require", "tls": {
        "issuerRef": { "kind": "Issuer", "name": "notary" } } }))
    .await;
    issuer(&rig.client, "notary").await;
    told("ReconfigureTLSRequired: TLS was added").await;
    assert!(
        get::<Secret>(&rig.client, "billing-server-cert")
            .await
            .is_none()
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_pooler_created_with_tls_serves_the_certificate_of_its_secret() {
    let rig = Rig::start().await;
    let spec = json!({
        "sslMode": "verify-ca",
        "tls": { "issuerRef": {
            "apiGroup": "cert-manager.io", "kind": "Issuer", "name": "notary" } },
    });
    create(&rig.client, bouncer("billing", spec)).await;
    // The issuer comes later: the object waits for it, and is woken by it.
    eventually(SOON, async || {
        let told = conditions(&get(&rig.client, "billing").await.unwrap());
        let waits = told.iter().any(|it| it.contains("Issuer shop/notary"));
        if waits { Ok(()) } else { Err(told) }
    })
    .await;
    issuer(&rig.client, "notary").await;
    rig.is_ready("billing").await;
    let served = probe(rig.address("billing-0").await, None, SOON)
        .await
        .unwrap();
    let pem = secret_value(&rig.client, "billing-server-cert", "tls.crt").await;
    let leaf = read_certificates(&pem).unwrap().remove(0);
    assert_eq!(served.fingerprint(), Some(fingerprint(&leaf)));
    rig.stop().await;
}
