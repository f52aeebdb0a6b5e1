//! The daemon is killed with -9 at instants spread over a request and started again: the end is the
//! one of an undisturbed run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bouncert::api::annotations::ALIAS_LABEL;
use bouncert::api::{PgBouncerOpsRequest, RequestPhase};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::{ALONE, Daemon, conditions, outline, stage_alone};
use crate::pipeline::{before, in_service, open_till, served};
use crate::stage::{NS, Stage, request};

/// Deaths in one request.
const DEATHS: u32 = 6;
/// What a daemon takes to be there at all.
const START: Duration = Duration::from_millis(150);
/// What the instants are made from.
const SEED: u64 = 0x0b_0a_7e_57;

/// What has to be the same in the end.
#[derive(Debug, PartialEq)]
struct End {
    spec: Value,
    pods: BTreeMap<String, bool>,
    conditions: Vec<(String, String, String)>,
    request: Vec<(String, String, String)>,
    /// Names and keys of the contract Secrets.
    published: BTreeMap<String, Vec<String>>,
    /// Number of revisions of each alias.
    revisions: BTreeMap<String, usize>,
    /// Whether every pod shows the published leaf.
    served_is_published: bool,
}

async fn end(stage: &Stage, bouncer: &str, request: &str) -> End {
    let ended = stage.successful(request).await;
    stage.ready(bouncer).await;
    let now = before(stage, bouncer).await;
    let labels = ListParams::default().labels(&format!("app.kubernetes.io/instance={bouncer}"));
    let secrets = stage.api::<Secret>().list(&labels).await.unwrap();
    let mut published = BTreeMap::new();
    let mut revisions: BTreeMap<String, usize> = BTreeMap::new();
    for secret in secrets {
        let name = secret.name_any();
        if name.ends_with("-cert") {
            let keys = secret.data.unwrap_or_default().into_keys().collect();
            published.insert(name.replace(bouncer, "X"), keys);
        } else if let Some(alias) = secret.labels().get(ALIAS_LABEL) {
            *revisions.entry(alias.clone()).or_default() += 1;
        }
    }
    let leaf = stage
        .secret(&format!("{bouncer}-server-cert"), "tls.crt")
        .await;
    let leaf = pem::parse(
        leaf.split_inclusive("-----END CERTIFICATE-----")
            .next()
            .unwrap(),
    );
    let digest = ring::digest::digest(&ring::digest::SHA256, leaf.unwrap().contents());
    let print = bouncert::names::Fingerprint::from_sha256(digest.as_ref().try_into().unwrap());
    let mut pods = BTreeMap::new();
    for (pod, serving) in &now.pods {
        pods.insert(pod.replace(bouncer, "X"), *serving);
    }
    let mut spec: Value =
        serde_json::from_str(&now.spec.to_string().replace(bouncer, "X")).unwrap();
    // An instant of the creation.
    spec["authSecret"]
        .as_object_mut()
        .unwrap()
        .remove("activeFrom");
    assert_eq!(published.len(), 3, "{published:?}");
    End {
        spec,
        pods,
        conditions: conditions(stage, bouncer).await,
        request: outline(&ended.status.unwrap().conditions),
        published,
        revisions,
        served_is_published: served(stage, bouncer)
            .await
            .iter()
            .all(|seen| *seen == Some(print)),
    }
}

fn plain(name: &str) -> Value {
    json!({
        "apiVersion": "kubedb.com/v1", "kind": "PgBouncer", "metadata": {"name": name},
        "spec": {
            "version": "1.18.0", "replicas": 2,
            "database": {
                "databaseName": "postgres",
                "databaseRef": {"name": "ha-postgres", "namespace": NS},
            },
            "connectionPool": {"poolMode": "transaction", "maxUserConnections": 5},
        },
    })
}

/// The two requests that are tried, on PgBouncers of their own.
fn addition(name: &str, bouncer: &str) -> Value {
    let by = json!({"kind": "Issuer", "name": "pb-issuer"});
    request(
        name,
        bouncer,
        json!({"issuerRef": by, "sslMode": "require"}),
    )
}

fn rotation(name: &str, bouncer: &str) -> Value {
    request(name, bouncer, json!({"rotateCertificates": true}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_daemon_killed_at_any_instant_ends_as_one_that_lived() {
    let stage = stage_alone().await;
    let mut lives = 0;
    let mut next_life = |stage: &Stage| {
        lives += 1;
        Daemon::start(stage, &format!("life-{lives}"), &ALONE)
    };
    let mut daemon = next_life(&stage);
    open_till(&stage, 1).await;
    for name in ["calm", "wild"] {
        stage.create(plain(name)).await;
        stage.ready(name).await;
    }

    let mut seed = SEED;
    for (kind, make) in [
        ("add", addition as fn(&str, &str) -> Value),
        ("rotate", rotation),
    ] {
        let undisturbed = format!("{kind}-calm");
        let began = Instant::now();
        stage.create(make(&undisturbed, "calm")).await;
        let wanted = end(&stage, "calm", &undisturbed).await;
        let lasted = began.elapsed();
        assert!(wanted.served_is_published, "{wanted:?}");

        let disturbed = format!("{kind}-wild");
        stage.create(make(&disturbed, "wild")).await;
        for death in 0..DEATHS {
            if is_over(&stage, &disturbed).await {
                break;
            }
            // Each death a little later than the one before, and the first ones early: most steps are
            // done then, and the pods take the time.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let share = f64::from(u32::try_from(seed >> 33).unwrap()) / f64::from(1_u32 << 31);
            let at = (f64::from(death) + share) / f64::from(DEATHS);
            let life = START + lasted.mul_f64(0.8 * at * at);
            tokio::time::sleep(life).await;
            daemon.kill();
            let where_ = last_line(&stage, &disturbed).await;
            eprintln!("seed {SEED:#x}, {kind}, death {death} after {life:?}: {where_}");
            daemon = next_life(&stage);
        }
        let found = end(&stage, "wild", &disturbed).await;
        assert_eq!(found, wanted, "{kind}, seed {SEED:#x}");
    }
    assert!(
        in_service(&stage, "wild")
            .await
            .values()
            .all(|serving| *serving)
    );
    drop(daemon);
    stage.stop().await;
}

async fn is_over(stage: &Stage, request: &str) -> bool {
    let request: Option<PgBouncerOpsRequest> = stage.get(request).await;
    let phase = request.and_then(|request| request.status?.phase);
    phase.is_some_and(RequestPhase::is_terminal)
}

/// The last line of a request's journal.
async fn last_line(stage: &Stage, request: &str) -> String {
    let map = stage.journal(request).await;
    let text = map.and_then(|map| map.data?.remove("journal.json"));
    let lines: Vec<Value> = text
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default();
    lines
        .last()
        .map_or_else(|| "no journal yet".to_owned(), Value::to_string)
}
