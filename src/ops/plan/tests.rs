//! Plans of every kind, and the fixtures that other tests build plans with.

use serde_json::json;

use super::*;
use crate::api::pgbouncer::PgBouncerSpec;
use crate::blueprint::defaults::IssuerKind;
use crate::ops::request::{MaxUnavailable, Strategy, parse, target_state};

/// A plan for `database` with so many replicas, from present TLS fields and a `spec.tls` of a
/// request (`null` for a restart).
pub(in crate::ops) fn plan(
    present: &serde_json::Value,
    asked: &serde_json::Value,
    replicas: u32,
) -> Plan {
    plan_with(present, asked, replicas, Settings::default())
}

/// The same with settings of its own.
pub(in crate::ops) fn plan_with(
    present: &serde_json::Value,
    asked: &serde_json::Value,
    replicas: u32,
    settings: Settings,
) -> Plan {
    plan_by(present, asked, replicas, settings, Choice::default())
}

/// The same by reload; with [`Strategy::Auto`], a pod may turn out to need a restart.
pub(in crate::ops) fn reload_plan(
    present: &serde_json::Value,
    asked: &serde_json::Value,
    replicas: u32,
    strategy: Strategy,
) -> Plan {
    let settings = Settings {
        strategy,
        ..Settings::default()
    };
    let choice = Choice {
        way: Way::Reload,
        why: Some("only files change".to_owned()),
    };
    plan_by(present, asked, replicas, settings, choice)
}

fn plan_by(
    present: &serde_json::Value,
    asked: &serde_json::Value,
    replicas: u32,
    settings: Settings,
    choice: Choice,
) -> Plan {
    let mut spec = json!({
        "version": "1.18.0",
        "database": { "databaseName": "l", "databaseRef": { "name": "p", "namespace": "shop" } },
    });
    json_patch::merge(&mut spec, present);
    let spec: PgBouncerSpec = serde_json::from_value(spec).unwrap();
    let mut request = json!({ "databaseRef": { "name": "billing" }, "type": "ReconfigureTLS" });
    if asked.is_null() {
        request["type"] = json!("Restart");
    } else {
        request["tls"] = asked.clone();
    }
    let request = serde_json::from_value(request).unwrap();
    let change = parse(&request, &spec).unwrap();
    let former = TlsState::of(&spec);
    let published: BTreeMap<_, _> = former
        .aliases()
        .into_iter()
        .map(|alias| {
            let held = Holding {
                revision: Revision::FIRST,
                trust: "the old bundle".to_owned(),
            };
            (alias, held)
        })
        .collect();
    let subject = |name: &str| Subject {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
    };
    let facts = Facts {
        namespace: "shop".to_owned(),
        request: subject("change-7"),
        generation: 1,
        request_type: request.type_.as_str().to_owned(),
        database: subject("billing"),
        target: target_state("billing", &spec, &change, IssuerKind::Private),
        former,
        next: published
            .keys()
            .map(|alias| (*alias, Revision::FIRST.next().unwrap()))
            .collect(),
        published,
        replicas,
        pods: (0..replicas)
            .map(|n| {
                let fact = PodFact {
                    uid: format!("old-{n}"),
                    ready: true,
                    container: Some(format!("old://{n}")),
                };
                (format!("billing-{n}"), fact)
            })
            .collect(),
        pools: Pools::Transactions,
        choice,
    };
    Plan::new(change, settings, facts)
}

pub(in crate::ops) fn present() -> serde_json::Value {
    json!({
        "sslMode": "verify-full",
        "tls": {
            "issuerRef": { "kind": "Issuer", "name": "old-ca" },
            "certificates": [
                { "alias": "server" }, { "alias": "client" }, { "alias": "metrics-exporter" },
            ],
        },
    })
}

pub(in crate::ops) fn issuer() -> serde_json::Value {
    json!({ "issuerRef": { "kind": "Issuer", "name": "new-ca" } })
}

fn words(plan: &Plan) -> String {
    let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    steps.join(", ")
}

#[test]
fn adding_tls_hands_out_client_material_before_any_pod_asks_for_it() {
    let plan = plan(&json!({ "sslMode": "disable" }), &issuer(), 3);
    assert_eq!(
        words(&plan),
        "pause, issue server, issue client, issue metrics-exporter, hand out client material, \
         switch, roll billing-2, roll billing-1, roll billing-0, prove, commit, resume"
    );
    assert!(plan.is_canary("billing-2"));
}

#[test]
fn another_issuer_is_trusted_first_and_its_client_material_comes_last() {
    let plan = plan(&present(), &issuer(), 2);
    assert_eq!(
        words(&plan),
        "pause, issue server, issue client, issue metrics-exporter, stage trust, switch, \
         roll billing-1, roll billing-0, hand out client material, prove, commit, retire, \
         resume"
    );
    assert!(
        plan.issue
            .iter()
            .all(|i| i.revision.get() == 2 && i.issuer.name == "new-ca")
    );
}

#[test]
fn a_single_replica_gets_company() {
    let plan = plan(&present(), &json!({ "rotateCertificates": true }), 1);
    assert_eq!(
        words(&plan),
        "pause, issue server, issue client, issue metrics-exporter, stage trust, switch, \
         surge, roll billing-0, end surge, hand out client material, prove, commit, retire, resume"
    );
    assert!(plan.is_canary("billing-1") && !plan.is_canary("billing-0"));
}

#[test]
fn a_reload_needs_no_company_and_its_first_pod_is_the_canary() {
    let asked = json!({ "rotateCertificates": true });
    for replicas in [1, 2] {
        let plan = reload_plan(&present(), &asked, replicas, Strategy::Reload);
        let last = format!("billing-{}", replicas - 1);
        assert!(plan.is_canary(&last));
        assert!(!words(&plan).contains("surge"), "{}", words(&plan));
        assert!(
            plan.outline()
                .contains(&format!("reload {last} and prove it"))
        );
        let step = Step::Reload(last);
        assert!(plan.steps.contains(&step) && !step.is_final());
    }
}

#[test]
fn a_plan_of_before_reloads_restarts() {
    let mut stored = serde_json::to_value(plan(&present(), &issuer(), 2)).unwrap();
    stored.as_object_mut().unwrap().remove("choice");
    for pod in stored["pods"].as_array_mut().unwrap() {
        pod.as_object_mut().unwrap().remove("container");
    }
    let read: Plan = serde_json::from_value(stored).unwrap();
    assert_eq!(read.choice.way, Way::Restart);
}

#[test]
fn where_more_may_be_unavailable_the_canary_still_goes_alone() {
    let settings = Settings {
        max_unavailable: MaxUnavailable::Pods(2),
        ..Settings::default()
    };
    let rotate = json!({ "rotateCertificates": true });
    let of = |replicas| {
        let words = words(&plan_with(&present(), &rotate, replicas, settings));
        let from = words.find("roll").unwrap();
        words[from..words.find(", hand out").unwrap()].to_owned()
    };
    assert_eq!(
        of(6),
        "roll billing-5, roll billing-4 and billing-3, roll billing-2 and billing-1, roll billing-0"
    );
    assert_eq!(
        of(3),
        "roll billing-2, roll billing-1, roll billing-0",
        "the budget lets one go"
    );
    assert_eq!(of(1), "roll billing-0, end surge");
    let wide = plan_with(&present(), &rotate, 6, settings);
    assert!(wide.is_canary("billing-5") && !wide.is_canary("billing-4"));
    assert_eq!(wide.together("billing-4"), ["billing-4", "billing-3"]);
    assert!(wide.together("billing-6").is_empty());
}

#[test]
fn removal_deletes_material_only_after_the_commit() {
    let plan = plan(&present(), &json!({ "remove": true }), 2);
    assert_eq!(
        words(&plan),
        "pause, switch, roll billing-1, roll billing-0, prove, commit, retire, resume"
    );
}

#[test]
fn a_restart_touches_pods_only() {
    let plan = plan(&present(), &serde_json::Value::Null, 2);
    assert_eq!(
        words(&plan),
        "pause, roll billing-1, roll billing-0, prove, resume"
    );
}

#[test]
fn nothing_to_do_is_an_empty_plan() {
    let plan = plan(&json!({}), &json!({ "remove": true }), 2);
    assert_eq!(plan.steps, []);
}

#[test]
fn a_plan_survives_its_file() {
    let plan = plan(&present(), &issuer(), 2);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

#[test]
fn a_pgbouncer_that_has_never_come_up_gets_its_material_and_its_spec() {
    let plan = plan(&present(), &issuer(), 0);
    assert!(
        !plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::Surge | Step::Roll(_)))
    );
    assert!(plan.steps.contains(&Step::Commit));
}

#[test]
fn a_plan_can_be_told_in_words() {
    let outline = plan(&present(), &issuer(), 2).outline();
    assert_eq!(outline[1], "issue server r2 by Issuer new-ca");
    assert!(outline.contains(&"drain billing-1, restart it and prove it".to_owned()));
}
