//! Reloads that go wrong, and a daemon that dies in one.

use std::time::Duration;

use bouncert::api::PgBouncerOpsRequest;
use bouncert::api::annotations::FILES_ASKED_AT;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, WatchParams};
use serde_json::json;
use tokio::time::timeout;

use super::load::{Customer, Load};
use super::{Wanted, by, leaves, made, processes, stage};
use crate::stage::{LONG, Stage};
use crate::support::eventually;

/// Somebody overwrites the configuration just when a pod is about to read it: TLS goes off, which is
/// seen, and what was there before comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reload_that_turns_tls_off_is_seen_and_taken_back_at_once() {
    let stage = stage().await;
    let wanted = Wanted {
        replicas: 2,
        ..Wanted::till()
    };
    made(&stage, &wanted).await;
    let customer = Customer::of(&stage, "till").await;
    let (before, old) = (
        processes(&stage, "till").await,
        leaves(&stage, "till").await,
    );
    let uid = stage.bouncer("till").await.uid().unwrap();
    let config = format!("till-{}", &uid[uid.len() - 6..]);
    let good = stage.secret(&config, "pgbouncer.ini").await;

    let load = Load::start(&customer, 6, 0).await;
    let vandal = vandalise(&stage, &config, "[pgbouncer]\nthis is no setting\n");
    let rotate = json!({"rotateCertificates": true});
    let asked = async {
        // The vandal is at its post before anything begins.
        tokio::task::yield_now().await;
        stage.create(by("Reload", "spoilt", "till", rotate)).await;
    };
    tokio::join!(vandal, asked);
    let message = stage.failed("spoilt").await;
    for part in ["was reloaded: TLS went off", "is as it was before"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let tally = load.stop().await;
    tally.assert_unnoticed();
    assert_eq!(leaves(&stage, "till").await, old);
    assert_eq!(stage.secret(&config, "pgbouncer.ini").await, good);
    assert_eq!(
        processes(&stage, "till").await,
        before,
        "and nobody was restarted"
    );
    customer.connect().await.expect("lets in as before");
    assert!(stage.psql("till", "sslmode=disable").await.is_err());
    a_setting_that_openssl_refuses_is_taken_back(&stage, &customer).await;
    stage.stop().await;
}

/// Overwrites a configuration Secret when files are first asked for.
pub(super) async fn vandalise(stage: &Stage, config: &str, text: &str) {
    let pods = stage.api::<Pod>();
    let watch = pods.watch(&WatchParams::default(), "0").await.unwrap();
    let asked = watch.try_filter_map(async |event| {
        Ok(match event {
            kube::api::WatchEvent::Modified(pod) => {
                pod.annotations().contains_key(FILES_ASKED_AT).then_some(())
            }
            _ => None,
        })
    });
    timeout(LONG, Box::pin(asked).next())
        .await
        .expect("files are asked for");
    let nonsense = ByteString(text.as_bytes().to_vec());
    let patch = Patch::Merge(json!({"data": {"pgbouncer.ini": nonsense}}));
    let secrets = stage.api::<Secret>();
    secrets
        .patch(config, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// The old material stays in force, which only a handshake can tell.
async fn a_setting_that_openssl_refuses_is_taken_back(stage: &Stage, customer: &Customer) {
    let ini = "[pgbouncer]\nclient_tls_ciphers = NO-SUCH-CIPHER\n";
    let patch = json!({"spec": {"configuration": {"inline": {"pgbouncer.ini": ini}}}});
    let bouncers = stage.api::<bouncert::api::PgBouncer>();
    let params = PatchParams::default();
    bouncers
        .patch("till", &params, &Patch::Merge(patch))
        .await
        .unwrap();
    eventually(LONG, async || {
        let ini = stage.ini("till").await;
        if ini.contains_key("client_tls_ciphers") {
            Ok(())
        } else {
            Err(ini)
        }
    })
    .await;
    let old = leaves(stage, "till").await;
    let rotate = json!({"rotateCertificates": true});
    let mut asked = by("Reload", "refused", "till", rotate);
    asked["spec"]["timeout"] = json!("8s");
    stage.create(asked).await;
    let message = stage.failed("refused").await;
    for part in [
        "reload till-1",
        "to show the certificate",
        "is as it was before",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(leaves(stage, "till").await, old);
    customer.connect().await.expect("lets in as before");
}

/// An open transaction holds up the pause that a reload needs; the daemon goes meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pause_is_taken_back_whoever_dies() {
    let mut stage = stage().await;
    let wanted = Wanted {
        ini: "server_tls_sslmode = prefer\nserver_login_retry = 1\n",
        ..Wanted::till()
    };
    made(&stage, &wanted).await;
    let customer = Customer::of(&stage, "till").await;
    let old = leaves(&stage, "till").await;
    let (slow, other) = (
        customer.connect().await.unwrap(),
        customer.connect().await.unwrap(),
    );
    slow.run("BEGIN; INSERT INTO sales VALUES (7)")
        .await
        .unwrap();
    other.run("SELECT 1").await.unwrap();
    let rotate = json!({"rotateCertificates": true});
    stage.create(by("Reload", "patient", "till", rotate)).await;

    until_paused(&other).await;
    stage.dismiss_daemon().await;
    let moment = Duration::from_secs(2);
    timeout(moment, other.run("SELECT 1"))
        .await
        .expect("resumed")
        .unwrap();

    stage.start_daemon();
    until_paused(&other).await;
    stage.kill_daemon().await;
    assert!(
        timeout(moment, other.run("SELECT 1")).await.is_err(),
        "still paused"
    );
    let third = customer.connect().await.unwrap();
    stage.start_daemon();
    slow.run("COMMIT")
        .await
        .expect("its transaction was never cut");
    let request: PgBouncerOpsRequest = stage.successful("patient").await;
    assert_eq!(request.name_any(), "patient");
    timeout(moment, third.run("SELECT 1"))
        .await
        .expect("resumed")
        .unwrap();
    assert_ne!(leaves(&stage, "till").await, old);
    stage.stop().await;
}

/// Waits until a transaction does not start within a moment.
async fn until_paused(client: &super::load::Connection) {
    eventually(LONG, async || {
        match timeout(Duration::from_millis(400), client.run("SELECT 1")).await {
            Ok(done) => Err(done),
            Err(_) => Ok(()),
        }
    })
    .await;
}

/// A pooler that dies after the switch starts with the new material while its mark says the old. When
/// the change is taken back, so is that.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pod_that_restarts_by_itself_in_the_middle_goes_back_too() {
    let stage = stage().await;
    let wanted = Wanted {
        replicas: 2,
        ini: "server_tls_sslmode = prefer\nserver_login_retry = 1\n",
        ..Wanted::till()
    };
    made(&stage, &wanted).await;
    let old = leaves(&stage, "till").await;
    for strategy in ["Reload", "RollingRestart"] {
        let first = Customer::of(&stage, "till")
            .await
            .at(address(&stage, "till-1").await);
        let slow = first.connect().await.unwrap();
        slow.run("BEGIN; INSERT INTO sales VALUES (8)")
            .await
            .unwrap();
        let name = format!("hapless-{}", strategy.to_lowercase());
        let rotate = json!({"rotateCertificates": true});
        stage.create(by(strategy, &name, "till", rotate)).await;
        // The first pod waits for its open transaction; the other has nothing to do with it yet.
        eventually(LONG, async || {
            let server = stage.secret("till-server-cert", "tls.crt").await;
            let published = bouncert::pki::pem::read_certificates(&server).unwrap();
            let leaf = bouncert::pgbouncer::probe::fingerprint(&published[0]);
            if old.contains(&Some(leaf)) {
                Err(leaf)
            } else {
                Ok(())
            }
        })
        .await;
        kill_process(&stage, "till-0").await;
        eventually(LONG, async || {
            let now = leaf(&stage, "till-0").await;
            if now.is_none() || old.contains(&now) {
                Err(now)
            } else {
                Ok(())
            }
        })
        .await;
        let abort = json!({"metadata": {"annotations": {bouncert::ops::ABORT: "true"}}});
        let requests = stage.api::<PgBouncerOpsRequest>();
        let params = PatchParams::default();
        requests
            .patch(&name, &params, &Patch::Merge(abort))
            .await
            .unwrap();
        eventually(LONG, async || {
            let request: PgBouncerOpsRequest = stage.get(&name).await.unwrap();
            let status = request.status.unwrap_or_default();
            // It ends the step, and goes back pod by pod.
            if status.conditions.iter().any(|c| c.type_ == "Failed") {
                Ok(())
            } else {
                let _done = timeout(Duration::from_millis(50), slow.run("COMMIT")).await;
                Err(status)
            }
        })
        .await;
        assert_eq!(leaves(&stage, "till").await, old, "{strategy}");
        stage.ready("till").await;
    }
    stage.stop().await;
}

async fn address(stage: &Stage, pod: &str) -> std::net::SocketAddr {
    let pods = stage.pods("till").await;
    pods.into_iter()
        .find(|(name, _)| name == pod)
        .expect("is there")
        .1
}

async fn leaf(stage: &Stage, pod: &str) -> Option<bouncert::names::Fingerprint> {
    let bound = Duration::from_secs(1);
    let seen = bouncert::pgbouncer::probe::probe(address(stage, pod).await, None, bound).await;
    seen.ok()?.fingerprint()
}

async fn kill_process(stage: &Stage, pod: &str) {
    let container = processes(stage, "till").await[pod].1.clone().expect("runs");
    let pid = container.strip_prefix("local://").unwrap().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
