//! What was read around a PgBouncer: what its objects are made from besides its specification.

use super::certificates::LoadBalancer;
use crate::api::workload::WorkloadKind;
use crate::names::Fingerprint;
use crate::pgbouncer::Version;
use crate::pgbouncer::ini::ConnectString;
use crate::redacted::Redacted;

/// What was read around a PgBouncer.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The program to run.
    pub program: Program,
    /// The PostgreSQL behind the pooler.
    pub backend: Backend,
    /// The admin user; `None` until the auth Secret is there.
    pub admin: Option<Credentials>,
    /// The user's own configuration (`spec.configuration.secretName`).
    pub custom_ini: Option<String>,
    /// Users that `syncUsers` adds.
    pub users: Vec<Credentials>,
    /// Material as it is published now; `None` without it.
    pub material: Option<MaterialFacts>,
    /// What the pods are made by.
    pub workload: WorkloadKind,
    /// `resourceVersion` of the backend Secret, for a label of the pods.
    pub backend_secret_version: Option<String>,
    /// What a load balancer gave to the primary Service.
    pub load_balancer: LoadBalancer,
}

/// The program to run, from the PgBouncerVersion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Version of the program.
    pub version: Version,
    /// The version as the catalogue spells it.
    pub name: String,
    /// The pooler's image.
    pub image: String,
    /// The exporter's image.
    pub exporter_image: String,
    /// Who the containers run as.
    pub run_as_user: i64,
}

/// A user and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Name.
    pub username: String,
    /// Password.
    pub password: Redacted<String>,
}

/// The PostgreSQL behind the pooler, from its AppBinding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it listens.
    pub address: BackendAddress,
    /// Its superuser.
    pub superuser: Credentials,
}

/// Where a PostgreSQL listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendAddress {
    /// Host and port.
    Host {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A connect string that the AppBinding gives instead of a URL.
    ConnectString(ConnectString),
}

/// Published material, as far as configuration and pods depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaterialFacts {
    /// The server's leaf.
    pub server: Fingerprint,
    /// The bundle that clients' certificates are verified by, PEM.
    pub ca_bundle: String,
}
