//! Defaults and rules of pods, services and stateful sets. Pure.

use serde_json::{Map, Value, json};

use super::admit::{default, forbidden, invalid};
use super::admit_pod;
use super::meta;
use super::schema::errors::FieldError;
use super::selector::Selector;
use crate::instants::Within;

/// Seconds a pod is given to stop where it does not say.
pub const GRACE_DEFAULT_S: i64 = 30;

/// Longest grace: 68 years, and no sum with a time of ours overflows.
pub const GRACE_MAX_S: i64 = i32::MAX as i64;
/// Most replicas, as the API's 32-bit field has it.
pub const REPLICAS_MAX: i64 = i32::MAX as i64;
/// Largest port.
const PORT_MAX: i64 = 65_535;

/// Fields of a pod's spec that may change after creation.
const POD_MUTABLE: &[&str] = &[
    "activeDeadlineSeconds",
    "terminationGracePeriodSeconds",
    "tolerations",
    "schedulingGates",
];
/// Fields of a stateful set's spec that may change after creation.
const STATEFUL_SET_MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
    "revisionHistoryLimit",
];

/// A pod: defaults of its spec, `Pending` to begin with, and a spec that hardly changes.
pub fn pod(object: &mut Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    if let Some(spec) = object.get_mut("spec") {
        pod_spec(spec);
    }
    // As it is stored it may be from before a rule, and its status is still to be written.
    if old.is_none_or(|old| old["spec"] != object["spec"]) {
        admit_pod::check("spec", &object["spec"], errors);
    }
    if object["status"].is_null() {
        object["status"] = json!({ "phase": "Pending", "qosClass": "BestEffort" });
    }
    let Some(old) = old else { return };
    let (mut before, mut after) = (old["spec"].clone(), object["spec"].clone());
    // A pod is bound once, here by an ordinary patch or by the binding subresource.
    if before["nodeName"].as_str().unwrap_or_default().is_empty() {
        without(&mut before, &["nodeName"]);
        without(&mut after, &["nodeName"]);
    }
    for spec in [&mut before, &mut after] {
        without(spec, POD_MUTABLE);
        let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            without(container, &["image"]);
        }
    }
    if before != after {
        errors.push(forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
             additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to \
             be set to 1 if it was previously negative)",
        ));
    }
}

fn pod_spec(spec: &mut Value) {
    let Some(spec) = spec.as_object_mut() else {
        return;
    };
    default(spec, "restartPolicy", json!("Always"));
    default(
        spec,
        "terminationGracePeriodSeconds",
        json!(GRACE_DEFAULT_S),
    );
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "schedulerName", json!("default-scheduler"));
    default(spec, "securityContext", json!({}));
    for list in ["initContainers", "containers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let Some(container) = container.as_object_mut() else {
                continue;
            };
            default(container, "resources", json!({}));
            default(container, "imagePullPolicy", json!("IfNotPresent"));
            for port in container
                .get_mut("ports")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                if let Some(port) = port.as_object_mut() {
                    default(port, "protocol", json!("TCP"));
                }
            }
        }
    }
}

/// A service: defaults, and an address that stays once it is given.
pub fn service(object: &mut Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    default(spec, "type", json!("ClusterIP"));
    default(spec, "sessionAffinity", json!("None"));
    if spec["type"] != "ExternalName" {
        default(spec, "internalTrafficPolicy", json!("Cluster"));
        default(spec, "ipFamilyPolicy", json!("SingleStack"));
        default(spec, "ipFamilies", json!(["IPv4"]));
        one_family(spec, errors);
    }
    for (n, port) in spec
        .get_mut("ports")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .enumerate()
    {
        let Some(port) = port.as_object_mut() else {
            continue;
        };
        default(port, "protocol", json!("TCP"));
        let number = port.get("port").cloned().unwrap_or_default();
        default(port, "targetPort", number);
        let node = port.get("nodePort").filter(|port| **port != 0);
        for (field, number) in [
            ("port", port.get("port")),
            (
                "targetPort",
                port.get("targetPort").filter(|port| !port.is_string()),
            ),
            ("nodePort", node),
        ] {
            let Some(number) = number.filter(|number| !number.is_null()) else {
                continue;
            };
            if number.as_i64().is_none_or(|n| !(1..=PORT_MAX).contains(&n)) {
                let message =
                    format!("Invalid value: {number}: must be between 1 and {PORT_MAX}, inclusive");
                errors.push(invalid(&format!("spec.ports[{n}].{field}"), message));
            }
        }
    }
    if let Some(old) = old {
        for field in ["clusterIP", "clusterIPs"] {
            let before = &old["spec"][field];
            if before.is_null() || before == "" {
                continue;
            }
            default(spec, field, before.clone());
            if spec[field] != *before {
                let message = format!("Invalid value: {}: field is immutable", spec[field]);
                errors.push(invalid(&format!("spec.{field}"), message));
            }
        }
    }
    if object["status"].is_null() {
        object["status"] = json!({ "loadBalancer": {} });
    }
}

/// Loopback is a network of IPv4 addresses (of IPv6 it has one): like any cluster of one family,
/// this one takes a Service that prefers two, and refuses one that insists.
fn one_family(spec: &Map<String, Value>, errors: &mut Vec<FieldError>) {
    let policy = &spec["ipFamilyPolicy"];
    match policy.as_str() {
        Some("SingleStack" | "PreferDualStack") => {}
        Some("RequireDualStack") => errors.push(invalid(
            "spec.ipFamilyPolicy",
            format!("Invalid value: {policy}: this cluster is not configured for dual-stack services"),
        )),
        _ => errors.push(invalid(
            "spec.ipFamilyPolicy",
            format!(
                "Unsupported value: {policy}: supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\""
            ),
        )),
    }
    for (n, family) in spec["ipFamilies"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        if family != "IPv4" {
            let message = format!("Invalid value: {family}: not configured on this cluster");
            errors.push(invalid(&format!("spec.ipFamilies[{n}]"), message));
        }
    }
}

/// A stateful set: defaults, a selector that fits its template, and a spec that mostly stays.
pub fn stateful_set(object: &mut Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else {
        return;
    };
    default(spec, "replicas", json!(1));
    default(spec, "podManagementPolicy", json!("OrderedReady"));
    default(spec, "revisionHistoryLimit", json!(10));
    default(spec, "updateStrategy", json!({ "type": "RollingUpdate" }));
    default(
        spec,
        "persistentVolumeClaimRetentionPolicy",
        json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }),
    );
    let replicas = &spec["replicas"];
    if replicas
        .as_i64()
        .is_none_or(|n| !(0..=REPLICAS_MAX).contains(&n))
    {
        let message =
            format!("Invalid value: {replicas}: must be between 0 and {REPLICAS_MAX}, inclusive");
        errors.push(invalid("spec.replicas", message));
    }
    if let Some(template) = spec
        .get_mut("template")
        .and_then(|template| template.get_mut("spec"))
    {
        pod_spec(template);
        if old.is_none_or(|old| old["spec"]["template"]["spec"] != *template) {
            admit_pod::check("spec.template.spec", template, errors);
        }
    }
    let selector = Selector::of_object(spec.get("selector").unwrap_or(&Value::Null));
    if selector.is_empty() || !selector.matches(&object["spec"]["template"]) {
        errors.push(invalid(
            "spec.template.metadata.labels",
            "Invalid value: `selector` does not match template `labels`",
        ));
    }
    if object["status"].is_null() {
        object["status"] = json!({ "replicas": 0 });
    }
    let Some(old) = old else { return };
    let (mut before, mut after) = (old["spec"].clone(), object["spec"].clone());
    without(&mut before, STATEFUL_SET_MUTABLE);
    without(&mut after, STATEFUL_SET_MUTABLE);
    if before != after {
        errors.push(forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
             'updateStrategy', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are \
             forbidden",
        ));
    }
}

fn without(value: &mut Value, fields: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|name, _| !fields.contains(&name.as_str()));
    }
}

/// The grace a deletion gives to this pod: what was asked for, or the pod's own; none at all where
/// nothing runs.
pub fn pod_grace(pod: &Value, asked: Option<i64>) -> i64 {
    let bound = pod["spec"]["nodeName"]
        .as_str()
        .is_some_and(|node| !node.is_empty());
    let ended = matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if !bound || ended {
        return 0;
    }
    let own = pod["spec"]["terminationGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(GRACE_DEFAULT_S);
    let grace = asked.unwrap_or(own).within(0, GRACE_MAX_S);
    if !meta::is_deleting(pod) {
        return grace;
    }
    // A later request can only shorten the time.
    let given = pod["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(grace);
    grace.min(given)
}
