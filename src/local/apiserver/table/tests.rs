use serde_json::{Value, json};
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2031-05-06 07:10:09 UTC);

fn made(kind: &str, rest: &Value) -> Value {
    let mut object = json!({ "kind": kind, "metadata": {
        "name": "north", "namespace": "market", "creationTimestamp": "2031-05-06T07:08:09Z" } });
    json_patch::merge(&mut object, rest);
    object
}

/// The cells of a row under their column, without those of `-o wide`.
fn row(columns: &Columns, object: &Value) -> Value {
    let table = columns.table(&[object], &json!({}), IncludeObject::None, NOW);
    let definitions = table["columnDefinitions"].as_array().unwrap();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells.len(), definitions.len());
    definitions
        .iter()
        .zip(cells)
        .filter(|(d, _)| d["priority"] == 0)
        .map(|(d, cell)| (d["name"].as_str().unwrap().to_owned(), cell.clone()))
        .collect()
}

#[test]
fn a_running_pod_shows_readiness_and_restarts() {
    let pod = made(
        "Pod",
        &json!({
            "spec": { "containers": [{ "name": "a" }, { "name": "b" }] },
            "status": { "phase": "Running", "containerStatuses": [
                { "ready": true, "restartCount": 2, "state": { "running": {} },
                  "lastState": { "terminated": { "finishedAt": "2031-05-06T07:10:00Z" } } },
                { "ready": false, "restartCount": 0, "state": { "running": {} } },
            ] },
        }),
    );
    assert_eq!(
        row(&Columns::built_in("", "Pod"), &pod),
        json!({ "Name": "north", "Ready": "1/2", "Status": "Running", "Restarts": "2 (9s ago)", "Age": "2m" })
    );
}

#[test]
fn the_status_of_a_pod_is_the_word_that_says_most() {
    let cases = [
        (json!({ "status": { "phase": "Pending" } }), "Pending"),
        (
            json!({ "status": { "phase": "Running", "containerStatuses": [
            { "state": { "waiting": { "reason": "CrashLoopBackOff" } } }] } }),
            "CrashLoopBackOff",
        ),
        (
            json!({ "status": { "phase": "Failed", "containerStatuses": [
            { "state": { "terminated": { "exitCode": 3 } } }] } }),
            "ExitCode:3",
        ),
        (
            json!({ "status": { "phase": "Pending", "initContainerStatuses": [
            { "state": { "terminated": { "exitCode": 1, "reason": "Error" } } }] } }),
            "Init:Error",
        ),
        (
            json!({ "metadata": { "deletionTimestamp": "2031-05-06T07:10:00Z" },
            "status": { "phase": "Running" } }),
            "Terminating",
        ),
    ];
    for (rest, expected) in cases {
        let row = row(&Columns::built_in("", "Pod"), &made("Pod", &rest));
        assert_eq!(row["Status"], expected, "{rest}");
    }
}

#[test]
fn services_show_their_ports_and_addresses() {
    let service = made(
        "Service",
        &json!({ "spec": { "clusterIP": "127.7.0.3",
        "ports": [{ "port": 5432 }, { "port": 80, "nodePort": 30080, "protocol": "UDP" }] } }),
    );
    assert_eq!(
        row(&Columns::built_in("", "Service"), &service),
        json!({ "Name": "north", "Type": "ClusterIP", "Cluster-IP": "127.7.0.3",
            "External-IP": "<none>", "Port(s)": "5432/TCP,80:30080/UDP", "Age": "2m" })
    );
}

#[test]
fn the_other_kinds_show_what_kubectl_users_expect() {
    let cases = [
        (
            "",
            "Secret",
            json!({ "type": "kubernetes.io/tls", "data": { "a": "", "b": "" } }),
            json!({ "Name": "north", "Type": "kubernetes.io/tls", "Data": 2, "Age": "2m" }),
        ),
        (
            "",
            "ConfigMap",
            json!({ "data": { "a": "" } }),
            json!({ "Name": "north", "Data": 1, "Age": "2m" }),
        ),
        (
            "",
            "Namespace",
            json!({ "status": { "phase": "Terminating" } }),
            json!({ "Name": "north", "Status": "Terminating", "Age": "2m" }),
        ),
        (
            "",
            "ServiceAccount",
            json!({}),
            json!({ "Name": "north", "Secrets": 0, "Age": "2m" }),
        ),
        (
            "apps",
            "StatefulSet",
            json!({ "spec": { "replicas": 3 }, "status": { "readyReplicas": 1 } }),
            json!({ "Name": "north", "Ready": "1/3", "Age": "2m" }),
        ),
        (
            "policy",
            "PodDisruptionBudget",
            json!({ "spec": { "maxUnavailable": 1 } }),
            json!({ "Name": "north", "Min Available": "N/A", "Max Unavailable": "1",
            "Allowed Disruptions": 0, "Age": "2m" }),
        ),
        (
            "discovery.k8s.io",
            "EndpointSlice",
            json!({ "addressType": "IPv4", "ports": [{ "port": 5432 }],
            "endpoints": [{ "addresses": ["127.7.0.4"] }, { "addresses": ["127.7.0.5"] }] }),
            json!({ "Name": "north", "AddressType": "IPv4", "Ports": "5432",
            "Endpoints": "127.7.0.4,127.7.0.5", "Age": "2m" }),
        ),
        (
            "",
            "Event",
            json!({ "type": "Normal", "reason": "Opened", "message": "open now\n",
            "involvedObject": { "kind": "Kiosk", "name": "south" },
            "lastTimestamp": "2031-05-06T07:10:00Z" }),
            json!({ "Last Seen": "9s", "Type": "Normal", "Reason": "Opened", "Object": "kiosk/south",
            "Message": "open now" }),
        ),
        (
            "",
            "Node",
            json!({ "metadata": { "labels": { "node-role.kubernetes.io/worker": "" } },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }],
                "nodeInfo": { "kubeletVersion": "v1.32.0" } } }),
            json!({ "Name": "north", "Status": "Ready", "Roles": "worker", "Age": "2m", "Version": "v1.32.0" }),
        ),
        (
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            json!({}),
            json!({ "Name": "north", "Created At": "2031-05-06T07:08:09Z" }),
        ),
    ];
    for (group, kind, rest, expected) in cases {
        assert_eq!(
            row(&Columns::built_in(group, kind), &made(kind, &rest)),
            expected
        );
    }
}

#[test]
fn custom_resources_show_their_printer_columns_typed() {
    let crd = json!({ "spec": { "versions": [{ "name": "v2", "additionalPrinterColumns": [
        { "name": "Version", "type": "string", "jsonPath": ".spec.version" },
        { "name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status" },
        { "name": "Rows", "type": "integer", "jsonPath": ".spec.rows" },
        { "name": "Odd", "type": "integer", "jsonPath": ".spec.version" },
        { "name": "Box", "type": "string", "jsonPath": ".spec.box" },
        { "name": "Missing", "type": "string", "jsonPath": ".spec.nothing" },
        { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
    ] }] } });
    let kiosk = made(
        "Kiosk",
        &json!({ "spec": { "version": "1.2", "rows": 3, "box": { "x": 1 } },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }),
    );
    assert_eq!(
        row(&Columns::custom(&crd, "v2"), &kiosk),
        json!({ "Name": "north", "Version": "1.2", "Ready": "True", "Rows": 3, "Odd": null,
            "Box": "{\"x\":1}", "Missing": null, "Age": "2m" })
    );
}

#[test]
fn a_custom_resource_without_columns_shows_its_age() {
    let crd = json!({ "spec": { "versions": [{ "name": "v2" }] } });
    assert_eq!(
        row(&Columns::custom(&crd, "v2"), &made("Kiosk", &json!({}))),
        json!({ "Name": "north", "Age": "2m" })
    );
}

#[test]
fn rows_carry_as_much_of_the_object_as_asked_for() {
    let object = made("Secret", &json!({ "data": { "a": "" } }));
    let list = json!({ "resourceVersion": "41" });
    let table = |include| Columns::built_in("", "Secret").table(&[&object], &list, include, NOW);
    let metadata = table(IncludeObject::parse(None));
    assert_eq!(metadata["metadata"], list);
    assert_eq!(
        metadata["rows"][0]["object"],
        json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"] })
    );
    assert_eq!(
        table(IncludeObject::parse(Some("Object")))["rows"][0]["object"],
        object
    );
    assert_eq!(
        table(IncludeObject::parse(Some("None")))["rows"][0].get("object"),
        None
    );
}
