//! `spec.podTemplate`: what users change in the pods, taken apart and checked.

use serde_json::{Map as JsonMap, Value};

use super::certificates::is_wanted;
use super::labels::Map;
use super::merge::{list, string_map};
use super::names;
use crate::api::PgBouncer;
use crate::api::common::LocalRef;
use crate::names::Alias;

/// Variables that the image sets for itself.
const RESERVED_ENV: [&str; 5] = [
    "PGBOUNCER_PASSWORD",
    "PGBOUNCER_USER",
    "POSTGRES_PASSWORD",
    "POSTGRES_USER",
    "PGPASSWORD",
];
/// Directories that are ours.
const RESERVED_PATHS: [&str; 4] = [
    names::CONFIG_DIR,
    names::SECRET_DIR,
    names::TLS_DIR,
    "/etc/git-secret",
];

/// `spec.podTemplate`, by what it changes.
#[derive(Clone, Debug, Default)]
pub(super) struct PodTemplate {
    /// Labels of the pods.
    pub(super) labels: Map,
    /// Annotations of the pods.
    pub(super) annotations: Map,
    /// Labels of the workload.
    pub(super) controller_labels: Map,
    /// Annotations of the workload.
    pub(super) controller_annotations: Map,
    /// Where a PetSet's pods are placed.
    pub(super) placement: Option<LocalRef>,
    /// All else in the pods' spec.
    pub(super) spec: JsonMap<String, Value>,
}

/// What cannot be in a pod template.
#[derive(Debug, thiserror::Error)]
pub enum PodTemplateError {
    /// The fields do not make a pod.
    #[error("it does not make a pod")]
    Shape(#[source] serde_json::Error),
    /// A volume name that is ours.
    #[error("volume {0} is reserved; choose another name")]
    ReservedVolume(String),
    /// A mount in a directory that is ours.
    #[error("mount path {0} is reserved; choose another path")]
    ReservedPath(String),
    /// A variable that is ours.
    #[error("environment variable {0} is reserved; leave it out")]
    ReservedEnv(String),
}

// === impl PodTemplate ===

impl PodTemplate {
    /// Takes the template of `bouncer` apart.
    pub(super) fn parse(bouncer: &PgBouncer) -> Result<Self, PodTemplateError> {
        let Some(template) = &bouncer.spec.pod_template else {
            return Ok(Self::default());
        };
        let map = |pointer: &str| string_map(template.pointer(pointer));
        let mut spec = template
            .get("spec")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        let placement = spec
            .remove("podPlacementPolicy")
            .map(serde_json::from_value)
            .transpose()
            .map_err(PodTemplateError::Shape)?;
        let parsed = Self {
            labels: map("/metadata/labels"),
            annotations: map("/metadata/annotations"),
            controller_labels: map("/controller/labels"),
            controller_annotations: map("/controller/annotations"),
            placement,
            spec,
        };
        parsed.check_reserved(bouncer)?;
        Ok(parsed)
    }

    fn check_reserved(&self, bouncer: &PgBouncer) -> Result<(), PodTemplateError> {
        let ours = reserved_volumes(bouncer);
        for volume in list(&self.spec, "volumes") {
            let name = text(&volume, "name");
            if ours.iter().any(|reserved| reserved == name) {
                return Err(PodTemplateError::ReservedVolume(name.to_owned()));
            }
        }
        let containers = list(&self.spec, "containers");
        let first = list(&self.spec, "initContainers");
        for container in containers.iter().chain(&first).filter_map(Value::as_object) {
            for mount in list(container, "volumeMounts") {
                let path = text(&mount, "mountPath").trim_end_matches('/');
                if RESERVED_PATHS
                    .iter()
                    .any(|reserved| is_within(path, reserved))
                {
                    return Err(PodTemplateError::ReservedPath(path.to_owned()));
                }
            }
            for variable in list(container, "env") {
                let name = text(&variable, "name");
                if RESERVED_ENV.contains(&name) {
                    return Err(PodTemplateError::ReservedEnv(name.to_owned()));
                }
            }
        }
        Ok(())
    }
}

fn reserved_volumes(bouncer: &PgBouncer) -> Vec<String> {
    let mut reserved = vec![
        names::SECRET_VOLUME.to_owned(),
        "git-secret".to_owned(),
        names::volume(&names::config_secret(bouncer)),
    ];
    let wanted = Alias::ALL
        .into_iter()
        .filter(|alias| is_wanted(bouncer, *alias));
    reserved.extend(wanted.map(|alias| names::volume(&names::certificate_secret(bouncer, alias))));
    reserved
}

fn is_within(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}
