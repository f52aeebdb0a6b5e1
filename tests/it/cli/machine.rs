//! What a machine may lack: each has exit code 4 and says what to do.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bouncert::local::store::FORMAT;
use redb::{Database, TableDefinition};
use tempfile::TempDir;

use super::verbs::Local;
use super::{bouncert, stderr};

/// Starts `local` where it cannot run, and returns what it says.
fn refused(data: &Path, more: &[&str]) -> String {
    let mut arguments = vec!["local", "--data", data.to_str().unwrap()];
    arguments.extend(more);
    let output = bouncert(&arguments);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn a_missing_pgbouncer_is_named_with_the_package_to_install() {
    let data = TempDir::new().unwrap();
    let said = refused(data.path(), &["--pgbouncer", "/opt/nothing/pgbouncer"]);
    assert!(said.contains("/opt/nothing/pgbouncer"), "{said}");
    assert!(said.contains("install"), "{said}");
}

#[test]
fn a_port_in_use_is_named() {
    let data = TempDir::new().unwrap();
    let holder = TcpListener::bind("127.83.4.2:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let said = refused(data.path(), &["--listen", &address]);
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
}

#[test]
fn a_data_directory_of_a_newer_version_is_left_alone() {
    let data = TempDir::new().unwrap();
    let private = Permissions::from_mode(0o700);
    std::fs::set_permissions(data.path(), private).unwrap();
    let store = data.path().join("store");
    std::fs::create_dir(&store).unwrap();
    let database = Database::create(store.join("objects.redb")).unwrap();
    let marks: TableDefinition<'_, &str, u64> = TableDefinition::new("marks");
    let write = database.begin_write().unwrap();
    let newer = FORMAT + 6;
    write
        .open_table(marks)
        .unwrap()
        .insert("format", newer)
        .unwrap();
    write.commit().unwrap();
    drop(database);
    let said = refused(data.path(), &[]);
    assert!(said.contains(&format!("format {newer}")), "{said}");
}

#[test]
fn a_data_directory_in_use_is_refused() {
    let running = Local::start();
    let said = refused(&running.data(), &[]);
    assert!(said.contains("another"), "{said}");
}

#[test]
fn verbs_without_an_api_end_with_code_3() {
    for arguments in [
        vec!["status", "--kubeconfig", "/opt/nothing/kubeconfig"],
        vec!["certs", "-A", "--kubeconfig", "/opt/nothing/kubeconfig"],
        vec![
            "rotate",
            "billing",
            "--kubeconfig",
            "/opt/nothing/kubeconfig",
        ],
        vec!["run", "--kubeconfig", "/opt/nothing/kubeconfig"],
    ] {
        let output = bouncert(&arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        let said = stderr(&output);
        assert!(said.contains("/opt/nothing/kubeconfig"), "{said}");
    }
}
