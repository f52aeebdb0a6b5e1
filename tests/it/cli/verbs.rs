//! The verbs that speak to an API, against `bouncert local`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bouncert::api::{Issuer, PgBouncer};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{bouncert, stderr, stdout};

const NAMESPACE: &str = "ledger";
/// For `local` to be ready, and to stop.
const BOUND: Duration = Duration::from_secs(30);

/// A running `bouncert local` that goes with its value.
pub(crate) struct Local {
    process: Child,
    directory: TempDir,
}

impl Local {
    /// Starts it in a directory of its own.
    pub(crate) fn start() -> Self {
        Self::resume(TempDir::with_prefix("bouncert-cli-").unwrap())
    }

    /// Starts it in a directory that may have been used before.
    fn resume(directory: TempDir) -> Self {
        let kubeconfig = directory.path().join("kubeconfig");
        let _ = std::fs::remove_file(&kubeconfig);
        let process = Command::new(env!("CARGO_BIN_EXE_bouncert"))
            .args(["local", "--log", "warn", "--data"])
            .arg(directory.path().join("data"))
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut local = Self { process, directory };
        let deadline = Instant::now() + BOUND;
        while !local.answers() {
            let ended = local.process.try_wait().unwrap();
            assert!(ended.is_none(), "local ended: {ended:?}");
            assert!(Instant::now() < deadline, "local does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        local
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    fn answers(&self) -> bool {
        self.kubeconfig().exists() && self.run(&["status", "-A"]).status.success()
    }

    /// Runs a verb against it.
    fn run(&self, arguments: &[&str]) -> std::process::Output {
        let kubeconfig = self.kubeconfig();
        let mut all = arguments.to_vec();
        all.extend(["--kubeconfig", kubeconfig.to_str().unwrap()]);
        bouncert(&all)
    }

    /// Runs a verb and reads its JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["--output", "json"]);
        let output = self.run(&all);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_str(&stdout(&output)).unwrap()
    }

    /// Stops it as an init system does, and returns its directory.
    fn stop(mut self) -> TempDir {
        let status = self.terminate().expect("local does not stop");
        assert_eq!(status.code(), Some(0));
        std::mem::replace(&mut self.directory, TempDir::new().unwrap())
    }

    /// Tells it to stop and waits for it; `None` when it does not.
    fn terminate(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + BOUND;
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        Client::try_from(config.unwrap()).unwrap()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // A process that has been waited for is not signalled: its number may be another's.
        if !matches!(self.process.try_wait(), Ok(None)) || self.terminate().is_some() {
            return;
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A PgBouncer whose database nobody has heard of: it stays as it is.
async fn create_pooler(client: &Client, name: &str) {
    let namespace: Namespace =
        serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } })).unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let _ = namespaces.create(&PostParams::default(), &namespace).await;
    let pooler: PgBouncer = serde_json::from_value(json!({
        "apiVersion": "kubedb.com/v1", "kind": "PgBouncer",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "version": "1.18.0", "replicas": 2,
            "database": {
                "databaseName": "accounts",
                "databaseRef": { "name": "vault", "namespace": NAMESPACE },
            },
        },
    }))
    .unwrap();
    let poolers: Api<PgBouncer> = Api::namespaced(client.clone(), NAMESPACE);
    poolers
        .create(&PostParams::default(), &pooler)
        .await
        .unwrap();
}

async fn create_issuer(client: &Client, name: &str) {
    let issuer: Issuer = serde_json::from_value(json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Issuer",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": { "ca": { "secretName": "treasury" } },
    }))
    .unwrap();
    let issuers: Api<Issuer> = Api::namespaced(client.clone(), NAMESPACE);
    issuers
        .create(&PostParams::default(), &issuer)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_created_and_listed_and_survives_a_restart() {
    let local = Local::start();
    create_pooler(&local.client().await, "billing").await;
    let created = local.json(&[
        "add-tls",
        "billing",
        "-n",
        NAMESPACE,
        "--issuer",
        "treasury-ca",
        "--no-wait",
    ]);
    let name = created["request"].as_str().unwrap().to_owned();
    assert!(name.starts_with("billing-add-tls-"), "{name}");

    let local = Local::resume(local.stop());
    let status = local.json(&["status", "-n", NAMESPACE]);
    assert_eq!(status["poolers"][0]["name"], "billing");
    assert_eq!(status["poolers"][0]["replicas"], 2);
    assert_eq!(status["requests"][0]["name"], name);
    assert_eq!(status["requests"][0]["type"], "ReconfigureTLS");
    let text = stdout(&local.run(&["status", "-A"]));
    assert!(text.contains("billing") && text.contains(&name), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_prints_the_plan_and_creates_nothing() {
    let local = Local::start();
    let client = local.client().await;
    create_pooler(&client, "payroll").await;
    create_issuer(&client, "treasury-ca").await;
    let verb = [
        "add-tls",
        "payroll",
        "-n",
        NAMESPACE,
        "--issuer",
        "treasury-ca",
        "--dry-run",
    ];
    let plan = local.json(&verb);
    let aliases: Vec<&str> = plan["issues"]
        .as_array()
        .unwrap()
        .iter()
        .map(|issue| issue["alias"].as_str().unwrap())
        .collect();
    assert_eq!(aliases, ["server", "client", "metrics-exporter"]);
    assert_eq!(plan["issues"][0]["issuer"], "Issuer/treasury-ca");
    // Its database is unknown, so it has never come up and has no pod to restart.
    assert_eq!(plan["restarts"], json!([]));
    let steps = plan["steps"].as_array().unwrap();
    assert_eq!(steps.first().unwrap()["step"], "pause");
    assert_eq!(steps.last().unwrap()["step"], "resume");
    let text = stdout(&local.run(&verb));
    assert!(
        text.contains("3 certificates issued, 0 pods restarted"),
        "{text}"
    );
    assert_eq!(
        local.json(&["status", "-n", NAMESPACE])["requests"],
        json!([])
    );

    let refused = local.run(&["rotate", "payroll", "-n", NAMESPACE, "--dry-run"]);
    assert_eq!(refused.status.code(), Some(1), "there is nothing to rotate");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named() {
    let local = Local::start();
    let output = local.run(&["rotate", "payroll", "-n", NAMESPACE]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains(&format!("{NAMESPACE}/payroll")), "{said}");
    assert_eq!(local.json(&["certs", "-A"]), json!([]));
    assert!(local.data().join("store").is_dir());
}

#[test]
fn only_the_owner_can_read_what_local_keeps() {
    use std::os::unix::fs::PermissionsExt;
    let local = Local::start();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&local.data()), 0o700);
    assert_eq!(mode(&local.kubeconfig()), 0o600);
}
