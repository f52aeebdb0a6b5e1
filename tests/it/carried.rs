//! An upgrade in the middle of a request: its journal is where a former version kept it, and nothing
//! that was staged is sealed.

use bouncert::api::PgBouncerOpsRequest;
use bouncert::api::annotations::{REVISION_LABEL, SEAL};
use bouncert::daemon::DaemonOptions;
use bouncert::ops::FormerJournals;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use crate::pipeline::{before, in_service, in_the_middle, is_paused, open_till};
use crate::stage::{LONG, NS, Stage, request};
use crate::support::eventually;

/// Begins a rotation, and leaves it in the middle as a daemon of the former version would.
async fn leave_behind(stage: &mut Stage, name: &str, change: fn(&mut Value)) {
    let old = before(stage, "till").await;
    let tls = json!({"rotateCertificates": true});
    stage.create(request(name, "till", tls)).await;
    in_the_middle(stage, "till", &old.served).await;
    stage.kill_daemon().await;

    let kept = stage.journal(name).await.unwrap();
    let data = kept.data.clone().unwrap();
    let mut plan: Value = serde_json::from_str(&data["plan.json"]).unwrap();
    for part in ["request", "database"] {
        let named = plan[part].take();
        let at = json!({"namespace": plan["namespace"], "name": named["name"]});
        plan[part] = json!({"at": at, "uid": named["uid"]});
    }
    plan["form"] = json!(1);
    change(&mut plan);
    let request: PgBouncerOpsRequest = stage.get(name).await.unwrap();
    let former: ConfigMap = serde_json::from_value(json!({
        "metadata": {
            "name": format!("{name}-journal"), "namespace": NS,
            "ownerReferences": [request.controller_owner_ref(&()).unwrap()],
        },
        "data": {"plan.json": plan.to_string(), "journal.json": data["journal.json"]},
    }))
    .unwrap();
    let maps = stage.api::<ConfigMap>();
    maps.create(&PostParams::default(), &former).await.unwrap();
    let homes: Api<ConfigMap> = Api::namespaced(stage.client.clone(), &kept.namespace().unwrap());
    let (name_kept, params) = (kept.name_any(), DeleteParams::default());
    let _deleted = homes.delete(&name_kept, &params).await.unwrap();
    let secrets = stage.api::<Secret>();
    let staged = ListParams::default().labels(REVISION_LABEL);
    let unsealed = Patch::Merge(json!({"metadata": {"annotations": {SEAL: null}}}));
    for secret in secrets.list(&staged).await.unwrap() {
        let name = secret.name_any();
        let params = PatchParams::default();
        secrets.patch(&name, &params, &unsealed).await.unwrap();
    }
}

fn carrying() -> DaemonOptions {
    DaemonOptions {
        former_journals: FormerJournals::CarriedOver,
        ..DaemonOptions::default()
    }
}

async fn is_in_service(stage: &Stage) {
    eventually(LONG, async || {
        let pods = in_service(stage, "till").await;
        let whole = pods.values().all(|serves| *serves) && !is_paused(stage, "till").await;
        whole.then_some(()).ok_or(pods)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_journal_of_the_former_place_is_carried_over_if_it_is_proved() {
    let mut stage = Stage::start().await;
    open_till(&stage, 2).await;
    leave_behind(&mut stage, "honest", |_| {}).await;
    stage.start_daemon_with(carrying());
    stage.successful("honest").await;
    let maps = stage.api::<ConfigMap>();
    assert!(maps.get_opt("honest-journal").await.unwrap().is_none());
    assert!(stage.journal("honest").await.is_some());

    // Its plan would take TLS off, and its request asks for new certificates.
    let forge = |plan: &mut Value| {
        plan["change"] = json!({"Remove": {"auth_type": null}});
        plan["target"] = json!({"tls": null, "ssl_mode": "disable", "auth_type": null});
    };
    leave_behind(&mut stage, "forged", forge).await;
    let spec = stage.bouncer("till").await.spec;
    stage.start_daemon_with(carrying());
    let told = stage.failed("forged").await;
    assert!(told.contains("no journal that is proved"), "{told}");
    is_in_service(&stage).await;
    assert_eq!(stage.bouncer("till").await.spec, spec);
    assert!(maps.get_opt("forged-journal").await.unwrap().is_some());
    assert_eq!(stage.psql("till", "sslmode=require").await.unwrap(), "42");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_being_told_to_a_daemon_ends_what_a_former_version_has_begun() {
    let mut stage = Stage::start().await;
    open_till(&stage, 2).await;
    leave_behind(&mut stage, "honest", |_| {}).await;
    stage.start_daemon();
    let told = stage.failed("honest").await;
    assert!(
        told.contains("an earlier version left it elsewhere"),
        "{told}"
    );
    is_in_service(&stage).await;
    // What is published is sealed then, so the next request goes on from it.
    let tls = json!({"rotateCertificates": true});
    stage.create(request("again", "till", tls)).await;
    stage.successful("again").await;
    stage.stop().await;
}
