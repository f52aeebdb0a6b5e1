//! How many pods roll at a time, what they wait for, and who goes first.

use std::collections::BTreeSet;
use std::time::Duration;

use bouncert::api::annotations::SERVING_LABEL;
use bouncert::api::common::find_condition;
use bouncert::api::{PgBouncerOpsRequest, RequestPhase};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use crate::stage::{LONG, NS, Stage, request};
use crate::support::eventually;

/// A PgBouncer without TLS.
async fn pooler(stage: &Stage, name: &str, replicas: u32, edit: impl FnOnce(&mut Value)) {
    let mut object = json!({
        "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "metadata": {"name": name},
        "spec": {
            "version": "1.18.0", "replicas": replicas,
            "database": {
                "databaseName": "postgres",
                "databaseRef": {"name": "ha-postgres", "namespace": NS},
            },
            "connectionPool": {"poolMode": "transaction", "maxUserConnections": 5},
            "deletionPolicy": "WipeOut",
        },
    });
    edit(&mut object);
    stage.create(object).await;
    stage.ready(name).await;
}

fn restart(name: &str, pooler: &str) -> Value {
    let mut asked = request(name, pooler, Value::Null);
    asked["spec"]["type"] = json!("Restart");
    asked["spec"].as_object_mut().unwrap().remove("tls");
    asked
}

async fn pods(stage: &Stage, name: &str) -> Vec<Pod> {
    let labels = ListParams::default().labels(&format!("app.kubernetes.io/instance={name}"));
    stage.api::<Pod>().list(&labels).await.unwrap().items
}

fn serves(pod: &Pod) -> bool {
    let status = pod.status.clone().unwrap_or_default();
    let mut conditions = status.conditions.into_iter().flatten();
    pod.metadata.deletion_timestamp.is_none()
        && pod.labels().contains_key(SERVING_LABEL)
        && conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn uids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().filter_map(ResourceExt::uid).collect()
}

async fn state(stage: &Stage, name: &str) -> PgBouncerOpsRequest {
    stage.get(name).await.expect("the request is there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_pods_roll_at_a_time_where_two_may_be_unavailable_and_the_canary_alone() {
    let stage = Stage::start().await;
    pooler(&stage, "wide", 5, |_| {}).await;
    let old = uids(&pods(&stage, "wide").await);
    let mut asked = restart("pairs", "wide");
    // A while in which each is seen out of service.
    asked["metadata"]["annotations"] = json!({
        "bouncert.dev/max-unavailable": "40%", "bouncert.dev/drain-timeout": "300ms",
    });
    stage.create(asked).await;
    let mut fewest_while_first = usize::MAX;
    let mut fewest = usize::MAX;
    loop {
        let now = pods(&stage, "wide").await;
        let serving = now.iter().filter(|pod| serves(pod)).count();
        let is_new = |pod: &&Pod| serves(pod) && !old.contains(&pod.uid().unwrap());
        if now.iter().filter(is_new).count() == 0 {
            fewest_while_first = fewest_while_first.min(serving);
        }
        fewest = fewest.min(serving);
        let phase = state(&stage, "pairs").await.status.and_then(|s| s.phase);
        if phase.is_some_and(RequestPhase::is_terminal) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ended = stage.successful("pairs").await;
    assert_eq!((fewest_while_first, fewest), (4, 3));
    let new = uids(&pods(&stage, "wide").await);
    assert!(new.len() == 5 && new.is_disjoint(&old));
    let conditions = ended.status.unwrap().conditions;
    let message = &find_condition(&conditions, "RestartPods").unwrap().message;
    for pod in ["wide-0", "wide-1", "wide-2", "wide-3", "wide-4"] {
        assert!(message.contains(&format!("; {pod}: 0, 0, 0")), "{message}");
    }

    a_budget_is_waited_for_before_anybody_is_drained(&stage).await;
    a_pod_that_vanishes_before_it_serves_is_followed_by_another(&stage).await;
    a_pod_stays_while_clients_of_one_family_are_sent_to_it(&stage).await;
    stage.stop().await;
}

/// Somebody deletes the canary as soon as it is ready, three times.
async fn a_pod_that_vanishes_before_it_serves_is_followed_by_another(stage: &Stage) {
    let mut seen = uids(&pods(stage, "wide").await);
    let old = seen.clone();
    let mut asked = restart("haunted", "wide");
    asked["spec"]["timeout"] = json!("20s");
    asked["spec"]["maxRetries"] = json!(0);
    stage.create(asked).await;
    for _ in 0..3 {
        let uid = eventually(LONG, async || {
            let pod: Option<Pod> = stage.get("wide-4").await;
            let ready = pod.filter(|pod| serves(pod) && !seen.contains(&pod.uid().unwrap()));
            ready.and_then(|pod| pod.uid()).ok_or("no new canary")
        })
        .await;
        let deleted = DeleteParams::default().preconditions(Preconditions {
            uid: Some(uid.clone()),
            resource_version: None,
        });
        stage.api::<Pod>().delete("wide-4", &deleted).await.unwrap();
        seen.insert(uid);
    }
    stage.successful("haunted").await;
    assert!(uids(&pods(stage, "wide").await).is_disjoint(&old));
}

async fn a_budget_is_waited_for_before_anybody_is_drained(stage: &Stage) {
    let old = uids(&pods(stage, "wide").await);
    stage.create(restart("patient", "wide")).await;
    let budgets = stage.api::<PodDisruptionBudget>();
    let budget = async |allowed: u32| {
        let patch = Patch::Merge(json!({"spec": {"maxUnavailable": allowed}}));
        let patched = budgets.patch("wide", &PatchParams::default(), &patch).await;
        patched.unwrap();
    };
    eventually(LONG, async || {
        // Until the PgBouncer is paused, the provisioner puts it right again.
        budget(0).await;
        let status = state(stage, "patient").await.status.unwrap_or_default();
        match find_condition(&status.conditions, "Running") {
            Some(waits) if waits.message.contains("the eviction of") => Ok(()),
            _ => Err(status),
        }
    })
    .await;
    let now = pods(stage, "wide").await;
    let gone = uids(&now).symmetric_difference(&old).count();
    // The canary may have gone before the budget was used up.
    assert!(gone <= 2, "{gone}");
    assert!(now.iter().all(serves), "nobody is drained for nothing");
    budget(2).await;
    stage.successful("patient").await;
    assert!(uids(&pods(stage, "wide").await).is_disjoint(&old));
}

/// A dual-stack cluster, whose slices of IPv6 lag behind those of IPv4: loopback has none of its
/// own, so the test keeps them.
async fn a_pod_stays_while_clients_of_one_family_are_sent_to_it(stage: &Stage) {
    let old = uids(&pods(stage, "wide").await);
    let canary: Pod = stage.get("wide-4").await.unwrap();
    let slice = json!({
        "metadata": {"name": "wide-six", "labels": {"kubernetes.io/service-name": "wide"}},
        "addressType": "IPv6",
        "endpoints": [{
            "addresses": ["2001:db8::7"], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": "wide-4", "namespace": NS, "uid": canary.uid()},
        }],
        "ports": [{"name": "primary", "port": 5432, "protocol": "TCP"}],
    });
    let slices = stage.api::<EndpointSlice>();
    let slice = serde_json::from_value(slice).unwrap();
    slices.create(&PostParams::default(), &slice).await.unwrap();
    stage.create(restart("both", "wide")).await;
    eventually(LONG, async || {
        let status = state(stage, "both").await.status.unwrap_or_default();
        let awaited = "the Service to lead to pod wide-4 over IPv6 no longer";
        match find_condition(&status.conditions, "Running") {
            Some(waits) if waits.message.contains(awaited) => Ok(()),
            _ => Err(status),
        }
    })
    .await;
    assert_eq!(uids(&pods(stage, "wide").await), old, "nobody has gone");
    let none = Patch::Merge(json!({"endpoints": []}));
    slices
        .patch("wide-six", &PatchParams::default(), &none)
        .await
        .unwrap();
    stage.successful("both").await;
    assert!(uids(&pods(stage, "wide").await).is_disjoint(&old));
}

/// The new pod shows the right leaf, and lets nobody log in over TLS: only a login can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_canary_that_lets_nobody_in_saves_the_other_pods() {
    let stage = Stage::start().await;
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage.example("pb-issuer").await;
    let hba = "local all all md5\nhostnossl all all 0.0.0.0/0 md5\nhostnossl all all ::/0 md5\n";
    stage
        .create(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine-hba"},
            "stringData": {"rules": hba},
        }))
        .await;
    let ini = "[pgbouncer]\nauth_type = hba\nauth_hba_file = /etc/hba/rules\n";
    pooler(&stage, "mine", 3, |object| {
        object["spec"]["configuration"] = json!({"inline": {"pgbouncer.ini": ini}});
        object["spec"]["podTemplate"] = json!({"spec": {
            "volumes": [{"name": "hba", "secret": {"secretName": "mine-hba"}}],
            "containers": [{
                "name": "pgbouncer",
                "volumeMounts": [{"name": "hba", "mountPath": "/etc/hba"}],
            }],
        }});
    })
    .await;
    let old = pods(&stage, "mine").await;
    let tls = json!({
        "issuerRef": {"kind": "Issuer", "name": "pb-issuer"}, "sslMode": "verify-full",
    });
    let mut asked = request("shut", "mine", tls);
    asked["spec"]["timeout"] = json!("20s");
    asked["spec"]["maxRetries"] = json!(0);
    stage.create(asked).await;
    let message = stage.failed("shut").await;
    assert!(message.contains("roll mine-2"), "{message}");
    assert!(message.contains("refused the login"), "{message}");
    let now = pods(&stage, "mine").await;
    for name in ["mine-0", "mine-1"] {
        let of = |pods: &[Pod]| {
            pods.iter()
                .find(|pod| pod.name_any() == name)
                .unwrap()
                .uid()
        };
        assert_eq!(of(&now), of(&old), "{name} was never touched");
    }
    assert!(now.iter().all(serves));
    let answer = stage.psql("mine", "sslmode=disable").await;
    assert_eq!(answer.unwrap(), "42");
    stage.stop().await;
}
