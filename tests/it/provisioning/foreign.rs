//! Objects of others at names that a PgBouncer needs, or would need: they stay as they are.

use bouncert::api::annotations::ADOPT;
use bouncert::api::common::{Phase, find_condition};
use bouncert::api::{AppBinding, PetSet, PgBouncer};
use bouncert::clock::Clock;
use bouncert::cluster::Namespaced;
use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use bouncert::material::Materials;
use bouncert::names::ObjectRef;
use bouncert::provisioner::{Kind, Provisioner};
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};

use super::*;

/// A cluster with a backend, and a provisioner that follows all watches of the daemon.
pub(super) struct Scene {
    pub(super) client: Client,
    provisioner: Provisioner,
}

impl Scene {
    pub(super) async fn new() -> Self {
        let server = ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap();
        let client = server.client();
        for crd in definitions() {
            create(&client, crd).await;
        }
        furnish(&client).await;
        backend(&client).await;
        let cluster = Cluster::new(client.clone());
        let materials = Materials::new(cluster.clone(), Clock::System, "cert-manager");
        Self {
            provisioner: Provisioner::new(cluster, materials, Clock::Fixed(NOW)),
            client,
        }
    }

    pub(super) fn cluster(&self) -> Cluster {
        Cluster::new(self.client.clone())
    }

    /// One look after a change, with all that watches would have told.
    pub(super) async fn look(&self, name: &str) {
        let copies = copies(&self.client).await;
        self.tell::<Service>(&copies, Kind::Service).await;
        self.tell::<ServiceAccount>(&copies, Kind::ServiceAccount)
            .await;
        self.tell::<PodDisruptionBudget>(&copies, Kind::DisruptionBudget)
            .await;
        self.tell::<PetSet>(&copies, Kind::Workload).await;
        self.tell::<Secret>(&copies, Kind::Secret).await;
        self.tell::<AppBinding>(&copies, Kind::AppBinding).await;
        self.look_with(name, &copies).await;
    }

    /// The same before watches have told of anything.
    async fn look_early(&self, name: &str) {
        self.look_with(name, &copies(&self.client).await).await;
    }

    async fn look_with(&self, name: &str, copies: &Copies) {
        let at = ObjectRef::new(NAMESPACE, name);
        self.provisioner.changed(&at);
        self.provisioner.reconcile(&at, copies).await.unwrap();
    }

    async fn tell<K: Namespaced>(&self, copies: &Copies, kind: Kind) {
        let mut hear = copies.around::<K>(kind, &Area::Everywhere);
        let api: Api<K> = Api::all(self.client.clone());
        let ours = ListParams::default().labels(bouncert::blueprint::labels::OURS);
        let ours = api.list(&ours).await.unwrap().items;
        hear(&watcher::Event::Init);
        for object in ours {
            hear(&watcher::Event::InitApply(object));
        }
        hear(&watcher::Event::InitDone);
    }

    fn api<K: Namespaced>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub(super) async fn find<K: Namespaced>(&self, name: &str) -> Option<K> {
        self.api::<K>().get_opt(name).await.unwrap()
    }

    pub(super) async fn merge<K: Namespaced>(&self, name: &str, patch: Value) {
        let patch = Patch::Merge(patch);
        let api = self.api::<K>();
        api.patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Phase, and what is open.
    async fn told(&self, name: &str) -> (Phase, String) {
        let bouncer: PgBouncer = self.find(name).await.unwrap();
        let status = bouncer.status.unwrap();
        let open = find_condition(&status.conditions, "Reconciled");
        let open = open.map(|open| format!("{}: {}", open.reason, open.message));
        (status.phase.unwrap(), open.unwrap_or_default())
    }

    /// The garbage collector's work.
    async fn collect(&self, name: &str) {
        let all = DeleteParams::default();
        self.api::<Service>().delete(name, &all).await.unwrap();
        let pods = format!("{name}-pods");
        self.api::<Service>().delete(&pods, &all).await.unwrap();
        self.api::<ServiceAccount>()
            .delete(name, &all)
            .await
            .unwrap();
        self.api::<AppBinding>().delete(name, &all).await.unwrap();
        self.api::<PetSet>().delete(name, &all).await.unwrap();
    }

    async fn delete(&self, name: &str) {
        let api = self.api::<PgBouncer>();
        api.delete(name, &DeleteParams::default()).await.unwrap();
        self.look(name).await;
        assert!(self.find::<PgBouncer>(name).await.is_none(), "{name}");
    }
}

pub(super) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": { "selector": { "app": "shop-front" }, "ports": [{ "port": 80 }] },
    })
}

fn budget(name: &str) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "shop-front" } } },
    })
}

/// CASES 20.
#[tokio::test]
async fn an_applications_service_and_budget_outlive_a_pooler_that_has_no_use_for_their_names() {
    let scene = Scene::new().await;
    create(&scene.client, service("web-stats")).await;
    create(&scene.client, budget("web")).await;
    let versions = async || {
        let service: Service = scene.find("web-stats").await.unwrap();
        let budget: PodDisruptionBudget = scene.find("web").await.unwrap();
        (service.resource_version(), budget.resource_version())
    };
    let before = versions().await;
    create(&scene.client, bouncer("web", json!({ "replicas": 1 }))).await;
    scene.look_early("web").await;
    scene.look("web").await;
    scene.look_early("web").await;
    assert_eq!(scene.told("web").await.1, "", "they are in nothing's way");
    assert!(scene.find::<PetSet>("web").await.is_some());
    scene.delete("web").await;
    assert_eq!(versions().await, before);
}

#[tokio::test]
async fn what_a_pooler_has_of_its_own_goes_when_it_is_no_longer_asked_for() {
    let scene = Scene::new().await;
    let monitored = json!({ "replicas": 2, "monitor": { "agent": "prometheus.io/builtin" } });
    create(&scene.client, bouncer("web", monitored)).await;
    for early in [true, false] {
        scene
            .merge::<PgBouncer>(
                "web",
                json!({ "spec": {
            "replicas": 2, "monitor": { "agent": "prometheus.io/builtin" },
        } }),
            )
            .await;
        scene.look("web").await;
        assert!(scene.find::<Service>("web-stats").await.is_some());
        assert!(scene.find::<PodDisruptionBudget>("web").await.is_some());
        scene
            .merge::<PgBouncer>("web", json!({ "spec": { "replicas": 1, "monitor": null } }))
            .await;
        if early {
            scene.look_early("web").await;
        } else {
            scene.look("web").await;
        }
        assert!(
            scene.find::<Service>("web-stats").await.is_none(),
            "{early}"
        );
        assert!(
            scene.find::<PodDisruptionBudget>("web").await.is_none(),
            "{early}"
        );
    }
}

/// CASES 19 and its neighbours: objects of others, and whether the pooler needs their names.
fn others(config: &str) -> Vec<(Value, bool)> {
    let at = |name: &str| json!({ "name": name, "namespace": NAMESPACE });
    let secret = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": at(name), "stringData": { "a": "b" },
        })
    };
    let set = json!({
        "apiVersion": "apps.k8s.appscode.com/v1", "kind": "PetSet", "metadata": at("ledger"),
        "spec": {
            "replicas": 0, "serviceName": "front",
            "selector": { "matchLabels": { "app": "shop-front" } },
            "template": {
                "metadata": { "labels": { "app": "shop-front" } },
                "spec": { "containers": [{ "name": "front", "image": "front" }] },
            },
        },
    });
    let binding = json!({
        "apiVersion": "appcatalog.appscode.com/v1alpha1", "kind": "AppBinding",
        "metadata": at("ledger"),
        "spec": {
            "type": "kubedb.com/postgres",
            "clientConfig": { "url": "postgresql://127.0.0.1:1/postgres" },
        },
    });
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": at("ledger") });
    vec![
        (service("ledger"), true),
        (service("ledger-pods"), true),
        (service("ledger-stats"), false),
        (budget("ledger"), false),
        (account, true),
        (binding, true),
        (secret("ledger-backend"), true),
        (secret(config), true),
        (set, true),
    ]
}

fn dynamic(client: &Client, object: &Value) -> Api<kube::api::DynamicObject> {
    let version = object["apiVersion"].as_str().unwrap();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = object["kind"].as_str().unwrap();
    let kind = kube::api::GroupVersionKind::gvk(group, version, kind);
    let resource = kube::api::ApiResource::from_gvk(&kind);
    Api::namespaced_with(client.clone(), NAMESPACE, &resource)
}

#[tokio::test]
async fn an_object_of_another_at_the_name_of_ours_is_named_and_stays_as_it_is() {
    for at in 0..9 {
        let scene = Scene::new().await;
        let spec = json!({ "replicas": 2, "monitor": { "agent": "prometheus.io/builtin" } });
        create(&scene.client, bouncer("ledger", spec)).await;
        let made: PgBouncer = scene.find("ledger").await.unwrap();
        let config = bouncert::blueprint::names::config_secret(&made);
        let (object, needed) = others(&config).swap_remove(at);
        let (kind, name) = (
            object["kind"].as_str().unwrap(),
            object["metadata"]["name"].as_str().unwrap(),
        );
        create(&scene.client, object.clone()).await;
        let api = dynamic(&scene.client, &object);
        let before = api.get(name).await.unwrap();

        scene.look_early("ledger").await;
        scene.look("ledger").await;
        let (phase, open) = scene.told("ledger").await;
        let named = format!("ForeignObject: {kind} {NAMESPACE}/{name} does not belong to");
        assert!(open.starts_with(&named), "{kind}: {open}");
        assert!(
            open.contains("bouncert.dev/adopt: ledger"),
            "{kind}: {open}"
        );
        assert_ne!(phase, Phase::Ready);
        let has_workload = kind != "PetSet" && scene.find::<PetSet>("ledger").await.is_some();
        assert_eq!(has_workload, !needed, "{kind}");
        assert_eq!(api.get(name).await.unwrap(), before, "{kind}");

        // An earlier wish of its holder is not one for this PgBouncer.
        let adopt = |whose: &str| {
            Patch::Merge(json!({
                "metadata": { "annotations": { ADOPT: whose } }
            }))
        };
        let params = PatchParams::default();
        api.patch(name, &params, &adopt("books")).await.unwrap();
        scene.look("ledger").await;
        assert!(scene.told("ledger").await.1.starts_with(&named), "{kind}");

        // A workload cannot change its selector, which is for the API server to say.
        if kind == "PetSet" {
            api.delete(name, &DeleteParams::default()).await.unwrap();
        } else {
            api.patch(name, &params, &adopt("ledger")).await.unwrap();
        }
        scene.look("ledger").await;
        assert_eq!(scene.told("ledger").await.1, "", "{kind}");
        assert!(scene.find::<PetSet>("ledger").await.is_some(), "{kind}");
        let ours = api.get(name).await.unwrap();
        assert_eq!(ours.owner_references()[0].name, "ledger", "{kind}");
    }
}

#[tokio::test]
async fn an_object_of_another_outlives_the_pooler_that_wanted_its_name() {
    let scene = Scene::new().await;
    for policy in ["Delete", "Halt", "WipeOut"] {
        let spec = json!({ "deletionPolicy": policy, "replicas": 2 });
        create(&scene.client, bouncer("ledger", spec)).await;
        let mut kept = Vec::new();
        for (object, _) in others("ledger-0") {
            let api = dynamic(&scene.client, &object);
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            if policy == "Delete" {
                create(&scene.client, object).await;
            }
            kept.push((name.clone(), api.get(&name).await.unwrap(), api));
        }
        scene.look("ledger").await;
        scene.delete("ledger").await;
        for (name, before, api) in kept {
            assert_eq!(api.get(&name).await.unwrap(), before, "{policy}");
        }
    }
}

#[tokio::test]
async fn an_object_that_another_controller_holds_cannot_be_handed_over() {
    let scene = Scene::new().await;
    let mut held = service("ledger");
    held["metadata"]["annotations"] = json!({ ADOPT: "ledger" });
    held["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "Deployment", "name": "front", "uid": "f", "controller": true,
    }]);
    create(&scene.client, held).await;
    create(&scene.client, bouncer("ledger", json!({}))).await;
    scene.look("ledger").await;
    let (_, open) = scene.told("ledger").await;
    assert!(
        open.contains("its controller is Deployment front"),
        "{open}"
    );
}

#[tokio::test]
async fn of_two_poolers_whose_objects_have_one_name_the_first_is_unharmed() {
    let scene = Scene::new().await;
    let monitored = json!({ "monitor": { "agent": "prometheus.io/builtin" } });
    create(&scene.client, bouncer("x-stats", json!({}))).await;
    create(&scene.client, bouncer("x", json!({}))).await;
    create(&scene.client, bouncer("y", json!({}))).await;
    create(&scene.client, bouncer("y-pods", json!({}))).await;
    // Both names are cut to the same.
    let (one, other) = (
        format!("{}a", "l".repeat(60)),
        format!("{}b", "l".repeat(60)),
    );
    create(&scene.client, bouncer(&one, json!({}))).await;
    create(&scene.client, bouncer(&other, json!({}))).await;
    for name in ["x-stats", "x", "y", "y-pods", &one, &other] {
        scene.look(name).await;
    }
    let held = |holder: &str| format!("its controller is PgBouncer {holder}.");
    assert_eq!(scene.told("x-stats").await.1, "");
    assert_eq!(scene.told("x").await.1, "", "it has no use for the name");
    assert_eq!(scene.told("y").await.1, "");
    assert!(scene.told("y-pods").await.1.contains(&held("y")));
    assert_eq!(scene.told(&one).await.1, "");
    let (_, open) = scene.told(&other).await;
    assert!(open.starts_with("AuthSecretUnusable: "), "{open}");
    let version = async || {
        let service: Service = scene.find("x-stats").await.unwrap();
        service.resource_version()
    };
    let before = version().await;
    scene
        .merge::<PgBouncer>("x", json!({ "spec": monitored }))
        .await;
    scene.look("x").await;
    assert!(scene.told("x").await.1.contains(&held("x-stats")));
    scene
        .merge::<PgBouncer>("x", json!({ "spec": { "monitor": null } }))
        .await;
    scene.look("x").await;
    scene.delete("x").await;
    assert_eq!(version().await, before);
}

#[tokio::test]
async fn an_object_whose_owner_reference_was_taken_off_is_no_longer_ours() {
    let scene = Scene::new().await;
    create(&scene.client, bouncer("ledger", json!({}))).await;
    scene.look("ledger").await;
    scene
        .merge::<Service>("ledger", json!({ "metadata": { "ownerReferences": null } }))
        .await;
    scene.look("ledger").await;
    let (_, open) = scene.told("ledger").await;
    assert!(
        open.contains("Service shop/ledger") && open.contains(ADOPT),
        "{open}"
    );
    let hand_back = json!({ "metadata": { "annotations": { ADOPT: "ledger" } } });
    scene.merge::<Service>("ledger", hand_back).await;
    scene.look("ledger").await;
    assert_eq!(scene.told("ledger").await.1, "");
}

#[tokio::test]
async fn secrets_that_a_deletion_has_left_are_taken_up_by_the_next_pooler_of_that_name() {
    let scene = Scene::new().await;
    create(&scene.client, bouncer("ledger", json!({}))).await;
    scene.look("ledger").await;
    scene.delete("ledger").await;
    let left: Secret = scene.find("ledger-backend").await.unwrap();
    assert!(left.owner_references().is_empty());
    create(&scene.client, bouncer("ledger", json!({}))).await;
    scene.look("ledger").await;
    let (_, open) = scene.told("ledger").await;
    assert!(open.contains("an earlier PgBouncer ledger"), "{open}");
    scene.collect("ledger").await;
    scene.look("ledger").await;
    assert_eq!(scene.told("ledger").await.1, "");
    let taken: Secret = scene.find("ledger-backend").await.unwrap();
    assert_eq!(taken.uid(), left.uid());
    assert_eq!(taken.owner_references().len(), 1);
}
