//! One of several daemons acts; when it dies, is frozen or leaves, another goes on.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use bouncert::api::{PetSet, PgBouncer, PgBouncerOpsRequest};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret, Service};
use kube::api::ListParams;
use kube::{Resource, ResourceExt};
use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Daemon, HASTY, holder, next_holder, stage_alone};
use crate::pipeline::{before, in_the_middle, is_paused, open_till};
use crate::stage::{NS, Stage, request};

/// From the death of a leader to the next: the Lease's duration (3 s), a look, and what a busy machine adds.
/// It is less than the duration without flags.
const TAKEOVER_MAX: Duration = Duration::from_secs(14);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_daemon_leads_and_another_goes_on_when_it_dies_freezes_or_leaves() {
    let stage = stage_alone().await;
    let mut ada = Daemon::start(&stage, "ada", &HASTY);
    let first = next_holder(&stage, None).await;
    let bob = Daemon::start(&stage, "bob", &HASTY);
    bob.says("stands by", 1).await;
    open_till(&stage, 3).await;
    kubectl_shows_the_holder(&stage, &first).await;

    let second = a_leader_that_dies_is_followed(&stage, &mut ada, &first).await;
    let cid = Daemon::start(&stage, "cid", &HASTY);
    cid.says("stands by", 1).await;
    let third = a_frozen_leader_writes_nothing_when_it_wakes(&stage, &bob, &second).await;
    assert_eq!(holder(&stage).await.as_ref(), Some(&third));

    // A leader that stops in order is followed at once, and not when its Lease has run out.
    cid.signal(Signal::TERM);
    let left = Instant::now();
    let fourth = next_holder(&stage, Some(&third)).await;
    assert_eq!(fourth, second, "bob again");
    assert!(cid.log().contains("released"), "{}", cid.log());
    assert!(
        left.elapsed() < Duration::from_millis(2_500),
        "{:?}",
        left.elapsed()
    );
    stage.stop().await;
}

async fn kubectl_shows_the_holder(stage: &Stage, holder: &str) {
    let kubeconfig = stage.directory.path().join("data/kubeconfig");
    let shown = tokio::process::Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(["get", "lease", "bouncert", "-n", NS])
        .output()
        .await;
    // kubectl is not everywhere; where it is, it knows the kind.
    if let Ok(shown) = shown {
        let text = String::from_utf8(shown.stdout).unwrap();
        assert!(text.contains(holder), "{text}");
    }
}

/// I8 and I10, across processes.
async fn a_leader_that_dies_is_followed(stage: &Stage, ada: &mut Daemon, first: &str) -> String {
    let old = before(stage, "till").await;
    stage.create(rotation("inherited")).await;
    in_the_middle(stage, "till", &old.served).await;
    ada.kill();
    let died = Instant::now();
    let second = next_holder(stage, Some(first)).await;
    let took = died.elapsed();
    assert!(
        took > Duration::from_millis(500),
        "before the Lease was over: {took:?}"
    );
    assert!(took < TAKEOVER_MAX, "{took:?}");
    stage.successful("inherited").await;
    was_run_once(stage, "inherited", &old.served.len()).await;
    let new = before(stage, "till").await;
    assert_eq!((&new.spec, &new.pods), (&old.spec, &old.pods));
    assert!(new.served.iter().all(|leaf| !old.served.contains(leaf)));
    second
}

fn rotation(name: &str) -> Value {
    request(name, "till", json!({"rotateCertificates": true}))
}

/// Nothing that was done was done again: each step has succeeded once, and one revision was issued.
async fn was_run_once(stage: &Stage, name: &str, pods: &usize) {
    let journal = stage.journal(name).await.unwrap();
    let lines: Vec<Value> = serde_json::from_str(&journal.data.unwrap()["journal.json"]).unwrap();
    let mut succeeded: BTreeMap<u64, usize> = BTreeMap::new();
    for line in lines
        .iter()
        .filter(|line| !line["event"]["Succeeded"].is_null())
    {
        *succeeded.entry(line["step"].as_u64().unwrap()).or_default() += 1;
    }
    assert!(succeeded.len() > *pods, "{lines:#?}");
    assert!(succeeded.values().all(|times| *times == 1), "{lines:#?}");
    let events = stage
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let starts: i32 = events
        .iter()
        .filter(|event| event.involved_object.name.as_deref() == Some(name))
        .filter(|event| {
            let message = event.message.as_deref().unwrap_or_default();
            message.starts_with("Start processing")
        })
        .map(|event| event.count.unwrap_or(1))
        .sum();
    assert_eq!(starts, 1);
}

/// The leader is stopped in the middle of a roll, which its successor finishes. When it goes on it
/// has that roll still in hand, and does nothing of it.
async fn a_frozen_leader_writes_nothing_when_it_wakes(
    stage: &Stage,
    bob: &Daemon,
    second: &str,
) -> String {
    let old = before(stage, "till").await;
    stage.create(rotation("frozen")).await;
    in_the_middle(stage, "till", &old.served).await;
    bob.signal(Signal::STOP);
    let third = next_holder(stage, Some(second)).await;
    stage.successful("frozen").await;
    was_run_once(stage, "frozen", &old.served.len()).await;
    stage.ready("till").await;
    let written = quiet(stage).await;
    bob.signal(Signal::CONT);
    bob.says("leads no more", 1).await;
    bob.says("stands by", 2).await;
    assert_eq!(versions(stage).await, written, "it wrote: {}", bob.log());
    assert!(!is_paused(stage, "till").await);
    third
}

/// The versions of all objects, once they no longer change.
async fn quiet(stage: &Stage) -> BTreeMap<String, String> {
    let mut last = versions(stage).await;
    let mut same = 0;
    crate::support::eventually(crate::stage::LONG, async || {
        let now = versions(stage).await;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        if same > 40 { Ok(()) } else { Err(same) }
    })
    .await;
    last
}

async fn versions(stage: &Stage) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect::<PgBouncer>(stage, &mut found).await;
    collect::<PgBouncerOpsRequest>(stage, &mut found).await;
    collect::<ConfigMap>(stage, &mut found).await;
    collect::<Secret>(stage, &mut found).await;
    collect::<Service>(stage, &mut found).await;
    collect::<PetSet>(stage, &mut found).await;
    collect::<Pod>(stage, &mut found).await;
    collect::<Event>(stage, &mut found).await;
    assert!(found.len() > 20, "{found:?}");
    found
}

async fn collect<K>(stage: &Stage, found: &mut BTreeMap<String, String>)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let all = stage.api::<K>().list(&ListParams::default()).await.unwrap();
    for object in all {
        let name = format!("{} {}", K::kind(&()), object.name_any());
        found.insert(name, object.resource_version().unwrap());
    }
}
