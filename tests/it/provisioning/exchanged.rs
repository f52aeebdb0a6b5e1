//! Objects that are exchanged between look and write, and fields that are stated no longer.

use bouncert::api::PgBouncer;
use bouncert::cluster::{ClusterError, Owner, reference};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use super::foreign::{Scene, service};
use super::*;

/// An object is exchanged between the look at it and the write.
#[tokio::test]
async fn an_object_that_takes_the_place_of_ours_between_look_and_write_is_not_taken_over() {
    let scene = Scene::new().await;
    create(&scene.client, bouncer("ledger", json!({}))).await;
    scene.look("ledger").await;
    let cluster = scene.cluster();
    let bouncer: PgBouncer = scene.find("ledger").await.unwrap();
    let owner = Owner::of(&bouncer);
    let ours: Service = scene.find("ledger").await.unwrap();
    let uid = ours.uid().unwrap();
    let mut wanted = ours.clone();
    wanted.metadata = bouncert::blueprint::metadata(&bouncer, "ledger".to_owned());
    wanted.status = None;

    // Nothing is there any more: it is made, and not half of it.
    cluster.delete_read(&ours).await.unwrap();
    let made = cluster
        .apply_owned(&owner, &wanted, Some(&uid))
        .await
        .unwrap();
    assert_ne!(made.uid(), ours.uid());
    let uid = made.uid().unwrap();
    cluster.delete_read(&made).await.unwrap();
    create(&scene.client, service("ledger")).await;
    let other: Service = scene.find("ledger").await.unwrap();
    for known in [Some(uid.as_str()), None] {
        let refused = cluster.apply_owned(&owner, &wanted, known).await;
        assert!(
            matches!(refused, Err(ClusterError::Foreign(_))),
            "{refused:?}"
        );
    }
    assert!(cluster.read_and_apply(&owner, &wanted).await.is_err());
    cluster.delete_read(&made).await.unwrap();
    let at = reference(&made);
    assert!(!cluster.delete_owned::<Service>(&owner, &at).await.unwrap());
    assert_eq!(scene.find::<Service>("ledger").await.unwrap(), other);
}

#[tokio::test]
async fn a_field_that_is_no_longer_stated_goes_though_the_object_was_created_with_it() {
    let scene = Scene::new().await;
    let templates = |note: Value| {
        json!({ "serviceTemplates": [{
            "alias": "primary", "metadata": { "annotations": note },
        }]})
    };
    let both = templates(json!({ "example.org/note": "here", "example.org/more": "there" }));
    create(&scene.client, bouncer("ledger", both)).await;
    scene.look("ledger").await;
    let made: Service = scene.find("ledger").await.unwrap();
    let less = templates(json!({ "example.org/more": "there" }));
    scene
        .merge::<PgBouncer>("ledger", json!({ "spec": less }))
        .await;
    scene.look("ledger").await;
    let now: Service = scene.find("ledger").await.unwrap();
    assert_eq!(now.uid(), made.uid());
    assert_eq!(
        now.spec.as_ref().unwrap().cluster_ip,
        made.spec.unwrap().cluster_ip
    );
    let notes: Vec<_> = now.annotations().keys().collect();
    assert_eq!(notes, ["example.org/more"]);
    let ours = now
        .managed_fields()
        .iter()
        .filter(|it| it.manager.as_deref() == Some("bouncert"));
    let how: Vec<_> = ours.map(|entry| entry.operation.as_deref()).collect();
    assert_eq!(how, [Some("Apply")]);
}
