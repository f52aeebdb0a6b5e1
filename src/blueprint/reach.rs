//! What of a change running pods cannot take up by reading their files again.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec, Volume};
use kube::ResourceExt;
use serde_json::Value;

use super::inputs::Inputs;
use super::pod_template::PodTemplateError;
use super::pods;
use crate::api::annotations::DIGEST;
use crate::pgbouncer::ini::Section;

/// Parameters that PgBouncer reads when it starts, and never again.
const STARTUP_ONLY: [&str; 4] = [
    "listen_addr",
    "listen_port",
    "unix_socket_dir",
    "so_reuseport",
];

/// Why `pods`, which run as `former` says, have to be restarted to become what `target` says; empty
/// where new contents of their files are all.
pub fn beyond_reload(
    former: &Inputs,
    target: &Inputs,
    running: &[Pod],
) -> Result<Vec<String>, PodTemplateError> {
    let (old, new) = (pods::template(former)?, pods::template(target)?);
    let mut reasons = volumes(&old, &new);
    if reasons.is_empty() && comparable(&old) != comparable(&new) {
        reasons.push("the pod template changes".to_owned());
    }
    for key in STARTUP_ONLY {
        let value = |inputs: &Inputs| inputs.ini.get(Section::Pgbouncer, key).map(str::to_owned);
        if value(former) != value(target) {
            reasons.push(format!("{key} is read at the start only"));
        }
    }
    if reasons.is_empty() {
        reasons = running.iter().flat_map(|pod| lacks(pod, &new)).collect();
    }
    Ok(reasons)
}

/// The volumes that the change adds or takes away.
fn volumes(old: &PodTemplateSpec, new: &PodTemplateSpec) -> Vec<String> {
    let added = mounted(new).filter(|volume| mounted(old).all(|other| other != *volume));
    let gone = mounted(old).filter(|volume| mounted(new).all(|other| other != *volume));
    let mut told: Vec<String> = added
        .map(|volume| format!("the pods get volume {}", volume.name))
        .collect();
    told.extend(gone.map(|volume| format!("the pods lose volume {}", volume.name)));
    told
}

/// The volumes of the template that a pod was not made with.
fn lacks(pod: &Pod, template: &PodTemplateSpec) -> Vec<String> {
    let spec = pod.spec.as_ref();
    let there = spec
        .and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default();
    let source = |volume: &Volume| {
        let secret = volume.secret.as_ref();
        (
            volume.name.clone(),
            secret.and_then(|secret| secret.secret_name.clone()),
        )
    };
    mounted(template)
        .filter(|volume| there.iter().all(|other| source(other) != source(volume)))
        .map(|volume| format!("pod {} has no volume {}", pod.name_any(), volume.name))
        .collect()
}

fn mounted(template: &PodTemplateSpec) -> impl Iterator<Item = &Volume> {
    let spec = template.spec.iter();
    spec.flat_map(|spec| spec.volumes.iter().flatten())
}

/// The template without the digest, which differs whenever a file does.
fn comparable(template: &PodTemplateSpec) -> Value {
    let mut template = template.clone();
    if let Some(metadata) = &mut template.metadata
        && let Some(annotations) = &mut metadata.annotations
    {
        annotations.remove(DIGEST);
    }
    serde_json::to_value(template).unwrap_or_default()
}
