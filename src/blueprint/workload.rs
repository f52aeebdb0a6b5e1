//! What makes the pods: a PetSet or a StatefulSet, and the disruption budget
//! (docs/kubedb-compatibility.md, "PetSets").

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::inputs::Inputs;
use super::pod_template::PodTemplateError;
use super::{labels, metadata, names, pods};
use crate::api::PetSet;
use crate::api::common::LocalRef;
use crate::api::petset::PetSetSpec;
use crate::api::workload::{Workload, WorkloadKind};

/// How many pods a completed object asks for now.
pub(super) fn replicas(inputs: &Inputs) -> i32 {
    if inputs.bouncer.spec.halted == Some(true) {
        0
    } else {
        inputs.bouncer.spec.replicas.unwrap_or(1)
    }
}

/// The workload. Pods are replaced by whoever deletes them, never by a change of the template.
pub(super) fn workload(inputs: &Inputs) -> Result<Workload, PodTemplateError> {
    let name = inputs.bouncer.name_any();
    let metadata = workload_metadata(inputs);
    let selector = LabelSelector {
        match_labels: Some(labels::selector(&name)),
        ..LabelSelector::default()
    };
    let on_delete = StatefulSetUpdateStrategy {
        type_: Some("OnDelete".to_owned()),
        ..StatefulSetUpdateStrategy::default()
    };
    let template = pods::template(inputs)?;
    let service_name = names::governing_service(&name);
    let parallel = Some("Parallel".to_owned());
    Ok(match inputs.workload {
        WorkloadKind::PetSet => Workload::PetSet(Box::new(PetSet {
            metadata,
            spec: PetSetSpec {
                replicas: Some(replicas(inputs)),
                selector,
                template,
                service_name,
                pod_management_policy: parallel,
                update_strategy: Some(on_delete),
                pod_placement_policy: Some(placement(inputs)),
                ..PetSetSpec::default()
            },
            status: None,
        })),
        WorkloadKind::StatefulSet => Workload::StatefulSet(Box::new(StatefulSet {
            metadata,
            spec: StatefulSetSpec {
                replicas: Some(replicas(inputs)),
                selector,
                template,
                service_name: Some(service_name),
                pod_management_policy: parallel,
                update_strategy: Some(on_delete),
                ..StatefulSetSpec::default()
            },
            status: None,
        })),
    })
}

/// How many of so many pods the disruption budget lets go at the same time.
pub const fn disruptions(replicas: i32) -> i32 {
    let half = (replicas - 1) / 2;
    if half > 1 { half } else { 1 }
}

/// The disruption budget; none for a single pod.
pub(super) fn disruption_budget(inputs: &Inputs) -> Option<PodDisruptionBudget> {
    let replicas = inputs.bouncer.spec.replicas.unwrap_or(1);
    (replicas > 1).then(|| PodDisruptionBudget {
        metadata: workload_metadata(inputs),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(disruptions(replicas))),
            selector: Some(LabelSelector {
                match_labels: Some(labels::selector(&inputs.bouncer.name_any())),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}

fn workload_metadata(inputs: &Inputs) -> ObjectMeta {
    let mut metadata = metadata(&inputs.bouncer, inputs.bouncer.name_any());
    let mut labels = inputs.pod_template.controller_labels.clone();
    labels.extend(metadata.labels.take().unwrap_or_default());
    metadata.labels = Some(labels);
    let annotations = inputs.pod_template.controller_annotations.clone();
    metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
    metadata
}

fn placement(inputs: &Inputs) -> LocalRef {
    let default = || LocalRef {
        name: "default".to_owned(),
    };
    inputs
        .pod_template
        .placement
        .clone()
        .unwrap_or_else(default)
}
