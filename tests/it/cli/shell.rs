//! The program beside others: as a plugin of kubectl, in a shell, in the manual.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use tempfile::TempDir;

use super::verbs::Local;
use super::{bouncert, stdout};

/// A folder with `kubectl-bouncert` in it.
fn with_plugin() -> TempDir {
    let folder = TempDir::new().unwrap();
    symlink(
        env!("CARGO_BIN_EXE_bouncert"),
        folder.path().join("kubectl-bouncert"),
    )
    .unwrap();
    folder
}

#[test]
fn as_a_plugin_it_calls_itself_what_its_user_calls_it() {
    let folder = with_plugin();
    let plugin = folder.path().join("kubectl-bouncert");
    let output = Command::new(plugin)
        .args(["rotate", "--help"])
        .output()
        .unwrap();
    let help = stdout(&output);
    assert!(help.contains("Usage: kubectl bouncert rotate"), "{help}");
    let help = stdout(&bouncert(&["rotate", "--help"]));
    assert!(help.contains("Usage: bouncert rotate"), "{help}");
}

#[test]
fn kubectl_finds_it_and_it_looks_where_kubectl_looks() {
    let folder = with_plugin();
    let running = Local::start();
    let kubeconfig = running.kubeconfig();
    // Two contexts, the current one with a namespace of its own.
    let text = fs::read_to_string(&kubeconfig).unwrap();
    let text = text.replace(
        "current-context: bouncert-local",
        "- name: of-books\n  context: {cluster: bouncert-local, user: bouncert-local, namespace: books}\n\
         current-context: of-books",
    );
    let contexts = folder.path().join("kubeconfig");
    fs::write(&contexts, text).unwrap();
    let path = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").unwrap()
    );
    let kubectl = |words: &[&str]| {
        let mut command = Command::new("kubectl");
        command
            .args(words)
            .env("KUBECONFIG", &contexts)
            .env("PATH", &path);
        command.env("HOME", folder.path()).output()
    };
    let Ok(output) = kubectl(&["create", "namespace", "books"]) else {
        return; // no kubectl here
    };
    assert!(output.status.success(), "{output:?}");
    let bouncer = r#"{"apiVersion": "kubedb.com/v1", "kind": "PgBouncer",
        "metadata": {"name": "ledger", "namespace": "books"}, "spec": {"version": "1.18.0",
        "database": {"databaseName": "x", "databaseRef": {"name": "x", "namespace": "books"}}}}"#;
    let file = folder.path().join("ledger.json");
    fs::write(&file, bouncer).unwrap();
    let applied = kubectl(&["apply", "-f", file.to_str().unwrap()]).unwrap();
    assert!(applied.status.success(), "{applied:?}");
    let status = kubectl(&["bouncert", "status"]).unwrap();
    assert!(stdout(&status).contains("ledger"), "{status:?}");
    let other = ["bouncert", "status", "--context", "bouncert-local"];
    let status = kubectl(&other).unwrap();
    assert!(
        status.status.success() && !stdout(&status).contains("ledger"),
        "{status:?}"
    );
}

#[test]
fn every_shell_gets_a_script_that_knows_the_verbs() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&bouncert(&["completions", shell]));
        assert!(script.contains("change-issuer"), "{shell}: {script}");
    }
    let script = stdout(&bouncert(&["completions", "bash"]));
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("bouncert.bash");
    fs::write(&file, script).unwrap();
    let words = "COMP_WORDS=(bouncert ro); COMP_CWORD=1; _bouncert bouncert ro bouncert; echo ${COMPREPLY[@]}";
    let line = format!("source {} && {words}", file.display());
    let completed = Command::new("bash").args(["-c", &line]).output().unwrap();
    assert_eq!(stdout(&completed).trim(), "rotate", "{completed:?}");
}

#[test]
fn every_verb_has_a_page() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("man1");
    let written = bouncert(&["man", "--dir", dir.to_str().unwrap(), "--output", "json"]);
    let written: serde_json::Value = serde_json::from_str(&stdout(&written)).unwrap();
    let files = written["files"].as_array().unwrap();
    let help = stdout(&bouncert(&["--help"]));
    let verbs = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1);
    for verb in verbs.take_while(|line| !line.is_empty()) {
        let verb = verb.split_whitespace().next().unwrap();
        let page = fs::read_to_string(dir.join(format!("bouncert-{verb}.1")));
        assert!(
            verb == "help" || page.unwrap().contains(".SH NAME"),
            "{verb}"
        );
    }
    assert!(files.len() > 10 && dir.join("bouncert-policy-check.1").is_file());
    let page = stdout(&bouncert(&["man"]));
    assert!(
        page.contains(".TH bouncert 1") && page.contains("change"),
        "{page}"
    );
}
