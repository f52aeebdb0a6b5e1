//! The program as its users start it: arguments, output, exit codes, golden files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bouncert::api::crds;
use bouncert::cli::crds::document;
use bouncert::local::apiserver::schema::CompiledCrdVersion;
use serde_json::Value;

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn bouncert(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bouncert"))
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Compares a document with its golden file, or rewrites the file where `GOLDEN=update` says so.
fn golden(path: &Path, document: &str) {
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
fn yaml_files(folder: &Path) -> Vec<PathBuf> {
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
fn the_exit_codes_are_in_the_help_and_in_the_readme() {
    let help = bouncert(&["--help"]);
    assert!(help.status.success());
    let readme = fs::read_to_string(package().join("README.md")).unwrap();
    for line in bouncert::cli::exit::TABLE.lines().skip(1) {
        assert!(stdout(&help).contains(line), "help lacks {line}");
        let (code, meaning) = line.trim().split_once("  ").unwrap();
        let row = format!("| {code} | {meaning} |");
        assert!(readme.contains(&row), "README lacks `{row}`");
    }
}

#[test]
fn a_wrong_argument_ends_with_code_2() {
    for arguments in [
        vec!["conjure"],
        vec![],
        vec!["probe"],
        vec!["probe", "nowhere"],
        vec!["probe", "localhost:5432", "--timeout", "soon"],
    ] {
        let output = bouncert(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn probing_where_nobody_listens_fails_and_says_so() {
    // Bound and dropped again, so that the port is free but was never another's.
    let listener = std::net::TcpListener::bind("127.83.4.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let output = bouncert(&["probe", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));
}

#[test]
fn the_examples_and_the_catalog_satisfy_our_crds() {
    let ours: Vec<Value> = crds::own()
        .into_iter()
        .chain(crds::borrowed())
        .map(|crd| serde_json::to_value(crd).unwrap())
        .collect();
    let checked = check_manifests(&ours);
    assert_eq!(checked, 13, "nine examples and four versions");
}

#[test]
fn the_examples_and_the_catalog_satisfy_the_real_crds() {
    let Some(folder) = real_crds() else { return };
    let real: Vec<Value> = yaml_files(&folder)
        .iter()
        .flat_map(|path| documents(path))
        .collect();
    assert_eq!(check_manifests(&real), 13);
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
