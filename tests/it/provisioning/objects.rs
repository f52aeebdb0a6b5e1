//! Without pods: which objects are made, what is written back, what is said when something is
//! missing, what a deletion leaves.

use bouncert::api::annotations::{AUTH_ACTIVE_FROM, DIGEST};
use bouncert::api::common::Phase;
use bouncert::api::{AppBinding, PetSet, PgBouncer, SslMode};
use bouncert::clock::Clock;
use bouncert::local::apiserver::schema::CompiledCrdVersion;
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use bouncert::material::Materials;
use bouncert::names::ObjectRef;
use bouncert::provisioner::{Next, Provisioner};
use k8s_openapi::api::core::v1::{Event, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};

use super::*;
use crate::support::seal;

pub(super) struct Scene {
    pub(super) client: Client,
    pub(super) provisioner: Provisioner,
}

impl Scene {
    /// A furnished cluster without a backend.
    pub(super) async fn bare() -> Self {
        let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
        let client = server.client();
        for crd in definitions() {
            create(&client, crd).await;
        }
        furnish(&client).await;
        let cluster = Cluster::new(client.clone());
        let materials = Materials::new(cluster.clone(), Clock::System, "cert-manager");
        let materials = materials.with_seal(seal());
        Self {
            provisioner: Provisioner::new(cluster, materials, Clock::Fixed(NOW)),
            client,
        }
    }

    pub(super) async fn new() -> Self {
        let scene = Self::bare().await;
        backend(&scene.client).await;
        scene
    }

    /// A new provisioner, which remembers nothing.
    pub(super) fn restart(&mut self) {
        let cluster = Cluster::new(self.client.clone());
        let materials = Materials::new(cluster.clone(), Clock::System, "cert-manager");
        let materials = materials.with_seal(seal());
        self.provisioner = Provisioner::new(cluster, materials, Clock::Fixed(NOW));
    }

    pub(super) async fn reconcile(&self, name: &str) -> Next {
        let copies = copies(&self.client).await;
        self.provisioner
            .reconcile(&ObjectRef::new(NAMESPACE, name), &copies)
            .await
            .unwrap()
    }

    pub(super) async fn bouncer(&self, name: &str) -> PgBouncer {
        get(&self.client, name).await.unwrap()
    }

    pub(super) async fn patch(&self, name: &str, patch: Value) {
        let api: Api<PgBouncer> = Api::namespaced(self.client.clone(), NAMESPACE);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    pub(super) async fn events(&self) -> Vec<String> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), NAMESPACE);
        let all = api.list(&ListParams::default()).await.unwrap();
        all.iter()
            .filter_map(|event| event.message.clone())
            .collect()
    }
}

#[tokio::test]
async fn a_plain_object_becomes_the_objects_that_kubedb_makes() {
    let scene = Scene::new().await;
    create(&scene.client, bouncer("billing", json!({ "replicas": 3 }))).await;
    scene.reconcile("billing").await;

    let object = scene.bouncer("billing").await;
    assert_eq!(object.finalizers(), ["kubedb.com"]);
    assert_eq!(object.spec.ssl_mode, Some(SslMode::Disable));
    let auth = object.spec.auth_secret.clone().unwrap();
    assert_eq!(auth.name, "billing-auth");
    assert_eq!(auth.active_from.as_deref(), Some("2031-05-06T07:08:00Z"));
    let status = object.status.clone().unwrap();
    assert_eq!(
        status.phase,
        Some(Phase::Provisioning),
        "{:?}",
        conditions(&object)
    );

    let uid = object.uid().unwrap();
    let config = format!("billing-{}", &uid[uid.len() - 6..]);
    let ini = secret_value(&scene.client, &config, "pgbouncer.ini").await;
    assert!(
        ini.contains("ledger = host=127.0.0.1 port=1 dbname=ledger"),
        "{ini}"
    );
    assert!(!ini.contains("client_tls_"), "{ini}");
    let userlist = secret_value(&scene.client, "billing-backend", "userlist").await;
    assert!(userlist.contains("\"pgbouncer\" \"md5"), "{userlist}");
    assert!(
        userlist.contains("\"postgres\" \"sword\"\"fish\""),
        "{userlist}"
    );
    let auth: Secret = get(&scene.client, "billing-auth").await.unwrap();
    assert_eq!(auth.annotations()[AUTH_ACTIVE_FROM], "2031-05-06T07:08:00Z");
    assert_eq!(
        secret_value(&scene.client, "billing-auth", "password")
            .await
            .len(),
        16
    );

    let set: PetSet = get(&scene.client, "billing").await.unwrap();
    assert_eq!(set.spec.replicas, Some(3));
    let backend: Secret = get(&scene.client, "billing-backend").await.unwrap();
    let template = set.spec.template.metadata.unwrap();
    let labels = template.labels.unwrap();
    assert_eq!(
        Some(&labels["backend-secret-resource-version"]),
        backend.resource_version().as_ref()
    );
    assert_eq!(labels["team"], "ledger");
    assert!(template.annotations.unwrap().contains_key(DIGEST));

    for service in ["billing", "billing-pods"] {
        assert!(
            get::<Service>(&scene.client, service).await.is_some(),
            "{service}"
        );
    }
    assert!(
        get::<Service>(&scene.client, "billing-stats")
            .await
            .is_none()
    );
    assert!(
        get::<ServiceAccount>(&scene.client, "billing")
            .await
            .is_some()
    );
    assert!(
        get::<PodDisruptionBudget>(&scene.client, "billing")
            .await
            .is_some()
    );
    let binding: AppBinding = get(&scene.client, "billing").await.unwrap();
    assert_eq!(binding.owner_references()[0].uid, uid);
}

#[tokio::test]
async fn what_was_made_and_what_throttles_is_told_in_events() {
    let scene = Scene::new().await;
    create(&scene.client, bouncer("billing", json!({}))).await;
    scene.reconcile("billing").await;
    let events = scene.events().await;
    assert!(
        events
            .iter()
            .any(|it| it == "Successfully created governing service"),
        "{events:?}"
    );
    assert!(
        events.iter().any(|it| it.contains("max_db_connections=1")),
        "{events:?}"
    );
}

#[tokio::test]
async fn a_second_look_changes_nothing() {
    let mut scene = Scene::new().await;
    create(&scene.client, bouncer("billing", json!({}))).await;
    scene.reconcile("billing").await;
    let versions = async |scene: &Scene| {
        let set: PetSet = get(&scene.client, "billing").await.unwrap();
        let backend: Secret = get(&scene.client, "billing-backend").await.unwrap();
        let object = scene.bouncer("billing").await;
        (
            set.resource_version(),
            backend.resource_version(),
            object.resource_version(),
        )
    };
    let before = versions(&scene).await;
    scene.restart();
    scene.reconcile("billing").await;
    assert_eq!(versions(&scene).await, before);
}

#[tokio::test]
async fn what_is_missing_is_said_and_waited_for() {
    let scene = Scene::bare().await;
    create(&scene.client, bouncer("billing", json!({}))).await;
    scene.reconcile("billing").await;
    let object = scene.bouncer("billing").await;
    let told = conditions(&object);
    assert!(
        told.iter()
            .any(|it| it.contains("Reconciled=False WaitingForDependency")
                && it.contains("AppBinding vault/books")),
        "{told:?}"
    );
    assert_eq!(object.status.unwrap().phase, Some(Phase::Provisioning));
    assert!(get::<PetSet>(&scene.client, "billing").await.is_none());

    backend(&scene.client).await;
    scene.reconcile("billing").await;
    assert!(get::<PetSet>(&scene.client, "billing").await.is_some());
    let told = conditions(&scene.bouncer("billing").await);
    assert!(
        !told.iter().any(|it| it.starts_with("Reconciled")),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_deprecated_or_unknown_version_is_refused_in_a_condition() {
    let scene = Scene::new().await;
    create(&scene.client, version("1.17.0", true)).await;
    for (name, version, words) in [
        ("old", "1.17.0", "is deprecated"),
        ("odd", "9.9.9", "PgBouncerVersion 9.9.9"),
    ] {
        create(&scene.client, bouncer(name, json!({ "version": version }))).await;
        scene.reconcile(name).await;
        let told = conditions(&scene.bouncer(name).await);
        assert!(told.iter().any(|it| it.contains(words)), "{told:?}");
    }
}

#[tokio::test]
async fn certificates_are_published_before_there_is_a_workload() {
    let scene = Scene::new().await;
    let tls = json!({ "issuerRef": {
        "apiGroup": "cert-manager.io", "kind": "Issuer", "name": "notary" } });
    create(&scene.client, bouncer("billing", json!({ "tls": tls }))).await;
    scene.reconcile("billing").await;
    let told = conditions(&scene.bouncer("billing").await);
    assert!(
        told.iter().any(|it| it.contains("Issuer shop/notary")),
        "{told:?}"
    );
    assert!(get::<PetSet>(&scene.client, "billing").await.is_none());

    issuer(&scene.client, "notary").await;
    scene.reconcile("billing").await;
    let object = scene.bouncer("billing").await;
    assert_eq!(
        object.spec.ssl_mode,
        Some(SslMode::VerifyFull),
        "{:?}",
        conditions(&object)
    );
    for alias in ["server", "client", "metrics-exporter"] {
        let secret: Secret = get(&scene.client, &format!("billing-{alias}-cert"))
            .await
            .unwrap();
        assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
        let bundle = String::from_utf8(secret.data.unwrap()["ca.crt"].0.clone()).unwrap();
        assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 1);
    }
    let set: PetSet = get(&scene.client, "billing").await.unwrap();
    let digest = set.spec.template.metadata.unwrap().annotations.unwrap()[DIGEST].clone();
    let binding: AppBinding = get(&scene.client, "billing").await.unwrap();
    assert_eq!(binding.spec.tls_secret.unwrap().name, "billing-client-cert");

    // Another look issues nothing.
    scene.reconcile("billing").await;
    let set: PetSet = get(&scene.client, "billing").await.unwrap();
    assert_eq!(
        set.spec.template.metadata.unwrap().annotations.unwrap()[DIGEST],
        digest
    );
    assert!(
        get::<Secret>(&scene.client, "billing-server-cert-r2")
            .await
            .is_none()
    );
}

#[tokio::test]
async fn a_paused_object_is_left_alone() {
    let scene = Scene::new().await;
    create(&scene.client, bouncer("billing", json!({}))).await;
    scene.reconcile("billing").await;
    let api: Api<PgBouncer> = Api::namespaced(scene.client.clone(), NAMESPACE);
    let mut status = scene.bouncer("billing").await.status.unwrap();
    status.conditions.push(
        serde_json::from_value(json!({
            "type": "Paused", "status": "True", "lastTransitionTime": "2031-05-06T07:08:00Z",
        }))
        .unwrap(),
    );
    let patch = json!({ "status": status });
    api.patch_status("billing", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    scene
        .patch("billing", json!({ "spec": { "replicas": 5 } }))
        .await;
    assert_eq!(scene.reconcile("billing").await, Next::Wait);
    assert_eq!(
        get::<PetSet>(&scene.client, "billing")
            .await
            .unwrap()
            .spec
            .replicas,
        Some(1)
    );
}

#[tokio::test]
async fn an_auth_secret_of_another_pooler_is_refused() {
    let scene = Scene::new().await;
    create(
        &scene.client,
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "theirs", "namespace": NAMESPACE,
                "labels": { "app.kubernetes.io/instance": "orders" } },
            "stringData": { "username": "u", "password": "p" },
        }),
    )
    .await;
    let auth = json!({ "authSecret": { "kind": "Secret", "name": "theirs" } });
    create(&scene.client, bouncer("billing", auth)).await;
    scene.reconcile("billing").await;
    let told = conditions(&scene.bouncer("billing").await);
    assert!(
        told.iter()
            .any(|it| it.contains("owned by a different resource kind/instance")),
        "{told:?}"
    );
}

#[tokio::test]
async fn the_deletion_policy_decides_which_secrets_stay() {
    let scene = Scene::new().await;
    for (name, policy, stays) in [
        ("a", "Delete", true),
        ("b", "Halt", true),
        ("c", "WipeOut", false),
    ] {
        create(
            &scene.client,
            bouncer(name, json!({ "deletionPolicy": policy })),
        )
        .await;
        scene.reconcile(name).await;
        let api: Api<PgBouncer> = Api::namespaced(scene.client.clone(), NAMESPACE);
        api.delete(name, &DeleteParams::default()).await.unwrap();
        assert_eq!(scene.reconcile(name).await, Next::Wait);
        assert!(
            get::<PgBouncer>(&scene.client, name).await.is_none(),
            "{name}"
        );
        for secret in ["auth", "backend"] {
            let secret: Option<Secret> = get(&scene.client, &format!("{name}-{secret}")).await;
            // The collector may have come by already.
            let is_owned = secret.is_none_or(|secret| !secret.owner_references().is_empty());
            assert_eq!(is_owned, !stays, "{name} {policy}");
        }
    }
}

#[tokio::test]
async fn do_not_terminate_holds_a_deletion_up_until_the_policy_is_changed() {
    let scene = Scene::new().await;
    let policy = json!({ "deletionPolicy": "DoNotTerminate" });
    create(&scene.client, bouncer("billing", policy)).await;
    scene.reconcile("billing").await;
    let api: Api<PgBouncer> = Api::namespaced(scene.client.clone(), NAMESPACE);
    api.delete("billing", &DeleteParams::default())
        .await
        .unwrap();
    scene.reconcile("billing").await;
    let told = conditions(&scene.bouncer("billing").await);
    let words = "PgBouncer \"shop/billing\" can't be terminated";
    assert!(told.iter().any(|it| it.contains(words)), "{told:?}");
    assert!(get::<PetSet>(&scene.client, "billing").await.is_some());
    scene
        .patch("billing", json!({ "spec": { "deletionPolicy": "Delete" } }))
        .await;
    scene.reconcile("billing").await;
    assert!(get::<PgBouncer>(&scene.client, "billing").await.is_none());
}

#[tokio::test]
async fn halting_scales_to_nothing() {
    let scene = Scene::new().await;
    create(&scene.client, bouncer("billing", json!({ "halted": true }))).await;
    scene.reconcile("billing").await;
    assert_eq!(
        get::<PetSet>(&scene.client, "billing")
            .await
            .unwrap()
            .spec
            .replicas,
        Some(0)
    );
    assert_eq!(
        scene.bouncer("billing").await.status.unwrap().phase,
        Some(Phase::Halted)
    );
}

/// The real CRDs, where they are at hand.
fn real_crd(file: &str, version: &str) -> Option<CompiledCrdVersion> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let dirs = root.ancestors().map(|dir| dir.join("shared/crds"));
    let path = dirs.map(|dir| dir.join(file)).find(|path| path.is_file())?;
    let crd: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    Some(CompiledCrdVersion::compile(&crd, version).unwrap())
}

fn assert_valid<K: serde::Serialize>(crd: Option<CompiledCrdVersion>, object: &K) {
    let Some(crd) = crd else {
        return;
    };
    let mut object = serde_json::to_value(object).unwrap();
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("managedFields");
    assert_eq!(crd.prune(&mut object), Vec::<String>::new());
    let errors = crd.validate(&object, None);
    assert!(errors.is_empty(), "{errors:#?}");
}

#[tokio::test]
async fn what_is_written_is_valid_under_the_real_definitions() {
    let scene = Scene::new().await;
    issuer(&scene.client, "notary").await;
    let spec = json!({
        "tls": { "issuerRef": {
            "apiGroup": "cert-manager.io", "kind": "Issuer", "name": "notary" } },
        "monitor": { "agent": "prometheus.io" },
    });
    create(&scene.client, bouncer("billing", spec)).await;
    scene.reconcile("billing").await;
    let set: PetSet = get(&scene.client, "billing").await.unwrap();
    let binding: AppBinding = get(&scene.client, "billing").await.unwrap();
    let object = scene.bouncer("billing").await;
    assert_valid(real_crd("kubedb.com_pgbouncers.yaml", "v1"), &object);
    assert_valid(real_crd("apps.k8s.appscode.com_petsets.yaml", "v1"), &set);
    let file = "appcatalog.appscode.com_appbindings.yaml";
    assert_valid(real_crd(file, "v1alpha1"), &binding);
}
