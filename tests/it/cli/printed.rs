//! What verbs print: no escape of a stranger's text reaches a terminal, programs read the exact text,
//! and a reader that leaves early is no error.

use std::path::Path;
use std::process::{Command, Stdio};

use bouncert::api::PgBouncer;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use super::verbs::Local;
use super::{bouncert, stderr, stdout};

const NAMESPACE: &str = "strange";
/// Sets a terminal's title, clears its screen, and turns the text's direction.
const ISSUER: &str = "notary\u{1b}]0;title\u{7}\u{9b}2J\u{202e}\u{200b}\r\nREADY";

async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.unwrap()).unwrap()
}

fn of(kubeconfig: &Path, arguments: &[&str]) -> std::process::Output {
    let mut all = arguments.to_vec();
    all.extend([
        "--kubeconfig",
        kubeconfig.to_str().unwrap(),
        "-n",
        NAMESPACE,
    ]);
    bouncert(&all)
}

#[tokio::test(flavor = "multi_thread")]
async fn escapes_in_a_name_reach_no_terminal_and_programs_read_the_exact_text() {
    let local = Local::start();
    let kubeconfig = local.kubeconfig();
    let client = client(&kubeconfig).await;
    let namespace: Namespace =
        serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } })).unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    let pooler: PgBouncer = serde_json::from_value(json!({
        "apiVersion": "kubedb.com/v1", "kind": "PgBouncer",
        "metadata": { "name": "till", "namespace": NAMESPACE },
        "spec": {
            "version": "1.18.0",
            "tls": { "issuerRef": { "kind": "Issuer", "name": ISSUER } },
            "database": {
                "databaseName": "accounts",
                "databaseRef": { "name": "vault", "namespace": NAMESPACE },
            },
        },
    }))
    .unwrap();
    let poolers: Api<PgBouncer> = Api::namespaced(client, NAMESPACE);
    poolers
        .create(&PostParams::default(), &pooler)
        .await
        .unwrap();

    let status = of(&kubeconfig, &["status"]);
    assert!(status.status.success(), "{}", stderr(&status));
    let text = stdout(&status);
    let shown = "Issuer/notary\\u{1b}]0;title\\u{7}\\u{9b}2J\\u{202e}\\u{200b}\\u{d}\\u{a}READY";
    assert!(text.contains(shown), "{text:?}");
    for verb in [
        &["status"][..],
        &["certs"],
        &["schedule"],
        &["plan", "rotate", "till"],
    ] {
        let output = of(&kubeconfig, verb);
        for text in [stdout(&output), stderr(&output)] {
            let bare = text.replace(['\n', '\t'], "");
            assert!(
                !bare.contains(bouncert::printable::is_hazard),
                "{verb:?}: {text:?}"
            );
        }
    }
    let output = of(&kubeconfig, &["status", "--output", "json"]);
    let text = stdout(&output);
    assert!(
        !text
            .replace('\n', "")
            .contains(bouncert::printable::is_hazard),
        "{text:?}"
    );
    let read: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["poolers"][0]["issuer"], format!("Issuer/{ISSUER}"));

    for verb in [&["status"][..], &["certs"], &["schedule"]] {
        let mut all = verb.to_vec();
        all.extend([
            "--kubeconfig",
            kubeconfig.to_str().unwrap(),
            "-n",
            NAMESPACE,
        ]);
        ends_quietly(&all);
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    for verb in [
        &["crds"][..],
        &["man"],
        &["completions", "bash"],
        &["--help"],
        &["--version"],
    ] {
        ends_quietly(verb);
    }
}

/// Runs a verb whose output is read by nobody.
fn ends_quietly(arguments: &[&str]) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bouncert"))
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(stderr(&output), "", "{arguments:?}");
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
}
