//! The pods' template (docs/kubedb-compatibility.md, "Pods"): ours, with the user's
//! `spec.podTemplate` laid on top.

use k8s_openapi::api::core::v1::{Pod, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::{Map as JsonMap, Value, json};

use super::certificates::is_wanted;
use super::inputs::Inputs;
use super::labels::{self, Map};
use super::merge::{list, overlay, overlay_by_name};
use super::pod_template::PodTemplateError;
use super::{config, exporter, names};
use crate::api::annotations::{BACKEND_SECRET_VERSION_LABEL, DIGEST, SERVING_LABEL};
use crate::api::holder::controller;
use crate::names::{Alias, NAME_LABEL_MAX};

/// The volume of the backend Secret.
pub(super) const SECRET_VOLUME: &str = "user-secret";
/// Grace period where nobody gives another. A pod that was drained needs none of it: its process has
/// ended, or ends at the kubelet's SIGTERM at once. It is for those that could not be drained, and for
/// deletions that are not ours: from 1.23 on SIGTERM lets their clients go on until then.
pub const GRACE_SECONDS: i64 = 30;
/// How often readiness is looked at: a restart is as short as the first look after the start.
const READINESS_PERIOD_SECONDS: i32 = 1;
/// Files of key material are for the pooler's user and group only.
const KEY_FILE_MODE: i32 = 0o640;

/// Whether a pod says that a workload of that name has made it. Only for those who cannot ask for the
/// workload, and whose word is asked about again by its UID.
pub fn is_of_workload(pod: &Pod, name: &str) -> bool {
    controller(pod).is_some_and(|holder| {
        ["PetSet", "StatefulSet"].contains(&holder.kind.as_str()) && holder.name == name
    })
}

/// The template that all pods are made from.
pub(super) fn template(inputs: &Inputs) -> Result<PodTemplateSpec, PodTemplateError> {
    Ok(PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels(inputs)),
            annotations: Some(pod_annotations(inputs)),
            ..ObjectMeta::default()
        }),
        spec: Some(spec(inputs)?),
    })
}

/// The volume that holds a Secret: named after it, as far as a volume may be.
pub(super) fn volume_name(secret: &str) -> String {
    let name: String = secret
        .replace('.', "-")
        .chars()
        .take(NAME_LABEL_MAX)
        .collect();
    name.trim_matches('-').to_owned()
}

fn pod_labels(inputs: &Inputs) -> Map {
    let mut all = inputs.pod_template.labels.clone();
    all.extend(labels::offshoot(&inputs.bouncer));
    all.insert(SERVING_LABEL.to_owned(), "true".to_owned());
    if let Some(version) = &inputs.backend_secret_version {
        all.insert(BACKEND_SECRET_VERSION_LABEL.to_owned(), version.clone());
    }
    all
}

fn pod_annotations(inputs: &Inputs) -> Map {
    let mut all = inputs.pod_template.annotations.clone();
    all.insert(DIGEST.to_owned(), inputs.digest());
    all
}

fn spec(inputs: &Inputs) -> Result<PodSpec, PodTemplateError> {
    let mut given = inputs.pod_template.spec.clone();
    let given_containers = list(&given, "containers");
    let given_volumes = list(&given, "volumes");
    given.remove("containers");
    given.remove("volumes");

    let ours = |container: &&Value| container.get("name") == Some(&json!(names::CONTAINER));
    let pooler = pooler(
        inputs,
        given_containers
            .iter()
            .find(ours)
            .and_then(Value::as_object),
    );
    let security = &pooler["securityContext"];
    let mut spec = json!({
        "serviceAccountName": inputs.bouncer.name_any(),
        "automountServiceAccountToken": false,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsUser": security["runAsUser"],
            "runAsGroup": security["runAsGroup"],
            "fsGroup": security["runAsGroup"],
        },
    });
    overlay(&mut spec, &Value::Object(given));
    let mut containers = vec![pooler.clone()];
    containers.extend(exporter::container(inputs));
    let others: Vec<Value> = given_containers
        .iter()
        .filter(|container| !ours(container))
        .cloned()
        .collect();
    overlay_by_name(&mut containers, &others);
    for container in &mut containers {
        never_restart_for_resources(container);
    }
    spec["containers"] = Value::Array(containers);
    let mut volumes = volumes(inputs);
    volumes.extend(given_volumes);
    spec["volumes"] = Value::Array(volumes);
    serde_json::from_value(spec).map_err(PodTemplateError::Shape)
}

/// The pooler's container. The user's fields win, except for what makes it this pooler: image,
/// port, mounts.
fn pooler(inputs: &Inputs, given: Option<&JsonMap<String, Value>>) -> Value {
    let mut given = given.cloned().unwrap_or_default();
    let mut lists = ["ports", "env", "volumeMounts"].map(|key| {
        let entries = list(&given, key);
        given.remove(key);
        entries
    });
    let port = config::port(&inputs.bouncer);
    let mut container = json!({
        "resources": {
            "requests": { "cpu": "500m", "memory": "1Gi" },
            "limits": { "memory": "1Gi" },
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "runAsGroup": 0,
            "runAsNonRoot": true,
            "runAsUser": inputs.program.run_as_user,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "readinessProbe": {
            "tcpSocket": { "port": names::PORT },
            "periodSeconds": READINESS_PERIOD_SECONDS,
            "failureThreshold": 3,
            "timeoutSeconds": 1,
        },
    });
    // Whoever sets resources sets all of them: a request above our limit would be refused.
    for whole in ["resources", "readinessProbe"] {
        if given.contains_key(whole) {
            container[whole] = Value::Null;
        }
    }
    overlay(&mut container, &Value::Object(given));
    container["name"] = json!(names::CONTAINER);
    container["image"] = json!(inputs.program.image);
    let [ports, env, mounts] = &mut lists;
    ports.retain(|port| port.get("name") != Some(&json!(names::PORT)));
    ports.insert(
        0,
        json!({ "name": names::PORT, "containerPort": port, "protocol": "TCP" }),
    );
    env.insert(
        0,
        json!({ "name": "PGBOUNCER_LISTEN_PORT", "value": port.to_string() }),
    );
    let mut all_mounts = our_mounts(inputs);
    all_mounts.append(mounts);
    container["ports"] = json!(ports);
    container["env"] = json!(env);
    container["volumeMounts"] = json!(all_mounts);
    container
}

fn our_mounts(inputs: &Inputs) -> Vec<Value> {
    let mount = |name: String, path: &str| json!({ "name": name, "mountPath": path });
    let config = volume_name(&names::config_secret(&inputs.bouncer));
    let mut mounts = vec![
        mount(config, names::CONFIG_DIR),
        mount(SECRET_VOLUME.to_owned(), names::SECRET_DIR),
    ];
    for alias in [Alias::Server, Alias::Client] {
        if is_wanted(&inputs.bouncer, alias) {
            let secret = names::certificate_secret(&inputs.bouncer, alias);
            mounts.push(mount(volume_name(&secret), &names::tls_dir(alias)));
        }
    }
    mounts
}

fn volumes(inputs: &Inputs) -> Vec<Value> {
    let name = inputs.bouncer.name_any();
    let config = names::config_secret(&inputs.bouncer);
    let mut volumes = vec![
        json!({ "name": volume_name(&config), "secret": { "secretName": config } }),
        json!({ "name": SECRET_VOLUME, "secret": { "secretName": names::backend_secret(&name) } }),
    ];
    let has_exporter = exporter::monitor(&inputs.bouncer).is_some();
    for alias in Alias::ALL {
        let is_mounted = alias != Alias::MetricsExporter || has_exporter;
        if is_mounted && is_wanted(&inputs.bouncer, alias) {
            let secret = names::certificate_secret(&inputs.bouncer, alias);
            volumes.push(json!({
                "name": volume_name(&secret),
                "secret": { "secretName": secret, "defaultMode": KEY_FILE_MODE },
            }));
        }
    }
    volumes
}

/// Changing cpu or memory does not restart a container.
fn never_restart_for_resources(container: &mut Value) {
    if container.get("resizePolicy").is_none() {
        container["resizePolicy"] = json!([
            { "resourceName": "cpu", "restartPolicy": "NotRequired" },
            { "resourceName": "memory", "restartPolicy": "NotRequired" },
        ]);
    }
}
