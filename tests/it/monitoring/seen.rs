//! A running `bouncert local` under a real Prometheus: what fires, when, and when it clears.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bouncert::api::PgBouncerOpsRequest;
use bouncert::api::annotations::{CREATED_BY_LABEL, CREATED_BY_ROTATION};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;

use super::prometheus::{Alert, Prometheus, http_get};
use super::{documented, named};
use crate::stage::{LONG, Stage, repository_file};
use crate::support::eventually;

/// How long the CA lives that ends soon, and with it what it signs.
const BRIEF: time::Duration = time::Duration::seconds(100);
const MONTH: time::Duration = time::Duration::days(30);
/// Long enough for three generations, each of which is due after half a minute at the most.
const GENERATIONS: Duration = Duration::from_secs(120);
const REVISION: &str = "bouncert_certificate_revision{alias=\"server\"}";
const BEGINS: &str = "bouncert_certificate_not_before_timestamp_seconds{alias=\"server\"}";
const ENDS: &str = "bouncert_certificate_not_after_timestamp_seconds{alias=\"server\"}";
const DUE: &str = "bouncert_certificate_renewal_timestamp_seconds{alias=\"server\"}";
/// When the first of the certificates is a twentieth of its life late.
const OVERDUE: &str = "min(bouncert_certificate_renewal_timestamp_seconds \
    + (bouncert_certificate_not_after_timestamp_seconds \
    - bouncert_certificate_not_before_timestamp_seconds) / 20)";
const SERVED: &str = "bouncert_served_certificate_not_after_timestamp_seconds{pod=\"pb-tls-0\"}";
const MATCHES: &str = "bouncert_served_certificate_matches{pod=\"pb-tls-0\"}";
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

    /// A pooler whose certificates are due after half a minute at the most.
    async fn pooler(&self) {
        let path = repository_file("deploy/examples/pgbouncer-ssl.yaml");
        let text = fs::read_to_string(path).unwrap();
        let mut pooler: Value = serde_saphyr::from_str(&text).unwrap();
        pooler["metadata"]["annotations"] = json!({ "bouncert.dev/outliving": "Clamp" });
        let server = &mut pooler["spec"]["tls"]["certificates"][0];
        (server["duration"], server["renewBefore"]) = (json!("5m"), json!("4m30s"));
        self.stage.create(pooler).await;
        self.stage.ready("pb-tls").await;
    }

    /// How many requests people have made.
    async fn made_by_people(&self) -> usize {
        let labels = format!("{CREATED_BY_LABEL}!={CREATED_BY_ROTATION}");
        let params = ListParams::default().labels(&labels);
        let requests = self.stage.api::<PgBouncerOpsRequest>();
        requests.list(&params).await.unwrap().items.len()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _may_have_ended = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _reaped = self.process.wait();
    }
}

/// Waits until `certs --watch` has shown so many different lists, and ends it. It looks every few
/// seconds, so the last one may be on its way.
async fn has_shown(local: &Local, watch: &mut Child, wanted: usize) {
    let path = local.stage.directory.path().join("watched");
    eventually(LONG, async || {
        let text = fs::read_to_string(&path).unwrap();
        let lists: std::collections::BTreeSet<&str> = text.split("NAMESPACE").collect();
        let shown = lists.iter().filter(|list| list.contains("pb-tls")).count();
        if shown >= wanted { Ok(()) } else { Err(text) }
    })
    .await;
    kill_process(Pid::from_child(watch), Signal::TERM).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

/// A CA that lives from now on, in PEM. No leaf begins before its CA does: all begin now.
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

/// An instant as Prometheus counts time.
fn instant(seconds: f64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::seconds_f64(seconds)
}

/// An alert became true within a few seconds of that time.
fn is_timely(alert: &Alert, expected: OffsetDateTime) {
    let late = alert.active_at - expected;
    assert!(
        (-1.5..=6.0).contains(&late.as_seconds_f64()),
        "{}: expected at {expected}, noticed {late} later",
        alert.summary
    );
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
async fn certificates_rotate_by_themselves_and_alerts_say_when_they_cannot() {
    let local = Local::start().await;
    let stage = &local.stage;
    let (crt, key) = authority("First CA", MONTH);
    stage.ca_secret("pgbouncer-ca", &crt, &key).await;
    stage.example("issuer").await;
    local.pooler().await;
    assert!(local.get("/readyz", "*/*").await.is_ok());
    let mut watch = local.watch();
    let prometheus = Prometheus::start(&local.admin.to_string()).await;
    prometheus.shows(MATCHES, 1.0, LONG).await;
    metrics_are_well_formed(&local).await;

    generations_follow_each_other(&prometheus).await;
    assert_eq!(local.made_by_people().await, 0, "nobody asked for anything");
    // Takes minutes, and its bounds are seconds: not beside the rest of the suite. `make test` runs it
    // afterwards.
    if std::env::var_os("BOUNCERT_LIVE_ALERTS").is_none() {
        eprintln!("NOT RUN: alerts of a broken issuer; BOUNCERT_LIVE_ALERTS=1 runs them");
        has_shown(&local, &mut watch, 3).await;
        return;
    }
    nobody_can_sign_and_then_somebody_can(&local, &prometheus).await;

    assert_eq!(local.made_by_people().await, 0, "nobody asked for anything");
    has_shown(&local, &mut watch, 5).await;
    let successful =
        "bouncert_request_outcomes_total{outcome=\"successful\",type=\"ReconfigureTLS\"}";
    assert!(prometheus.one(successful).await >= 4.0);
}

/// Three certificates, one after the other, none late, and no alert meanwhile.
async fn generations_follow_each_other(prometheus: &Prometheus) {
    // Before the first scrapes there is a daemon that is down, as far as Prometheus can tell.
    prometheus.is_quiet(LONG).await;
    let began = Instant::now();
    let first = prometheus.one(REVISION).await;
    eventually(GENERATIONS, async || {
        let revision = prometheus.one(REVISION).await;
        if revision >= first + 2.0 {
            Ok(())
        } else {
            Err(revision)
        }
    })
    .await;
    prometheus.shows(MATCHES, 1.0, LONG).await;
    for (series, kind) in [(ENDS, "stored"), (SERVED, "served")] {
        let changes = prometheus.one(&format!("changes({series}[5m])")).await;
        let back = prometheus.one(&format!("resets({series}[5m])")).await;
        assert!(changes >= 2.0 && back == 0.0, "{kind}: {changes}, {back}");
    }
    // The scheduler begins when the metric says, jitter and all; a rotation takes a few seconds.
    let late = prometheus
        .one(&format!("max_over_time((time() - {DUE})[5m:1s])"))
        .await;
    assert!(late < 15.0, "{late} s");
    let fired = prometheus.fired(began.elapsed().as_secs()).await;
    assert!(fired.is_empty(), "an alert fired meanwhile: {fired:?}");
}

/// The CA ends soon, then its key is gone: what the scheduler tries fails, and is told in time. With
/// another CA it recovers by itself.
async fn nobody_can_sign_and_then_somebody_can(local: &Local, prometheus: &Prometheus) {
    let before = prometheus.one(REVISION).await;
    let (crt, key) = authority("Brief CA", BRIEF);
    let brief = json!({ "tls.crt": crt, "tls.key": key });
    local.overwrite("pgbouncer-ca", brief).await;
    // A renewed CA is followed at once; from then on nobody can sign any more.
    eventually(LONG, async || {
        let (begins, ends) = (prometheus.one(BEGINS).await, prometheus.one(ENDS).await);
        let life = ends - begins;
        let revision = prometheus.one(REVISION).await;
        if revision > before && life <= BRIEF.as_seconds_f64() + 2.0 {
            Ok(())
        } else {
            Err((revision, life))
        }
    })
    .await;
    let broken = json!({ "tls.key": "no key" });
    local.overwrite("pgbouncer-ca", broken).await;
    prometheus.is_quiet(LONG).await;
    let (begins, ends) = (prometheus.one(BEGINS).await, prometheus.one(ENDS).await);
    let life = ends - begins;

    let overdue = prometheus.fires("BouncertRenewalOverdue", LONG).await;
    // Asked afterwards: the client's certificate is handed out later than the server's.
    is_timely(&overdue, instant(prometheus.one(OVERDUE).await));
    let failing = prometheus.fires("BouncertRotationFailing", LONG).await;
    assert_eq!(
        failing.summary,
        "The last change of PgBouncer demo/pb-tls has failed"
    );
    let failed = "min_over_time(bouncert_pgbouncer_last_failure_timestamp_seconds[5m])";
    is_timely(&failing, instant(prometheus.one(failed).await));
    let soon = prometheus
        .fires("BouncertCertificateExpiringSoon", LONG)
        .await;
    is_timely(&soon, instant(begins + life * 0.8));
    let firing = prometheus.firing().await;
    assert!(!firing.contains("BouncertCertificateExpired"), "{firing:?}");

    let (crt, key) = authority("Lasting CA", MONTH);
    let mended = json!({ "tls.crt": crt, "tls.key": key });
    local.overwrite("pgbouncer-ca", mended).await;
    prometheus.is_quiet(LONG).await;
    let now = prometheus.one("vector(time())").await;
    assert!(prometheus.one(ENDS).await > now + 60.0);
    prometheus.shows(MATCHES, 1.0, LONG).await;
}
