//! The server on its socket: TLS, the token, and `kubectl` where it is installed.

use std::path::Path;
use std::process::Output;

use bouncert::local::apiserver::serve::{ServeError, ServeOptions};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{SOON, config, ledgers, refused, server};

/// A served API server; it stops with the value.
pub(crate) struct Served {
    directory: tempfile::TempDir,
    address: std::net::SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Served {
    pub(super) fn kubeconfig(&self) -> std::path::PathBuf {
        self.directory.path().join("kubeconfig")
    }

    pub(super) fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// A kubeconfig with another token.
    pub(super) fn kubeconfig_with(&self, token: &str) -> std::path::PathBuf {
        let text = std::fs::read_to_string(self.kubeconfig()).unwrap();
        let (before, rest) = text.split_once("token: ").unwrap();
        let (_, rest) = rest.split_once("contexts:").unwrap();
        let path = self.directory.path().join("kubeconfig-with-another-token");
        std::fs::write(&path, format!("{before}token: {token}\ncontexts:{rest}")).unwrap();
        path
    }

    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

fn options(directory: &Path) -> ServeOptions {
    ServeOptions {
        faults: None,
        listen: "127.0.0.1:0".parse().unwrap(),
        dir: directory.to_owned(),
        kubeconfig: directory.join("kubeconfig"),
    }
}

/// The address that a kubeconfig names.
fn address_of(kubeconfig: &Path) -> std::net::SocketAddr {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let (_, after) = text.split_once("https://").unwrap();
    let end = after.find(|c: char| !"0123456789.:[]abcdef".contains(c));
    after[..end.unwrap_or(after.len())].parse().unwrap()
}

pub(super) async fn served() -> Served {
    let directory = tempfile::tempdir().unwrap();
    let server = server();
    let listening = server.listen(&options(directory.path())).await.unwrap();
    let address = address_of(&directory.path().join("kubeconfig"));
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(listening.run(stop.clone()));
    let token = stop.clone();
    tasks.spawn(async move { server.collect_garbage(token).await });
    Served {
        directory,
        address,
        stop,
        tasks,
    }
}

pub(super) async fn client(kubeconfig: &Path) -> kube::Client {
    let config = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .unwrap();
    kube::Client::try_from(config).unwrap()
}

#[tokio::test]
async fn the_kubeconfig_lets_in_and_a_wrong_token_does_not() {
    let served = served().await;
    let mode = std::fs::metadata(served.kubeconfig())
        .unwrap()
        .permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );
    let version = client(&served.kubeconfig())
        .await
        .apiserver_version()
        .await
        .unwrap();
    assert_eq!(version.major, "1");

    let wrong = served.kubeconfig_with("nonsense");
    let status = refused(client(&wrong).await.apiserver_version().await.unwrap_err());
    assert_eq!((status.code, status.reason.as_str()), (401, "Unauthorized"));
    served.end().await;
}

#[tokio::test]
async fn a_watch_over_the_socket_streams_and_ends_with_the_server() {
    let served = served().await;
    let client = client(&served.kubeconfig()).await;
    let api: Api<ConfigMap> = Api::namespaced(client, "default");
    let params = WatchParams::default().timeout(60);
    let mut events = api.watch(&params, "0").await.unwrap().boxed();
    api.create(&PostParams::default(), &config("ledger", "a"))
        .await
        .unwrap();
    let event = timeout(SOON, events.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(matches!(event, WatchEvent::Added(object) if object.name_any() == "ledger"));
    timeout(SOON, served.end())
        .await
        .expect("the server ends although somebody watches");
    let rest = timeout(SOON, events.collect::<Vec<_>>()).await;
    assert!(rest.is_ok(), "the watch ends with the server");
}

#[tokio::test]
async fn a_port_in_use_and_an_open_address_are_refused_by_name() {
    let served = served().await;
    let other = tempfile::tempdir().unwrap();
    let taken = ServeOptions {
        listen: served.address,
        ..options(other.path())
    };
    let error = server().listen(&taken).await.err().unwrap();
    assert!(matches!(error, ServeError::InUse { address } if address == served.address));
    let open = ServeOptions {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..options(other.path())
    };
    let error = server().listen(&open).await.err().unwrap();
    assert!(matches!(error, ServeError::NotLoopback { .. }));
    served.end().await;
}

/// kubectl with a kubeconfig and arguments.
fn command(served: &Served, kubeconfig: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig).args(arguments);
    command
        .env("HOME", served.directory.path())
        .env_remove("KUBECONFIG")
        .kill_on_drop(true);
    command
}

/// What kubectl prints with some kubeconfig, however it ends.
pub(super) async fn said(served: &Served, kubeconfig: &Path, arguments: &[&str]) -> String {
    let output = command(served, kubeconfig, arguments)
        .output()
        .await
        .unwrap();
    let both = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

/// Runs kubectl; `None` where it is not installed.
async fn run(served: &Served, arguments: &[&str], input: Option<&Value>) -> Option<Output> {
    let mut command = command(served, &served.kubeconfig(), arguments);
    if let Some(input) = input {
        let file = served.directory.path().join("input.json");
        std::fs::write(&file, input.to_string()).unwrap();
        command.arg("-f").arg(file);
    }
    match command.output().await {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("kubectl does not start: {error}"),
    }
}

pub(crate) async fn kubectl(served: &Served, arguments: &[&str], input: Option<&Value>) -> String {
    let output = run(served, arguments, input)
        .await
        .expect("kubectl was there a moment ago");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "kubectl {arguments:?}: {out}{err}");
    format!("{out}{err}")
}

/// What kubectl says when it fails, as it has to.
pub(crate) async fn refused_by_kubectl(served: &Served, words: &[&str], input: &Value) -> String {
    let output = run(served, words, Some(input)).await.unwrap();
    assert!(!output.status.success(), "kubectl {words:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `kubectl` works against a server that knows ledgers and has a namespace `books`; `None` where
/// it is not installed.
pub(crate) async fn with_kubectl() -> Option<Served> {
    let served = served().await;
    if run(&served, &["version"], None).await.is_none() {
        served.end().await;
        return None;
    }
    kubectl(&served, &["apply"], Some(&ledgers())).await;
    let established = [
        "wait",
        "--for=condition=Established",
        "crd/ledgers.books.example",
    ];
    kubectl(&served, &established, None).await;
    kubectl(&served, &["create", "namespace", "books"], None).await;
    Some(served)
}

fn ledger(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "books.example/v1", "kind": "Ledger",
        "metadata": {"name": name, "namespace": "books"}, "spec": spec,
    })
}

const PAGES: &[&str] = &[
    "get",
    "ledger/main",
    "-n",
    "books",
    "-o",
    "jsonpath={.spec.pages}",
];

#[tokio::test]
async fn kubectl_creates_applies_and_shows_columns() {
    let Some(served) = with_kubectl().await else {
        return;
    };
    kubectl(
        &served,
        &["create"],
        Some(&ledger("main", &json!({"pages": 7, "colour": "red"}))),
    )
    .await;
    let table = kubectl(&served, &["get", "lg", "-n", "books"], None).await;
    assert!(table.contains("COLOUR") && table.contains("red"), "{table}");

    let more = ledger("main", &json!({"pages": 8, "colour": "red"}));
    kubectl(&served, &["apply"], Some(&more)).await;
    kubectl(
        &served,
        &["apply", "--server-side", "--force-conflicts"],
        Some(&more),
    )
    .await;
    assert_eq!(kubectl(&served, PAGES, None).await, "8");
    kubectl(
        &served,
        &["scale", "ledger/main", "-n", "books", "--replicas=3"],
        None,
    )
    .await;
    assert_eq!(kubectl(&served, PAGES, None).await, "3");

    let wrong = ledger("wrong", &json!({"pages": 1, "colour": "green"}));
    let output = run(&served, &["create"], Some(&wrong)).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("spec.colour"),
        "{said}"
    );
    let misspelt = ledger("misspelt", &json!({"pages": 1, "color": "red"}));
    let output = run(&served, &["create"], Some(&misspelt)).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("unknown field \"spec.color\""),
        "{said}"
    );
    served.end().await;
}

#[tokio::test]
async fn kubectl_waits_describes_and_deletes() {
    let Some(served) = with_kubectl().await else {
        return;
    };
    kubectl(
        &served,
        &["create"],
        Some(&ledger("main", &json!({"pages": 7}))),
    )
    .await;
    let status = r#"{"status":{"phase":"Open"}}"#;
    let patch = [
        "patch",
        "ledger/main",
        "-n",
        "books",
        "--subresource=status",
        "--type=merge",
    ];
    kubectl(&served, &[&patch[..], &["-p", status]].concat(), None).await;
    let wait = [
        "wait",
        "--for=jsonpath={.status.phase}=Open",
        "ledger/main",
        "-n",
        "books",
    ];
    kubectl(&served, &[&wait[..], &["--timeout=10s"]].concat(), None).await;
    kubectl(
        &served,
        &["label", "ledger/main", "-n", "books", "shelf=low"],
        None,
    )
    .await;
    let described = kubectl(&served, &["describe", "ledger/main", "-n", "books"], None).await;
    assert!(
        described.contains("shelf=low") && described.contains("Open"),
        "{described}"
    );

    let secret = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login", "namespace": "books"},
        "stringData": {"word": "x"},
    });
    kubectl(&served, &["apply"], Some(&secret)).await;
    let listed = kubectl(&served, &["get", "secrets,ledgers", "-A"], None).await;
    assert!(
        listed.contains("Opaque") && listed.contains("ledger.books.example/main"),
        "{listed}"
    );
    assert_eq!(
        kubectl(&served, &["auth", "can-i", "delete", "secrets"], None)
            .await
            .trim(),
        "yes"
    );
    kubectl(
        &served,
        &["delete", "ledger/main", "-n", "books", "--timeout=10s"],
        None,
    )
    .await;
    kubectl(
        &served,
        &["delete", "namespace", "books", "--timeout=20s"],
        None,
    )
    .await;
    served.end().await;
}
