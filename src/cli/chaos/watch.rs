//! The watcher: looks at pods and requests all the time, and keeps count of what it checks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::requests::{End, Ended};
use crate::api::annotations::{CAUSE, CREATED_BY_LABEL, SERVING_LABEL};
use crate::api::pod::is_ready;
use crate::api::{PgBouncerOpsRequest, RequestPhase};
use crate::cli::follow;
use crate::cli::scene::cast::{NAMESPACE, POOLER, REPLICAS};
use crate::cluster::Cluster;

/// Between two looks.
const OFTEN: Duration = Duration::from_millis(100);
/// A pod that a fault has hit is excused for so long at least: before that its status may be that
/// of before the fault.
const SHOCK: Duration = Duration::from_secs(2);

/// How often something was checked, and what was found.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Checked {
    /// How often.
    pub(super) times: u64,
    /// How often it did not hold.
    pub(super) violated: u64,
}

/// The invariants, and the pods that faults have hit.
#[derive(Debug, Default)]
pub(super) struct Invariants {
    checked: Mutex<BTreeMap<&'static str, Checked>>,
    words: Mutex<Vec<String>>,
    hurt: Mutex<BTreeMap<String, Instant>>,
    own: Mutex<BTreeMap<String, (Instant, Ended)>>,
}

impl Invariants {
    /// Notes that `invariant` was looked at.
    pub(super) fn check(
        &self,
        invariant: &'static str,
        holds: bool,
        words: impl FnOnce() -> String,
    ) {
        let mut all = lock(&self.checked);
        let checked = all.entry(invariant).or_default();
        checked.times += 1;
        if !holds {
            checked.violated += 1;
            let words = format!("{invariant}: {}", words());
            tracing::error!(words, "an invariant is violated");
            lock(&self.words).push(words);
        }
    }

    /// A fault has hit that pod.
    pub(super) fn hurt(&self, pod: &str) {
        lock(&self.hurt).insert(pod.to_owned(), Instant::now());
    }

    /// The requests that the daemon has made by itself, as they were seen last.
    pub(super) fn own(&self) -> Vec<Ended> {
        let own = lock(&self.own);
        own.values().map(|(_, ended)| ended.clone()).collect()
    }

    /// How often what was checked.
    pub(super) fn checked(&self) -> BTreeMap<&'static str, Checked> {
        lock(&self.checked).clone()
    }

    /// What was violated, in words.
    pub(super) fn violations(&self) -> Vec<String> {
        lock(&self.words).clone()
    }

    /// Looks until told to stop.
    pub(super) async fn watch(&self, cluster: &Cluster, stop: CancellationToken) {
        while !stop.is_cancelled() {
            // Reading does not fail because of the faults; where it does, the next look will do.
            if let Ok(pods) = cluster.list::<Pod>(NAMESPACE, &labels()).await {
                self.look_at_pods(&pods);
            }
            if let Ok(requests) = cluster.list::<PgBouncerOpsRequest>(NAMESPACE, "").await {
                self.look_at_requests(&requests);
                self.note_own(&requests);
            }
            sleep(OFTEN).await;
        }
    }

    /// I3: of the pods that no fault has hit, all but one are in service; and one pod is, always.
    fn look_at_pods(&self, pods: &[Pod]) {
        let serving: BTreeSet<String> = pods
            .iter()
            .filter(|pod| is_serving(pod))
            .map(ResourceExt::name_any)
            .collect();
        let excused = {
            let mut hurt = lock(&self.hurt);
            hurt.retain(|pod, since| since.elapsed() < SHOCK || !serving.contains(pod));
            hurt.keys().filter(|pod| !serving.contains(*pod)).count()
        };
        let least = REPLICAS.saturating_sub(1 + excused);
        self.check("I3", serving.len() >= least, || {
            format!(
                "{} pods serve, and {least} should: {}",
                serving.len(),
                pods.iter().map(words).collect::<Vec<_>>().join(", ")
            )
        });
    }

    /// Drift and the schedule make requests of their own. They end as all others do, and old ones are
    /// deleted.
    fn note_own(&self, requests: &[PgBouncerOpsRequest]) {
        let mut own = lock(&self.own);
        let made = |request: &&PgBouncerOpsRequest| request.labels().contains_key(CREATED_BY_LABEL);
        for request in requests.iter().filter(made) {
            let name = request.name_any();
            let phase = request.status.as_ref().and_then(|status| status.phase);
            let (since, last) = own.entry(name.clone()).or_insert_with(|| {
                let asked = request.annotations().get(CAUSE).cloned();
                let asked = asked.unwrap_or_default();
                (Instant::now(), Ended::open(name, asked))
            });
            if last.end == End::Never {
                last.end = End::of(phase);
                last.verdict = follow::verdict(request);
                last.took = since.elapsed();
            }
        }
    }

    /// I10: one request at a time.
    fn look_at_requests(&self, requests: &[PgBouncerOpsRequest]) {
        let running: Vec<String> = requests
            .iter()
            .filter(|request| {
                let phase = request.status.as_ref().and_then(|status| status.phase);
                phase == Some(RequestPhase::Progressing)
            })
            .map(ResourceExt::name_any)
            .collect();
        self.check("I10", running.len() <= 1, || {
            format!("{} run at the same time", running.join(" and "))
        });
    }
}

/// Selects the pods.
pub(super) fn labels() -> String {
    format!("app.kubernetes.io/instance={POOLER}")
}

/// Whether the Service leads to it.
pub(super) fn is_serving(pod: &Pod) -> bool {
    is_ready(pod) && is_labelled(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Whether it is not being drained.
pub(super) fn is_labelled(pod: &Pod) -> bool {
    pod.labels().contains_key(SERVING_LABEL)
}

fn words(pod: &Pod) -> String {
    let leaving = pod.metadata.deletion_timestamp.is_some();
    let drained = !is_labelled(pod);
    let (name, serving) = (pod.name_any(), is_serving(pod));
    format!("{name} (serving {serving}, drained {drained}, leaving {leaving})")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ready: &str, drained: Option<()>) -> Pod {
        let mut pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": { "name": name, "labels": {} },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .unwrap();
        if drained.is_none() {
            pod.labels_mut()
                .insert(SERVING_LABEL.to_owned(), "true".to_owned());
        }
        pod
    }

    #[test]
    fn requests_of_the_daemon_itself_are_followed_and_forgotten_only_by_the_api() {
        let request = |phase| -> PgBouncerOpsRequest {
            serde_json::from_value(serde_json::json!({
                "metadata": {
                    "name": "pb-restart-1", "labels": { CREATED_BY_LABEL: "rotation" },
                    "annotations": { CAUSE: "pb-0 serves another certificate" },
                },
                "spec": { "type": "Restart", "databaseRef": { "name": POOLER } },
                "status": { "phase": phase },
            }))
            .unwrap()
        };
        let mut other = request("Failed");
        other.labels_mut().clear();
        other.metadata.name = Some("001-rotate".to_owned());
        let invariants = Invariants::default();
        let own = |requests: &[PgBouncerOpsRequest]| {
            invariants.note_own(requests);
            let own = invariants.own();
            assert_eq!(own.len(), 1);
            assert_eq!(own[0].asked, "pb-0 serves another certificate");
            own[0].end
        };
        assert_eq!(own(&[request("Progressing"), other]), End::Never);
        assert_eq!(own(&[request("Successful")]), End::Successful);
        assert_eq!(own(&[]), End::Successful);
    }

    #[test]
    fn two_pods_out_of_service_are_one_too_many_unless_a_fault_hit_one() {
        let invariants = Invariants::default();
        let two_out = [
            pod("crane-0", "True", None),
            pod("crane-1", "True", Some(())),
            pod("crane-2", "False", None),
        ];
        invariants.hurt("crane-2");
        invariants.look_at_pods(&two_out);
        assert_eq!(invariants.violations(), Vec::<String>::new());
        lock(&invariants.hurt).clear();
        invariants.look_at_pods(&two_out);
        assert_eq!(invariants.violations().len(), 1);
        assert_eq!(invariants.checked()["I3"].times, 2);
    }
}
