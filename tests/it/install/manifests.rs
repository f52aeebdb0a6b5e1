//! The plain manifests and the chart that they come from.

use bouncert::cli::args::{Cli, Verb};
use bouncert::telemetry::ListenAddress;
use clap::Parser;
use serde_json::{Value, json};

use super::chart;
use crate::apiserver::{kubectl, with_kubectl};
use crate::cli::golden;

/// What `deploy/install.yaml` is rendered with.
fn plain() -> Value {
    json!({ "createNamespace": true })
}

#[test]
fn the_golden_manifests_are_what_the_chart_renders() {
    let mut text = "# Bouncert without Helm: rendered from deploy/helm/bouncert by `make crds`.\n\
         # The CRDs are in deploy/crds, the versions that a PgBouncer may ask for in deploy/catalog.\n"
        .to_owned();
    for document in chart::render(&plain()) {
        text.push_str("---\n");
        text.push_str(&document.replace("managed-by: Helm", "managed-by: kubectl"));
        text.push('\n');
    }
    golden(&crate::stage::repository_file("deploy/install.yaml"), &text);
}

/// Values that change what is rendered, apart from those for kinds of the Prometheus operator.
fn everything_else() -> Value {
    json!({
        "image": {"digest": format!("sha256:{}", "0".repeat(64))},
        "imagePullSecrets": [{"name": "pull"}],
        "replicas": 1,
        "leaderElection": {"enabled": false},
        "watchNamespaces": ["books", "cert-manager"],
        "class": "gold",
        "allowCrossNamespaceDatabases": true,
        "vaultServiceAccounts": [{"namespace": "cert-manager", "name": "till.issuer"}],
        "vaultNetworks": ["10.0.0.0/8", "fd00::/8"],
        "policies": {"strict.yaml": "kind: CertificateRequestPolicy\n"},
        "serviceAccount": {"annotations": {"example.org/role": "signer"}},
        "priorityClass": {"create": false, "name": "system-cluster-critical"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "podAnnotations": {"example.org/team": "dba"},
        "podLabels": {"team": "dba"},
        "networkPolicy": {
            "from": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
            "apiServer": {"cidrs": ["192.0.2.1/32"], "ports": [6443]},
            "dns": [{"ipBlock": {"cidr": "192.0.2.53/32"}}],
            "egress": [{
                "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "vault"}}}],
                "ports": [{"port": 8200, "protocol": "TCP"}],
            }],
        },
    })
}

#[tokio::test]
async fn what_the_chart_renders_passes_kubectl_and_the_server() {
    let Some(served) = with_kubectl().await else {
        return;
    };
    for namespace in [chart::NAMESPACE, "cert-manager"] {
        kubectl(&served, &["create", "namespace", namespace], None).await;
    }
    let dry = ["apply", "--dry-run=server", "--validate=strict"];
    let real = ["apply", "--server-side", "--validate=strict"];
    for changes in [plain(), everything_else()] {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": chart::objects(&changes)});
        let told = kubectl(&served, &dry, Some(&list)).await;
        let lines = told.lines().filter(|line| line.contains("server dry run"));
        assert_eq!(
            lines.count(),
            list["items"].as_array().unwrap().len(),
            "{told}"
        );
        kubectl(&served, &real, Some(&list)).await;
    }
    let mut wrong = chart::objects(&plain()).pop().unwrap();
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = json!({});
    let told = crate::apiserver::refused_by_kubectl(&served, &dry, &wrong).await;
    assert!(told.contains("unknown field"), "{told}");
    served.end().await;
}

#[test]
fn the_daemon_understands_the_arguments_that_the_chart_gives() {
    for changes in [plain(), everything_else()] {
        let objects = chart::objects(&changes);
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment");
        let container = &deployment.unwrap()["spec"]["template"]["spec"]["containers"][0];
        let words = container["args"].as_array().unwrap().iter();
        let words: Vec<&str> = words.map(|word| word.as_str().unwrap()).collect();
        let cli = Cli::try_parse_from(["bouncert"].into_iter().chain(words)).unwrap();
        let Verb::Run(run) = cli.verb else {
            panic!("the container runs {:?}", cli.verb)
        };
        let watched = changes["watchNamespaces"].as_array().map_or(0, Vec::len);
        assert_eq!(run.reach.watch_namespaces.len(), watched);
        let elects = changes["leaderElection"]["enabled"] != false;
        assert_eq!(run.daemon.leader.leader_elect, elects);
        let port = container["ports"][0]["containerPort"].as_u64().unwrap();
        let everywhere = ListenAddress::Every(u16::try_from(port).unwrap());
        assert_eq!(run.daemon.admin.admin_listen, everywhere);
    }
}

fn network_policy(changes: &Value) -> Value {
    let objects = chart::objects(changes).into_iter();
    let mut policies = objects.filter(|object| object["kind"] == "NetworkPolicy");
    policies.next().unwrap()["spec"].take()
}

/// An empty peer or list of peers is everybody to Kubernetes.
#[test]
fn the_network_policy_admits_only_who_is_named_in_and_out() {
    for changes in [plain(), everything_else()] {
        let spec = network_policy(&changes);
        assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for rule in spec[direction].as_array().unwrap() {
                let named = rule[peers].as_array().unwrap();
                assert!(!named.is_empty(), "{rule}");
                for peer in named {
                    let everywhere = peer["namespaceSelector"] == json!({});
                    let anybody = peer
                        .get("podSelector")
                        .is_none_or(|pods| *pods == json!({}));
                    assert!(!(everywhere && anybody), "{peer}");
                    assert!(
                        peer.as_object().is_some_and(|peer| !peer.is_empty()),
                        "{rule}"
                    );
                }
                let is_address = named.iter().any(|peer| peer.get("ipBlock").is_some());
                assert!(!is_address || rule.get("ports").is_some(), "{rule}");
            }
        }
    }
    let spec = network_policy(&plain());
    let own = json!([
        {"podSelector": {}},
        {"namespaceSelector": {"matchLabels": {"bouncert.dev/scrape": "allowed"}}},
    ]);
    assert_eq!(spec["ingress"][0]["from"], own);
    let poolers = &spec["egress"][0]["to"][0]["podSelector"]["matchLabels"];
    assert_eq!(poolers["app.kubernetes.io/name"], "pgbouncers.kubedb.com");
    let shut = network_policy(&json!({"networkPolicy": {"from": []}}));
    assert_eq!(shut["ingress"], json!([]), "nobody is named");
}

#[test]
fn the_daemon_meets_the_restricted_pod_security_standard() {
    let objects = chart::objects(&plain());
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment");
    let pod = &deployment.unwrap()["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["capabilities"], json!({"drop": ["ALL"]}));
    for field in ["hostNetwork", "hostPID", "hostIPC", "volumes"] {
        assert!(pod.get(field).is_none(), "{field}");
    }
}

/// What the values have and the schema does not know, or the other way round.
fn differences(values: &Value, schema: &Value, at: &str, found: &mut Vec<String>) {
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    let fields = values.as_object().unwrap();
    for name in fields.keys().filter(|name| !properties.contains_key(*name)) {
        found.push(format!("{at}.{name} is not in the schema"));
    }
    for (name, part) in properties {
        match fields.get(name) {
            Some(value) => differences(value, part, &format!("{at}.{name}"), found),
            None if name == "global" => {}
            None => found.push(format!("{at}.{name} has no default")),
        }
    }
}

#[test]
fn every_value_has_a_default_and_a_schema() {
    let schema = std::fs::read_to_string(chart::folder().join("values.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let mut found = Vec::new();
    differences(&chart::values(&json!({})), &schema, "", &mut found);
    assert!(found.is_empty(), "{found:?}");
    differences(&everything_else(), &schema, "", &mut found);
    let unknown = found.iter().find(|line| line.contains("not in the schema"));
    assert_eq!(unknown, None);
}
