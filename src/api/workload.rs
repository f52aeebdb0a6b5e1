//! What makes the pods of a PgBouncer: a PetSet where that kind is known, else a StatefulSet
//! (docs/kubedb-compatibility.md, "PetSets"). Code that does not care calls these methods.

use std::fmt;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt;

use super::annotations::{BACKEND_SECRET_VERSION_LABEL, DIGEST};
use super::petset::PetSet;

/// The kind of what makes the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadKind {
    /// A PetSet, where that kind is known.
    PetSet,
    /// A StatefulSet.
    StatefulSet,
}

/// What makes the pods.
#[derive(Clone, Debug, PartialEq)]
pub enum Workload {
    /// As KubeDB has it.
    PetSet(Box<PetSet>),
    /// Where that kind is not known.
    StatefulSet(Box<StatefulSet>),
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PetSet => "PetSet",
            Self::StatefulSet => "StatefulSet",
        })
    }
}

// === impl Workload ===

impl From<PetSet> for Workload {
    fn from(set: PetSet) -> Self {
        Self::PetSet(Box::new(set))
    }
}

impl From<StatefulSet> for Workload {
    fn from(set: StatefulSet) -> Self {
        Self::StatefulSet(Box::new(set))
    }
}

impl Workload {
    /// Which of the two it is.
    pub const fn kind(&self) -> WorkloadKind {
        match self {
            Self::PetSet(_) => WorkloadKind::PetSet,
            Self::StatefulSet(_) => WorkloadKind::StatefulSet,
        }
    }

    /// Its UID, once it has been written.
    pub fn uid(&self) -> Option<String> {
        match self {
            Self::PetSet(set) => set.uid(),
            Self::StatefulSet(set) => set.uid(),
        }
    }

    /// How many pods it asks for.
    pub fn replicas(&self) -> i32 {
        let replicas = match self {
            Self::PetSet(set) => set.spec.replicas,
            Self::StatefulSet(set) => set.spec.replicas,
        };
        replicas.unwrap_or(1)
    }

    /// Asks for that many pods.
    pub fn set_replicas(&mut self, replicas: Option<i32>) {
        match self {
            Self::PetSet(set) => set.spec.replicas = replicas,
            Self::StatefulSet(set) => set.spec.replicas = replicas,
        }
    }

    /// The digest that its pods carry.
    pub fn digest(&self) -> Option<&str> {
        self.template()
            .metadata
            .as_ref()?
            .annotations
            .as_ref()?
            .get(DIGEST)
            .map(String::as_str)
    }

    /// The pods' template.
    pub fn template(&self) -> &PodTemplateSpec {
        match self {
            Self::PetSet(set) => &set.spec.template,
            Self::StatefulSet(set) => &set.spec.template,
        }
    }

    /// Labels the pods with the backend Secret's `resourceVersion`, which is known only once that
    /// Secret has been written.
    pub fn set_backend_secret_version(&mut self, version: &str) {
        let template = match self {
            Self::PetSet(set) => &mut set.spec.template,
            Self::StatefulSet(set) => &mut set.spec.template,
        };
        template
            .metadata
            .get_or_insert_default()
            .labels
            .get_or_insert_default()
            .insert(BACKEND_SECRET_VERSION_LABEL.to_owned(), version.to_owned());
    }
}
