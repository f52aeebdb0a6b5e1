//! What a set of pods lacks: a pure function of the set and of its pods.
//!
//! Pods are replaced only when somebody deletes them (`OnDelete`). A `RollingUpdate` set is treated
//! the same way; the controller says so in an event.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSetStatus;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;

use crate::api::pod::is_ready;
use crate::local::runner::NODE_NAME;
use crate::names::ObjectRef;

/// Label with the name of a set's pod.
pub const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// Label with its ordinal.
pub const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
/// Label with the revision of the template it was made from.
pub const REVISION_LABEL: &str = "controller-revision-hash";

/// What a PetSet and a StatefulSet have in common.
#[derive(Clone, Debug)]
pub struct SetView {
    /// Namespace and name.
    pub key: ObjectRef,
    /// Its uid.
    pub uid: String,
    /// Its kind and version, as an owner reference wants them.
    pub api_version: String,
    /// See above.
    pub kind: String,
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Pods wanted.
    pub replicas: i32,
    /// First ordinal.
    pub first: i32,
    /// What a pod looks like.
    pub template: PodTemplateSpec,
    /// Governing Service.
    pub service_name: String,
    /// Whether pods are made and removed all at once.
    pub parallel: bool,
    /// Former status.
    pub status: StatefulSetStatus,
}

/// What to do, and the status to write.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// Ordinals of pods to make.
    pub create: Vec<i32>,
    /// Names and uids of pods to delete.
    pub delete: Vec<(String, String)>,
    /// Pods that have a wanted name but another owner.
    pub foreign: Vec<String>,
    /// Status.
    pub status: StatefulSetStatus,
}

/// What `set` lacks, given all `pods` of its namespace.
pub fn plan(set: &SetView, pods: &[Arc<Pod>]) -> Plan {
    let wanted = set.first..set.first.saturating_add(set.replicas.max(0));
    let owned: Vec<(i32, &Arc<Pod>)> = pods
        .iter()
        .filter(|pod| owned_by(pod, &set.uid))
        .filter_map(|pod| Some((ordinal(&set.key.name, &pod.name_any())?, pod)))
        .collect();
    let find = |n: i32| owned.iter().find(|(m, _)| *m == n).map(|(_, pod)| *pod);
    let mut plan = Plan {
        create: Vec::new(),
        delete: Vec::new(),
        foreign: Vec::new(),
        status: status(set, &owned),
    };
    if set.deleting {
        return plan;
    }
    for n in wanted.clone() {
        match find(n) {
            Some(pod) if finished(pod) => plan.remove(pod),
            Some(pod) if set.parallel || is_ready(pod) => {}
            // Ordered: nobody starts before the one below is ready.
            Some(_) => break,
            None => {
                let name = pod_name(&set.key.name, n);
                if pods.iter().any(|pod| pod.name_any() == name) {
                    plan.foreign.push(name);
                } else {
                    plan.create.push(n);
                }
                if !set.parallel {
                    break;
                }
            }
        }
    }
    let mut surplus: Vec<_> = owned.iter().filter(|(n, _)| !wanted.contains(n)).collect();
    surplus.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    if set.parallel {
        for (_, pod) in &surplus {
            plan.remove(pod);
        }
    } else if let Some((_, pod)) = surplus.first() {
        plan.remove(pod);
    }
    plan
}

/// The pod `ordinal` of `set`.
pub fn build(set: &SetView, ordinal: i32) -> Pod {
    let name = pod_name(&set.key.name, ordinal);
    let mut metadata = set.template.metadata.clone().unwrap_or_default();
    metadata.name = Some(name.clone());
    metadata.namespace = Some(set.key.namespace.clone());
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME_LABEL.to_owned(), name.clone());
    labels.insert(POD_INDEX_LABEL.to_owned(), ordinal.to_string());
    labels.insert(REVISION_LABEL.to_owned(), revision(set));
    metadata.owner_references = Some(vec![OwnerReference {
        api_version: set.api_version.clone(),
        kind: set.kind.clone(),
        name: set.key.name.clone(),
        uid: set.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }]);
    let mut spec = set.template.spec.clone().unwrap_or_default();
    spec.hostname = Some(name);
    spec.subdomain = Some(set.service_name.clone()).filter(|s| !s.is_empty());
    spec.node_name = Some(NODE_NAME.to_owned());
    Pod {
        metadata,
        spec: Some(spec),
        status: None,
    }
}

/// Name of the revision of the set's present template.
pub fn revision(set: &SetView) -> String {
    let template = serde_json::to_vec(&set.template).unwrap_or_default();
    let hash = crate::local::hash::short(&template, 5);
    crate::names::name_with_suffix(&set.key.name, &hash)
}

/// Whether the pod has ended for good.
pub fn finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the pod's controller has that uid.
pub fn owned_by(pod: &Pod, uid: &str) -> bool {
    pod.owner_references()
        .iter()
        .any(|owner| owner.controller == Some(true) && owner.uid == uid)
}

fn pod_name(set: &str, ordinal: i32) -> String {
    format!("{set}-{ordinal}")
}

fn ordinal(set: &str, pod: &str) -> Option<i32> {
    pod.strip_prefix(set)?.strip_prefix('-')?.parse().ok()
}

fn status(set: &SetView, owned: &[(i32, &Arc<Pod>)]) -> StatefulSetStatus {
    let count = |test: &dyn Fn(&Pod) -> bool| {
        let n = owned.iter().filter(|(_, pod)| test(pod)).count();
        i32::try_from(n).unwrap_or(i32::MAX)
    };
    let update = revision(set);
    let of = |pod: &Pod, revision: &str| {
        pod.labels()
            .get(REVISION_LABEL)
            .is_some_and(|r| r == revision)
    };
    let alive = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
    let updated = count(&|pod| alive(pod) && of(pod, &update));
    let all_updated = updated == set.replicas && count(&alive) == set.replicas;
    let former = set.status.current_revision.clone();
    let current = former
        .filter(|r| !r.is_empty() && !all_updated)
        .unwrap_or_else(|| update.clone());
    let ready = count(&|pod| alive(pod) && is_ready(pod));
    StatefulSetStatus {
        replicas: count(&|_| true),
        ready_replicas: Some(ready),
        available_replicas: Some(ready),
        current_replicas: Some(count(&|pod| alive(pod) && of(pod, &current))),
        updated_replicas: Some(updated),
        current_revision: Some(current),
        update_revision: Some(update),
        observed_generation: set.generation,
        collision_count: Some(0),
        conditions: set.status.conditions.clone(),
    }
}

// === impl Plan ===

impl Plan {
    fn remove(&mut self, pod: &Pod) {
        if pod.metadata.deletion_timestamp.is_none() {
            self.delete
                .push((pod.name_any(), pod.uid().unwrap_or_default()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(replicas: i32, parallel: bool) -> SetView {
        SetView {
            key: ObjectRef::new("shop", "till"),
            uid: "u-1".into(),
            api_version: "apps.k8s.appscode.com/v1".into(),
            kind: "PetSet".into(),
            generation: Some(3),
            deleting: false,
            replicas,
            first: 0,
            template: serde_json::from_value(
                json!({"metadata": {"labels": {"app": "till"}}, "spec": {"containers": []}}),
            )
            .unwrap(),
            service_name: "till-pods".into(),
            parallel,
            status: StatefulSetStatus::default(),
        }
    }

    fn pod(set: &SetView, ordinal: i32, ready: bool) -> Arc<Pod> {
        let mut pod = build(set, ordinal);
        pod.metadata.uid = Some(format!("p-{ordinal}"));
        pod.status = serde_json::from_value(json!({"conditions": [
            {"type": "Ready", "status": if ready { "True" } else { "False" }}
        ]}))
        .unwrap();
        Arc::new(pod)
    }

    #[test]
    fn a_parallel_set_makes_all_pods_at_once_and_an_ordered_one_waits_for_each() {
        assert_eq!(plan(&set(3, true), &[]).create, [0, 1, 2]);
        let ordered = set(3, false);
        assert_eq!(plan(&ordered, &[]).create, [0]);
        let unready = [pod(&ordered, 0, false)];
        assert!(plan(&ordered, &unready).create.is_empty());
        let ready = [pod(&ordered, 0, true)];
        assert_eq!(plan(&ordered, &ready).create, [1]);
    }

    #[test]
    fn scaling_down_removes_the_highest_ordinal_first() {
        let parallel = set(1, true);
        let pods: Vec<_> = (0..3).map(|n| pod(&parallel, n, true)).collect();
        let names = |plan: Plan| plan.delete.into_iter().map(|d| d.0).collect::<Vec<_>>();
        assert_eq!(names(plan(&parallel, &pods)), ["till-2", "till-1"]);
        assert_eq!(names(plan(&set(1, false), &pods)), ["till-2"]);
    }

    #[test]
    fn a_changed_template_touches_no_pod_and_shows_in_the_status() {
        let before = set(2, true);
        let pods = [pod(&before, 0, true), pod(&before, 1, true)];
        let mut after = set(2, true);
        after.status = plan(&before, &pods).status;
        after.template.spec.get_or_insert_default().hostname = Some("x".into());
        let found = plan(&after, &pods);
        assert!(found.create.is_empty() && found.delete.is_empty());
        assert_eq!(found.status.updated_replicas, Some(0));
        assert_eq!(found.status.ready_replicas, Some(2));
        assert_ne!(found.status.current_revision, found.status.update_revision);
        let fresh = [pod(&after, 0, true), pod(&after, 1, true)];
        let done = plan(&after, &fresh).status;
        assert_eq!(done.current_revision, done.update_revision);
    }

    #[test]
    fn a_pod_of_another_owner_with_a_wanted_name_is_reported_and_left_alone() {
        let mine = set(1, true);
        let other = SetView {
            uid: "u-2".into(),
            ..set(1, true)
        };
        let found = plan(&mine, &[pod(&other, 0, true)]);
        assert_eq!(found.foreign, ["till-0"]);
        assert!(found.create.is_empty() && found.delete.is_empty());
    }

    #[test]
    fn a_pod_carries_its_name_ordinal_revision_owner_and_host_name() {
        let set = set(1, true);
        let pod = build(&set, 4);
        assert_eq!(pod.labels()[POD_NAME_LABEL], "till-4");
        assert_eq!(pod.labels()[POD_INDEX_LABEL], "4");
        assert_eq!(pod.labels()[REVISION_LABEL], revision(&set));
        assert_eq!(pod.labels()["app"], "till");
        assert!(owned_by(&pod, "u-1"));
        let spec = pod.spec.unwrap();
        assert_eq!(spec.hostname.as_deref(), Some("till-4"));
        assert_eq!(spec.subdomain.as_deref(), Some("till-pods"));
    }
}
