//! Schemas of the kinds that Kubernetes brings itself.

use k8s_openapi::api::{
    apps, coordination, core, discovery, events, networking, policy, rbac, scheduling,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// Name of the schema of `metadata`.
pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Collects schemas under the names Kubernetes gives them.
pub(in crate::local::apiserver) struct Types(SchemaGenerator);

impl Types {
    /// Nothing but `ObjectMeta`.
    pub(in crate::local::apiserver) fn new() -> Self {
        let mut generator = SchemaSettings::openapi3().into_generator();
        generator.subschema_for::<meta::v1::ObjectMeta>();
        Self(generator)
    }

    /// Adds the schema of a kind with all it refers to; `None` if it is not one of Kubernetes' own
    /// that we know, else its name.
    pub(in crate::local::apiserver) fn add(&mut self, group: &str, kind: &str) -> Option<String> {
        let generator = &mut self.0;
        let schema = match (group, kind) {
            ("", "ConfigMap") => generator.subschema_for::<core::v1::ConfigMap>(),
            ("", "Endpoints") => generator.subschema_for::<core::v1::Endpoints>(),
            ("", "Event") => generator.subschema_for::<core::v1::Event>(),
            ("", "Namespace") => generator.subschema_for::<core::v1::Namespace>(),
            ("", "Node") => generator.subschema_for::<core::v1::Node>(),
            ("", "PersistentVolumeClaim") => {
                generator.subschema_for::<core::v1::PersistentVolumeClaim>()
            }
            ("", "Pod") => generator.subschema_for::<core::v1::Pod>(),
            ("", "Secret") => generator.subschema_for::<core::v1::Secret>(),
            ("", "Service") => generator.subschema_for::<core::v1::Service>(),
            ("", "ServiceAccount") => generator.subschema_for::<core::v1::ServiceAccount>(),
            ("apps", "ControllerRevision") => {
                generator.subschema_for::<apps::v1::ControllerRevision>()
            }
            ("apps", "Deployment") => generator.subschema_for::<apps::v1::Deployment>(),
            ("apps", "StatefulSet") => generator.subschema_for::<apps::v1::StatefulSet>(),
            ("coordination.k8s.io", "Lease") => {
                generator.subschema_for::<coordination::v1::Lease>()
            }
            ("discovery.k8s.io", "EndpointSlice") => {
                generator.subschema_for::<discovery::v1::EndpointSlice>()
            }
            ("events.k8s.io", "Event") => generator.subschema_for::<events::v1::Event>(),
            ("networking.k8s.io", "NetworkPolicy") => {
                generator.subschema_for::<networking::v1::NetworkPolicy>()
            }
            ("scheduling.k8s.io", "PriorityClass") => {
                generator.subschema_for::<scheduling::v1::PriorityClass>()
            }
            ("policy", "PodDisruptionBudget") => {
                generator.subschema_for::<policy::v1::PodDisruptionBudget>()
            }
            ("rbac.authorization.k8s.io", "Role") => generator.subschema_for::<rbac::v1::Role>(),
            ("rbac.authorization.k8s.io", "RoleBinding") => {
                generator.subschema_for::<rbac::v1::RoleBinding>()
            }
            ("rbac.authorization.k8s.io", "ClusterRole") => {
                generator.subschema_for::<rbac::v1::ClusterRole>()
            }
            ("rbac.authorization.k8s.io", "ClusterRoleBinding") => {
                generator.subschema_for::<rbac::v1::ClusterRoleBinding>()
            }
            ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                generator.subschema_for::<apiextensions::v1::CustomResourceDefinition>()
            }
            _ => return None,
        };
        let reference = schema.as_object()?.get("$ref")?.as_str()?;
        reference
            .strip_prefix("#/components/schemas/")
            .map(str::to_owned)
    }

    /// All schemas by name.
    pub(in crate::local::apiserver) fn into_schemas(mut self) -> Map<String, Value> {
        self.0.take_definitions(true)
    }
}

/// A reference to a schema in the same document.
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}
