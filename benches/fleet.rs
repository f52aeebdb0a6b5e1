//! A fleet of 5,000 PgBouncers with 15,000 certificates: what the daemon needs for it.
//!
//! `BOUNCERT_FLEET` sets another number of PgBouncers.

#[expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]
#[path = "../tests/it/fleet"]
mod fleet {
    pub(crate) mod process;
    pub(crate) mod rig;
}

use std::time::{Duration, Instant};

use fleet::rig::Rig;

/// PgBouncers, unless asked otherwise.
const SIZE: usize = 5_000;
/// Nothing here takes as long.
const BOUND: Duration = Duration::from_secs(1_800);
/// How often all pods are touched.
const ROUNDS: usize = 3;

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#[tokio::main]
async fn main() {
    let size = std::env::var("BOUNCERT_FLEET").ok();
    let size = size.and_then(|size| size.parse().ok()).unwrap_or(SIZE);
    let begun = Instant::now();
    let rig = Rig::start(size).await;
    println!("{size} PgBouncers created in {:.1?}", begun.elapsed());
    let first = rig.daemon().await;
    // What somebody makes while there is so much else to do.
    rig.ready(size / 20, BOUND).await;
    let took = rig.one_more("late", BOUND).await;
    let ready = rig.count_ready().await;
    println!("one more, made meanwhile, ready after {took:.1?}, as number {ready}");
    let all = size + 1;
    rig.ready(all, BOUND).await;
    println!(
        "all ready {:.1?} after the start of a first daemon",
        first.age()
    );
    let took = first.quiet(all, BOUND).await;
    let requests = first.metrics().await.requests();
    println!("and quiet {took:.1?} after it, {requests} requests");
    first.stop().await;

    let daemon = rig.daemon().await;
    let took = daemon.quiet(all, BOUND).await;
    let metrics = daemon.metrics().await;
    let (now, most) = daemon.memory();
    println!(
        "cold start to quiet: {took:.1?}, {} requests, {now:.0} MiB resident (at most {most:.0})",
        metrics.requests()
    );
    let before = metrics.requests();
    tokio::time::sleep(Duration::from_secs(60)).await;
    // Reading metrics takes memory for seconds.
    let (steady, _) = daemon.memory();
    let metrics = daemon.metrics().await;
    let asked = metrics.requests() - before;
    let (now, most) = daemon.memory();
    println!(
        "an idle minute: {asked} requests, {steady:.0} MiB resident; {now:.0} once metrics are read \
         (at most {most:.0})"
    );

    // What wakes it waits for it, so that it is not measured how fast pods can be touched.
    let (mut looks, mut took, asked) = (0.0, Duration::ZERO, metrics.requests());
    for round in 0..ROUNDS {
        let metrics = daemon.metrics().await;
        daemon.hold_up(true);
        rig.touch_pods(round).await;
        let begun = Instant::now();
        daemon.hold_up(false);
        daemon.looked(&metrics, size, BOUND).await;
        took += begun.elapsed();
        looks += daemon.metrics().await.looks() - metrics.looks();
    }
    println!(
        "every pod touched {ROUNDS} times: {looks} looks in {took:.1?}, {:.0} per second; {} requests",
        looks / took.as_secs_f64(),
        daemon.metrics().await.requests() - asked
    );
    daemon.stop().await;
    rig.stop().await;
}
