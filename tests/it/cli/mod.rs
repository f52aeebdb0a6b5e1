//! The program as its users start it: arguments, output, exit codes.

mod chaos;
pub(crate) mod crds;
mod demo;
mod life;
mod machine;
mod printed;
mod shell;
pub(crate) mod verbs;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

pub(crate) use self::crds::{golden, yaml_files};

pub(crate) fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn bouncert(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bouncert"))
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_exit_codes_are_in_the_help_and_in_the_documents() {
    let help = bouncert(&["--help"]);
    assert!(help.status.success());
    let document = fs::read_to_string(package().join("docs/cli.md")).unwrap();
    for line in bouncert::cli::exit::TABLE.lines().skip(1) {
        assert!(stdout(&help).contains(line), "help lacks {line}");
        let (code, meaning) = line.trim().split_once("  ").unwrap();
        let row = format!("| {code} | {meaning} |");
        assert!(document.contains(&row), "docs/cli.md lacks `{row}`");
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
fn an_address_without_tls_is_shown_and_ends_with_code_1() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.83.4.3:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = [0; 8];
        client.read_exact(&mut request).unwrap();
        client.write_all(b"N").unwrap();
    });
    let output = bouncert(&["probe", &address, "--output", "json"]);
    server.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let seen: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(seen["tls"], false);
    assert!(stderr(&output).contains("does not offer TLS"));
}
