//! Where each right of the chart holds: in a namespace wherever the kind lives in one.

use std::collections::BTreeSet;

use bouncert::local::apiserver::access::Grain;
use serde_json::{Value, json};

use super::chart;

/// Kinds of the cluster that the daemon reads; all others that it has rights to live in namespaces.
const GLOBAL: [&str; 4] = [
    "catalog.kubedb.com/pgbouncerversions",
    "cert-manager.io/clusterissuers",
    "policy.cert-manager.io/certificaterequestpolicies",
    "/namespaces",
];
/// What is done with them.
const READS: [&str; 4] = ["get", "list", "watch", "use"];

fn roles(changes: &Value) -> Vec<Value> {
    let all = chart::objects(changes).into_iter();
    all.filter(|object| matches!(object["kind"].as_str(), Some("Role" | "ClusterRole")))
        .collect()
}

fn words<'a>(rule: &'a Value, key: &str) -> Vec<&'a str> {
    let list = rule[key].as_array();
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Group and resource of every rule.
fn resources(role: &Value) -> BTreeSet<String> {
    let rules = role["rules"].as_array().unwrap();
    let pairs = rules.iter().flat_map(|rule| {
        let groups = words(rule, "apiGroups").into_iter();
        groups.flat_map(|group| {
            let resources = words(rule, "resources").into_iter();
            resources.map(move |resource| format!("{group}/{resource}"))
        })
    });
    pairs.collect()
}

fn name(role: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, meta) = (text(&role["kind"]), &role["metadata"]);
    format!(
        "{kind} {}/{}",
        text(&meta["namespace"]),
        text(&meta["name"])
    )
}

#[test]
fn with_watched_namespaces_nothing_that_lives_in_a_namespace_is_granted_for_the_cluster() {
    let changes = json!({"watchNamespaces": ["shop", "banks"]});
    let all = roles(&changes);
    let (global, local): (Vec<_>, Vec<_>) =
        all.iter().partition(|role| role["kind"] == "ClusterRole");
    assert_eq!(
        global.len(),
        1,
        "{:?}",
        global.iter().map(|role| name(role)).collect::<Vec<_>>()
    );
    let known = BTreeSet::from(GLOBAL.map(str::to_owned));
    assert_eq!(resources(global[0]), known);
    for rule in global[0]["rules"].as_array().unwrap() {
        let verbs = words(rule, "verbs");
        assert!(verbs.iter().all(|verb| READS.contains(verb)), "{rule}");
        // Lists and watches of Namespaces are for those that are watched.
        if words(rule, "resources") == ["namespaces"] && verbs != ["get"] {
            assert_eq!(words(rule, "resourceNames"), ["shop", "banks"], "{rule}");
        }
    }
    for role in local {
        assert!(role["metadata"]["namespace"].is_string(), "{}", name(role));
        let also_global: Vec<_> = resources(role).intersection(&known).cloned().collect();
        assert!(also_global.is_empty(), "{}: {also_global:?}", name(role));
    }
    // Both namespaces get the same, and it is what holds everywhere without them.
    let of = |namespace: &str| {
        let role = all.iter().find(|role| {
            role["metadata"]["namespace"] == namespace && role["metadata"]["name"] == "bouncert"
        });
        role.unwrap()["rules"].clone()
    };
    let everywhere = roles(&json!({}));
    let everywhere = everywhere
        .iter()
        .find(|role| role["kind"] == "ClusterRole" && role["metadata"]["name"] == "bouncert");
    assert_eq!(of("shop"), of("banks"));
    assert_eq!(of("shop"), everywhere.unwrap()["rules"]);
}

#[test]
fn no_rule_is_wider_than_the_words_in_it() {
    for changes in [
        json!({}),
        json!({"watchNamespaces": ["shop"]}),
        json!({"upgrade": {"carryJournals": true}}),
        json!({"vaultServiceAccounts": [{"namespace": "shop", "name": "vault-login"}]}),
    ] {
        for role in roles(&changes) {
            assert!(role.get("aggregationRule").is_none(), "{}", name(&role));
            for rule in role["rules"].as_array().unwrap() {
                for key in ["apiGroups", "resources", "verbs"] {
                    let words = words(rule, key);
                    assert!(
                        !words.is_empty() && !words.contains(&"*"),
                        "{}: {rule}",
                        name(&role)
                    );
                }
                for verb in [
                    "escalate",
                    "bind",
                    "impersonate",
                    "deletecollection",
                    "approve",
                    "sign",
                ] {
                    assert!(
                        !words(rule, "verbs").contains(&verb),
                        "{}: {rule}",
                        name(&role)
                    );
                }
                assert!(
                    rule.get("nonResourceURLs").is_none(),
                    "{}: {rule}",
                    name(&role)
                );
                // A token is of a ServiceAccount that is named.
                if words(rule, "resources").contains(&"serviceaccounts/token") {
                    assert!(!words(rule, "resourceNames").is_empty(), "{rule}");
                }
            }
        }
    }
}

/// The ledger in which the API server notes what was used tells grains apart, so that a rule with two
/// verbs of which one is used is seen.
#[test]
fn a_grain_is_one_verb_on_one_resource_of_one_role() {
    let role = json!({
        "kind": "Role", "metadata": {"name": "till", "namespace": "shop"},
        "rules": [{"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["get", "list"]}],
    });
    assert_eq!(
        Grain::all_of(&role)
            .into_iter()
            .collect::<BTreeSet<_>>()
            .len(),
        4
    );
}
