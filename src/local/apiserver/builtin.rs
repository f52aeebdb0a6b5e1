//! The table of resources that are served without a definition.

use super::access::RBAC_GROUP as RBAC;
use super::kinds::{Origin, Resource, ScalePaths};
use super::openapi::Scope;
use super::table::Columns;

/// The newer face of `Event`.
pub const EVENTS_GROUP: &str = "events.k8s.io";
/// The group of definitions.
pub const DEFINITIONS_GROUP: &str = "apiextensions.k8s.io";

/// One row of the table.
#[derive(Debug)]
pub struct BuiltIn {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    scope: Scope,
    subresources: &'static [&'static str],
    /// Whether `metadata.generation` counts changes of the spec.
    pub generation: bool,
}

impl BuiltIn {
    const fn new(
        group: &'static str,
        kind: &'static str,
        plural: &'static str,
        singular: &'static str,
    ) -> Self {
        Self {
            group,
            kind,
            plural,
            singular,
            short_names: &[],
            categories: &[],
            scope: Scope::Namespaced,
            subresources: &[],
            generation: false,
        }
    }

    const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short_names = names;
        self
    }

    const fn cluster(mut self) -> Self {
        self.scope = Scope::Cluster;
        self
    }

    const fn with(mut self, subresources: &'static [&'static str]) -> Self {
        self.subresources = subresources;
        self
    }

    const fn in_all(mut self) -> Self {
        self.categories = &["all"];
        self
    }

    const fn counted(mut self) -> Self {
        self.generation = true;
        self
    }

    /// The row as a served resource; every built-in is served as `v1`.
    pub fn resource(&'static self) -> Resource {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Resource {
            group: self.group.to_owned(),
            version: "v1".to_owned(),
            kind: self.kind.to_owned(),
            list_kind: format!("{}List", self.kind),
            plural: self.plural.to_owned(),
            singular: self.singular.to_owned(),
            short_names: owned(self.short_names),
            categories: owned(self.categories),
            scope: self.scope,
            subresources: owned(self.subresources),
            scale: self.subresources.contains(&"scale").then(|| ScalePaths {
                spec: "/spec/replicas".to_owned(),
                status: "/status/replicas".to_owned(),
                selector: None,
            }),
            columns: Columns::built_in(self.group, self.kind),
            origin: Origin::BuiltIn(self),
        }
    }
}

/// What the embedded platform knows by itself.
pub static BUILT_IN: &[BuiltIn] = &[
    BuiltIn::new("", "Namespace", "namespaces", "namespace")
        .short(&["ns"])
        .cluster()
        .with(&["status", "finalize"]),
    BuiltIn::new("", "Node", "nodes", "node")
        .short(&["no"])
        .cluster()
        .with(&["status"]),
    BuiltIn::new("", "Secret", "secrets", "secret"),
    BuiltIn::new("", "ConfigMap", "configmaps", "configmap").short(&["cm"]),
    BuiltIn::new("", "Service", "services", "service")
        .short(&["svc"])
        .in_all()
        .with(&["status"]),
    BuiltIn::new("", "Endpoints", "endpoints", "endpoints").short(&["ep"]),
    BuiltIn::new("", "Pod", "pods", "pod")
        .short(&["po"])
        .in_all()
        .counted()
        .with(&["status", "log", "eviction", "binding"]),
    BuiltIn::new("", "Event", "events", "event").short(&["ev"]),
    BuiltIn::new("", "ServiceAccount", "serviceaccounts", "serviceaccount")
        .short(&["sa"])
        .with(&["token"]),
    BuiltIn::new(
        "",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        "persistentvolumeclaim",
    )
    .short(&["pvc"])
    .with(&["status"]),
    BuiltIn::new("apps", "StatefulSet", "statefulsets", "statefulset")
        .short(&["sts"])
        .in_all()
        .counted()
        .with(&["status", "scale"]),
    BuiltIn::new("apps", "Deployment", "deployments", "deployment")
        .short(&["deploy"])
        .in_all()
        .counted()
        .with(&["status", "scale"]),
    BuiltIn::new(
        "apps",
        "ControllerRevision",
        "controllerrevisions",
        "controllerrevision",
    ),
    BuiltIn::new(
        "policy",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "poddisruptionbudget",
    )
    .short(&["pdb"])
    .counted()
    .with(&["status"]),
    BuiltIn::new(
        "discovery.k8s.io",
        "EndpointSlice",
        "endpointslices",
        "endpointslice",
    )
    .counted(),
    BuiltIn::new("coordination.k8s.io", "Lease", "leases", "lease"),
    BuiltIn::new(EVENTS_GROUP, "Event", "events", "event").short(&["ev"]),
    BuiltIn::new(
        DEFINITIONS_GROUP,
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "customresourcedefinition",
    )
    .short(&["crd", "crds"])
    .cluster()
    .counted()
    .with(&["status"]),
    BuiltIn::new(
        "networking.k8s.io",
        "NetworkPolicy",
        "networkpolicies",
        "networkpolicy",
    )
    .short(&["netpol"])
    .counted(),
    BuiltIn::new(
        "scheduling.k8s.io",
        "PriorityClass",
        "priorityclasses",
        "priorityclass",
    )
    .short(&["pc"])
    .cluster(),
    BuiltIn::new(RBAC, "Role", "roles", "role"),
    BuiltIn::new(RBAC, "RoleBinding", "rolebindings", "rolebinding"),
    BuiltIn::new(RBAC, "ClusterRole", "clusterroles", "clusterrole").cluster(),
    BuiltIn::new(
        RBAC,
        "ClusterRoleBinding",
        "clusterrolebindings",
        "clusterrolebinding",
    )
    .cluster(),
];
