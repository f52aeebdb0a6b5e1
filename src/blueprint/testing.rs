//! Small objects for tests.

use serde_json::json;

use super::backend_tls::{BackendFiles, BackendTls};
use super::certificates::LoadBalancer;
use super::inputs::{
    Backend, BackendAddress, Credentials, MaterialFacts, Program, Surroundings, WorkloadKind,
};
use crate::api::PgBouncer;
use crate::names::Fingerprint;
use crate::pgbouncer::Version;

/// A PgBouncer as a user writes it, in namespace `shop`.
pub(crate) fn bouncer(name: &str) -> PgBouncer {
    serde_json::from_value(json!({
        "apiVersion": "kubedb.com/v1",
        "kind": "PgBouncer",
        "metadata": {
            "name": name, "namespace": "shop", "uid": "7c0f3d52-1d0e-4f6e-9a3b-0a1b2c3d4e5f",
        },
        "spec": {
            "version": "1.18.0",
            "database": {
                "databaseName": "ledger",
                "databaseRef": { "name": "books", "namespace": "vault" },
            },
        },
    }))
    .unwrap()
}

/// The same with TLS.
pub(crate) fn tls_bouncer(name: &str) -> PgBouncer {
    let mut bouncer = bouncer(name);
    bouncer.spec.tls = serde_json::from_value(json!({
        "issuerRef": { "apiGroup": "cert-manager.io", "kind": "Issuer", "name": "notary" },
    }))
    .unwrap();
    bouncer
}

/// What is around it.
pub(crate) fn surroundings() -> Surroundings {
    Surroundings {
        program: Program {
            version: Version::new(1, 18, 0),
            name: "1.18.0".into(),
            image: "example.org/pgbouncer:1.18.0".into(),
            exporter_image: "example.org/exporter:7".into(),
            run_as_user: 70,
        },
        backend: Backend {
            address: BackendAddress::Host {
                host: "books.vault.svc".into(),
                port: 5433,
            },
            tls: BackendTls::default(),
            superuser: credentials("postgres", "swordfish"),
        },
        admin: Some(credentials("pgbouncer", "Open5esame")),
        custom_ini: None,
        users: Vec::new(),
        material: None,
        workload: WorkloadKind::PetSet,
        backend_secret_version: None,
        load_balancer: LoadBalancer::default(),
        former_files: BackendFiles::new(),
        unproven: None,
    }
}

/// Material as if it were published.
pub(crate) fn material() -> MaterialFacts {
    MaterialFacts {
        server: Fingerprint::from_sha256([0x5e; 32]),
        ca_bundle: "-----BEGIN CERTIFICATE-----\n".into(),
    }
}

/// A user.
pub(crate) fn credentials(username: &str, password: &str) -> Credentials {
    Credentials {
        username: username.into(),
        password: password.to_owned().into(),
    }
}
