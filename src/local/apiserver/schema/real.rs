//! The definitions that a user's cluster holds, and our own, with objects as people write them.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::clock::computed;

/// The real definitions, from a folder beside the checkout where there is one.
fn real() -> Vec<Value> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let Some(dir) = here
        .ancestors()
        .map(|a| a.join("shared/crds"))
        .find(|d| d.is_dir())
    else {
        return Vec::new();
    };
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .map(|path| serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
        .collect()
}

fn own() -> Vec<Value> {
    use crate::api::crds;
    crds::own()
        .into_iter()
        .chain(crds::borrowed())
        .map(|crd| json!(crd))
        .collect()
}

fn compile(crd: &Value, version: &str) -> CompiledCrdVersion {
    CompiledCrdVersion::compile(crd, version).unwrap()
}

/// Each definition of this name: the real one and ours, where there are such.
fn called(name: &str, version: &str) -> Vec<CompiledCrdVersion> {
    let crds: Vec<Value> = real().into_iter().chain(own()).collect();
    let named = crds.iter().filter(|crd| crd["metadata"]["name"] == name);
    named.map(|crd| compile(crd, version)).collect()
}

fn pod_template() -> Value {
    let container = |i: usize| {
        json!({
            "name": format!("c{i}"),
            "image": "registry.test/pooler:7",
            "args": ["--verbose"],
            "env": [{ "name": "MODE", "value": "drain" }],
            "ports": [{ "name": "db", "containerPort": 6000 + i, "protocol": "TCP" }],
            "resources": { "requests": { "cpu": "500m", "memory": "1Gi" } },
            "volumeMounts": [{ "name": "config", "mountPath": "/etc/config" }],
            "readinessProbe": { "tcpSocket": { "port": "db" }, "periodSeconds": 3 },
            "securityContext": { "runAsUser": 70, "capabilities": { "drop": ["ALL"] } },
        })
    };
    json!({
        "metadata": { "labels": { "app": "north" } },
        "spec": {
            "containers": (0..3).map(container).collect::<Vec<_>>(),
            "volumes": [{ "name": "config", "secret": { "secretName": "north-config" } }],
            "tolerations": [{ "key": "spot", "operator": "Exists" }],
            "nodeSelector": { "disk": "fast" },
        },
    })
}

fn pet_set() -> Value {
    json!({
        "apiVersion": "apps.k8s.appscode.com/v1",
        "kind": "PetSet",
        "metadata": { "name": "north", "namespace": "market" },
        "spec": {
            "replicas": 3,
            "serviceName": "north-pods",
            "selector": { "matchLabels": { "app": "north" } },
            "updateStrategy": { "type": "OnDelete" },
            "podManagementPolicy": "Parallel",
            "template": pod_template(),
        },
    })
}

fn pg_bouncer() -> Value {
    let mut template = pod_template();
    template["spec"]["containers"][0]["name"] = json!("pgbouncer");
    json!({
        "apiVersion": "kubedb.com/v1",
        "kind": "PgBouncer",
        "metadata": { "name": "north", "namespace": "market" },
        "spec": {
            "version": "1.18.0",
            "replicas": 3,
            "sslMode": "verify-full",
            "database": { "syncUsers": true, "databaseName": "orders",
                "databaseRef": { "name": "pg", "namespace": "market" } },
            "connectionPool": { "poolMode": "transaction", "port": 6432, "authType": "scram-sha-256" },
            "tls": {
                "issuerRef": { "apiGroup": "cert-manager.io", "kind": "Issuer", "name": "ca" },
                "certificates": [{ "alias": "server", "subject": { "organizations": ["market"] },
                    "dnsNames": ["north.test"] }],
            },
            "deletionPolicy": "WipeOut",
            "podTemplate": { "spec": template["spec"] },
        },
    })
}

#[test]
fn every_definition_compiles_in_every_version() {
    for crd in real().iter().chain(&own()) {
        for version in crd["spec"]["versions"].as_array().unwrap() {
            compile(crd, version["name"].as_str().unwrap());
        }
    }
}

#[test]
fn a_petset_with_a_full_pod_template_is_valid_and_loses_nothing() {
    for compiled in called("petsets.apps.k8s.appscode.com", "v1") {
        let mut object = pet_set();
        assert_eq!(compiled.prune(&mut object), Vec::<String>::new());
        compiled.default(&mut object);
        assert_eq!(compiled.validate(&object, None), []);
    }
}

#[test]
fn a_pgbouncer_as_the_tutorials_write_it_is_valid_and_loses_nothing() {
    let definitions = called("pgbouncers.kubedb.com", "v1");
    assert!(!definitions.is_empty());
    for compiled in definitions {
        let mut object = pg_bouncer();
        assert_eq!(compiled.prune(&mut object), Vec::<String>::new());
        compiled.default(&mut object);
        assert_eq!(compiled.validate(&object, None), []);
        object["spec"]["sslMode"] = json!("disabled");
        let errors = compiled.validate(&object, None);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(
            errors[0].to_string(),
            "spec.sslMode: Unsupported value: \"disabled\": supported values: \"disable\", \
             \"allow\", \"prefer\", \"require\", \"verify-ca\", \"verify-full\""
        );
    }
}

#[test]
fn the_largest_definition_is_compiled_and_used_quickly() {
    for (name, object) in [
        ("petsets.apps.k8s.appscode.com", pet_set()),
        ("pgbouncers.kubedb.com", pg_bouncer()),
    ] {
        for compiled in called(name, "v1") {
            let started = computed();
            for _ in 0..100 {
                let mut object = object.clone();
                compiled.prune(&mut object);
                compiled.default(&mut object);
                assert_eq!(compiled.validate(&object, None), []);
            }
            let each = computed().saturating_sub(started) / 100;
            println!("{name}: {each:?} a write");
            // A millisecond or so, without optimization.
            assert!(each < Duration::from_millis(20), "{name}: {each:?}");
        }
    }
}
