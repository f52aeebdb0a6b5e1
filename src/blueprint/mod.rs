//! What objects a PgBouncer stands for: pure, and the same for whoever asks.
//!
//! The provisioner and the request pipeline never call each other, yet both must know what a
//! specification means: the one to converge on it, the other to carry a change of it into the pods
//! before it is committed. That knowledge lives here. [`defaults::complete`] says what a
//! specification leaves open, [`certificates::wanted`] which certificates it asks for, and
//! [`build`] which objects. [`Inputs`] is the only way to [`build`], and [`Inputs::new`] validates.
//!
//! Which pods still have to be restarted is read from the cluster: their template carries
//! [`digest`], and the workload replaces no pod by itself.

pub mod backend_tls;
pub mod bounds;
pub mod certificates;
pub mod choices;
pub mod defaults;
pub mod labels;
pub mod loaded;
pub mod names;

mod inputs;

mod backend;
mod binding;
mod config;
mod exporter;
mod merge;
mod pod_template;
mod pods;
mod reach;
mod services;
mod workload;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod text_tests;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};

pub use self::backend::UserlistError;
pub use self::config::{
    ConfigError, PORT_DEFAULT, examine, mounts_material, port, serves_tls, throttling_defaults,
};
pub use self::inputs::{
    Backend, BackendAddress, Credentials, Inputs, InputsError, MaterialFacts, Program,
    Surroundings, WorkloadKind,
};
pub use self::pod_template::PodTemplateError;
pub use self::pods::{GRACE_SECONDS, is_of_workload};
pub use self::reach::beyond_reload;
pub use self::services::ServiceTemplateError;
pub use self::workload::{Workload, disruptions};
use crate::api::{AppBinding, PgBouncer};
use crate::names::Fingerprint;

/// All objects that a PgBouncer stands for, but for the Secrets of credentials and of material.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Who the pods are.
    pub service_account: ServiceAccount,
    /// Names the pods.
    pub governing: Service,
    /// Where clients go.
    pub primary: Service,
    /// Where the exporter is read; only with monitoring.
    pub stats: Option<Service>,
    /// Userlist and admin user.
    pub backend: Secret,
    /// The configuration.
    pub config: Secret,
    /// How many pods may be evicted at once; only with several.
    pub disruption_budget: Option<PodDisruptionBudget>,
    /// How applications find the pooler.
    pub binding: AppBinding,
    /// What makes the pods.
    pub workload: Workload,
}

/// Makes all objects.
pub fn build(inputs: &Inputs) -> Result<Resources, PodTemplateError> {
    Ok(Resources {
        service_account: ServiceAccount {
            metadata: metadata(&inputs.bouncer, inputs.bouncer.name_any()),
            // Nothing in the pods speaks to the API server.
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        governing: services::governing(inputs),
        primary: services::primary(inputs),
        stats: services::stats(inputs),
        backend: backend::secret(inputs),
        config: config_secret(inputs),
        disruption_budget: workload::disruption_budget(inputs),
        binding: binding::binding(inputs),
        workload: workload::workload(inputs)?,
    })
}

/// What a pod was started with: the settings in their canonical form (without the marker, which
/// holds this digest), the server's leaf and the bundle that verifies
/// clients. Users are left out: they come and go without a restart.
pub fn digest(ini: &str, material: Option<&MaterialFacts>) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    // Each part is followed by its length, so that no two lists of parts read the same.
    let mut part = |bytes: &[u8]| {
        context.update(bytes);
        context.update(&(bytes.len() as u64).to_be_bytes());
    };
    part(ini.as_bytes());
    if let Some(material) = material {
        part(material.server.to_string().as_bytes());
        part(material.ca_bundle.as_bytes());
    }
    let mut sum = [0; 32];
    sum.copy_from_slice(context.finish().as_ref());
    Fingerprint::from_sha256(sum).to_string()
}

fn config_secret(inputs: &Inputs) -> Secret {
    let ini = ByteString(inputs.configuration.text().as_bytes().to_vec());
    let hba = config::hba(&inputs.ini).map(|hba| ByteString(hba.as_bytes().to_vec()));
    let hba = hba.map(|hba| (names::HBA_KEY.to_owned(), hba));
    let files = inputs.backend_files.iter().map(|(name, text)| {
        let bytes = ByteString(text.expose().as_bytes().to_vec());
        (name.clone(), bytes)
    });
    Secret {
        metadata: metadata(&inputs.bouncer, names::config_secret(&inputs.bouncer)),
        type_: Some("Opaque".to_owned()),
        data: Some(
            [(names::INI_KEY.to_owned(), ini)]
                .into_iter()
                .chain(hba)
                .chain(files)
                .collect(),
        ),
        ..Secret::default()
    }
}

/// Name, labels and owner of an object made for `bouncer`.
pub fn metadata(bouncer: &PgBouncer, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: bouncer.namespace(),
        labels: Some(labels::offshoot(bouncer)),
        owner_references: bouncer.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}
