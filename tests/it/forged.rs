//! A tenant who may write in one namespace forges what the daemon would believe if it believed names:
//! journals, revisions, keys. The neighbour stays as he is, and the tenant's own requests end properly.

use std::collections::BTreeMap;

use bouncert::api::annotations::{ALLOWED_NAMESPACES, FINGERPRINT, REVISION};
use bouncert::api::{PgBouncer, PgBouncerOpsRequest};
use bouncert::daemon::NAMESPACE_DEFAULT;
use bouncert::local::apiserver::access::User;
use bouncert::ops::journal_name;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod, Secret, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::install::rights::{bouncer, install, issuers};
use crate::pipeline::{before, is_paused, open_till};
use crate::stage::{LONG, NS, Stage, request};
use crate::support::eventually;

/// The neighbour's namespace.
const NEIGHBOUR: &str = "team-b";

/// A stage whose daemon has the rights of the chart.
async fn stage_with_rights() -> Stage {
    let mut stage = Stage::without_daemon().await;
    install(&mut stage, &json!({})).await;
    stage.start_daemon();
    stage
}

/// A ServiceAccount of the tutorial's namespace that may write what a tenant writes, there only.
async fn tenant(stage: &Stage) -> Client {
    let rbac = "rbac.authorization.k8s.io";
    let version = format!("{rbac}/v1");
    stage
        .create(json!({
            "apiVersion": version, "kind": "Role", "metadata": {"name": "tenant"},
            "rules": [
                {
                    "apiGroups": [""], "resources": ["configmaps"],
                    "verbs": ["get", "list", "create", "patch", "update", "delete"],
                },
                {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
                {
                    "apiGroups": ["ops.kubedb.com"], "resources": ["pgbounceropsrequests"],
                    "verbs": ["get", "create"],
                },
            ],
        }))
        .await;
    stage
        .create(json!({
            "apiVersion": version, "kind": "RoleBinding", "metadata": {"name": "tenant"},
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "tenant"},
            "subjects": [{"kind": "ServiceAccount", "name": "tenant", "namespace": NS}],
        }))
        .await;
    let account = User::service_account(NS, "tenant");
    stage.server.as_ref().unwrap().client_as(&account)
}

/// The neighbour's pooler `ledger`, with TLS.
async fn neighbour(stage: &Stage) {
    stage
        .create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NEIGHBOUR}}))
        .await;
    issuers(stage).await;
    let word = json!({"metadata": {"annotations": {ALLOWED_NAMESPACES: NEIGHBOUR}}});
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    let params = PatchParams::default();
    namespaces
        .patch(NS, &params, &Patch::Merge(word))
        .await
        .unwrap();
    let tls = json!({
        "replicas": 1, "sslMode": "require",
        "tls": {"issuerRef": {"kind": "ClusterIssuer", "name": "everywhere"}},
    });
    let mut ledger = bouncer("ledger", tls);
    ledger["metadata"]["namespace"] = json!(NEIGHBOUR);
    stage.create(ledger).await;
    let ledgers: Api<PgBouncer> = Api::namespaced(stage.client.clone(), NEIGHBOUR);
    eventually(LONG, async || {
        let status = ledgers.get("ledger").await.unwrap().status;
        let phase = status.as_ref().and_then(|status| status.phase);
        let ready = phase == Some(bouncert::api::Phase::Ready);
        ready.then_some(()).ok_or(status)
    })
    .await;
}

/// The neighbour's objects: what they hold, and which ones they are.
async fn of_neighbour(stage: &Stage) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let client = || stage.client.clone();
    let params = ListParams::default();
    let secrets: Api<Secret> = Api::namespaced(client(), NEIGHBOUR);
    for secret in secrets.list(&params).await.unwrap() {
        all.insert(secret.name_any(), json!([secret.uid(), secret.data]));
    }
    let pods: Api<Pod> = Api::namespaced(client(), NEIGHBOUR);
    for pod in pods.list(&params).await.unwrap() {
        let serves = pod.labels().clone();
        all.insert(pod.name_any(), json!([pod.uid(), serves]));
    }
    let services: Api<Service> = Api::namespaced(client(), NEIGHBOUR);
    for service in services.list(&params).await.unwrap() {
        all.insert(
            format!("Service {}", service.name_any()),
            json!([service.uid(), service.spec]),
        );
    }
    let bouncers: Api<PgBouncer> = Api::namespaced(client(), NEIGHBOUR);
    for bouncer in bouncers.list(&params).await.unwrap() {
        all.insert(bouncer.name_any(), json!([bouncer.uid(), bouncer.spec]));
    }
    all
}

/// A plan of the form before the daemon kept its own, which takes TLS off the neighbour's pooler.
async fn former_plan(stage: &Stage, request: &PgBouncerOpsRequest) -> Value {
    let ledgers: Api<PgBouncer> = Api::namespaced(stage.client.clone(), NEIGHBOUR);
    let ledger = ledgers.get("ledger").await.unwrap();
    let pods: Api<Pod> = Api::namespaced(stage.client.clone(), NEIGHBOUR);
    let pod = pods.get("ledger-0").await.unwrap();
    json!({
        "form": 1,
        "request": {"at": {"namespace": NS, "name": request.name_any()}, "uid": request.uid()},
        "generation": request.metadata.generation, "request_type": "ReconfigureTLS",
        "database": {"at": {"namespace": NEIGHBOUR, "name": "ledger"}, "uid": ledger.uid()},
        "change": {"Remove": {"auth_type": null}},
        "former": {
            "tls": ledger.spec.tls, "ssl_mode": ledger.spec.ssl_mode, "auth_type": null,
        },
        "target": {"tls": null, "ssl_mode": "disable", "auth_type": null},
        "issue": [], "published": {}, "replicas": 1,
        "pods": [{"name": "ledger-0", "uid": pod.uid(), "ready": true, "container": null}],
        "steps": [
            "Pause", "Switch", {"Roll": "ledger-0"}, "Prove", "Commit", "Resume",
        ],
        "settings": {
            "step_timeout": "3m0s", "max_retries": 1, "drain_timeout": null,
            "strategy": "RollingRestart", "max_unavailable": {"Pods": 1},
        },
        "drain": {"leave": "1s", "quiesce": "1s"},
        "choice": {"way": "Restart", "why": null},
    })
}

fn created(name: &str, namespace: &str, data: &Value, owner: &Value) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": namespace, "ownerReferences": owner},
        "data": data,
    }))
    .unwrap()
}

async fn asked(stage: &Stage, name: &str) -> PgBouncerOpsRequest {
    let tls = json!({"rotateCertificates": true});
    stage.create(request(name, "till", tls)).await;
    stage.get(name).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_journal_that_a_tenant_writes_is_no_journal() {
    let mut stage = stage_with_rights().await;
    neighbour(&stage).await;
    let tls = json!({
        "replicas": 1, "sslMode": "require",
        "tls": {"issuerRef": {"kind": "Issuer", "name": "pb-issuer"}},
    });
    stage.create(bouncer("till", tls)).await;
    stage.ready("till").await;
    let tenant = tenant(&stage).await;
    let untouched = of_neighbour(&stage).await;
    stage.dismiss_daemon().await;

    let change = asked(&stage, "change").await;
    let owner = json!([change.controller_owner_ref(&()).unwrap()]);
    let plan = former_plan(&stage, &change).await;
    let data = json!({"plan.json": plan.to_string(), "journal.json": "[]"});
    let params = PostParams::default();
    let maps: Api<ConfigMap> = Api::namespaced(tenant.clone(), NS);
    let uid = change.uid().unwrap();
    for name in ["change-journal", &journal_name(&uid)] {
        let forged = created(name, NS, &data, &owner);
        maps.create(&params, &forged).await.unwrap();
    }
    let homes: Api<ConfigMap> = Api::namespaced(tenant.clone(), NAMESPACE_DEFAULT);
    let forged = created(&journal_name(&uid), NAMESPACE_DEFAULT, &data, &json!([]));
    let refused = homes.create(&params, &forged).await.unwrap_err();
    assert!(refused.to_string().contains("cannot create"), "{refused}");

    stage.start_daemon();
    let admins: Api<ConfigMap> = Api::namespaced(stage.client.clone(), NAMESPACE_DEFAULT);
    let began = eventually(LONG, async || {
        let found = admins.get_opt(&journal_name(&uid)).await.unwrap();
        found.ok_or("not begun")
    })
    .await;
    let none = Patch::Merge(json!({"data": {"journal.json": "[]"}}));
    let patched = homes
        .patch(&began.name_any(), &PatchParams::default(), &none)
        .await;
    assert!(patched.is_err(), "the tenant has no rights there");
    stage.successful("change").await;
    assert_eq!(of_neighbour(&stage).await, untouched);

    journals_go_with_their_requests(&mut stage, &uid).await;
    let denied = stage.server.as_ref().unwrap().ledger().denied;
    let daemons = denied.iter().filter(|text| !text.contains("demo:tenant"));
    assert_eq!(daemons.count(), 0, "{denied:?}");
    stage.stop().await;
}

/// A request's journal is deleted with it, whether a daemon runs then or later.
async fn journals_go_with_their_requests(stage: &mut Stage, first: &str) {
    let requests = stage.api::<PgBouncerOpsRequest>();
    let homes: Api<ConfigMap> = Api::namespaced(stage.client.clone(), NAMESPACE_DEFAULT);
    let gone = async |uid: &str| {
        let name = journal_name(uid);
        eventually(LONG, async || match homes.get_opt(&name).await.unwrap() {
            None => Ok(()),
            Some(map) => Err(map.metadata),
        })
        .await;
    };
    let second = asked(stage, "second").await.uid().unwrap();
    stage.successful("second").await;
    let third = asked(stage, "third").await.uid().unwrap();
    stage.successful("third").await;
    let params = DeleteParams::default();
    let _deleted = requests.delete("change", &params).await.unwrap();
    gone(first).await;
    stage.dismiss_daemon().await;
    let _deleted = requests.delete("second", &params).await.unwrap();
    assert!(
        homes
            .get_opt(&journal_name(&second))
            .await
            .unwrap()
            .is_some()
    );
    stage.start_daemon();
    gone(&second).await;
    let kept = homes.get_opt(&journal_name(&third)).await.unwrap();
    assert!(kept.is_some(), "its request is there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_journal_that_is_not_the_requests_own_ends_the_request_and_acts_on_nothing() {
    let mut stage = Stage::start().await;
    open_till(&stage, 1).await;
    asked(&stage, "first").await;
    stage.successful("first").await;
    let kept = stage.journal("first").await.unwrap().data.unwrap();
    let plan: Value = serde_json::from_str(&kept["plan.json"]).unwrap();
    let old = before(&stage, "till").await;
    let homes: Api<ConfigMap> = Api::namespaced(stage.client.clone(), NAMESPACE_DEFAULT);
    for (name, part) in [
        ("copied", "request `first`"),
        ("led-away", "namespace `team-b`"),
        ("of-other", "spec.databaseRef.name `ledger`"),
        ("of-older", "generation `0`"),
        ("reborn", "created again"),
    ] {
        stage.dismiss_daemon().await;
        let request = asked(&stage, name).await;
        let mut forged = plan.clone();
        if name != "copied" {
            forged["request"] = json!({"name": name, "uid": request.uid()});
            forged["generation"] = json!(request.metadata.generation);
        }
        match name {
            "led-away" => forged["namespace"] = json!(NEIGHBOUR),
            "of-other" => forged["database"]["name"] = json!("ledger"),
            "of-older" => forged["generation"] = json!(0),
            "reborn" => forged["database"]["uid"] = json!("another"),
            _ => {}
        }
        let uid = request.uid().unwrap();
        let data = json!({"plan.json": forged.to_string(), "journal.json": "[]"});
        let forged = created(&journal_name(&uid), NAMESPACE_DEFAULT, &data, &json!([]));
        homes.create(&PostParams::default(), &forged).await.unwrap();
        stage.start_daemon();
        let told = stage.failed(name).await;
        assert!(
            told.contains(part) && told.contains("Nothing was carried on"),
            "{name}: {told}"
        );
        assert!(!is_paused(&stage, "till").await);
        assert_eq!(before(&stage, "till").await, old, "{name}");
    }
    asked(&stage, "last").await;
    stage.successful("last").await;
    stage.stop().await;
}

/// Secrets that look like revisions of `till` and keys of them, as far as a tenant can make such.
async fn planted(stage: &Stage, tenant: Client, (crt, key): (&str, &str)) -> Vec<Secret> {
    let owner = stage.bouncer("till").await;
    let secrets: Api<Secret> = Api::namespaced(tenant, NS);
    let plant = async |name: &str, alias: &str, revision: u32, data: Value| {
        let planted = json!({
            "metadata": {
                "name": name, "namespace": NS,
                "labels": {
                    "app.kubernetes.io/name": "pgbouncers.kubedb.com",
                    "app.kubernetes.io/instance": "till",
                    "app.kubernetes.io/managed-by": "kubedb.com",
                    "bouncert.dev/alias": alias, "bouncert.dev/is-revision": "true",
                },
                "annotations": {
                    "bouncert.dev/revision": revision.to_string(), "bouncert.dev/seal": "0".repeat(64),
                },
                "ownerReferences": [owner.controller_owner_ref(&()).unwrap()],
            },
            "type": "Opaque", "stringData": data,
        });
        let planted: Secret = serde_json::from_value(planted).unwrap();
        secrets
            .create(&PostParams::default(), &planted)
            .await
            .unwrap()
    };
    let theirs = json!({"tls.crt": crt, "tls.key": key, "ca.crt": crt});
    let nonsense = json!({"tls.crt": "nonsense", "tls.key": "nonsense", "ca.crt": "nonsense"});
    vec![
        plant(
            "till-server-cert-r4294967295",
            "server",
            u32::MAX,
            theirs.clone(),
        )
        .await,
        plant("till-server-cert-r2", "server", 2, theirs.clone()).await,
        plant(
            "till-server-cert-r3-key",
            "server",
            3,
            json!({"tls.key": key}),
        )
        .await,
        plant("till-client-cert-r2", "client", 2, nonsense.clone()).await,
        plant("till-metrics-exporter-cert-r2", "server", 2, theirs.clone()).await,
        plant("anything", "metrics-exporter", 7, nonsense).await,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn planted_revisions_and_keys_change_nothing_about_a_rotation() {
    let stage = stage_with_rights().await;
    open_till(&stage, 1).await;
    let tenant = tenant(&stage).await;
    let (crt, key) = stage.openssl_pair("stranger", "/CN=stranger");
    let planted = planted(&stage, tenant, (&crt, &key)).await;
    asked(&stage, "rotate").await;
    stage.successful("rotate").await;

    for (alias, revision) in [("server", "4"), ("client", "3"), ("metrics-exporter", "3")] {
        let name = format!("till-{alias}-cert");
        let published: Secret = stage.get(&name).await.unwrap();
        assert_eq!(published.annotations()[REVISION], revision, "{alias}");
        let trust = stage.secret(&name, "ca.crt").await;
        assert!(!trust.contains(crt.trim()), "{alias} trusts the stranger");
        assert!(!stage.secret(&name, "tls.key").await.contains(key.trim()));
        if alias == "server" {
            let print = &published.annotations()[FINGERPRINT];
            let served = before(&stage, "till").await.served;
            let shown: Vec<String> = served
                .iter()
                .map(|seen| seen.unwrap().to_string())
                .collect();
            assert_eq!(shown, std::slice::from_ref(print));
        }
    }
    for was in planted {
        let is: Secret = stage.get(&was.name_any()).await.unwrap();
        assert_eq!(
            is.resource_version(),
            was.resource_version(),
            "{}",
            was.name_any()
        );
    }
    let events = stage
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let foreign = |event: &&Event| event.reason.as_deref() == Some("ForeignRevision");
    let told = events
        .iter()
        .find(foreign)
        .unwrap()
        .message
        .clone()
        .unwrap();
    assert!(told.contains("till-server-cert-r2"), "{told}");
    stage.stop().await;
}
