//! Who appears: the objects, as a user would apply them.
//!
//! Issuers and requests are the files of `deploy/examples`, unmodified.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use serde::de::DeserializeOwned;
use serde_json::json;
use time::Duration;

use crate::api::{AppBinding, Issuer, PgBouncer, PgBouncerOpsRequest};
use crate::clock::Clock;
use crate::cluster::{Cluster, Namespaced};
use crate::names::ObjectRef;
use crate::pki::authority::{CertificateAuthority, Serial};
use crate::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use crate::pki::profile::{CaProfile, Subject};
use crate::redacted::Redacted;

/// Namespace of everything.
pub(in crate::cli) const NAMESPACE: &str = "demo";
/// The PgBouncer.
pub(in crate::cli) const POOLER: &str = "pb";
/// The port of its pods and its Service.
pub(in crate::cli) const PORT: u16 = 5432;
/// Its pods, unless others are asked for.
pub(in crate::cli) const REPLICAS: usize = 3;
/// The database behind it.
pub(in crate::cli) const DATABASE: &str = "postgres";
/// The AppBinding of the PostgreSQL, and its Service.
const BACKEND: &str = "ha-postgres";

const ISSUER: &str = include_str!("../../../deploy/examples/pb-issuer.yaml");
const NEW_ISSUER: &str = include_str!("../../../deploy/examples/new-issuer.yaml");

/// The requests, in their order.
const REQUESTS: [&str; 4] = [
    include_str!("../../../deploy/examples/add-tls.yaml"),
    include_str!("../../../deploy/examples/rotate-tls.yaml"),
    include_str!("../../../deploy/examples/change-issuer.yaml"),
    include_str!("../../../deploy/examples/remove-tls.yaml"),
];

/// The PostgreSQL behind the pooler.
pub(in crate::cli) struct Backend<'a> {
    /// Where it listens.
    pub(in crate::cli) address: SocketAddr,
    /// Its superuser.
    pub(in crate::cli) user: &'a str,
    /// The superuser's password.
    pub(in crate::cli) password: &'a Redacted<String>,
}

/// The requests, in their order.
pub(in crate::cli) fn requests() -> anyhow::Result<Vec<PgBouncerOpsRequest>> {
    REQUESTS.into_iter().map(manifest).collect()
}

/// Adds TLS with certificates that live as short as any may, and are renewed half a minute after they
/// were issued.
pub(in crate::cli) fn short_lived() -> anyhow::Result<PgBouncerOpsRequest> {
    let certificate = |alias| json!({ "alias": alias, "duration": "5m", "renewBefore": "4m30s" });
    let certificates = ["server", "client", "metrics-exporter"].map(certificate);
    Ok(serde_json::from_value(json!({
        "apiVersion": "ops.kubedb.com/v1alpha1", "kind": "PgBouncerOpsRequest",
        "metadata": { "name": "add-tls", "namespace": NAMESPACE },
        "spec": {
            "type": "ReconfigureTLS",
            "databaseRef": { "name": POOLER },
            "tls": {
                "issuerRef": { "apiGroup": "cert-manager.io", "kind": "Issuer", "name": "pb-issuer" },
                "certificates": certificates,
                "sslMode": "verify-full",
            },
            "apply": "Always",
        },
    }))?)
}

/// Applies everything but the requests.
pub(in crate::cli) async fn apply(
    cluster: &Cluster,
    backend: &Backend<'_>,
    version: &str,
    replicas: usize,
) -> anyhow::Result<()> {
    namespace(cluster).await?;
    postgres(cluster, backend).await?;
    for (name, organization) in [
        ("pgbouncer-ca", "kubedb"),
        ("pgbouncer-new-ca", "kubedb-updated"),
    ] {
        create(cluster, &authority(name, organization)?).await?;
    }
    create(cluster, &manifest::<Issuer>(ISSUER)?).await?;
    create(cluster, &manifest::<Issuer>(NEW_ISSUER)?).await?;
    create(cluster, &pooler(version, replicas)?).await
}

async fn namespace(cluster: &Cluster) -> anyhow::Result<()> {
    let api: Api<Namespace> = Api::all(cluster.client().clone());
    let namespace: Namespace = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE },
    }))?;
    match api.create(&PostParams::default(), &namespace).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        done => Ok(done.map(drop)?),
    }
}

/// How the PostgreSQL is known in the cluster: a Service without selector that leads to its
/// address, its credentials, and the AppBinding that names both.
async fn postgres(cluster: &Cluster, backend: &Backend<'_>) -> anyhow::Result<()> {
    let port = backend.address.port();
    let service: Service = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": BACKEND, "namespace": NAMESPACE },
        "spec": { "clusterIP": "None", "ports": [{ "name": "primary", "port": port }] },
    }))?;
    let endpoints: EndpointSlice = serde_json::from_value(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": BACKEND, "namespace": NAMESPACE,
            "labels": { "kubernetes.io/service-name": BACKEND },
        },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": [backend.address.ip().to_string()],
            "conditions": { "ready": true },
        }],
        "ports": [{ "name": "primary", "port": port, "protocol": "TCP" }],
    }))?;
    let credentials = secret(
        &format!("{BACKEND}-auth"),
        "kubernetes.io/basic-auth",
        [
            ("username", backend.user),
            ("password", backend.password.expose()),
        ],
    );
    let binding: AppBinding = serde_json::from_value(json!({
        "apiVersion": "appcatalog.appscode.com/v1alpha1", "kind": "AppBinding",
        "metadata": { "name": BACKEND, "namespace": NAMESPACE },
        "spec": {
            "type": "kubedb.com/postgres",
            "clientConfig": {
                "service": {
                    "scheme": "postgresql", "name": BACKEND, "port": port,
                    "path": "/", "query": "sslmode=disable",
                },
            },
            "secret": { "kind": "Secret", "name": format!("{BACKEND}-auth") },
        },
    }))?;
    create(cluster, &service).await?;
    create(cluster, &endpoints).await?;
    create(cluster, &credentials).await?;
    create(cluster, &binding).await
}

/// A CA of our own, as `kubectl create secret tls` would store it.
fn authority(name: &str, organization: &str) -> anyhow::Result<Secret> {
    let mut profile = CaProfile::new("pgbouncer", Duration::days(365));
    profile.subject = Subject {
        organizations: vec![organization.to_owned()],
        ..Subject::default()
    };
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
    let key_pem = key.to_pem(KeyEncoding::Pkcs8);
    let serial = Serial::from_random(crate::cli::random()?);
    let authority = CertificateAuthority::self_signed(&profile, key, serial, Clock::System.now())?;
    Ok(secret(
        name,
        "kubernetes.io/tls",
        [
            ("tls.crt", authority.certificate_pem().as_str()),
            ("tls.key", key_pem.expose()),
        ],
    ))
}

/// The pooler: three replicas, transaction pooling, and pools that do not throttle the clients.
fn pooler(version: &str, replicas: usize) -> anyhow::Result<PgBouncer> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "kubedb.com/v1", "kind": "PgBouncer",
        "metadata": { "name": POOLER, "namespace": NAMESPACE },
        "spec": {
            "version": version,
            "replicas": replicas,
            "database": {
                "databaseName": DATABASE,
                "syncUsers": true,
                "databaseRef": { "name": BACKEND, "namespace": NAMESPACE },
            },
            "connectionPool": {
                "port": 5432,
                "poolMode": "transaction",
                "authType": "md5",
                "maxClientConnections": 200,
                "defaultPoolSize": 10,
                "minPoolSize": 1,
                "reservePoolSize": 2,
                "maxDBConnections": 20,
                "maxUserConnections": 20,
            },
            "deletionPolicy": "WipeOut",
        },
    }))?)
}

fn secret<const N: usize>(name: &str, type_: &str, data: [(&str, &str); N]) -> Secret {
    let data = data
        .into_iter()
        .map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())));
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some(type_.to_owned()),
        data: Some(data.collect::<BTreeMap<_, _>>()),
        ..Secret::default()
    }
}

fn manifest<K: DeserializeOwned>(yaml: &str) -> anyhow::Result<K> {
    Ok(serde_saphyr::from_str(yaml)?)
}

async fn create<K: Namespaced>(cluster: &Cluster, object: &K) -> anyhow::Result<()> {
    Ok(cluster.create(object).await.map(drop)?)
}

/// The object of that name in the scene's namespace.
pub(in crate::cli) fn named(name: impl Into<String>) -> ObjectRef {
    ObjectRef::new(NAMESPACE, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_are_the_tutorials_own() {
        let requests = requests().unwrap();
        let names: Vec<_> = requests.iter().map(|r| r.metadata.name.clone()).collect();
        let wanted = ["add-tls", "rotate-tls", "change-issuer", "remove-tls"];
        assert_eq!(names, wanted.map(|name| Some(name.to_owned())));
        for request in requests {
            assert_eq!(request.spec.database_ref.name, POOLER);
            assert_eq!(request.metadata.namespace.as_deref(), Some(NAMESPACE));
        }
    }

    #[test]
    fn a_ca_secret_holds_a_ca_that_can_sign() {
        let secret = authority("spare-ca", "acme").unwrap();
        let data = secret.data.unwrap();
        let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
        let loaded = CertificateAuthority::load(&text("tls.crt"), &text("tls.key"), None).unwrap();
        assert!(loaded.facts().subject.contains("acme"));
    }
}
