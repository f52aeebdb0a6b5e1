//! `kill -9` at any moment loses no acknowledged write.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use bouncert::local::apiserver::{ApiServer, Options};
use bouncert::local::store::Store;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::config;

/// Set for the child that is killed: the directory it writes to.
const DIRECTORY: &str = "BOUNCERT_TEST_KILLED_STORE";
/// Acknowledged writes the parent waits for before it kills.
const ENOUGH: usize = 40;

/// Not a test by itself: the child's part of the test below.
#[tokio::test]
async fn writes_until_it_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let store = Store::open(directory.as_ref()).unwrap();
    let api: Api<ConfigMap> = Api::namespaced(
        ApiServer::new(store, Options::default()).unwrap().client(),
        "default",
    );
    api.create(&PostParams::default(), &config("ledger", "0"))
        .await
        .unwrap();
    for number in 1_u64.. {
        let patch = Patch::Merge(json!({"data": {"text": number.to_string()}}));
        api.patch("ledger", &PatchParams::default(), &patch)
            .await
            .unwrap();
        println!("acknowledged {number}");
    }
}

#[tokio::test]
async fn a_killed_server_keeps_every_acknowledged_write() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "apiserver::durability::writes_until_it_is_killed",
            "--nocapture",
        ])
        .env(DIRECTORY, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let numbers = lines.map_while(Result::ok).filter_map(|line| {
        line.rsplit_once("acknowledged ")
            .and_then(|(_, number)| number.parse::<u64>().ok())
    });
    let mut last = 0;
    for (count, number) in numbers.enumerate() {
        last = number;
        if count == ENOUGH {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(last > 0, "the child wrote nothing");

    let store = Store::open(directory.path()).unwrap();
    let revision = store.revision();
    let api: Api<ConfigMap> = Api::namespaced(
        ApiServer::new(store, Options::default()).unwrap().client(),
        "default",
    );
    let kept: u64 = api.get("ledger").await.unwrap().data.unwrap()["text"]
        .parse()
        .unwrap();
    // The write under way when the child died may have been stored without being acknowledged.
    assert!(
        kept == last || kept == last + 1,
        "acknowledged {last}, kept {kept}"
    );
    let listed = api
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version;
    assert_eq!(
        listed.unwrap().parse::<u64>().unwrap(),
        revision,
        "revisions go on from there"
    );
}
