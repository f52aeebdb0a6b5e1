//! What somebody takes away of a settled PgBouncer is back before anybody misses it: watches tell of
//! it, because nobody looks.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bouncert::api::AppBinding;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::SOON;
use crate::stage::Stage;
use crate::support::eventually;

const OURS: &str = "app.kubernetes.io/instance=pb,app.kubernetes.io/name=pgbouncers.kubedb.com";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_taken_away_of_a_settled_pooler_comes_back() {
    let stage = Stage::start().await;
    stage
        .create(json!({
            "apiVersion": "kubedb.com/v1", "kind": "PgBouncer",
            "metadata": { "name": "pb" },
            "spec": {
                "version": "1.18.0", "replicas": 2,
                "database": {
                    "databaseName": "postgres",
                    "databaseRef": { "name": "ha-postgres", "namespace": "demo" },
                },
            },
        }))
        .await;
    stage.ready("pb").await;
    comes_back::<ServiceAccount>(&stage).await;
    comes_back::<PodDisruptionBudget>(&stage).await;
    comes_back::<AppBinding>(&stage).await;
    comes_back::<Service>(&stage).await;
    // But the admin's password, of which a new one would be made.
    comes_back::<Secret>(&stage).await;

    // And what is bent is straight again.
    let services = stage.api::<Service>();
    let bent = json!({ "spec": { "selector": { "app.kubernetes.io/instance": "other" } } });
    let (params, merge) = (PatchParams::default(), Patch::Merge(&bent));
    services.patch("pb", &params, &merge).await.unwrap();
    eventually(SOON, async || {
        let selector = services.get("pb").await.unwrap().spec.unwrap().selector;
        let selects = selector.unwrap_or_default();
        if selects
            .get("app.kubernetes.io/instance")
            .map(String::as_str)
            == Some("pb")
        {
            Ok(())
        } else {
            Err(selects)
        }
    })
    .await;
    stage.stop().await;
}

/// Takes all objects of a kind away that were made for the pooler, and waits for others in their place.
async fn comes_back<K>(stage: &Stage)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let api = stage.api::<K>();
    let there = async || -> BTreeMap<String, String> {
        let all = api.list(&ListParams::default().labels(OURS)).await.unwrap();
        let named = all
            .items
            .iter()
            .map(|object| (object.name_any(), object.uid().unwrap()));
        named.filter(|(name, _)| name != "pb-auth").collect()
    };
    let before = there().await;
    assert!(!before.is_empty(), "{}", K::kind(&()));
    for name in before.keys() {
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }
    eventually(SOON, async || {
        let after = there().await;
        let is_back =
            |(name, uid): (&String, &String)| after.get(name).is_some_and(|other| other != uid);
        if before.iter().all(is_back) {
            Ok(())
        } else {
            Err((K::kind(&()), before.clone(), after))
        }
    })
    .await;
}
