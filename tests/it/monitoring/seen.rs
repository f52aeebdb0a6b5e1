//! A running `bouncert local` under a real Prometheus: what fires, when, and when it clears.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::prometheus::{Prometheus, http_get};
use super::{documented, named};
use crate::stage::{LONG, Stage, repository_file, request};
use crate::support::{TestCa, eventually};

/// How long the first CA lives, and with it what it signs.
const BRIEF: time::Duration = time::Duration::seconds(120);
const OPENMETRICS: &str = "application/openmetrics-text";

/// `bouncert local` as a newcomer starts it, and a PostgreSQL beside it.
struct Local {
    stage: Stage,
    process: Child,
    admin: SocketAddr,
}

impl Local {
    async fn start() -> Self {
        let directory = TempDir::with_prefix("bouncert-seen-").unwrap();
        let data = directory.path().join("data");
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_bouncert"))
            .args(["local", "--cert-manager-metrics", "--data"])
            .arg(&data)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let url = eventually(LONG, async || {
            fs::read_to_string(data.join("admin.url")).map_err(|error| error.to_string())
        })
        .await;
        let admin = url.trim().strip_prefix("http://").unwrap().parse().unwrap();
        let kubeconfig = Kubeconfig::read_from(data.join("kubeconfig")).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let client = Client::try_from(config.unwrap()).unwrap();
        // Its poolers are its own to end.
        let stage = Stage::around(client, directory, PathBuf::from("/nonexistent")).await;
        stage.furnish().await;
        Self {
            stage,
            process,
            admin,
        }
    }

    async fn get(&self, path: &str, accept: &str) -> Result<(String, String), String> {
        http_get(self.admin, path, accept).await
    }

    /// What the daemon believes of the server's certificate.
    async fn certificate(&self) -> Value {
        let (_, state) = self.get("/state.json", "*/*").await.unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        let all = state["certificates"].as_array().unwrap();
        let server = all.iter().find(|row| row["alias"] == "server");
        server.cloned().unwrap_or_default()
    }

    /// Writes a Secret that is there.
    async fn overwrite(&self, name: &str, data: Value) {
        let patch = json!({ "stringData": data });
        let secrets = self.stage.api::<Secret>();
        let params = PatchParams::default();
        secrets
            .patch(name, &params, &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    /// Starts `certs --watch`, which writes into a file.
    fn watch(&self) -> Child {
        let directory = self.stage.directory.path();
        let shown = fs::File::create(directory.join("watched")).unwrap();
        Command::new(env!("CARGO_BIN_EXE_bouncert"))
            .args(["certs", "-n", "demo", "--watch", "--kubeconfig"])
            .arg(directory.join("data/kubeconfig"))
            .stdin(Stdio::null())
            .stdout(shown)
            .spawn()
            .unwrap()
    }

    async fn rotate(&self, name: &str) {
        let mut rotate = request(name, "pb-tls", json!({ "rotateCertificates": true }));
        rotate["spec"]["timeout"] = json!("20s");
        rotate["spec"]["maxRetries"] = json!(0);
        self.stage.create(rotate).await;
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _may_have_ended = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _reaped = self.process.wait();
    }
}

/// Ends `certs --watch`; how many different lists it has shown.
fn shown(local: &Local, watch: &mut Child) -> usize {
    kill_process(Pid::from_child(watch), Signal::TERM).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    let path = local.stage.directory.path().join("watched");
    let text = fs::read_to_string(path).unwrap();
    let lists: std::collections::BTreeSet<&str> = text.split("NAMESPACE").collect();
    lists.iter().filter(|list| list.contains("pb-tls")).count()
}

/// A CA that lives from now on, in PEM.
fn authority(name: &str, life: time::Duration) -> (String, String) {
    let now = bouncert::clock::Clock::System.now();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (now - time::Duration::SECOND, now + life);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, key.serialize_pem())
}

fn instant(value: &Value) -> OffsetDateTime {
    OffsetDateTime::parse(value.as_str().unwrap(), &Rfc3339).unwrap()
}

/// What promtool and the documents make of the metrics of a daemon that works.
async fn metrics_are_well_formed(local: &Local) {
    let (_, text) = local.get("/metrics", "text/plain").await.unwrap();
    let mut check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let said = check.wait_with_output().unwrap();
    let words = [said.stdout, said.stderr].concat();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&words));
    assert!(words.is_empty(), "{}", String::from_utf8_lossy(&words));
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let names = named(
        &samples
            .iter()
            .map(|sample| sample.split(['{', ' ']).next().unwrap())
            .collect::<Vec<_>>()
            .join(" "),
    );
    let documented = documented();
    let unknown: Vec<&String> = names.difference(&documented).collect();
    assert!(unknown.is_empty(), "not in docs/metrics.md: {unknown:?}");
    let (head, open) = local.get("/metrics", OPENMETRICS).await.unwrap();
    assert!(head.contains(OPENMETRICS) && open.ends_with("# EOF\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn alerts_fire_when_the_issuer_breaks_and_clear_when_it_is_mended() {
    let local = Local::start().await;
    let stage = &local.stage;
    let (crt, key) = authority("Brief CA", BRIEF);
    stage.ca_secret("pgbouncer-ca", &crt, &key).await;
    stage.example("issuer").await;
    let text = fs::read_to_string(repository_file("deploy/examples/pgbouncer-ssl.yaml")).unwrap();
    let mut pooler: Value = serde_saphyr::from_str(&text).unwrap();
    pooler["metadata"]["annotations"] = json!({ "bouncert.dev/outliving": "Clamp" });
    stage.create(pooler).await;
    stage.ready("pb-tls").await;
    assert!(local.get("/readyz", "*/*").await.is_ok());

    let mut watch = local.watch();
    let prometheus = Prometheus::start(&local.admin.to_string()).await;
    let matches = "bouncert_served_certificate_matches";
    eventually(LONG, async || {
        let seen = prometheus.query(matches).await;
        if seen == [1.0] { Ok(()) } else { Err(seen) }
    })
    .await;
    prometheus.is_quiet(LONG).await;
    metrics_are_well_formed(&local).await;
    let certificate = local.certificate().await;
    let (begins, ends) = (&certificate["not_before"], &certificate["not_after"]);
    let (begins, ends) = (instant(begins), instant(ends));
    assert!(
        ends - begins <= BRIEF + time::Duration::seconds(2),
        "clamped"
    );

    // Nobody can sign any more; a change fails, and the certificate gets old.
    let broken = json!({ "tls.key": "no key" });
    local.overwrite("pgbouncer-ca", broken).await;
    local.rotate("rotate-1").await;
    stage.failed("rotate-1").await;
    let failing = prometheus.fires("BouncertRotationFailing", LONG).await;
    assert_eq!(
        failing.summary,
        "The last change of PgBouncer demo/pb-tls has failed"
    );
    let soon = prometheus
        .fires("BouncertCertificateExpiringSoon", BRIEF.unsigned_abs())
        .await;
    let due = begins + (ends - begins) * 4 / 5;
    let late: time::Duration = soon.active_at - due;
    assert!(
        (-1.5..=5.0).contains(&late.as_seconds_f64()),
        "a fifth of its life is left at {due}, noticed {late} later"
    );
    let firing = prometheus.firing().await;
    assert!(firing.contains("BouncertRenewalOverdue"), "{firing:?}");
    assert!(!firing.contains("BouncertCertificateExpired"), "{firing:?}");

    // The issuer is mended, and lives long.
    let (crt, key) = authority("Lasting CA", time::Duration::days(30));
    let mended = json!({ "tls.crt": crt, "tls.key": key });
    local.overwrite("pgbouncer-ca", mended).await;
    local.rotate("rotate-2").await;
    stage.successful("rotate-2").await;
    prometheus.is_quiet(LONG).await;

    // Somebody writes the Secret behind everybody's back: seen within a minute.
    let stranger = TestCa::new("Stranger");
    let pair = stranger.server(&["pb-tls.demo.svc"]);
    let theirs = json!({ "ca.crt": stranger.pem, "tls.crt": pair.cert, "tls.key": pair.key });
    local.overwrite("pb-tls-server-cert", theirs).await;
    eventually(Duration::from_mins(1), async || {
        let seen = prometheus.query(matches).await;
        if seen == [0.0] { Ok(()) } else { Err(seen) }
    })
    .await;
    let differs = prometheus
        .fires("BouncertServedCertificateDiffers", LONG)
        .await;
    assert_eq!(
        differs.summary,
        "Pod demo/pb-tls-0 does not serve what is stored"
    );
    local.rotate("rotate-3").await;
    stage.successful("rotate-3").await;
    prometheus.is_quiet(LONG).await;
    assert!(
        shown(&local, &mut watch) >= 3,
        "two renewals and a stranger"
    );
    eventually(LONG, async || {
        let successful =
            "bouncert_request_outcomes_total{outcome=\"successful\",type=\"ReconfigureTLS\"}";
        let counted = prometheus.query(successful).await;
        if counted == [2.0] {
            Ok(())
        } else {
            Err(counted)
        }
    })
    .await;
}
