//! What deleting a PgBouncer leaves behind
//! (docs/kubedb-compatibility.md, "Deletion policies").

use bouncert::api::{AppBinding, PetSet, PgBouncer};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::stage::{LONG, Stage};
use crate::support::eventually;

fn bouncer(name: &str, policy: &str) -> Value {
    json!({
        "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "metadata": {"name": name},
        "spec": {
            "version": "1.18.0",
            "database": {
                "databaseName": "postgres",
                "databaseRef": {"name": "ha-postgres", "namespace": "demo"},
            },
            "deletionPolicy": policy,
        },
    })
}

/// The Secrets that are left of a PgBouncer.
async fn secrets_of(stage: &Stage, name: &str) -> Vec<String> {
    let secrets = stage
        .api::<Secret>()
        .list(&ListParams::default())
        .await
        .unwrap();
    secrets
        .iter()
        .map(ResourceExt::name_any)
        .filter(|secret| secret.starts_with(&format!("{name}-")))
        .collect()
}

/// Deletes a PgBouncer and waits until it and all that runs for it is gone.
async fn delete(stage: &Stage, name: &str) {
    let api: Api<PgBouncer> = stage.api();
    api.delete(name, &DeleteParams::default()).await.unwrap();
    eventually(LONG, async || {
        let left = (
            stage
                .get::<PgBouncer>(name)
                .await
                .map(|found| found.metadata.finalizers),
            stage.get::<PetSet>(name).await.is_some(),
            stage.get::<Service>(name).await.is_some(),
            stage.get::<AppBinding>(name).await.is_some(),
            stage.get::<Pod>(&format!("{name}-0")).await.is_some(),
        );
        if left == (None, false, false, false, false) {
            Ok(())
        } else {
            Err(left)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_deletion_policy_decides_about_the_secrets() {
    let stage = Stage::start().await;
    for (name, policy) in [
        ("tidy", "WipeOut"),
        ("usual", "Delete"),
        ("halting", "Halt"),
        ("kept", "DoNotTerminate"),
    ] {
        stage.create(bouncer(name, policy)).await;
    }
    for name in ["tidy", "usual", "halting", "kept"] {
        stage.ready(name).await;
        assert_eq!(
            secrets_of(&stage, name).await.len(),
            3,
            "{name}: auth, backend, config"
        );
    }

    delete(&stage, "tidy").await;
    eventually(LONG, async || {
        let left = secrets_of(&stage, "tidy").await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    for name in ["usual", "halting"] {
        delete(&stage, name).await;
        let left = secrets_of(&stage, name).await;
        assert_eq!(left.len(), 3, "{name}: {left:?}");
        for secret in left {
            let secret: Secret = stage.get(&secret).await.unwrap();
            assert_eq!(
                secret.owner_references(),
                [],
                "{name}: nobody will collect it"
            );
        }
    }

    let api: Api<PgBouncer> = stage.api();
    api.delete("kept", &DeleteParams::default()).await.unwrap();
    eventually(LONG, async || {
        let events: Api<k8s_openapi::api::core::v1::Event> = stage.api();
        let events = events.list(&ListParams::default()).await.unwrap();
        let told = events.iter().any(|event| {
            event.involved_object.name.as_deref() == Some("kept")
                && event
                    .message
                    .as_deref()
                    .is_some_and(|text| text.contains("can't be terminated"))
        });
        if told {
            Ok(())
        } else {
            Err(events.items.len())
        }
    })
    .await;
    assert!(
        stage.get::<PetSet>("kept").await.is_some(),
        "it goes on serving"
    );
    let patch = Patch::Merge(json!({"spec": {"deletionPolicy": "WipeOut"}}));
    api.patch("kept", &PatchParams::default(), &patch)
        .await
        .unwrap();
    eventually(LONG, async || match stage.get::<PgBouncer>("kept").await {
        None => Ok(()),
        Some(found) => Err(found.status),
    })
    .await;
    stage.stop().await;
}
