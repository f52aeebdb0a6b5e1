//! Evictions: a deletion that asks the disruption budgets first.

use serde_json::{Value, json};

use super::ApiServer;
use super::call::Call;
use super::delete::DeleteOptions;
use super::error::ApiError;
use super::kinds::Resource;
use super::meta;
use super::selector::Selector;
use crate::local::store::Scope;

/// What the budgets say.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    /// Name of the budget, healthy pods it needs, healthy pods there are.
    Refused {
        budget: String,
        needed: usize,
        healthy: usize,
    },
    /// Kubernetes knows no answer where two budgets cover one pod.
    Ambiguous,
}

impl ApiServer {
    /// `POST pods/{name}/eviction`.
    pub(super) fn evict(&self, call: &Call, eviction: &Value) -> Result<Value, ApiError> {
        // One at a time: two evictions that both count the same ready pods would both be allowed.
        let _one = self
            .inner
            .evicting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let pod = self.object(call)?;
        let options = eviction
            .get("deleteOptions")
            .cloned()
            .unwrap_or_else(|| json!({}));
        let options: DeleteOptions = serde_json::from_value(options)
            .map_err(|error| ApiError::BadRequest(format!("deleteOptions: {error}")))?;
        options.check_grace()?;
        let free = meta::is_deleting(&pod)
            || matches!(
                pod["status"]["phase"].as_str(),
                Some("Pending" | "Succeeded" | "Failed")
            );
        if !free {
            match self.verdict(call, &pod) {
                Verdict::Allowed => {}
                Verdict::Refused {
                    budget,
                    needed,
                    healthy,
                } => {
                    return Err(violation(&budget, needed, healthy));
                }
                Verdict::Ambiguous => {
                    return Err(ApiError::Internal(
                        "This pod has more than one PodDisruptionBudget, which the eviction \
                         subresource does not support."
                            .to_owned(),
                    ));
                }
            }
        }
        self.delete(call, &options)?;
        Ok(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
        }))
    }

    fn verdict(&self, call: &Call, pod: &Value) -> Verdict {
        let in_namespace = |group: &str, resource: &str| Scope {
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: Some(call.namespace.clone()),
        };
        let budgets = self
            .inner
            .store
            .list(&in_namespace("policy", "poddisruptionbudgets"));
        let mut covering = budgets
            .objects
            .iter()
            .map(|(_, budget)| budget)
            .filter(|budget| {
                let selector = &budget["spec"]["selector"];
                selector.is_object() && Selector::of_object(selector).matches(pod)
            });
        let Some(budget) = covering.next() else {
            return Verdict::Allowed;
        };
        if covering.next().is_some() {
            return Verdict::Ambiguous;
        }
        let selector = Selector::of_object(&budget["spec"]["selector"]);
        let pods = self.inner.store.list(&in_namespace("", "pods"));
        let pods: Vec<&Value> = pods
            .objects
            .iter()
            .map(|(_, pod)| &**pod)
            .filter(|pod| selector.matches(pod))
            .collect();
        let expected = self.expected(&pods);
        decide(budget, pod, &pods, expected)
    }

    /// How many pods there should be: the replicas of the sets that own them.
    fn expected(&self, pods: &[&Value]) -> usize {
        let mut owners: Vec<&Value> = pods
            .iter()
            .filter_map(|pod| controller(pod))
            .map(|owner| &owner["uid"])
            .collect();
        owners.sort_by_key(|uid| uid.as_str());
        owners.dedup();
        let registry = self.registry();
        let unowned = pods.iter().filter(|pod| controller(pod).is_none()).count();
        let replicas = |uid: &Value| {
            let owner = pods.iter().find_map(|pod| {
                controller(pod)
                    .filter(|owner| owner["uid"] == *uid)
                    .map(|owner| (pod, owner))
            });
            let (pod, owner) = owner?;
            let (group, version) = owner["apiVersion"]
                .as_str()?
                .rsplit_once('/')
                .unwrap_or(("", "v1"));
            let is_owners = |resource: &&std::sync::Arc<Resource>| {
                resource.group == group && resource.kind == owner["kind"]
            };
            let resource = registry.of_version(group, version).find(is_owners)?;
            let key = resource.key(meta::text(pod, "namespace"), owner["name"].as_str()?);
            let replicas = self.inner.store.get(&key)?["spec"]["replicas"].as_u64()?;
            usize::try_from(replicas).ok()
        };
        let own = |uid: &Value| {
            let count = |pod: &&&Value| controller(pod).is_some_and(|owner| owner["uid"] == *uid);
            pods.iter().filter(count).count()
        };
        owners
            .into_iter()
            .map(|uid| replicas(uid).unwrap_or_else(|| own(uid)))
            .sum::<usize>()
            + unowned
    }
}

fn controller(pod: &Value) -> Option<&Value> {
    let owners = pod["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)
}

fn decide(budget: &Value, pod: &Value, pods: &[&Value], expected: usize) -> Verdict {
    let healthy = pods
        .iter()
        .filter(|pod| meta::is_ready(pod) && !meta::is_deleting(pod))
        .count();
    let needed = needed(&budget["spec"], pods.len(), expected);
    if !meta::is_ready(pod) {
        let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        // A pod that serves nobody may go while those that do are enough.
        if always || (healthy >= needed && needed > 0) {
            return Verdict::Allowed;
        }
    }
    if healthy > needed {
        return Verdict::Allowed;
    }
    Verdict::Refused {
        budget: meta::text(budget, "name").to_owned(),
        needed,
        healthy,
    }
}

/// The healthy pods a budget needs.
fn needed(spec: &Value, found: usize, expected: usize) -> usize {
    if let Some(most) = spec.get("maxUnavailable").filter(|most| !most.is_null()) {
        return expected.saturating_sub(amount(most, expected));
    }
    match spec.get("minAvailable").filter(|least| !least.is_null()) {
        Some(least) if least.is_string() => amount(least, expected),
        Some(least) => amount(least, found),
        None => 1,
    }
}

/// A number, or a percentage of `whole` rounded up as Kubernetes does.
fn amount(value: &Value, whole: usize) -> usize {
    if let Some(percent) = value.as_str().and_then(|text| text.strip_suffix('%')) {
        let percent: usize = percent.trim().parse().unwrap_or(0);
        return (whole * percent).div_ceil(100);
    }
    value
        .as_u64()
        .and_then(|number| usize::try_from(number).ok())
        .unwrap_or(0)
}

fn violation(budget: &str, needed: usize, healthy: usize) -> ApiError {
    ApiError::TooManyRequests {
        message: "Cannot evict pod as it would violate the pod's disruption budget.".to_owned(),
        cause: Box::new(json!({
            "reason": "DisruptionBudget",
            "message": format!(
                "The disruption budget {budget} needs {needed} healthy pods and has {healthy} \
                 currently"
            ),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ready: &str) -> Value {
        json!({"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": ready}]}})
    }

    fn verdict(spec: &Value, evicted: &Value, pods: &[&Value], expected: usize) -> Verdict {
        decide(
            &json!({"metadata": {"name": "keep"}, "spec": spec}),
            evicted,
            pods,
            expected,
        )
    }

    #[test]
    fn a_budget_counts_ready_pods() {
        let (ready, starting) = (pod("True"), pod("False"));
        let spec = || json!({"maxUnavailable": 1});
        assert_eq!(
            verdict(&spec(), &ready, &[&ready, &ready, &ready], 3),
            Verdict::Allowed
        );
        let refused = verdict(&spec(), &ready, &[&ready, &ready, &starting], 3);
        assert_eq!(
            refused,
            Verdict::Refused {
                budget: "keep".into(),
                needed: 2,
                healthy: 2
            }
        );
    }

    #[test]
    fn a_pod_that_is_not_ready_may_go_while_the_others_are_enough() {
        let (ready, starting) = (pod("True"), pod("False"));
        let spec = || json!({"minAvailable": 2});
        assert_eq!(
            verdict(&spec(), &starting, &[&ready, &ready, &starting], 3),
            Verdict::Allowed
        );
        let few = verdict(&spec(), &starting, &[&ready, &starting], 2);
        assert!(matches!(
            few,
            Verdict::Refused {
                needed: 2,
                healthy: 1,
                ..
            }
        ));
    }

    #[test]
    fn percentages_are_of_what_should_be_there_and_round_up() {
        assert_eq!(needed(&json!({"minAvailable": "50%"}), 1, 3), 2);
        assert_eq!(needed(&json!({"maxUnavailable": "34%"}), 1, 3), 1);
        assert_eq!(needed(&json!({"minAvailable": 2}), 1, 3), 2);
    }
}
