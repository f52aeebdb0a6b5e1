//! The rights that the chart gives are enough for everything, and nothing is given for nothing.
//!
//! The daemon runs under the rendered Roles, enforced by the API server, through everything it can
//! do. A denial fails the test, and so does a verb on a resource that was never used.

use std::collections::BTreeSet;

use bouncert::api::annotations::SERVING_LABEL;
use bouncert::api::{PgBouncer, PgBouncerOpsRequest};
use bouncert::blueprint::certificates::{LoadBalancer, wanted};
use bouncert::blueprint::defaults::{IssuerKind, complete};
use bouncert::blueprint::metadata;
use bouncert::clock::Clock;
use bouncert::cluster::{Cluster, EventKind, Owner, Reporter, Standing};
use bouncert::daemon::{DaemonOptions, ElectionOptions};
use bouncert::lease::Timing;
use bouncert::local::apiserver::access::{Grain, User};
use bouncert::material::{IssueOutcome, Materials};
use bouncert::names::{Alias, ObjectRef, Revision};
use bouncert::ops::ABORT;
use k8s_openapi::api::core::v1::{Event, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::chart;
use crate::policy::loose_crd;
use crate::stage::{LONG, NS, Stage, request};
use crate::support::{eventually, seal};

/// What of the chart decides about rights.
const KINDS: [&str; 6] = [
    "Namespace",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
];

/// Installs the rights that the chart gives with these values; all grains of them.
pub(crate) async fn install(stage: &mut Stage, changes: &Value) -> BTreeSet<Grain> {
    let mut granted = BTreeSet::new();
    for object in chart::objects(changes) {
        if KINDS.contains(&object["kind"].as_str().unwrap()) {
            granted.extend(Grain::all_of(&object));
            stage.create(object).await;
        }
    }
    let account = User::service_account(chart::NAMESPACE, chart::RELEASE);
    stage.daemon_client = stage.server.as_ref().unwrap().client_as(&account);
    granted
}

/// The daemon has rights to `ConfigMaps` in its own namespace only.
pub(super) fn maps_are_at_home(granted: &BTreeSet<Grain>) {
    let of_maps = granted
        .iter()
        .filter(|grain| grain.resource == "configmaps");
    let roles: BTreeSet<&str> = of_maps.map(|grain| &*grain.role).collect();
    assert_eq!(roles, BTreeSet::from(["Role/bouncert-state"]));
}

/// What was granted and never used.
pub(super) fn unused(stage: &Stage, granted: &BTreeSet<Grain>) -> Vec<String> {
    let ledger = stage.server.as_ref().unwrap().ledger();
    let denied = ledger.denied;
    assert!(denied.is_empty(), "not sufficient: {denied:#?}");
    granted
        .difference(&ledger.used)
        .map(ToString::to_string)
        .collect()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the callers' literals read better"
)]
pub(crate) fn bouncer(name: &str, more: Value) -> Value {
    let mut object = json!({
        "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "metadata": {"name": name},
        "spec": {
            "version": "1.18.0", "replicas": 2,
            "database": {
                "databaseName": "postgres", "databaseRef": {"name": "ha-postgres", "namespace": NS},
                "syncUsers": true,
            },
            "connectionPool": {
                "poolMode": "transaction", "maxDBConnections": 10, "maxUserConnections": 10,
            },
        },
    });
    json_patch::merge(&mut object["spec"], &more);
    object
}

/// Deletes a PgBouncer and waits until it is gone.
async fn delete(stage: &Stage, name: &str) {
    let bouncers = stage.api::<PgBouncer>();
    bouncers
        .delete(name, &DeleteParams::default())
        .await
        .unwrap();
    eventually(LONG, async || match stage.get::<PgBouncer>(name).await {
        None => Ok(()),
        Some(there) => Err(there.metadata),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_rights_of_the_chart_are_sufficient_and_each_is_used() {
    // Where lists come as streams, a right to watch is enough; elsewhere it takes that to list as well.
    let mut stage = Stage::without_watch_list().await;
    let changes = json!({
        "vaultServiceAccounts": [{"namespace": NS, "name": "vault-login"}],
    });
    let granted = install(&mut stage, &changes).await;
    maps_are_at_home(&granted);
    issuers(&stage).await;
    stage.start_daemon_with(candidate("one"));

    of_pet_sets(&stage).await;
    elsewhere(&stage).await;
    a_vault(&stage).await;
    told_twice(&stage).await;
    stage.dismiss_daemon().await;

    let definitions: Api<CustomResourceDefinition> = Api::all(stage.client.clone());
    let pet_sets = "petsets.apps.k8s.appscode.com";
    definitions
        .delete(pet_sets, &DeleteParams::default())
        .await
        .unwrap();
    eventually(LONG, async || {
        match definitions.get_opt(pet_sets).await.unwrap() {
            None => Ok(()),
            Some(there) => Err(there.metadata),
        }
    })
    .await;
    stage.start_daemon_with(candidate("other"));
    of_stateful_sets(&mut stage).await;
    stage.dismiss_daemon().await;

    let idle = unused(&stage, &granted);
    assert!(idle.is_empty(), "granted and never used: {idle:#?}");
    stage.stop().await;
}

/// Two issuers of the namespace, one of the cluster, and a policy of the cluster.
pub(crate) async fn issuers(stage: &Stage) {
    stage.create(loose_crd()).await;
    stage
        .create(json!({
            "apiVersion": "policy.cert-manager.io/v1alpha1", "kind": "CertificateRequestPolicy",
            "metadata": {"name": "anything"},
            "spec": {
                "allowed": {
                    "commonName": {"value": "*"}, "dnsNames": {"values": ["*"]},
                    "ipAddresses": {"values": ["*"]}, "isCA": false,
                    "usages": ["digital signature", "key encipherment", "server auth", "client auth"],
                    "subject": {
                        "organizations": {"values": ["*"]},
                        "organizationalUnits": {"values": ["*"]},
                    },
                },
                "selector": {"issuerRef": {}, "namespace": {"matchLabels": {"kubernetes.io/metadata.name": NS}}},
            },
        }))
        .await;
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage.example("pb-issuer").await;
    let (crt, key) = stage.openssl_pair("everywhere", "/CN=everywhere");
    stage
        .create(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "everywhere", "namespace": "cert-manager"},
            "stringData": {"tls.crt": crt, "tls.key": key},
        }))
        .await;
    stage
        .create(json!({
            "apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer",
            "metadata": {"name": "everywhere"}, "spec": {"ca": {"secretName": "everywhere"}},
        }))
        .await;
}

/// A pooler's whole life, where the PetSet operator is.
async fn of_pet_sets(stage: &Stage) {
    let with_tls = json!({
        "sslMode": "require", "tls": {"issuerRef": {"kind": "Issuer", "name": "pb-issuer"}},
        "monitor": null,
    });
    stage.create(bouncer("born-with-it", with_tls)).await;
    stage
        .create(bouncer("till", json!({"deletionPolicy": "Delete"})))
        .await;
    stage.ready("born-with-it").await;
    stage.ready("till").await;
    let requests = [
        json!({"issuerRef": {"kind": "Issuer", "name": "pb-issuer"}, "sslMode": "require"}),
        json!({"rotateCertificates": true}),
        json!({"issuerRef": {"kind": "ClusterIssuer", "name": "everywhere"}}),
        json!({"remove": true}),
    ];
    for (at, tls) in requests.into_iter().enumerate() {
        let name = format!("change-{at}");
        // As scheduled rotation does, in the daemon's name.
        let mut object: PgBouncerOpsRequest =
            serde_json::from_value(request(&name, "till", tls)).unwrap();
        object.metadata.namespace = Some(NS.to_owned());
        let cluster = Cluster::new(stage.daemon_client.clone());
        cluster.create(&object).await.unwrap();
        stage.successful(&name).await;
    }
    // And as it does with requests that ended long ago.
    let old: PgBouncerOpsRequest = stage.get("change-0").await.unwrap();
    let cluster = Cluster::new(stage.daemon_client.clone());
    cluster.delete_read(&old).await.unwrap();
    a_look_at_whose_they_are(stage, &cluster).await;
    // One replica needs no disruption budget.
    let one = Patch::Merge(json!({"spec": {"replicas": 1}}));
    let bouncers = stage.api::<PgBouncer>();
    bouncers
        .patch("till", &PatchParams::default(), &one)
        .await
        .unwrap();
    eventually(LONG, async || {
        match stage.get::<PodDisruptionBudget>("till").await {
            None => Ok(()),
            Some(there) => Err(there.metadata),
        }
    })
    .await;
    delete(stage, "till").await;
    delete(stage, "born-with-it").await;
}

/// Where a name is taken, the daemon looks whose the object is; what is its own and no longer asked for
/// it deletes.
async fn a_look_at_whose_they_are(stage: &Stage, cluster: &Cluster) {
    let till = stage.bouncer("till").await;
    let (owner, at) = (Owner::of(&till), ObjectRef::new(NS, "till"));
    let account = cluster.standing::<ServiceAccount>(&owner, &at).await;
    assert!(matches!(account, Ok(Standing::Ours { .. })), "{account:?}");
    let stats: Service = serde_json::from_value(json!({"spec": {"ports": [{"port": 1}]}})).unwrap();
    let stats = Service {
        metadata: metadata(&till, "till-stats".to_owned()),
        ..stats
    };
    cluster.create(&stats).await.unwrap();
    let at = ObjectRef::new(NS, "till-stats");
    let deleted = cluster.delete_owned::<Service>(&owner, &at).await;
    assert!(deleted.unwrap());
}

/// An issuer that signs through a `CertificateRequest`, and a change of mind.
async fn elsewhere(stage: &Stage) {
    let cluster = Cluster::new(stage.daemon_client.clone());
    let materials = Materials::new(cluster, Clock::System, "cert-manager").with_seal(seal());
    let tls = json!({"tls": {
        "issuerRef": {"kind": "Issuer", "name": "pb-issuer"},
        "certificates": [{"alias": "client", "issuerRef": {
            "apiGroup": "issuers.example.org", "kind": "Lighthouse", "name": "skerries",
        }}],
    }});
    let mut owner: PgBouncer = serde_json::from_value(bouncer("abroad", tls)).unwrap();
    owner.spec = complete(&owner.spec, "abroad", IssuerKind::Private);
    owner.metadata.namespace = Some(NS.to_owned());
    owner.metadata.uid = Some("3f0c".to_owned());
    let all = wanted(&owner, &LoadBalancer::default()).unwrap();
    let client = all.into_iter().find(|wanted| wanted.alias == Alias::Client);
    for _ in 0..2 {
        let asked = materials.issue(&owner, client.as_ref().unwrap(), Revision::FIRST);
        let outcome = asked.await;
        assert!(
            matches!(outcome, IssueOutcome::Pending { .. }),
            "{outcome:?}"
        );
    }
    materials
        .discard(&owner, Alias::Client, Revision::FIRST)
        .await
        .unwrap();
}

/// A Vault issuer logs in with a ServiceAccount's token.
async fn a_vault(stage: &Stage) {
    let account: ServiceAccount = serde_json::from_value(json!({
        "metadata": {"name": "vault-login", "namespace": NS},
    }))
    .unwrap();
    Cluster::new(stage.client.clone())
        .create(&account)
        .await
        .unwrap();
    let at = ObjectRef::new(NS, "vault-login");
    let cluster = Cluster::new(stage.daemon_client.clone());
    let audiences = vec![format!("vault://{NS}/till")];
    let token = cluster.service_account_token(&at, audiences, 600).await;
    assert!(token.unwrap().is_some());
}

/// A daemon that competes for the chart's Lease.
fn candidate(identity: &str) -> DaemonOptions {
    DaemonOptions {
        election: Some(ElectionOptions {
            at: ObjectRef::new(chart::NAMESPACE, chart::RELEASE),
            identity: identity.to_owned(),
            timing: Timing::default(),
        }),
        ..DaemonOptions::default()
    }
}

/// An event that is there already is counted.
async fn told_twice(stage: &Stage) {
    let reporter = Reporter::new(Cluster::new(stage.daemon_client.clone()), "bouncert");
    let about: Secret = stage.get("ha-postgres-auth").await.unwrap();
    for _ in 0..2 {
        let now = Clock::System.now();
        reporter
            .report(&about, EventKind::Normal, "Noted", "twice", now)
            .await;
    }
    let events = stage
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let noted = events
        .into_iter()
        .find(|event| event.reason.as_deref() == Some("Noted"));
    assert_eq!(noted.unwrap().count, Some(2));
}

/// A pod that nobody has put back into service, though no request holds it.
async fn an_orphan(stage: &mut Stage, name: &str) {
    stage.dismiss_daemon().await;
    let out = Patch::Merge(json!({"metadata": {"labels": {SERVING_LABEL: null}}}));
    let pods = stage.api::<Pod>();
    pods.patch(name, &PatchParams::default(), &out)
        .await
        .unwrap();
    stage.start_daemon_with(candidate("third"));
    eventually(LONG, async || {
        let pod: Pod = stage.get(name).await.unwrap();
        let serves = pod.labels().contains_key(SERVING_LABEL);
        serves.then_some(()).ok_or(pod.metadata)
    })
    .await;
}

/// A pod that does not come up, under a budget that then lets no pod go: it is deleted.
async fn of_stateful_sets(stage: &mut Stage) {
    let ini = "[pgbouncer]\nclient_tls_ciphers = NO-SUCH-CIPHER\n";
    let fragile = json!({"configuration": {"inline": {"pgbouncer.ini": ini}}});
    stage.create(bouncer("fragile", fragile)).await;
    stage.ready("fragile").await;
    an_orphan(stage, "fragile-0").await;
    let before = eventually(LONG, async || {
        let pods: Option<Pod> = stage.get("fragile-1").await;
        pods.map(|pod| pod.uid()).ok_or("not there")
    })
    .await;
    let tls = json!({"issuerRef": {"kind": "Issuer", "name": "pb-issuer"}, "sslMode": "require"});
    stage.create(request("doomed", "fragile", tls)).await;
    eventually(LONG, async || match stage.get::<Pod>("fragile-1").await {
        Some(pod) if pod.uid() != before => Ok(()),
        other => Err(other.map(|pod| pod.status)),
    })
    .await;
    let none = Patch::Merge(json!({"spec": {"maxUnavailable": 0}}));
    let budgets = stage.api::<PodDisruptionBudget>();
    budgets
        .patch("fragile", &PatchParams::default(), &none)
        .await
        .unwrap();
    let abort = Patch::Merge(json!({"metadata": {"annotations": {ABORT: "true"}}}));
    let requests = stage.api::<PgBouncerOpsRequest>();
    requests
        .patch("doomed", &PatchParams::default(), &abort)
        .await
        .unwrap();
    stage.failed("doomed").await;
    delete(stage, "fragile").await;
}
