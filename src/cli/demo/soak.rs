//! Left to itself: certificates that live for minutes, clients that work, and nobody who asks for
//! anything.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kube::ResourceExt;

use super::report::Outcome;
use super::{SETTLE, carry_out, follow_up, last_line};
use crate::api::PgBouncerOpsRequest;
use crate::api::annotations::{CREATED_BY_LABEL, CREATED_BY_ROTATION};
use crate::cli::output::Progress;
use crate::cli::scene::cast::{self, NAMESPACE};
use crate::cli::scene::load::Ledger;
use crate::cli::scene::stage::Stage;
use crate::cluster::Cluster;
use crate::instants::Shift;

/// How often a request that nobody asked for is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Adds TLS, and watches for `length` what is rotated.
pub(super) async fn watch(
    stage: &Stage,
    cluster: &Cluster,
    ledger: &Ledger,
    length: Duration,
    progress: &Progress,
) -> anyhow::Result<Vec<Outcome>> {
    ledger.next_step();
    let mut outcomes = vec![carry_out(stage, cluster, &cast::short_lived()?, progress).await?];
    tokio::time::sleep(SETTLE).await;
    progress.line(&last_line(&outcomes, ledger.committed_now()));
    let end = Instant::now().plus(length);
    let mut known = BTreeSet::new();
    while Instant::now() < end {
        let Some(request) = another(cluster, &mut known).await? else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        ledger.next_step();
        let begun = Instant::now();
        outcomes.push(follow_up(stage, cluster, &request, begun, progress).await?);
        tokio::time::sleep(SETTLE).await;
        progress.line(&last_line(&outcomes, ledger.committed_now()));
    }
    if let [only] = outcomes.as_mut_slice() {
        let seconds = length.as_secs();
        only.complaints
            .push(format!("nothing was rotated within {seconds} s"));
    }
    Ok(outcomes)
}

/// A request of the scheduled rotation that is not known yet.
async fn another(
    cluster: &Cluster,
    known: &mut BTreeSet<String>,
) -> anyhow::Result<Option<PgBouncerOpsRequest>> {
    let labels = format!("{CREATED_BY_LABEL}={CREATED_BY_ROTATION}");
    let found: Vec<PgBouncerOpsRequest> = cluster.list(NAMESPACE, &labels).await?;
    Ok(found
        .into_iter()
        .find(|request| known.insert(request.name_any())))
}
