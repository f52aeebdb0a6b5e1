//! The columns of the kinds that Kubernetes brings itself.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{age, pod};

/// Name, type and priority of a column; priority 1 is for `-o wide`.
type Definition = (&'static str, &'static str, i64);
/// Makes the cells of a row.
type Row = fn(&Value, OffsetDateTime) -> Vec<Value>;

const NAME: Definition = ("Name", "string", 0);
const AGE: Definition = ("Age", "string", 0);

/// The columns of a kind; name and time of creation where nothing better is known.
pub(super) fn find(group: &str, kind: &str) -> (&'static [Definition], Row) {
    match (group, kind) {
        ("", "Pod") => (pod::COLUMNS, pod::cells),
        ("", "Service") => (SERVICE, service),
        ("", "Secret") => (SECRET, secret),
        ("", "ConfigMap") => (CONFIG_MAP, config_map),
        ("", "ServiceAccount") => (SERVICE_ACCOUNT, service_account),
        ("", "Namespace") => (NAMESPACE, namespace),
        ("", "Node") => (NODE, node),
        ("" | "events.k8s.io", "Event") => (EVENT, event),
        ("apps", "StatefulSet") => (STATEFUL_SET, stateful_set),
        ("policy", "PodDisruptionBudget") => (BUDGET, budget),
        ("discovery.k8s.io", "EndpointSlice") => (ENDPOINT_SLICE, endpoint_slice),
        ("coordination.k8s.io", "Lease") => (LEASE, lease),
        _ => (PLAIN, plain),
    }
}

const PLAIN: &[Definition] = &[NAME, ("Created At", "date", 0)];

fn plain(object: &Value, _now: OffsetDateTime) -> Vec<Value> {
    vec![
        name(object),
        object["metadata"]["creationTimestamp"].clone(),
    ]
}

const SERVICE: &[Definition] = &[
    NAME,
    ("Type", "string", 0),
    ("Cluster-IP", "string", 0),
    ("External-IP", "string", 0),
    ("Port(s)", "string", 0),
    AGE,
    ("Selector", "string", 1),
];

fn service(service: &Value, now: OffsetDateTime) -> Vec<Value> {
    let ports: Vec<String> = list(service, "/spec/ports")
        .iter()
        .map(service_port)
        .collect();
    let selector = service["spec"]["selector"].as_object();
    let selector: Vec<String> = selector
        .map(|s| {
            s.iter()
                .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
                .collect()
        })
        .unwrap_or_default();
    vec![
        name(service),
        json!(text(service, "/spec/type").unwrap_or("ClusterIP")),
        or_none(text(service, "/spec/clusterIP")),
        json!(external_ip(service)),
        joined(&ports, "<none>"),
        age_of(service, now),
        joined(&selector, "<none>"),
    ]
}

fn service_port(port: &Value) -> String {
    let number = port["port"].as_i64().unwrap_or_default();
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    match port["nodePort"].as_i64() {
        Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
        _ => format!("{number}/{protocol}"),
    }
}

fn external_ip(service: &Value) -> String {
    let mut addresses: Vec<&str> = list(service, "/spec/externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match text(service, "/spec/type") {
        Some("ExternalName") => {
            return text(service, "/spec/externalName")
                .unwrap_or_default()
                .to_owned();
        }
        Some("LoadBalancer") => {
            let ingress = list(service, "/status/loadBalancer/ingress").iter();
            addresses.extend(
                ingress.filter_map(|i| i["ip"].as_str().or_else(|| i["hostname"].as_str())),
            );
            if addresses.is_empty() {
                return "<pending>".to_owned();
            }
        }
        _ => {}
    }
    if addresses.is_empty() {
        "<none>".to_owned()
    } else {
        addresses.join(",")
    }
}

const SECRET: &[Definition] = &[NAME, ("Type", "string", 0), ("Data", "string", 0), AGE];

fn secret(secret: &Value, now: OffsetDateTime) -> Vec<Value> {
    let data = secret["data"].as_object().map_or(0, serde_json::Map::len);
    vec![
        name(secret),
        json!(text(secret, "/type").unwrap_or("Opaque")),
        json!(data),
        age_of(secret, now),
    ]
}

const CONFIG_MAP: &[Definition] = &[NAME, ("Data", "string", 0), AGE];

fn config_map(map: &Value, now: OffsetDateTime) -> Vec<Value> {
    let count = |field: &str| map[field].as_object().map_or(0, serde_json::Map::len);
    vec![
        name(map),
        json!(count("data") + count("binaryData")),
        age_of(map, now),
    ]
}

const SERVICE_ACCOUNT: &[Definition] = &[NAME, ("Secrets", "string", 0), AGE];

fn service_account(account: &Value, now: OffsetDateTime) -> Vec<Value> {
    vec![
        name(account),
        json!(list(account, "/secrets").len()),
        age_of(account, now),
    ]
}

const NAMESPACE: &[Definition] = &[NAME, ("Status", "string", 0), AGE];

fn namespace(namespace: &Value, now: OffsetDateTime) -> Vec<Value> {
    let phase = text(namespace, "/status/phase").unwrap_or("Active");
    vec![name(namespace), json!(phase), age_of(namespace, now)]
}

const NODE: &[Definition] = &[
    NAME,
    ("Status", "string", 0),
    ("Roles", "string", 0),
    AGE,
    ("Version", "string", 0),
    ("Internal-IP", "string", 1),
    ("OS-Image", "string", 1),
    ("Kernel-Version", "string", 1),
    ("Container-Runtime", "string", 1),
];

fn node(node: &Value, now: OffsetDateTime) -> Vec<Value> {
    const ROLE: &str = "node-role.kubernetes.io/";
    let ready = list(node, "/status/conditions")
        .iter()
        .find(|c| c["type"] == "Ready");
    let mut status = match ready.map(|c| c["status"] == "True") {
        Some(true) => "Ready".to_owned(),
        Some(false) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        status += ",SchedulingDisabled";
    }
    let labels = node["metadata"]["labels"].as_object();
    let roles: Vec<String> = labels
        .map(|l| {
            l.keys()
                .filter_map(|k| k.strip_prefix(ROLE))
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    let internal = list(node, "/status/addresses")
        .iter()
        .find(|a| a["type"] == "InternalIP");
    let info = |field: &str| text(node, &format!("/status/nodeInfo/{field}"));
    vec![
        name(node),
        json!(status),
        joined(&roles, "<none>"),
        age_of(node, now),
        json!(info("kubeletVersion").unwrap_or_default()),
        or_none(internal.and_then(|a| a["address"].as_str())),
        json!(info("osImage").unwrap_or("<unknown>")),
        json!(info("kernelVersion").unwrap_or("<unknown>")),
        json!(info("containerRuntimeVersion").unwrap_or("<unknown>")),
    ]
}

const EVENT: &[Definition] = &[
    ("Last Seen", "string", 0),
    ("Type", "string", 0),
    ("Reason", "string", 0),
    ("Object", "string", 0),
    ("Subobject", "string", 1),
    ("Source", "string", 1),
    ("Message", "string", 0),
    ("First Seen", "string", 1),
    ("Count", "string", 1),
    ("Name", "string", 1),
];

fn event(event: &Value, now: OffsetDateTime) -> Vec<Value> {
    let first_of = |pointers: &[&str]| pointers.iter().find_map(|p| text(event, p));
    let first = first_of(&["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"]);
    let last = first_of(&[
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/deprecatedLastTimestamp",
    ]);
    // events.k8s.io calls the object "regarding" and the message "note".
    let object = if event["regarding"].is_object() {
        &event["regarding"]
    } else {
        &event["involvedObject"]
    };
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let about = format!("{kind}/{}", object["name"].as_str().unwrap_or_default());
    let count = event
        .pointer("/series/count")
        .or_else(|| event.get("count"));
    vec![
        json!(age::since(last.or(first), now)),
        json!(text(event, "/type").unwrap_or_default()),
        json!(text(event, "/reason").unwrap_or_default()),
        json!(about),
        json!(object["fieldPath"].as_str().unwrap_or_default()),
        json!(
            first_of(&[
                "/source/component",
                "/reportingComponent",
                "/reportingController"
            ])
            .unwrap_or_default()
        ),
        json!(first_of(&["/message", "/note"]).unwrap_or_default().trim()),
        json!(age::since(first, now)),
        json!(count.and_then(Value::as_i64).unwrap_or(1)),
        name(event),
    ]
}

const STATEFUL_SET: &[Definition] = &[
    NAME,
    ("Ready", "string", 0),
    AGE,
    ("Containers", "string", 1),
    ("Images", "string", 1),
];

fn stateful_set(set: &Value, now: OffsetDateTime) -> Vec<Value> {
    let number = |pointer: &str| set.pointer(pointer).and_then(Value::as_i64);
    let ready = number("/status/readyReplicas").unwrap_or_default();
    let wanted = number("/spec/replicas").unwrap_or(1);
    let of_containers = |field: &str| {
        let containers = list(set, "/spec/template/spec/containers").iter();
        let values: Vec<&str> = containers.filter_map(|c| c[field].as_str()).collect();
        values.join(",")
    };
    vec![
        name(set),
        json!(format!("{ready}/{wanted}")),
        age_of(set, now),
        json!(of_containers("name")),
        json!(of_containers("image")),
    ]
}

const BUDGET: &[Definition] = &[
    NAME,
    ("Min Available", "string", 0),
    ("Max Unavailable", "string", 0),
    ("Allowed Disruptions", "integer", 0),
    AGE,
];

fn budget(budget: &Value, now: OffsetDateTime) -> Vec<Value> {
    let bound = |field: &str| match &budget["spec"][field] {
        Value::String(text) => json!(text),
        Value::Number(n) => json!(n.to_string()),
        _ => json!("N/A"),
    };
    let allowed = budget["status"]["disruptionsAllowed"]
        .as_i64()
        .unwrap_or_default();
    vec![
        name(budget),
        bound("minAvailable"),
        bound("maxUnavailable"),
        json!(allowed),
        age_of(budget, now),
    ]
}

const ENDPOINT_SLICE: &[Definition] = &[
    NAME,
    ("AddressType", "string", 0),
    ("Ports", "string", 0),
    ("Endpoints", "string", 0),
    AGE,
];

fn endpoint_slice(slice: &Value, now: OffsetDateTime) -> Vec<Value> {
    let ports: Vec<String> = list(slice, "/ports")
        .iter()
        .map(|p| {
            p["port"]
                .as_i64()
                .map_or_else(|| "*".to_owned(), |port| port.to_string())
        })
        .collect();
    let addresses: Vec<String> = list(slice, "/endpoints")
        .iter()
        .flat_map(|e| list(e, "/addresses"))
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    vec![
        name(slice),
        json!(text(slice, "/addressType").unwrap_or_default()),
        first_three(&ports),
        first_three(&addresses),
        age_of(slice, now),
    ]
}

const LEASE: &[Definition] = &[NAME, ("Holder", "string", 0), AGE];

fn lease(lease: &Value, now: OffsetDateTime) -> Vec<Value> {
    let holder = text(lease, "/spec/holderIdentity").unwrap_or_default();
    vec![name(lease), json!(holder), age_of(lease, now)]
}

// === what rows are made of ===

pub(super) fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

pub(super) fn age_of(object: &Value, now: OffsetDateTime) -> Value {
    json!(age::since(text(object, "/metadata/creationTimestamp"), now))
}

/// The text at `pointer`, if there is some.
pub(super) fn text<'v>(object: &'v Value, pointer: &str) -> Option<&'v str> {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

pub(super) fn list<'v>(object: &'v Value, pointer: &str) -> &'v [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

pub(super) fn or_none(text: Option<&str>) -> Value {
    json!(text.unwrap_or("<none>"))
}

fn joined(items: &[String], nothing: &str) -> Value {
    if items.is_empty() {
        json!(nothing)
    } else {
        json!(items.join(","))
    }
}

fn first_three(items: &[String]) -> Value {
    match items.len() {
        0 => json!("<unset>"),
        1..=3 => json!(items.join(",")),
        n => json!(format!("{} + {} more...", items[..3].join(","), n - 3)),
    }
}
