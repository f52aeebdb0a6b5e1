//! Candidates over the embedded API, one of them behind a line that can be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use time::macros::datetime;
use tokio::time::Instant;
use tower::service_fn;

use super::*;
use crate::local::apiserver::{ApiServer, Options};
use crate::local::store::Store;

const NAMESPACE: &str = "default";

fn server() -> ApiServer {
    ApiServer::new(Store::in_memory().unwrap(), Options::default()).unwrap()
}

/// A client whose calls fail once the line is cut.
fn line(server: &ApiServer) -> (Client, Arc<AtomicBool>) {
    let (client, cut) = (server.client(), Arc::new(AtomicBool::new(false)));
    let is_cut = Arc::clone(&cut);
    let service = service_fn(move |request| {
        let (client, cut) = (client.clone(), is_cut.load(Ordering::SeqCst));
        async move {
            if cut {
                let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                return Err(tower::BoxError::from(broken));
            }
            Ok(client.send(request).await?)
        }
    });
    (Client::new(service, NAMESPACE), cut)
}

fn candidate(client: Client, name: &str, clock: Clock) -> Candidate {
    let timing = Timing::new(
        Duration::from_secs(2),
        Duration::from_secs(1),
        Duration::from_millis(100),
    );
    let options = ElectionOptions {
        at: ObjectRef::new(NAMESPACE, "conductor"),
        identity: name.to_owned(),
        timing: timing.unwrap(),
    };
    Candidate::new(Cluster::new(client), clock, options)
}

#[test]
fn an_instant_keeps_its_microseconds() {
    let at = micro_time(datetime!(2031-02-03 04:05:06.000_007 UTC)).unwrap();
    assert_eq!(json!(at), json!("2031-02-03T04:05:06.000007Z"));
}

#[test]
fn what_client_go_writes_is_read() {
    let lease: Lease = serde_json::from_value(json!({
        "metadata": {"name": "x", "namespace": "y", "resourceVersion": "4"},
        "spec": {
            "holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 6,
            "renewTime": "2031-02-03T04:05:06.000007Z",
            "acquireTime": "2031-02-03T04:05:06.000007Z",
        },
    }))
    .unwrap();
    let read = record(&lease);
    assert_eq!((read.holder, read.transitions), (None, 6));
    assert_eq!(read.lease, Some(Duration::from_secs(1)));
}

#[tokio::test]
async fn a_leader_that_is_cut_off_acts_no_more_before_another_leads() {
    let server = server();
    let (client, cut) = line(&server);
    let never = CancellationToken::new();
    let mut ada = candidate(client, "ada", Clock::System);
    let mut bob = candidate(server.client(), "bob", Clock::System);
    let fence = ada.stand(&never).await.unwrap().unwrap();
    cut.store(true, Ordering::SeqCst);
    let alone = async {
        ada.keep(&fence).await;
        let gave_up = Instant::now();
        assert!(fence.is_open(), "there is time left to put things in order");
        fence.closed().await;
        (gave_up, Instant::now())
    };
    let next = async {
        let next = bob.stand(&never).await.unwrap().unwrap();
        assert!(next.is_open());
        Instant::now()
    };
    let ((gave_up, closed), led) = tokio::join!(alone, next);
    assert!(
        gave_up < closed && closed < led,
        "{gave_up:?} {closed:?} {led:?}"
    );
}

/// The wall clock stands still here; only what the record shows counts.
#[tokio::test]
async fn a_leader_whose_wall_clock_stands_still_goes_on_leading() {
    let server = server();
    let still = Clock::Fixed(datetime!(2031-02-03 04:05:06 UTC));
    let never = CancellationToken::new();
    let mut ada = candidate(server.client(), "ada", still);
    let mut bob = candidate(server.client(), "bob", Clock::System);
    let fence = ada.stand(&never).await.unwrap().unwrap();
    let several_leases = sleep(Duration::from_secs(5));
    tokio::select! {
        () = ada.keep(&fence) => panic!("lost"),
        _ = bob.stand(&never) => panic!("two lead"),
        () = several_leases => {}
    }
    assert!(fence.is_open());
    ada.release(&fence).await;
    assert!(!fence.is_open());
    let began = Instant::now();
    assert!(bob.stand(&never).await.unwrap().is_some());
    assert!(began.elapsed() < Duration::from_secs(1), "at its next look");
}

#[tokio::test]
async fn a_leader_outlives_a_stranger_who_writes_to_its_lease() {
    let server = server();
    let never = CancellationToken::new();
    let mut ada = candidate(server.client(), "ada", Clock::System);
    let fence = ada.stand(&never).await.unwrap().unwrap();
    let leases: Api<Lease> = Api::namespaced(server.client(), NAMESPACE);
    let note = Patch::Merge(json!({"metadata": {"annotations": {"note": "ours"}}}));
    let params = PatchParams::default();
    leases.patch("conductor", &params, &note).await.unwrap();
    let longer_than_a_term = sleep(Duration::from_millis(2_500));
    tokio::select! {
        () = ada.keep(&fence) => panic!("lost"),
        () = longer_than_a_term => {}
    }
    assert!(fence.is_open());
    // Taking it away from its holder is another matter.
    let thief = Patch::Merge(json!({"spec": {"holderIdentity": "eve"}}));
    leases.patch("conductor", &params, &thief).await.unwrap();
    ada.keep(&fence).await;
    assert!(!fence.is_open(), "closed at once");
}
