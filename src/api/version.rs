//! `PgBouncerVersion` (`catalog.kubedb.com/v1alpha1`;
//! docs/kubedb-compatibility.md, "Versions in the catalog").

#![expect(
    clippy::duplicated_attributes,
    reason = "columns of a kind have types and paths in common"
)]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::common::{any_object, any_objects};

/// A version of PgBouncer that may be asked for.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "catalog.kubedb.com",
    version = "v1alpha1",
    kind = "PgBouncerVersion",
    shortname = "pbversion",
    category = "catalog",
    category = "kubedb",
    category = "appscode",
    derive = "PartialEq",
    label("app.kubernetes.io/name", "kubedb"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(
        name = "PGBOUNCER_IMAGE",
        type_ = "string",
        json_path = ".spec.pgBouncer.image"
    ),
    printcolumn(name = "Deprecated", type_ = "boolean", json_path = ".spec.deprecated"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct PgBouncerVersionSpec {
    /// Version of the program, such as `1.24.0`.
    pub version: String,
    /// The pooler's image.
    pub pg_bouncer: Image,
    /// The metrics exporter's image.
    pub exporter: Image,
    /// Whether new objects may not ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<bool>,
    /// Whether it has reached its end of life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_of_life: Option<bool>,
    /// Image that fetches scripts from git.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_syncer: Option<Image>,
    /// Who the containers run as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<VersionSecurityContext>,
    /// Which versions may be updated to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub update_constraints: Option<Value>,
    /// User interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "any_objects")]
    pub ui: Vec<Value>,
}

/// A container image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Image {
    /// Reference of the image.
    pub image: String,
}

/// Who the containers run as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionSecurityContext {
    /// User id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_user: Option<i64>,
    /// Whether any user but root will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_any_non_root: Option<bool>,
}
