//! The verbs on a pooler that serves: they list it, rotate it, and see what it serves.

use serde_json::Value;

use super::{bouncert, stderr, stdout};
use crate::stage::{NS, Stage};

/// Runs a verb in a thread of its own, and reads its JSON.
async fn json(arguments: Vec<String>) -> (Option<i32>, Value) {
    let run = move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = bouncert(&arguments);
        let read = serde_json::from_str(&stdout(&output));
        let read = read.unwrap_or_else(|_| panic!("{}", stderr(&output)));
        (output.status.code(), read)
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn certificates_are_listed_rotated_and_probed() {
    let stage = Stage::start().await;
    let kubeconfig = stage.directory.path().join("data/kubeconfig");
    let verb = |words: &[&str]| {
        let kubeconfig = kubeconfig.to_str().unwrap();
        let more = ["-n", NS, "-o", "json", "--kubeconfig", kubeconfig];
        let all = words.iter().chain(&more).map(ToString::to_string);
        json(all.collect())
    };
    stage
        .openssl_ca("pgbouncer-ca", "/CN=pgbouncer/O=kubedb")
        .await;
    stage.example("issuer").await;
    stage.example("pgbouncer-ssl").await;
    stage.ready("pb-tls").await;

    let (_, before) = verb(&["certs"]).await;
    let row = &before[0];
    assert_eq!(before.as_array().unwrap().len(), 3, "{before}");
    assert_eq!(row["alias"], "server");
    assert_eq!(row["issuer"], "Issuer/pgbouncer-ca-issuer");
    assert_eq!(row["served_by"], serde_json::json!({ "pods": 1, "of": 1 }));
    assert!(
        row["renews_at"].as_str() < row["not_after"].as_str(),
        "{row}"
    );

    let (_, plan) = verb(&["rotate", "pb-tls", "--dry-run"]).await;
    assert_eq!(plan["restarts"], serde_json::json!(["pb-tls-0"]));
    let (code, rotated) = verb(&["rotate", "pb-tls"]).await;
    assert_eq!(code, Some(0), "{rotated}");
    assert_eq!(rotated["phase"], "Successful");

    let (_, after) = verb(&["certs"]).await;
    assert_ne!(after[0]["serial"], before[0]["serial"]);
    assert_eq!(after[0]["served_by"]["pods"], 1);
    let address = stage.service("pb-tls").await.to_string();
    let probe = ["probe", &address, "--output", "json"].map(str::to_owned);
    let (code, seen) = json(probe.to_vec()).await;
    assert_eq!(code, Some(0));
    assert_eq!(seen["chain"][0]["serial"], after[0]["serial"]);
    assert_eq!(seen["asks_for_client_certificate"], true);

    let (code, refused) =
        verb(&["add-tls", "pb-tls", "--issuer", "nobody", "--timeout", "5s"]).await;
    assert_eq!(code, Some(1), "{refused}");
    assert_eq!(refused["phase"], "Failed");
    stage.stop().await;
}
