//! A fleet to which nothing happens asks for nothing. `make fleet` measures a large one.

mod process;
mod rig;

use std::time::Duration;

use process::{Metrics, count};
use rig::Rig;

const SIZE: usize = 60;
const BOUND: Duration = Duration::from_secs(120);
/// Longer than two looks at the pods of each.
const WINDOW: Duration = Duration::from_secs(25);
/// MiB, of a build that is not optimised.
const RESIDENT_MAX: f64 = 150.0;
/// The Lease, every two seconds, and watches that end by themselves.
const IDLE_REQUESTS: f64 = 30.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_to_which_nothing_happens_asks_the_api_server_for_nothing() {
    let rig = Rig::start(SIZE).await;
    let first = rig.daemon().await;
    rig.all_ready(BOUND).await;
    first.kill().await;

    let daemon = rig.daemon().await;
    daemon.quiet(SIZE, BOUND).await;
    let before = daemon.metrics().await;
    tokio::time::sleep(WINDOW).await;
    let after = daemon.metrics().await;
    assert!(
        asked(&before, &after) <= IDLE_REQUESTS,
        "{}",
        asked(&before, &after)
    );
    let probes = after.looks() - before.looks();
    assert!(probes >= count(SIZE), "pods are looked at: {probes}");

    // A kubelet writes what is of no consequence.
    rig.touch_pods(1).await;
    daemon.looked(&after, SIZE, BOUND).await;
    let touched = daemon.metrics().await;
    assert!(
        asked(&after, &touched) <= IDLE_REQUESTS,
        "{}",
        asked(&after, &touched)
    );
    let (resident, _) = daemon.memory();
    assert!(resident < RESIDENT_MAX, "{resident} MiB");
    daemon.kill().await;
    rig.stop().await;
}

fn asked(before: &Metrics, after: &Metrics) -> f64 {
    after.requests() - before.requests()
}
