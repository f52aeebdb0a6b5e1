//! What happens to objects over time: finalizers, owners, namespaces, pods, budgets, definitions.

use bouncert::local::apiserver::ApiServer;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, EvictParams, ListParams, Patch, PatchParams,
    PostParams, PropagationPolicy,
};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{config, eventually, ledgers, namespaced, parsed, pod, refused, server};

/// Garbage is collected for as long as the set lives.
fn collecting(server: &ApiServer) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let server = server.clone();
    tasks.spawn(async move { server.collect_garbage(CancellationToken::new()).await });
    tasks
}

fn owned(name: &str, owner: &ConfigMap) -> ConfigMap {
    parsed(json!({
        "metadata": {"name": name, "ownerReferences": [{
            "apiVersion": "v1", "kind": "ConfigMap", "name": owner.name_any(),
            "uid": owner.uid().unwrap(), "controller": true, "blockOwnerDeletion": true,
        }]},
    }))
}

#[tokio::test]
async fn a_finalizer_holds_the_object_until_it_is_taken_off() {
    let client = server().client();
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let mut held = config("ledger", "a");
    held.metadata.finalizers = Some(vec!["books.example/close".into()]);
    api.create(&PostParams::default(), &held).await.unwrap();
    api.delete("ledger", &DeleteParams::default())
        .await
        .unwrap();
    let marked = api.get("ledger").await.unwrap();
    assert!(marked.metadata.deletion_timestamp.is_some());

    let more =
        Patch::Merge(json!({"metadata": {"finalizers": ["books.example/close", "x.example/y"]}}));
    let status = refused(
        api.patch("ledger", &PatchParams::default(), &more)
            .await
            .unwrap_err(),
    );
    assert_eq!(status.code, 422);

    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("ledger", &PatchParams::default(), &none)
        .await
        .unwrap();
    assert!(api.get_opt("ledger").await.unwrap().is_none());
}

#[tokio::test]
async fn a_deletion_with_another_uid_is_refused() {
    let api: Api<ConfigMap> = Api::namespaced(server().client(), "default");
    api.create(&PostParams::default(), &config("ledger", "a"))
        .await
        .unwrap();
    let other = kube::api::Preconditions {
        uid: Some("other".into()),
        ..Default::default()
    };
    let params = DeleteParams {
        preconditions: Some(other),
        ..DeleteParams::default()
    };
    let status = refused(api.delete("ledger", &params).await.unwrap_err());
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
}

#[tokio::test]
async fn dependents_follow_their_owner() {
    let server = server();
    let _collector = collecting(&server);
    let api: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    let owner = api
        .create(&PostParams::default(), &config("owner", "a"))
        .await
        .unwrap();
    let child = api
        .create(&PostParams::default(), &owned("child", &owner))
        .await
        .unwrap();
    api.create(&PostParams::default(), &owned("grandchild", &child))
        .await
        .unwrap();
    api.create(&PostParams::default(), &config("stranger", "a"))
        .await
        .unwrap();
    api.delete("owner", &DeleteParams::default()).await.unwrap();
    let left = || async { api.list(&ListParams::default()).await.unwrap() };
    eventually("the dependents to go", async || {
        (left().await.items.len() == 1).then_some(())
    })
    .await;
    assert_eq!(left().await.items[0].name_any(), "stranger");
}

#[tokio::test]
async fn an_orphaned_dependent_stays_and_a_foreground_owner_waits() {
    let server = server();
    let _collector = collecting(&server);
    let api: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    let owner = api
        .create(&PostParams::default(), &config("owner", "a"))
        .await
        .unwrap();
    api.create(&PostParams::default(), &owned("child", &owner))
        .await
        .unwrap();
    let orphan = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Orphan),
        ..DeleteParams::default()
    };
    api.delete("owner", &orphan).await.unwrap();
    eventually("the owner to go", async || {
        api.get_opt("owner").await.unwrap().is_none().then_some(())
    })
    .await;
    let child = api.get("child").await.unwrap();
    assert!(child.owner_references().is_empty());

    let mut held = owned("held", &child);
    held.metadata.finalizers = Some(vec!["books.example/close".into()]);
    api.create(&PostParams::default(), &held).await.unwrap();
    api.delete("child", &DeleteParams::foreground())
        .await
        .unwrap();
    eventually("the dependent's mark", async || {
        api.get("held").await.unwrap().metadata.deletion_timestamp
    })
    .await;
    assert!(
        api.get_opt("child").await.unwrap().is_some(),
        "the owner waits"
    );
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("held", &PatchParams::default(), &none)
        .await
        .unwrap();
    eventually("the owner to go", async || {
        api.get_opt("child").await.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_namespace_goes_with_its_contents() {
    let server = server();
    let _collector = collecting(&server);
    let client = server.client();
    namespaced(&client, "attic").await;
    let inside: Api<ConfigMap> = Api::namespaced(client.clone(), "attic");
    let mut held = config("ledger", "a");
    held.metadata.finalizers = Some(vec!["books.example/close".into()]);
    inside.create(&PostParams::default(), &held).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces
        .delete("attic", &DeleteParams::default())
        .await
        .unwrap();
    let status = inside
        .create(&PostParams::default(), &config("late", "a"))
        .await
        .unwrap_err();
    assert_eq!(refused(status).code, 403);
    eventually("the mark", async || {
        inside
            .get("ledger")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
    })
    .await;
    assert!(namespaces.get_opt("attic").await.unwrap().is_some());
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    inside
        .patch("ledger", &PatchParams::default(), &none)
        .await
        .unwrap();
    let gone = async || {
        namespaces
            .get_opt("attic")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    };
    eventually("the namespace to go", gone).await;
}

#[tokio::test]
async fn a_bound_pod_is_given_its_grace_and_ended_by_its_runner() {
    let api: Api<Pod> = Api::namespaced(server().client(), "default");
    api.create(&PostParams::default(), &pod("ledger-0", "ledger"))
        .await
        .unwrap();
    api.delete("ledger-0", &DeleteParams::default())
        .await
        .unwrap();
    let marked = api.get("ledger-0").await.unwrap();
    assert_eq!(marked.metadata.deletion_grace_period_seconds, Some(30));
    let longer = DeleteParams {
        grace_period_seconds: Some(90),
        ..DeleteParams::default()
    };
    api.delete("ledger-0", &longer).await.unwrap();
    let again = api.get("ledger-0").await.unwrap();
    assert_eq!(
        again.metadata.deletion_grace_period_seconds,
        Some(30),
        "only ever shorter"
    );
    api.delete(
        "ledger-0",
        &DeleteParams {
            grace_period_seconds: Some(0),
            ..DeleteParams::default()
        },
    )
    .await
    .unwrap();
    assert!(api.get_opt("ledger-0").await.unwrap().is_none());
}

async fn ready(api: &Api<Pod>, name: &str) {
    let status = Patch::Merge(json!({"status": {
        "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
    }}));
    api.patch_status(name, &PatchParams::default(), &status)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_eviction_asks_the_disruption_budget() {
    let client = server().client();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    for name in ["ledger-0", "ledger-1"] {
        pods.create(&PostParams::default(), &pod(name, "ledger"))
            .await
            .unwrap();
        ready(&pods, name).await;
    }
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client, "default");
    let budget = parsed(json!({
        "metadata": {"name": "ledger"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "ledger"}}},
    }));
    budgets
        .create(&PostParams::default(), &budget)
        .await
        .unwrap();
    pods.evict("ledger-0", &EvictParams::default())
        .await
        .unwrap();
    assert!(
        pods.get("ledger-0")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );
    let status = refused(
        pods.evict("ledger-1", &EvictParams::default())
            .await
            .unwrap_err(),
    );
    assert_eq!(
        (status.code, status.reason.as_str()),
        (429, "TooManyRequests")
    );
    assert_eq!(
        status.message,
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    assert_eq!(
        status.details.unwrap().causes[0].message,
        "The disruption budget ledger needs 1 healthy pods and has 1 currently"
    );
}

fn ledger_api(client: &Client) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "books.example".into(),
        version: "v1".into(),
        api_version: "books.example/v1".into(),
        kind: "Ledger".into(),
        plural: "ledgers".into(),
    };
    Api::namespaced_with(client.clone(), "default", &resource)
}

fn ledger(spec: &Value) -> DynamicObject {
    parsed(json!({
        "apiVersion": "books.example/v1", "kind": "Ledger", "metadata": {"name": "main"},
        "spec": spec, "status": {"phase": "Made up"},
    }))
}

#[tokio::test]
async fn a_definition_serves_checks_and_takes_its_objects_along() {
    let server = server();
    let _collector = collecting(&server);
    let client = server.client();
    let api = ledger_api(&client);
    assert_eq!(refused(api.get("main").await.unwrap_err()).code, 404);
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let made = definitions
        .create(&PostParams::default(), &parsed(ledgers()))
        .await
        .unwrap();
    let conditions = made.status.unwrap().conditions.unwrap();
    assert!(
        conditions
            .iter()
            .any(|c| c.type_ == "Established" && c.status == "True")
    );

    let made = api
        .create(&PostParams::default(), &ledger(&json!({"pages": 7})))
        .await
        .unwrap();
    assert_eq!(made.data["spec"]["colour"], "blue", "defaulted");
    assert!(
        made.data.get("status").is_none(),
        "the status has its own door"
    );
    assert_eq!(made.metadata.generation, Some(1));

    let status = Patch::Merge(json!({"status": {"phase": "Open"}, "spec": {"pages": 8}}));
    let open = api
        .patch_status("main", &PatchParams::default(), &status)
        .await
        .unwrap();
    assert_eq!(
        (&open.data["status"]["phase"], &open.data["spec"]["pages"]),
        (&json!("Open"), &json!(7))
    );
    assert_eq!(open.metadata.generation, Some(1));
    let spec = Patch::Merge(json!({"spec": {"pages": 9}}));
    let changed = api
        .patch("main", &PatchParams::default(), &spec)
        .await
        .unwrap();
    assert_eq!(changed.metadata.generation, Some(2));
    assert_eq!(changed.data["status"]["phase"], "Open");

    for (spec, field) in [
        (json!({"pages": 7, "colour": "green"}), "spec.colour"),
        (json!({"colour": "red"}), "spec.pages"),
        (json!({"pages": 100}), "spec"),
    ] {
        let mut wrong = ledger(&spec);
        wrong.metadata.name = Some("wrong".into());
        let status = refused(
            api.create(&PostParams::default(), &wrong)
                .await
                .unwrap_err(),
        );
        assert_eq!(
            (status.code, status.reason.as_str()),
            (422, "Invalid"),
            "{spec}"
        );
        let causes = status.details.unwrap().causes;
        assert!(
            causes.iter().any(|cause| cause.field == field),
            "{spec}: {causes:?}"
        );
    }

    definitions
        .delete("ledgers.books.example", &DeleteParams::default())
        .await
        .unwrap();
    let gone = async || {
        definitions
            .get_opt("ledgers.books.example")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    };
    eventually("the definition to go", gone).await;
    assert_eq!(refused(api.get("main").await.unwrap_err()).code, 404);
}

#[tokio::test]
async fn a_custom_scale_reads_and_writes_its_paths() {
    let client = server().client();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions
        .create(&PostParams::default(), &parsed(ledgers()))
        .await
        .unwrap();
    let api = ledger_api(&client);
    api.create(&PostParams::default(), &ledger(&json!({"pages": 7})))
        .await
        .unwrap();
    assert_eq!(
        api.get_scale("main").await.unwrap().spec.unwrap().replicas,
        Some(7)
    );
    let patch = Patch::Merge(json!({"spec": {"replicas": 5}}));
    api.patch_scale("main", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(api.get("main").await.unwrap().data["spec"]["pages"], 5);
}

#[tokio::test]
async fn status_can_be_applied_beside_the_rest() {
    let client = server().client();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions
        .create(&PostParams::default(), &parsed(ledgers()))
        .await
        .unwrap();
    let api = ledger_api(&client);
    let kind = json!({"apiVersion": "books.example/v1", "kind": "Ledger"});
    let with = |part: Value| {
        let mut object = kind.clone();
        json_patch::merge(&mut object, &part);
        Patch::Apply(object)
    };
    let spec = with(json!({"spec": {"pages": 3}}));
    api.patch("main", &PatchParams::apply("writer"), &spec)
        .await
        .unwrap();
    let status = with(json!({"status": {"phase": "Open"}}));
    api.patch_status("main", &PatchParams::apply("reporter"), &status)
        .await
        .unwrap();
    let again = with(json!({"spec": {"pages": 4}}));
    let both = api
        .patch("main", &PatchParams::apply("writer"), &again)
        .await
        .unwrap();
    assert_eq!(both.data["spec"]["pages"], 4);
    assert_eq!(both.data["status"]["phase"], "Open");
}
