//! Secrets that look like what the daemon staged and are not: nothing of them is read, counted,
//! published or deleted.

use std::collections::BTreeMap;

use bouncert::api::PgBouncer;
use bouncert::api::annotations::{CLAMPED, REVISION, SEAL};
use bouncert::blueprint::certificates::Wanted;
use bouncert::blueprint::defaults::{IssuerKind, complete};
use bouncert::clock::Clock;
use bouncert::cluster::reference;
use bouncert::material::{IssueOutcome, MaterialError, Materials, Revisioned, seal_of};
use bouncert::names::{Alias, ObjectRef, Revision};
use bouncert::pki::bundle::TrustBundle;
use bouncert::pki::key::{KeyAlgorithm, KeyEncoding, PrivateKey};
use bouncert::seal::{KEY_LEN, Seal};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Event, Namespace, Secret};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::json;
use time::Duration;

use crate::material::{NAMESPACE, Scene};

/// The revision with that number.
fn number(number: u32) -> Revision {
    Revision::new(number).unwrap()
}

/// Replaces a Secret, immutable or not, by one that `change` has been at.
async fn replant(scene: &Scene, name: &str, change: impl FnOnce(&mut Secret)) {
    let mut secret = scene.secret(name).await.unwrap();
    let api: Api<Secret> = Api::namespaced(scene.client.clone(), NAMESPACE);
    let _gone = api.delete(name, &DeleteParams::default()).await.unwrap();
    secret.metadata.resource_version = None;
    secret.metadata.uid = None;
    change(&mut secret);
    plant(scene, secret).await;
}

async fn plant(scene: &Scene, secret: Secret) {
    let namespace = secret.namespace().unwrap();
    let api: Api<Secret> = Api::namespaced(scene.client.clone(), &namespace);
    api.create(&PostParams::default(), &secret).await.unwrap();
}

/// A Secret like `like`, with its labels and owner, under another name and number.
fn copy_of(like: &Secret, name: &str, revision: Revision) -> Secret {
    let mut copy = like.clone();
    copy.metadata.name = Some(name.to_owned());
    copy.metadata.resource_version = None;
    copy.metadata.uid = None;
    let annotations = copy.annotations_mut();
    annotations.insert(REVISION.to_owned(), revision.get().to_string());
    copy
}

fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec())))
        .collect()
}

async fn refused(scene: &Scene, revision: Revision, why: &str) {
    let read = scene
        .materials
        .revision(&scene.owner, Alias::Server, revision)
        .await;
    let not_sealed = matches!(read, Err(MaterialError::NotSealed { .. }));
    assert!(not_sealed, "{why}: {read:?}");
}

/// Issues and publishes the first revision of the server's material.
async fn published(scene: &Scene) -> (Wanted, Revisioned) {
    let wanted = scene.wanted(Alias::Server, "first");
    let one = scene.issue(&wanted, Revision::FIRST).await;
    let publish = scene
        .materials
        .publish(&scene.owner, &wanted, one.revision, &one.anchors);
    publish.await.unwrap();
    (wanted, one)
}

/// The same scene's material as a daemon with another key sees it.
fn with_other_key(scene: &Scene) -> Materials {
    let seal = Seal::new(&[0xa1; KEY_LEN]).unwrap();
    Materials::new(scene.cluster.clone(), Clock::System, "cert-manager").with_seal(seal)
}

#[tokio::test]
async fn a_seal_holds_for_one_content_of_one_revision_of_one_pgbouncer() {
    let scene = Scene::new().await;
    let wanted = scene.wanted(Alias::Server, "first");
    scene.issue(&wanted, Revision::FIRST).await;
    let sealed = scene.secret("billing-server-cert-r1").await.unwrap();
    assert_eq!(sealed.annotations()[SEAL].len(), 64);

    plant(
        &scene,
        copy_of(&sealed, "billing-server-cert-r7", number(7)),
    )
    .await;
    refused(&scene, number(7), "copied to another number").await;

    let clamp = |secret: &mut Secret| {
        let annotations = secret.annotations_mut();
        annotations.insert(CLAMPED.to_owned(), "true".to_owned());
    };
    replant(&scene, "billing-server-cert-r1", clamp).await;
    refused(&scene, Revision::FIRST, "another fact").await;
    let unclamp = |secret: &mut Secret| drop(secret.annotations_mut().remove(CLAMPED));
    replant(&scene, "billing-server-cert-r1", unclamp).await;
    let again = scene
        .materials
        .revision(&scene.owner, Alias::Server, Revision::FIRST);
    assert!(
        again.await.unwrap().is_some(),
        "the same content, and its seal"
    );

    let more = |secret: &mut Secret| {
        secret
            .data
            .get_or_insert_default()
            .extend(data(&[("x", "")]));
    };
    replant(&scene, "billing-server-cert-r1", more).await;
    refused(&scene, Revision::FIRST, "another field").await;

    let bare = |secret: &mut Secret| {
        *secret = sealed.clone();
        secret.metadata.resource_version = None;
        secret.metadata.uid = None;
        secret.annotations_mut().remove(SEAL);
    };
    replant(&scene, "billing-server-cert-r1", bare).await;
    refused(&scene, Revision::FIRST, "no seal").await;
}

#[tokio::test]
async fn a_seal_of_another_pgbouncer_or_namespace_holds_for_none_of_ours() {
    let mut scene = Scene::new().await;
    let wanted = scene.wanted(Alias::Server, "first");
    scene.issue(&wanted, Revision::FIRST).await;
    let sealed = scene.secret("billing-server-cert-r1").await.unwrap();
    let mut other: PgBouncer = serde_json::from_value(json!({
        "metadata": {"name": "invoices", "namespace": NAMESPACE}, "spec": scene.owner.spec,
    }))
    .unwrap();
    other.spec = complete(&other.spec, "invoices", IssuerKind::Private);
    let other = scene.cluster.create(&other).await.unwrap();
    let mut copied = copy_of(&sealed, "invoices-server-cert-r1", Revision::FIRST);
    copied.metadata.owner_references = other.controller_owner_ref(&()).map(|owner| vec![owner]);
    copied.labels_mut().insert(
        "app.kubernetes.io/instance".to_owned(),
        "invoices".to_owned(),
    );
    plant(&scene, copied.clone()).await;
    let read = scene
        .materials
        .revision(&other, Alias::Server, Revision::FIRST)
        .await;
    assert!(
        matches!(read, Err(MaterialError::NotSealed { .. })),
        "{read:?}"
    );

    // A PgBouncer of the same name, and, as a restored backup may have it, of the same UID.
    let namespace: Namespace =
        serde_json::from_value(json!({"metadata": {"name": "team-b"}})).unwrap();
    Api::all(scene.client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    let mut copied = copy_of(&sealed, "billing-server-cert-r1", Revision::FIRST);
    copied.metadata.namespace = Some("team-b".to_owned());
    plant(&scene, copied).await;
    scene.owner.metadata.namespace = Some("team-b".to_owned());
    refused(&scene, Revision::FIRST, "another namespace").await;
}

#[tokio::test]
async fn planted_secrets_neither_number_nor_trust_nor_stop_an_issuance() {
    let scene = Scene::new().await;
    scene.issuer("stranger", Duration::days(365)).await;
    let (wanted, one) = published(&scene).await;
    let sealed = scene.secret("billing-server-cert-r1").await.unwrap();
    let stranger = scene.secret("stranger-ca").await.unwrap().data.unwrap();
    let plant_as = async |name: &str, revision: u32, content: BTreeMap<String, ByteString>| {
        let mut planted = copy_of(&sealed, name, number(revision));
        planted.data = Some(content);
        plant(&scene, planted).await;
    };
    let mut own_ca = stranger.clone();
    own_ca.insert("ca.crt".to_owned(), stranger["tls.crt"].clone());
    let nonsense = data(&[
        ("tls.crt", "not a certificate"),
        ("tls.key", ""),
        ("ca.crt", ""),
    ]);
    plant_as("billing-server-cert-r4294967295", u32::MAX, own_ca.clone()).await;
    plant_as("billing-server-cert-r2", 2, own_ca).await;
    plant_as("billing-server-cert-odd", 9, nonsense).await;
    let mut key = copy_of(&sealed, "billing-server-cert-r3-key", number(3));
    key.data = Some(data(&[("tls.key", "")]));
    key.type_ = Some("Opaque".to_owned());
    plant(&scene, key).await;

    let (materials, owner) = (&scene.materials, &scene.owner);
    materials.take_stock(owner).await.unwrap();
    let next = materials.next_revision(owner, Alias::Server).await.unwrap();
    assert_eq!(next, number(4), "r2 and the key of r3 are taken");
    let two = scene.issue(&wanted, next).await;
    let trust = materials
        .trust(owner, &two.anchors, &one.anchors)
        .await
        .unwrap();
    let theirs = String::from_utf8(stranger["tls.crt"].0.clone()).unwrap();
    assert!(
        !trust.to_pem().contains(theirs.trim()),
        "the stranger's CA is not trusted"
    );
    let newest = materials
        .newest(owner, Alias::Server)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(newest.revision, next);
    let planted = materials.publish(owner, &wanted, number(2), &trust).await;
    assert!(
        matches!(planted, Err(MaterialError::NotSealed { .. })),
        "{planted:?}"
    );
    materials
        .discard(owner, Alias::Server, number(2))
        .await
        .unwrap();
    materials
        .prune(owner, Alias::Server, Some(next))
        .await
        .unwrap();
    materials.discard_all(owner).await.unwrap();
    for name in ["r2", "r4294967295", "odd", "r3-key"] {
        let name = format!("billing-server-cert-{name}");
        assert!(
            scene.secret(&name).await.is_some(),
            "{name} is not ours to delete"
        );
    }
    assert!(scene.secret("billing-server-cert-r4").await.is_none());

    let events: Api<Event> = Api::namespaced(scene.client.clone(), NAMESPACE);
    let events = events.list(&ListParams::default()).await.unwrap();
    let told = events
        .into_iter()
        .find(|event| event.reason.as_deref() == Some("ForeignRevision"));
    let told = told.unwrap().message.unwrap();
    for name in [
        "billing-server-cert-r2",
        "billing-server-cert-r4294967295",
        "cert-odd",
    ] {
        assert!(told.contains(name), "{name}: {told}");
    }
}

#[tokio::test]
async fn numbers_that_are_all_taken_are_said() {
    let scene = Scene::new().await;
    let wanted = scene.wanted(Alias::Server, "first");
    scene.issue(&wanted, Revision::FIRST).await;
    let sealed = scene.secret("billing-server-cert-r1").await.unwrap();
    for taken in 2..=65 {
        let name = format!("billing-server-cert-r{taken}");
        plant(&scene, copy_of(&sealed, &name, number(taken))).await;
    }
    let next = scene
        .materials
        .next_revision(&scene.owner, Alias::Server)
        .await;
    let told = next.unwrap_err().to_string();
    assert!(told.contains("treasury/billing-server-cert-r65"), "{told}");
}

#[tokio::test]
async fn a_planted_key_is_never_certified() {
    let scene = Scene::new().await;
    let mut wanted = scene.wanted(Alias::Client, "skerries");
    wanted.issuer.kind = "Lighthouse".to_owned();
    wanted.issuer.api_group = Some("issuers.example.org".to_owned());
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let planted: Secret = serde_json::from_value(json!({
        "metadata": {
            "name": "billing-client-cert-r1-key", "namespace": NAMESPACE,
            "ownerReferences": [scene.owner.controller_owner_ref(&()).unwrap()],
        },
        "stringData": {"tls.key": key.to_pem(KeyEncoding::Pkcs8).expose()},
    }))
    .unwrap();
    plant(&scene, planted).await;
    let (materials, owner) = (&scene.materials, &scene.owner);
    let next = materials.next_revision(owner, Alias::Client).await.unwrap();
    assert_eq!(
        next,
        number(2),
        "a plan takes a number whose names are free"
    );
    // It came after the plan was made: what is issued has no place to wait for its answer.
    match materials.issue(owner, &wanted, Revision::FIRST).await {
        IssueOutcome::Failed(MaterialError::NotSealed { secret }) => {
            assert_eq!(secret.name, "billing-client-cert-r1-key");
        }
        other => panic!("{other:?}"),
    }
    // At the next number it waits, and a repeat finds its own key again.
    for _ in 0..2 {
        let outcome = materials.issue(owner, &wanted, next).await;
        assert!(
            matches!(outcome, IssueOutcome::Pending { .. }),
            "{outcome:?}"
        );
    }
    let again = materials.next_revision(owner, Alias::Client).await.unwrap();
    assert_eq!(again, next, "a key of our own does not take the number");
    materials.discard(owner, Alias::Client, next).await.unwrap();
    assert!(scene.secret("billing-client-cert-r2-key").await.is_none());
    materials
        .discard(owner, Alias::Client, Revision::FIRST)
        .await
        .unwrap();
    assert!(scene.secret("billing-client-cert-r1-key").await.is_some());
}

#[tokio::test]
async fn without_its_key_a_daemon_goes_on_from_what_is_published() {
    let scene = Scene::new().await;
    let (wanted, one) = published(&scene).await;
    scene.issue(&wanted, number(2)).await;
    let (owner, other) = (&scene.owner, with_other_key(&scene));
    let lost = other.revision(owner, Alias::Server, one.revision).await;
    assert!(
        matches!(lost, Err(MaterialError::NotSealed { .. })),
        "{lost:?}"
    );
    other.take_stock(owner).await.unwrap();
    let found = other
        .revision(owner, Alias::Server, one.revision)
        .await
        .unwrap();
    assert_eq!(found.unwrap().facts.fingerprint, one.facts.fingerprint);
    let unpublished = other.revision(owner, Alias::Server, number(2)).await;
    assert!(matches!(unpublished, Err(MaterialError::NotSealed { .. })));
    let next = other.next_revision(owner, Alias::Server).await.unwrap();
    assert_eq!(next, number(3));
    let IssueOutcome::Issued(three) = other.issue(owner, &wanted, next).await else {
        panic!("not issued");
    };
    let publish = other.publish(owner, &wanted, next, &three.anchors);
    publish.await.unwrap();
    let back = other.publish_again(owner, &wanted, one.revision, &one.anchors);
    back.await.unwrap();
}

#[tokio::test]
async fn only_what_is_served_already_is_sealed_afterwards() {
    let scene = Scene::new().await;
    scene.issuer("stranger", Duration::days(365)).await;
    let (_, one) = published(&scene).await;
    let owner = &scene.owner;
    // As a version that did not seal has left it, beside a bundle that has grown meanwhile.
    let stranger = scene.secret("stranger-ca").await.unwrap().data.unwrap();
    let theirs = String::from_utf8(stranger["tls.crt"].0.clone()).unwrap();
    let more = TrustBundle::from_pem(&theirs).unwrap();
    let grown = one.anchors.union(&more);
    scene
        .materials
        .stage(owner, "billing-server-cert", &grown)
        .await
        .unwrap();
    let unseal = |secret: &mut Secret| drop(secret.annotations_mut().remove(SEAL));
    replant(&scene, "billing-server-cert-r1", unseal).await;
    scene.materials.take_stock(owner).await.unwrap();
    let found = scene
        .materials
        .revision(owner, Alias::Server, Revision::FIRST)
        .await;
    assert!(found.unwrap().is_some(), "it holds what is served");

    // An anchor more than is published.
    let anchors = ByteString(grown.to_pem().into_bytes());
    scene
        .materials
        .stage(owner, "billing-server-cert", &one.anchors)
        .await
        .unwrap();
    let widen = |secret: &mut Secret| {
        secret.annotations_mut().remove(SEAL);
        secret
            .data
            .get_or_insert_default()
            .insert("ca.crt".to_owned(), anchors);
    };
    replant(&scene, "billing-server-cert-r1", widen).await;
    scene.materials.take_stock(owner).await.unwrap();
    refused(&scene, Revision::FIRST, "more trust than is published").await;

    // What is published, under a number that it was not published from.
    let narrow = |secret: &mut Secret| {
        let pem = ByteString(one.anchors.to_pem().into_bytes());
        secret
            .data
            .get_or_insert_default()
            .insert("ca.crt".to_owned(), pem);
    };
    replant(&scene, "billing-server-cert-r1", narrow).await;
    let unsealed = scene.secret("billing-server-cert-r1").await.unwrap();
    plant(
        &scene,
        copy_of(
            &unsealed,
            "billing-server-cert-r4294967295",
            number(u32::MAX),
        ),
    )
    .await;
    scene.materials.take_stock(owner).await.unwrap();
    refused(&scene, number(u32::MAX), "another number").await;
    let next = scene.materials.next_revision(owner, Alias::Server).await;
    assert_eq!(next.unwrap(), number(2));
}

#[tokio::test]
async fn the_key_of_the_seal_is_made_once_and_a_damaged_one_is_said() {
    let scene = Scene::new().await;
    let one = seal_of(&scene.cluster, NAMESPACE).await.unwrap();
    let again = seal_of(&scene.cluster, NAMESPACE).await.unwrap();
    let mark = |seal: &Seal| seal.seal(bouncert::seal::Kind::Revision, &[b"x"]);
    assert_eq!(mark(&one), mark(&again));
    let kept = scene.secret("bouncert-seal").await.unwrap();
    assert_eq!(kept.immutable, Some(true));
    assert_eq!(reference(&kept), ObjectRef::new(NAMESPACE, "bouncert-seal"));
    replant(&scene, "bouncert-seal", |secret| {
        secret.data = Some(data(&[("key", "short")]));
    })
    .await;
    let told = seal_of(&scene.cluster, NAMESPACE)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        told.contains("treasury/bouncert-seal") && told.contains("delete it"),
        "{told}"
    );
    let missing = seal_of(&scene.cluster, "nowhere").await.unwrap_err();
    assert!(missing.to_string().contains("--namespace"), "{missing}");
}
