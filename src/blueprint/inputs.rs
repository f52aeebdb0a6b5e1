//! Everything that the objects of a PgBouncer are made from, validated once.
//!
//! [`Surroundings`] is what was read; [`Inputs::new`] puts it beside a target specification,
//! answers every open question, and is the only way to [`super::build`].

use super::around::{Credentials, MaterialFacts, Program, Surroundings};
use super::config::{self, ConfigError, Configuration, mounts_material, serves_tls};
use super::names;
use super::pod_template::{PodTemplate, PodTemplateError};
use super::service_templates::{ServiceTemplateError, ServiceTemplates};
use super::users::{self, UserlistError};
use crate::api::Located;
use crate::api::PgBouncer;
use crate::api::workload::WorkloadKind;
use crate::names::{Alias, ObjectRef};
use crate::pgbouncer::ini::{Ini, Marker};
use crate::pgbouncer::userlist::Userlist;

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
    pub(super) ini: Ini,
    pub(super) configuration: Configuration,
    pub(super) pod_template: PodTemplate,
    pub(super) service_templates: ServiceTemplates,
}

impl Inputs {
    /// Validates a completed `target` in its surroundings.
    pub fn new(target: &PgBouncer, around: &Surroundings) -> Result<Self, InputsError> {
        let namespace = target.home();
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
        Ok(Self {
            userlist: users::userlist(around, &admin, &config::auth_type(&ini))
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

    /// The digest that a pod built from these inputs carries.
    pub fn digest(&self) -> String {
        super::digest(&self.ini.render(), self.material.as_ref())
    }
}
