//! Everything that the objects of a PgBouncer are made from, validated once.
//!
//! [`Surroundings`] is what was read; [`Inputs::new`] puts it beside a target specification,
//! answers every open question, and is the only way to [`super::build`].

use std::collections::BTreeSet;
use std::fmt;

use kube::ResourceExt;

use super::backend::{self, UserlistError};
use super::backend_tls::{BackendFiles, BackendTls};
use super::certificates::LoadBalancer;
use super::config::{self, ConfigError, Configuration, mounts_material, serves_tls};
use super::names;
use super::pod_template::{PodTemplate, PodTemplateError};
use super::services::{ServiceTemplateError, ServiceTemplates};
use crate::api::PgBouncer;
use crate::names::{Alias, Fingerprint, ObjectRef};
use crate::pgbouncer::Version;
use crate::pgbouncer::ini::{ConnectString, Ini, Marker};
use crate::pgbouncer::userlist::Userlist;
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
    /// Files of TLS towards PostgreSQL that the configuration Secret holds now: pods that have not
    /// taken up a later configuration use them.
    pub former_files: BackendFiles,
    /// What the AppBinding asks for, where that needs a proof and is not what is published. Until it
    /// is proven, [`Self::backend`] is what is published; that of a PgBouncer of which nothing is
    /// published is what is asked for.
    pub unproven: Option<Backend>,
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
    /// TLS towards it.
    pub tls: BackendTls,
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

/// What makes the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadKind {
    /// A PetSet, where that kind is known.
    PetSet,
    /// A StatefulSet.
    StatefulSet,
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PetSet => "PetSet",
            Self::StatefulSet => "StatefulSet",
        })
    }
}

/// Why no objects can be made.
#[derive(Debug, thiserror::Error)]
pub enum InputsError {
    /// The admin user is not known yet.
    #[error("the auth Secret {0} is not there yet")]
    NoAuthSecret(ObjectRef),
    /// TLS without certificates.
    #[error(
        "spec.sslMode is {mode}, which needs key and certificate: give spec.tls.issuerRef, or set \
         spec.sslMode to disable"
    )]
    TlsWithoutIssuer {
        /// The mode asked for.
        mode: &'static str,
    },
    /// TLS whose material is not published yet.
    #[error("the server's certificate in Secret {0} is not there yet")]
    NoMaterial(ObjectRef),
    /// The configuration would not load.
    #[error("the configuration cannot be rendered")]
    Config(#[from] ConfigError),
    /// A user that the userlist cannot hold.
    #[error("the userlist cannot hold {whose}")]
    Userlist {
        /// Which user.
        whose: &'static str,
        /// What is wrong.
        #[source]
        source: UserlistError,
    },
    /// `spec.podTemplate` is no pod template.
    #[error("spec.podTemplate cannot be used")]
    PodTemplate(#[from] PodTemplateError),
    /// `spec.serviceTemplates` hold something that no Service has.
    #[error("spec.serviceTemplates cannot be used")]
    ServiceTemplate(#[from] ServiceTemplateError),
}

/// The single input of [`super::build`].
#[derive(Clone, Debug)]
pub struct Inputs {
    pub(super) bouncer: PgBouncer,
    pub(super) program: Program,
    pub(super) admin: Credentials,
    pub(super) userlist: Userlist,
    pub(super) material: Option<MaterialFacts>,
    pub(super) workload: WorkloadKind,
    pub(super) backend_secret_version: Option<String>,
    /// Files of TLS towards PostgreSQL: those of this configuration, and former ones.
    pub(super) backend_files: BackendFiles,
    /// The names of those of this configuration.
    own_files: BTreeSet<String>,
    pub(super) ini: Ini,
    pub(super) configuration: Configuration,
    pub(super) pod_template: PodTemplate,
    pub(super) service_templates: ServiceTemplates,
}

impl Inputs {
    /// Validates a completed `target` in its surroundings.
    pub fn new(target: &PgBouncer, around: &Surroundings) -> Result<Self, InputsError> {
        let namespace = target.namespace().unwrap_or_default();
        let in_namespace = |name: String| ObjectRef::new(namespace.clone(), name);
        let admin = around
            .admin
            .clone()
            .ok_or_else(|| InputsError::NoAuthSecret(in_namespace(names::auth_secret(target))))?;
        let tls = serves_tls(target);
        if let Some(mode) = target.spec.ssl_mode.filter(|mode| mode.is_tls())
            && !tls
        {
            return Err(InputsError::TlsWithoutIssuer {
                mode: mode.as_str(),
            });
        }
        if mounts_material(target) && around.material.is_none() {
            let secret = names::certificate_secret(target, Alias::Server);
            return Err(InputsError::NoMaterial(in_namespace(secret)));
        }
        let ini = config::ini(target, around, &admin.username)?;
        let material = around.material.clone().filter(|_| mounts_material(target));
        let digest = super::digest(&ini.render(), material.as_ref());
        let configuration = Configuration::new(&ini, &Marker::of(&digest), around.program.version)?;
        let mut backend_files = around.former_files.clone();
        let own_files = around.backend.tls.files();
        Ok(Self {
            own_files: own_files.keys().cloned().collect(),
            backend_files: {
                backend_files.extend(own_files);
                backend_files
            },
            userlist: backend::userlist(around, &admin, &config::auth_type(&ini))
                .map_err(|(whose, source)| InputsError::Userlist { whose, source })?,
            ini,
            configuration,
            pod_template: PodTemplate::parse(target)?,
            service_templates: ServiceTemplates::parse(target)?,
            bouncer: target.clone(),
            program: around.program.clone(),
            admin,
            material,
            workload: around.workload,
            backend_secret_version: around.backend_secret_version.clone(),
        })
    }

    /// The configuration.
    pub fn ini(&self) -> &Ini {
        &self.ini
    }

    /// The file that is published: read back by PgBouncer's own grammar, with the marker of
    /// [`Self::digest`] at its end.
    pub fn configuration(&self) -> &str {
        self.configuration.text()
    }

    /// What the console shows when all of [`Self::configuration`] is loaded.
    pub fn marker(&self) -> Marker {
        Marker::of(&self.digest())
    }

    /// The same without files of former configurations: for pods that have all taken up this one.
    #[must_use]
    pub fn without_former_files(mut self) -> Self {
        let named = self.own_files.clone();
        self.backend_files.retain(|file, _| named.contains(file));
        self
    }

    /// The digest that a pod built from these inputs carries.
    pub fn digest(&self) -> String {
        super::digest(&self.ini.render(), self.material.as_ref())
    }
}
