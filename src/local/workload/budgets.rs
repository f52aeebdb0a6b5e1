//! The status of disruption budgets: how many pods may go now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::plan::finished;
use super::selector::fulfils;
use crate::api::pod::is_ready;
use crate::cluster::{Cluster, ClusterError};
use crate::instants::Within;
use crate::local::informer::{Informer, key_of};
use crate::local::queue::Queue;
use crate::names::ObjectRef;

/// The controller.
pub struct BudgetController {
    cluster: Cluster,
    budgets: Arc<Informer<PodDisruptionBudget>>,
    pods: Arc<Informer<Pod>>,
    replicas: Replicas,
    queue: Arc<Queue<ObjectRef>>,
}

/// Tells how many pods the controller with that namespace, kind and name wants.
pub type Replicas = Box<dyn Fn(&ObjectRef, &str) -> Option<i32> + Send + Sync>;

/// What a budget's status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Pods that there should be.
    pub expected: i32,
    /// Ready pods that are not on their way out.
    pub healthy: i32,
    /// Ready pods that there must be.
    pub desired: i32,
    /// Pods that may go now.
    pub allowed: i32,
}

// === impl BudgetController ===

impl BudgetController {
    /// Subscribes; to be called before the informers run.
    pub fn new(
        cluster: Cluster,
        budgets: Arc<Informer<PodDisruptionBudget>>,
        pods: Arc<Informer<Pod>>,
        replicas: Replicas,
    ) -> Arc<Self> {
        let queue: Arc<Queue<ObjectRef>> = Arc::default();
        let to = queue.clone();
        budgets.on_change(move |change| {
            if let Some(budget) = change.newest() {
                to.add(key_of(&**budget));
            }
        });
        let (to, known) = (queue.clone(), budgets.clone());
        pods.on_change(move |change| {
            let Some(pod) = change.newest() else { return };
            for budget in known.list(&pod.namespace().unwrap_or_default()) {
                let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
                let touched = [change.before, change.after]
                    .into_iter()
                    .flatten()
                    .any(|pod| selector.is_some_and(|s| fulfils(s, Some(pod.labels()))));
                if touched {
                    to.add(key_of(&*budget));
                }
            }
        });
        Arc::new(Self {
            cluster,
            budgets,
            pods,
            replicas,
            queue,
        })
    }

    /// Runs until dropped.
    pub async fn run(self: Arc<Self>) {
        let queue = self.queue.clone();
        let work = move |key| {
            let this = self.clone();
            async move { this.reconcile(&key).await }
        };
        queue.run("budgets", work).await;
    }

    async fn reconcile(&self, key: &ObjectRef) -> Result<Option<Duration>, ClusterError> {
        let Some(budget) = self.budgets.get(key) else {
            return Ok(None);
        };
        let spec = budget.spec.clone().unwrap_or_default();
        let pods: Vec<Arc<Pod>> = self
            .pods
            .list(&key.namespace)
            .into_iter()
            .filter(|pod| {
                let selector = spec.selector.as_ref();
                selector.is_some_and(|s| fulfils(s, Some(pod.labels()))) && !finished(pod)
            })
            .collect();
        let counts = counts(&spec, self.expected(&pods), healthy(&pods));
        let before = serde_json::to_value(&budget.status).unwrap_or_default();
        let status = status(counts, budget.metadata.generation);
        let differs = status
            .as_object()
            .is_some_and(|fields| fields.iter().any(|(name, value)| before[name] != *value));
        if differs {
            let patch = json!({"status": status});
            match self
                .cluster
                .patch_status::<PodDisruptionBudget>(key, &patch)
                .await
            {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Pods that the owners of `pods` want; a pod without a known owner counts for itself.
    fn expected(&self, pods: &[Arc<Pod>]) -> i32 {
        let mut owners: BTreeMap<String, i32> = BTreeMap::new();
        let mut alone = 0;
        for pod in pods {
            let refs = pod.owner_references();
            let owner = refs.iter().find(|owner| owner.controller == Some(true));
            let wanted = owner.and_then(|owner| {
                let at = ObjectRef::new(pod.namespace().unwrap_or_default(), &*owner.name);
                Some((owner.uid.clone(), (self.replicas)(&at, &owner.kind)?))
            });
            match wanted {
                Some((uid, replicas)) => {
                    owners.insert(uid, replicas);
                }
                None => alone += 1,
            }
        }
        owners.values().sum::<i32>() + alone
    }
}

/// The counts of a budget.
pub fn counts(spec: &PodDisruptionBudgetSpec, expected: i32, healthy: i32) -> Counts {
    let desired = if let Some(max) = &spec.max_unavailable {
        expected - scaled(max, expected)
    } else if let Some(min) = &spec.min_available {
        scaled(min, expected)
    } else {
        0
    };
    let desired = desired.within(0, expected.max(0));
    Counts {
        expected,
        healthy,
        desired,
        allowed: (healthy - desired).max(0),
    }
}

fn healthy(pods: &[Arc<Pod>]) -> i32 {
    let n = pods
        .iter()
        .filter(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none())
        .count();
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// A number, or a percentage of `whole` rounded up.
fn scaled(value: &IntOrString, whole: i32) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent = text.trim_end_matches('%').parse::<i64>().unwrap_or(0);
            let part = (i64::from(whole) * percent + 99) / 100;
            i32::try_from(part).unwrap_or(i32::MAX)
        }
    }
}

fn status(counts: Counts, generation: Option<i64>) -> Value {
    json!({
        "expectedPods": counts.expected,
        "currentHealthy": counts.healthy,
        "desiredHealthy": counts.desired,
        "disruptionsAllowed": counts.allowed,
        "observedGeneration": generation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: Value) -> PodDisruptionBudgetSpec {
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn max_unavailable_counts_from_what_there_should_be() {
        let budget = spec(json!({"maxUnavailable": 1}));
        let all = counts(&budget, 3, 3);
        assert_eq!((all.desired, all.allowed), (2, 1));
        assert_eq!(counts(&budget, 3, 2).allowed, 0);
        assert_eq!(counts(&budget, 3, 0).allowed, 0);
    }

    #[test]
    fn min_available_may_be_a_percentage_rounded_up() {
        let budget = spec(json!({"minAvailable": "50%"}));
        assert_eq!(counts(&budget, 3, 3).desired, 2);
        assert_eq!(counts(&budget, 3, 3).allowed, 1);
        assert_eq!(counts(&spec(json!({})), 3, 3).allowed, 3);
    }
}
