//! The embedded API with cert-manager's kinds, and a CA of the present day.

use kube::CustomResourceExt as _;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::api::{CertificateRequest, ClusterIssuer, Issuer};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::issuer::{Issuers, Outcome, SigningRequest, VaultNetworks};
use crate::local::apiserver::{ApiServer, Options};
use crate::local::store::Store;
use crate::pki::authority::CertificateAuthority;
use crate::pki::key::PrivateKey;
use crate::pki::profile::{CaProfile, LeafProfile};
use crate::pki::testing::{key, serial};

pub(super) const NAMESPACE: &str = "treasury";

pub(super) struct Scene {
    pub(super) server: ApiServer,
    pub(super) cluster: Cluster,
    pub(super) networks: VaultNetworks,
}

/// The instant of these tests: API objects and TLS know no other.
pub(super) fn now() -> OffsetDateTime {
    Clock::System.now()
}

/// An intermediate CA under a root of that name.
pub(super) fn authority(name: &str) -> CertificateAuthority {
    let profile = CaProfile::new(name, Duration::days(3650));
    let root = CertificateAuthority::self_signed(&profile, key(), serial(1), now()).unwrap();
    let profile = CaProfile::new(format!("{name} issuing"), Duration::days(365));
    root.sign_ca(&profile, key(), serial(2), now()).unwrap()
}

impl Scene {
    pub(super) async fn new() -> Self {
        let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
        let client = server.client();
        let params = PostParams::default();
        let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).unwrap();
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
        namespaces.create(&params, &namespace).await.unwrap();
        for definition in [
            Issuer::crd(),
            ClusterIssuer::crd(),
            CertificateRequest::crd(),
        ] {
            let definitions = Api::all(client.clone());
            definitions.create(&params, &definition).await.unwrap();
        }
        Self {
            server,
            cluster: Cluster::new(client),
            // The Vaults of these tests are on this machine.
            networks: VaultNetworks::RoutableAndLoopback,
        }
    }

    /// An Issuer `mint` of that spec.
    pub(super) async fn issuer(&self, spec: Value) {
        let issuer: Issuer = serde_json::from_value(json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Issuer",
            "metadata": {"namespace": NAMESPACE, "name": "mint"}, "spec": spec,
        }))
        .unwrap();
        self.cluster.create(&issuer).await.unwrap();
    }

    pub(super) async fn secret(&self, name: &str, data: Value) {
        let secret: k8s_openapi::api::core::v1::Secret = serde_json::from_value(json!({
            "metadata": {"namespace": NAMESPACE, "name": name}, "stringData": data,
        }))
        .unwrap();
        self.cluster.create(&secret).await.unwrap();
    }

    /// Asks the Issuer `mint`, or that of another group.
    pub(super) async fn ask(
        &self,
        (group, name): (Option<&str>, &str),
        (profile, key): (&LeafProfile, &PrivateKey),
        clock: Clock,
    ) -> Outcome {
        let mut issuer = crate::issuer::conformance::any_reference();
        issuer.api_group = group.map(str::to_owned);
        let request = SigningRequest {
            issuer: &issuer,
            namespace: NAMESPACE,
            name,
            owner: None,
            profile,
            key,
        };
        let issuers = Issuers::new(self.cluster.clone(), clock, "cert-manager");
        let issuers = issuers.with_vault_networks(self.networks.clone());
        issuers.sign(&request).await
    }
}
