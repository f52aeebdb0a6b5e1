//! Policies where they act: the examples beside each file, `policy check`, and every issuance.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bouncert::api::crds;
use bouncert::local::apiserver::schema::CompiledCrdVersion;
use serde_json::{Value, json};

mod issuing;

/// The annotation in which a rejected example says what is wrong with it: a line each of
/// certificate, path and value.
const EXPECTED: &str = "example.bouncert.dev/violations";

fn policies_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("policies")
}

fn documents(path: &Path) -> Vec<Value> {
    serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap()
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn check(file: &Path, policies: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bouncert"));
    command
        .args(["--output", "json", "policy", "check"])
        .arg(file);
    for policy in policies {
        command.arg("--policy").arg(policy);
    }
    command.env_remove("RUST_LOG").output().unwrap()
}

/// What `policy check` found, as the examples write it.
fn told(report: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for judged in report["certificates"].as_array().unwrap() {
        for violation in judged["violations"].as_array().unwrap() {
            let word = |value: &Value| value.as_str().unwrap().to_owned();
            lines.push(format!(
                "{} {} {}",
                word(&judged["certificate"]),
                word(&violation["path"]),
                word(&violation["value"])
            ));
        }
    }
    lines
}

#[test]
fn every_example_beside_a_policy_is_judged_as_it_says() {
    let mut n_examples = 0;
    for policy in yaml_files(&policies_folder()) {
        let folder = policy.with_extension("");
        for example in yaml_files(&folder.join("accepted")) {
            let output = check(&example, &[&policy]);
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(0),
                "{}: {error}",
                example.display()
            );
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(!report["certificates"].as_array().unwrap().is_empty());
            n_examples += 1;
        }
        for example in yaml_files(&folder.join("rejected")) {
            let output = check(&example, &[&policy]);
            assert_eq!(output.status.code(), Some(1), "{}", example.display());
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let expected = documents(&example).into_iter().flat_map(|document| {
                let lines = document["metadata"]["annotations"][EXPECTED].as_str();
                let lines = lines.unwrap_or_default().lines();
                lines.map(str::to_owned).collect::<Vec<_>>()
            });
            let expected: Vec<String> = expected.collect();
            assert_eq!(told(&report), expected, "{}", example.display());
            n_examples += 1;
        }
    }
    assert_eq!(n_examples, 11, "two policies with their examples");
}

/// The CRD that approver-policy installs, where it is at hand.
fn real_crd() -> Option<Value> {
    let file = "shared/crds/policy.cert-manager.io_certificaterequestpolicies.yaml";
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = folders
        .map(|folder| folder.join(file))
        .find(|file| file.is_file())?;
    documents(&found).into_iter().next()
}

/// The kind with a schema that lets everything through.
pub(crate) fn loose_crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "certificaterequestpolicies.policy.cert-manager.io"},
        "spec": {
            "group": "policy.cert-manager.io", "scope": "Cluster",
            "names": {
                "kind": "CertificateRequestPolicy", "plural": "certificaterequestpolicies",
                "singular": "certificaterequestpolicy", "listKind": "CertificateRequestPolicyList",
            },
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    })
}

#[test]
fn the_real_definition_accepts_our_policies() {
    let Some(crd) = real_crd() else { return };
    let compiled = CompiledCrdVersion::compile(&crd, "v1alpha1").unwrap();
    let files = yaml_files(&policies_folder());
    assert_eq!(files.len(), 2);
    for path in files {
        for mut policy in documents(&path) {
            assert!(compiled.prune(&mut policy).is_empty(), "{}", path.display());
            let errors = compiled.validate(&policy, None);
            assert!(errors.is_empty(), "{}: {errors:?}", path.display());
        }
    }
}

#[test]
fn the_examples_satisfy_our_definitions() {
    let own: Vec<Value> = crds::own()
        .iter()
        .map(|crd| serde_json::to_value(crd).unwrap())
        .collect();
    for set in ["default", "strict"] {
        for side in ["accepted", "rejected"] {
            for path in yaml_files(&policies_folder().join(set).join(side)) {
                for mut example in documents(&path) {
                    let crd = own
                        .iter()
                        .find(|crd| crd["spec"]["names"]["kind"] == example["kind"]);
                    let version = example["apiVersion"]
                        .as_str()
                        .unwrap()
                        .split_once('/')
                        .unwrap()
                        .1;
                    let compiled = CompiledCrdVersion::compile(crd.unwrap(), version).unwrap();
                    assert!(
                        compiled.prune(&mut example).is_empty(),
                        "{}",
                        path.display()
                    );
                    compiled.default(&mut example);
                    let errors = compiled.validate(&example, None);
                    assert!(errors.is_empty(), "{}: {errors:?}", path.display());
                }
            }
        }
    }
}

#[test]
fn policy_check_uses_what_is_built_in_and_tells_wrong_files_from_denials() {
    let folder = policies_folder();
    let rejected = folder.join("strict/rejected/names.yaml");
    let built_in = check(&rejected, &[]);
    assert_eq!(
        built_in.status.code(),
        Some(0),
        "the default allows what a manifest can ask for"
    );
    let report: Value = serde_json::from_slice(&built_in.stdout).unwrap();
    assert_eq!(report["certificates"][0]["by"], "bouncert-default");
    let either = check(&rejected, &[&folder]);
    assert_eq!(
        either.status.code(),
        Some(0),
        "one policy that allows is enough"
    );
    for (file, policy) in [
        (folder.join("absent.yaml"), folder.clone()),
        (folder.join("strict.yaml"), folder.clone()),
        (rejected.clone(), rejected.clone()),
        (rejected.clone(), folder.join("absent")),
    ] {
        let output = check(&file, &[&policy]);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{} {}",
            file.display(),
            policy.display()
        );
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let text = Command::new(env!("CARGO_BIN_EXE_bouncert"))
        .args(["policy", "check"])
        .arg(&rejected)
        .arg("--policy")
        .arg(folder.join("strict.yaml"))
        .output()
        .unwrap();
    let shown = String::from_utf8(text.stdout).unwrap();
    assert!(
        shown.contains("denied   billing-server-cert  PgBouncer treasury/billing"),
        "{shown}"
    );
    assert!(
        shown.contains("allowed  billing-metrics-exporter-cert"),
        "{shown}"
    );
    let error = String::from_utf8(text.stderr).unwrap();
    assert!(
        error.contains("2 of 3 certificates would be denied"),
        "{error}"
    );
}

#[test]
fn the_daemon_does_not_start_with_a_folder_that_holds_no_usable_policy() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let output = Command::new(env!("CARGO_BIN_EXE_bouncert"))
            .args(["local", "--data"])
            .arg(folder.path().join("data"))
            .arg("--policies")
            .arg(folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run().contains("there is no policy in"));
    let plugin = json!({
        "apiVersion": "policy.cert-manager.io/v1alpha1", "kind": "CertificateRequestPolicy",
        "metadata": {"name": "clever"}, "spec": {"selector": {}, "plugins": {"rego": {}}},
    });
    fs::write(folder.path().join("clever.yaml"), plugin.to_string()).unwrap();
    assert!(run().contains("spec.plugins names rego"));
}
