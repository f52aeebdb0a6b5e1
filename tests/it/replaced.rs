//! A request that is deleted and created again, and a PgBouncer that is changed while a request waits:
//! what goes by a name finds another object there than the one that was meant.

use std::collections::BTreeSet;
use std::time::Duration;

use bouncert::api::annotations::ALLOWED_NAMESPACES;
use bouncert::api::common::find_condition;
use bouncert::api::{PgBouncer, PgBouncerOpsRequest, RequestPhase};
use bouncert::daemon::{self, DaemonOptions, NAMESPACE_DEFAULT};
use bouncert::ops::journal_name;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fairness::server;
use crate::pipeline::open_till;
use crate::stage::{LONG, NS, Stage, request};
use crate::support::eventually;

/// The tenant of these tests.
const TEAM: &str = "team-a";

/// A daemon of this process, on an API server that has nothing beside it.
struct Desk {
    client: Client,
    daemon: JoinSet<()>,
}

impl Desk {
    /// With PgBouncer `till`, which has no TLS and no pods.
    async fn open() -> Self {
        let client = server().await;
        let desk = Self {
            client,
            daemon: JoinSet::new(),
        };
        let till = json!({
            "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "metadata": {"name": "till"},
            "spec": {
                "version": "1.18.0", "replicas": 1,
                "database": {"databaseName": "l", "databaseRef": {"name": "p", "namespace": TEAM}},
            },
        });
        let till: PgBouncer = serde_json::from_value(till).unwrap();
        let params = PostParams::default();
        desk.api().create(&params, &till).await.unwrap();
        desk
    }

    fn start(&mut self) {
        let (client, never) = (self.client.clone(), CancellationToken::new());
        self.daemon.spawn(async move {
            let ended = daemon::run(client, DaemonOptions::default(), never).await;
            ended.unwrap();
        });
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), TEAM)
    }

    /// Creates a request that waits for an issuer which does not exist; its UID.
    async fn ask(&self, name: &str) -> String {
        let tls = json!({"issuerRef": {"kind": "Issuer", "name": "nowhere"}});
        let asked = request(name, "till", tls);
        let asked: PgBouncerOpsRequest = serde_json::from_value(asked).unwrap();
        let created = self.api().create(&PostParams::default(), &asked).await;
        created.unwrap().uid().unwrap()
    }

    /// Deletes a request at once, without letting the daemon undo it.
    async fn tear_away(&self, name: &str) {
        let requests = self.api::<PgBouncerOpsRequest>();
        let bare = Patch::Merge(json!({"metadata": {"finalizers": Value::Null}}));
        let params = PatchParams::default();
        requests.patch(name, &params, &bare).await.unwrap();
        let deleted = requests.delete(name, &DeleteParams::default()).await;
        deleted.unwrap();
    }

    /// Waits until the request with that UID has paused the PgBouncer and waits for its issuer; what it
    /// has been told.
    async fn waits(&self, name: &str, uid: &str) -> BTreeSet<(String, String, String)> {
        eventually(LONG, async || {
            let till: PgBouncer = self.api().get("till").await.unwrap();
            let conditions = till.status.unwrap_or_default().conditions;
            let paused = find_condition(&conditions, "Paused").cloned();
            let request: PgBouncerOpsRequest = self.api().get(name).await.unwrap();
            let status = request.status.clone().unwrap_or_default();
            let issuer = find_condition(&status.conditions, "CertificateSynced");
            let by = paused
                .as_ref()
                .is_some_and(|held| held.message.contains(uid));
            if by
                && request.uid().as_deref() == Some(uid)
                && status.phase == Some(RequestPhase::Progressing)
                && issuer.is_some_and(|waits| waits.message.contains("nowhere"))
            {
                let all = status.conditions.iter();
                let outline = |c: &bouncert::api::common::Condition| {
                    (c.type_.clone(), c.status.clone(), c.reason.clone())
                };
                return Ok(all.map(outline).collect());
            }
            Err((paused, status))
        })
        .await
    }

    /// Waits until only the request with that UID has a journal.
    async fn keeps_one_journal(&self, uid: &str) {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), NAMESPACE_DEFAULT);
        eventually(LONG, async || {
            let all = maps.list(&kube::api::ListParams::default()).await.unwrap();
            let names: Vec<_> = all.iter().map(ResourceExt::name_any).collect();
            let kept = names.iter().filter(|name| name.starts_with("journal-"));
            let kept: Vec<_> = kept.collect();
            if kept == [&journal_name(uid)] {
                Ok(())
            } else {
                Err(names)
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_created_again_begins_fresh_and_the_former_one_is_undone_first() {
    let mut desk = Desk::open().await;
    desk.start();
    let first = desk.ask("again").await;
    let told = desk.waits("again", &first).await;
    desk.tear_away("again").await;
    let second = desk.ask("again").await;
    assert_ne!(first, second);
    assert_eq!(desk.waits("again", &second).await, told);
    desk.keeps_one_journal(&second).await;
    // One of another name is not begun beside the one that is being undone, either.
    desk.tear_away("again").await;
    let other = desk.ask("other").await;
    assert_eq!(desk.waits("other", &other).await, told);
    desk.keeps_one_journal(&other).await;
    desk.daemon.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_created_again_while_no_daemon_runs_begins_fresh() {
    let mut desk = Desk::open().await;
    desk.start();
    let first = desk.ask("again").await;
    let told = desk.waits("again", &first).await;
    desk.daemon.shutdown().await;
    desk.tear_away("again").await;
    let second = desk.ask("again").await;
    desk.start();
    assert_eq!(desk.waits("again", &second).await, told);
    desk.keeps_one_journal(&second).await;
    desk.daemon.shutdown().await;
}

// === the database that a request began with ===

/// What may be in no Secret of the tenant.
const OTHERS_PASSWORD: &str = "heron-of-team-b";

/// An AppBinding of a namespace that has allowed nobody to refer to it.
async fn database_of_another(stage: &Stage) {
    stage
        .create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-b"}}))
        .await;
    stage
        .create(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "vault-auth", "namespace": "team-b"},
            "stringData": {"username": "postgres", "password": OTHERS_PASSWORD},
        }))
        .await;
    let service = json!({"scheme": "postgresql", "name": "vault", "port": 5432});
    stage
        .create(json!({
            "apiVersion": "appcatalog.appscode.com/v1alpha1", "kind": "AppBinding",
            "metadata": {"name": "vault", "namespace": "team-b"},
            "spec": {
                "type": "kubedb.com/postgres", "clientConfig": {"service": service},
                "secret": {"kind": "Secret", "name": "vault-auth"},
            },
        }))
        .await;
}

/// All that Secrets of the tenant hold from now on, in each of their versions, until it is aborted.
fn secrets_ever(stage: &Stage) -> JoinSet<String> {
    let (secrets, mut watching) = (stage.api::<Secret>(), JoinSet::new());
    watching.spawn(async move {
        let versions = watcher(secrets, watcher::Config::default()).applied_objects();
        let leaked = versions.try_filter_map(async |secret| {
            let holds = |value: &k8s_openapi::ByteString| {
                String::from_utf8_lossy(&value.0).contains(OTHERS_PASSWORD)
            };
            let leaks = secret.data.iter().flatten().any(|(_, value)| holds(value));
            Ok(leaks.then(|| secret.name_any()))
        });
        let mut leaked = Box::pin(leaked);
        leaked.try_next().await.unwrap().unwrap()
    });
    watching
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_keeps_to_the_database_it_began_with_though_another_is_written_meanwhile() {
    let stage = Stage::start().await;
    open_till(&stage, 2).await;
    database_of_another(&stage).await;
    let mut ever = secrets_ever(&stage);
    // The issuer answers later.
    let tls = json!({"issuerRef": {"kind": "Issuer", "name": "late"}});
    stage.create(request("patient", "till", tls)).await;
    eventually(LONG, async || {
        let request: PgBouncerOpsRequest = stage.get("patient").await.unwrap();
        let status = request.status.unwrap_or_default();
        match find_condition(&status.conditions, "CertificateSynced") {
            Some(waits) if waits.message.contains("late") => Ok(()),
            _ => Err(status),
        }
    })
    .await;
    let elsewhere = json!({"spec": {"database": {
        "databaseName": "ledger", "databaseRef": {"name": "vault", "namespace": "team-b"},
    }}});
    let bouncers = stage.api::<PgBouncer>();
    let params = PatchParams::default();
    let elsewhere = Patch::Merge(&elsewhere);
    bouncers.patch("till", &params, &elsewhere).await.unwrap();
    stage
        .create(json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "late"},
            "spec": {"ca": {"secretName": "pgbouncer-ca"}},
        }))
        .await;
    stage.successful("patient").await;
    // Clients are led where they were led before, and the other's word is still missing.
    assert_eq!(stage.psql("till", "sslmode=require").await.unwrap(), "42");
    eventually(LONG, async || {
        let till = stage.bouncer("till").await;
        let conditions = till.status.unwrap_or_default().conditions;
        let refused = conditions
            .iter()
            .any(|condition| condition.reason == "ReferenceNotGranted");
        if refused { Ok(()) } else { Err(conditions) }
    })
    .await;
    assert_eq!(stage.psql("till", "sslmode=require").await.unwrap(), "42");
    let leaked = ever.try_join_next();
    assert!(leaked.is_none(), "{leaked:?}");
    // Once the word is given the reference is followed: the watch sees what it is there to see.
    let word = json!({"metadata": {"annotations": {ALLOWED_NAMESPACES: NS}}});
    let bindings: Api<bouncert::api::AppBinding> = Api::namespaced(stage.client.clone(), "team-b");
    let word = Patch::Merge(&word);
    bindings.patch("vault", &params, &word).await.unwrap();
    let seen = tokio::time::timeout(Duration::from_secs(90), ever.join_next()).await;
    assert_eq!(seen.unwrap().unwrap().unwrap(), "till-backend");
    stage.stop().await;
}
