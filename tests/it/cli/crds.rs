//! The golden CRDs, and the manifests that have to satisfy them.

use std::fs;
use std::path::{Path, PathBuf};

use bouncert::api::crds;
use bouncert::cli::crds::document;
use bouncert::local::apiserver::schema::CompiledCrdVersion;
use serde_json::Value;

use super::{bouncert, package, stdout};

/// Compares a document with its golden file, or rewrites the file where `GOLDEN=update` says so.
pub(crate) fn golden(path: &Path, document: &str) {
    if std::env::var("GOLDEN").is_ok_and(|wish| wish == "update") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, document).unwrap();
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    let name = path.display();
    assert!(kept == document, "{name} is out of date: run `make crds`");
}

/// The documents of a YAML file.
fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The YAML files of a folder, sorted.
pub(crate) fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    files
}

/// The CRDs that a user's cluster may hold, where they are at hand.
fn real_crds() -> Option<PathBuf> {
    package()
        .ancestors()
        .map(|folder| folder.join("shared/crds"))
        .find(|folder| folder.join("kubedb.com_pgbouncers.yaml").is_file())
}

#[test]
fn golden_crds_are_up_to_date() {
    let folder = package().join("deploy/crds");
    for crd in crds::own() {
        let name = crd.metadata.name.clone().unwrap();
        golden(
            &folder.join(format!("{name}.yaml")),
            &document(&crd).unwrap(),
        );
    }
    for crd in crds::borrowed() {
        let name = crd.metadata.name.clone().unwrap();
        let path = folder.join(format!("stand-ins/{name}.yaml"));
        golden(&path, &document(&crd).unwrap());
    }
}

#[test]
fn the_yaml_of_a_crd_says_what_the_type_says() {
    for crd in crds::own().into_iter().chain(crds::borrowed()) {
        let read: Value = serde_saphyr::from_str(&document(&crd).unwrap()).unwrap();
        assert_eq!(read, serde_json::to_value(&crd).unwrap());
    }
}

#[test]
fn crds_prints_every_own_kind_and_the_stand_ins_on_request() {
    let own = bouncert(&["crds"]);
    assert!(own.status.success());
    let read: Vec<Value> = serde_saphyr::from_multiple(&stdout(&own)).unwrap();
    assert_eq!(read.len(), crds::own().len());
    let all = bouncert(&["crds", "--with-cert-manager", "--output", "json"]);
    let read: Vec<Value> = serde_json::from_str(&stdout(&all)).unwrap();
    assert_eq!(read.len(), crds::own().len() + crds::borrowed().len());
}

#[test]
fn the_examples_and_the_catalog_satisfy_our_crds() {
    let ours: Vec<Value> = crds::own()
        .into_iter()
        .chain(crds::borrowed())
        .map(|crd| serde_json::to_value(crd).unwrap())
        .collect();
    let checked = check_manifests(&ours);
    assert_eq!(checked, 14, "ten examples and four versions");
}

#[test]
fn the_examples_and_the_catalog_satisfy_the_real_crds() {
    let Some(folder) = real_crds() else { return };
    let real: Vec<Value> = yaml_files(&folder)
        .iter()
        .flat_map(|path| documents(path))
        .collect();
    assert_eq!(check_manifests(&real), 14);
}

/// Checks every manifest of `deploy` against the CRD of its kind; says how many there were.
fn check_manifests(crds: &[Value]) -> usize {
    let mut checked = 0;
    for folder in ["deploy/examples", "deploy/catalog"] {
        for path in yaml_files(&package().join(folder)) {
            for manifest in documents(&path) {
                check_manifest(crds, &path, manifest);
                checked += 1;
            }
        }
    }
    checked
}

fn check_manifest(crds: &[Value], path: &Path, mut manifest: Value) {
    let at = path.display();
    let (group, version) = manifest["apiVersion"]
        .as_str()
        .and_then(|api| api.split_once('/'))
        .unwrap_or_else(|| panic!("{at}: no apiVersion"));
    let crd = crds
        .iter()
        .find(|crd| {
            crd["spec"]["group"] == group && crd["spec"]["names"]["kind"] == manifest["kind"]
        })
        .unwrap_or_else(|| panic!("{at}: no CRD for {group} {}", manifest["kind"]));
    let compiled = CompiledCrdVersion::compile(crd, version).unwrap();
    let unknown = compiled.prune(&mut manifest);
    assert!(unknown.is_empty(), "{at}: unknown fields {unknown:?}");
    compiled.default(&mut manifest);
    let errors = compiled.validate(&manifest, None);
    assert!(errors.is_empty(), "{at}: {errors:?}");
}

#[test]
fn definitions_of_somebody_else_are_left_out_on_request() {
    let running = super::verbs::Local::start();
    let kubeconfig = running.kubeconfig();
    let kubeconfig = kubeconfig.to_str().unwrap();
    let missing = |more: &[&str]| {
        let words = [
            "crds",
            "--missing",
            "-o",
            "json",
            "--kubeconfig",
            kubeconfig,
        ];
        bouncert(&[&words[..], more].concat())
    };
    let count = |output: &std::process::Output| {
        let read: Vec<Value> = serde_json::from_str(&stdout(output)).unwrap();
        read.len()
    };
    // Those that are there are ours, and may be brought up to date.
    assert_eq!(count(&missing(&[])), crds::own().len());
    let name = "pgbouncers.kubedb.com";
    let patch = r#"{"metadata": {"labels": {"app.kubernetes.io/part-of": null}}}"#;
    let kubectl = std::process::Command::new("kubectl")
        .args([
            "--kubeconfig",
            kubeconfig,
            "patch",
            "crd",
            name,
            "--type=merge",
            "-p",
            patch,
        ])
        .output();
    let Ok(patched) = kubectl else { return };
    assert!(patched.status.success(), "{patched:?}");
    let output = missing(&[]);
    assert_eq!(count(&output), crds::own().len() - 1);
    assert!(
        super::stderr(&output).contains(name),
        "{}",
        super::stderr(&output)
    );
}
