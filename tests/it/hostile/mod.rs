//! A tenant who may write everything in one namespace, and a neighbour who must notice nothing.
//!
//! The daemon is a process with the rights that the chart gives. The tenant writes thousands of objects
//! of every kind that the daemon reads; see [`objects`]. Afterwards the neighbour's objects are what they
//! were, applications' objects in the tenant's own namespace too, the daemon runs, its memory is bounded,
//! and no key stands in anything that it has said.
//!
//! `BOUNCERT_HOSTILE=1000000` makes more objects; `BOUNCERT_SEED=7` makes others.

mod ground;
mod material;
mod objects;
mod templates;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};

use self::ground::Ground;
use self::objects::Maker;

/// Namespace of the tenant.
const TENANT: &str = "tenant";
/// Namespace of the neighbour.
const NEIGHBOUR: &str = "neighbour";
/// Objects that are generated, unless asked otherwise.
const OBJECTS: usize = 20_000;
/// Calls of the tenant at the same time.
const AT_ONCE: usize = 16;
/// Objects between two looks at the neighbour.
const ROUND: usize = 2_500;
/// Longest that a new PgBouncer of the neighbour waits for its pods, whatever the tenant does.
const BOUND: Duration = Duration::from_secs(60);
/// MiB that the daemon may have resident at any time, in a build that is not optimised.
const RESIDENT_MAX: f64 = 400.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_tenant_writes_a_neighbour_notices_nothing() {
    let (size, seed) = (
        setting("BOUNCERT_HOSTILE", OBJECTS),
        setting("BOUNCERT_SEED", 1),
    );
    let ground = Ground::start().await;
    let before = ground.precious().await;
    let calm = ground.neighbour_begins("calm", BOUND).await;
    let mut maker = Maker::new(seed.try_into().unwrap(), ground.owners().await);
    let (mut admitted, mut slowest, mut made) = (0, Duration::ZERO, 0);
    let began = Instant::now();
    while made < size {
        let batch: Vec<_> = (0..ROUND.min(size - made)).map(|_| maker.next()).collect();
        made += batch.len();
        let writes = stream::iter(batch).map(|write| ground.write(write));
        let writes = writes.buffer_unordered(AT_ONCE);
        let neighbour = ground.neighbour_begins("fresh", BOUND);
        let (written, took) = tokio::join!(writes.collect::<Vec<bool>>(), neighbour);
        admitted += written.into_iter().filter(|admitted| *admitted).count();
        slowest = slowest.max(took);
    }
    let after = ground.neighbour_begins("last", BOUND).await;
    let resident = ground.daemon().memory().1;
    println!(
        "hostile: seed {seed}, {made} objects in {:.0?}, {admitted} admitted; a new PgBouncer of the \
         neighbour took {calm:.1?} before, {slowest:.1?} at most meanwhile, {after:.1?} afterwards; \
         the daemon had {resident:.0} MiB at most",
        began.elapsed()
    );
    assert!(
        admitted > made / 4,
        "the API refuses nearly everything: {admitted} of {made}"
    );
    assert!(resident < RESIDENT_MAX, "{resident} MiB");
    let now = ground.precious().await;
    let differs = |at: &&String| before.get(*at) != now.get(*at);
    let changed: BTreeSet<&String> = before.keys().chain(now.keys()).filter(differs).collect();
    let told = changed.iter().map(|at| (at, before.get(*at), now.get(*at)));
    assert!(changed.is_empty(), "{:#?}", told.collect::<Vec<_>>());
    let metrics = ground.daemon().metrics().await;
    assert!(
        metrics.sum("bouncert_internal_errors_total") < 0.5,
        "something panicked"
    );
    let said = ground.said().await;
    for text in &said {
        let leaked = maker.material().leaked(text);
        assert_eq!(leaked, None, "part of a key in {text}");
    }
    ground.stop().await;
}

fn setting(name: &str, default: usize) -> usize {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().unwrap())
}
