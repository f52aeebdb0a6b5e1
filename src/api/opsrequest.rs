//! `PgBouncerOpsRequest` (`ops.kubedb.com/v1alpha1`;
//! docs/kubedb-compatibility.md, "Fields of a request").

#![expect(
    unreachable_pub,
    reason = "KubeSchema derives a private twin of each struct"
)]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::common::{Condition, LocalRef, TypedRef, any_object};
use super::tls::{AuthType, CertificateSpec, IssuerRef, SslMode};

/// A change that somebody asks for. One request, one change; its spec cannot be edited afterwards.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "ops.kubedb.com",
    version = "v1alpha1",
    kind = "PgBouncerOpsRequest",
    namespaced,
    shortname = "pbops",
    category = "ops",
    category = "kubedb",
    category = "appscode",
    status = "OpsRequestStatus",
    derive = "PartialEq",
    label("app.kubernetes.io/name", "kubedb"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.spec == oldSelf.spec")
        .message("spec is immutable: create another PgBouncerOpsRequest"),
    validation = Rule::new("self.spec.type != 'ReconfigureTLS' || has(self.spec.tls)")
        .message("`spec.tls` nil not supported in ReconfigureTLS type")
)]
#[serde(rename_all = "camelCase")]
pub struct PgBouncerOpsRequestSpec {
    /// The PgBouncer to change, in the namespace of the request.
    pub database_ref: LocalRef,
    /// What kind of change. Bouncert acts on `ReconfigureTLS` and `Restart`.
    #[serde(rename = "type")]
    pub type_: RequestType,
    /// The change of TLS: add, update, rotate or remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsRequest>,
    /// Restarts every pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub restart: Option<Value>,
    /// Bound for each step, a Go duration such as `5m`; a step that exceeds it fails the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// When to begin: once the PgBouncer is Ready, or in any phase.
    #[serde(default)]
    pub apply: ApplyPolicy,
    /// How often a failed step is tried again before the request fails.
    #[serde(default = "max_retries")]
    pub max_retries: i32,
    /// Not acted upon by Bouncert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub update_version: Option<Value>,
    /// Not acted upon by Bouncert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub horizontal_scaling: Option<Value>,
    /// Not acted upon by Bouncert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub vertical_scaling: Option<Value>,
    /// Not acted upon by Bouncert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigurationRequest>,
    /// Not acted upon by Bouncert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<AuthenticationRequest>,
}

fn max_retries() -> i32 {
    1
}

/// Kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RequestType {
    /// Number of replicas.
    HorizontalScaling,
    /// Resources of the containers.
    VerticalScaling,
    /// Version of PgBouncer.
    UpdateVersion,
    /// Custom configuration.
    Reconfigure,
    /// Password of the admin user.
    RotateAuth,
    /// Restart of every pod.
    Restart,
    /// TLS.
    ReconfigureTLS,
}

impl RequestType {
    /// As written in manifests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HorizontalScaling => "HorizontalScaling",
            Self::VerticalScaling => "VerticalScaling",
            Self::UpdateVersion => "UpdateVersion",
            Self::Reconfigure => "Reconfigure",
            Self::RotateAuth => "RotateAuth",
            Self::Restart => "Restart",
            Self::ReconfigureTLS => "ReconfigureTLS",
        }
    }
}

/// When a request may begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApplyPolicy {
    /// When the PgBouncer is Ready.
    #[default]
    IfReady,
    /// In any phase.
    Always,
}

/// A change of TLS: exactly one of adding or changing (`issuerRef`, `certificates`), rotating
/// (`rotateCertificates`) and removing (`remove`), or a change of `sslMode` or `clientAuthMode`
/// alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsRequest {
    /// Issuer to add or to change to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
    /// Certificates to change; the entry of the same alias is replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateSpec>,
    /// Issue all certificates anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_certificates: Option<bool>,
    /// Take TLS away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<bool>,
    /// TLS mode for clients after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_mode: Option<SslMode>,
    /// How clients prove who they are after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth_mode: Option<AuthType>,
}

/// Custom configuration to apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationRequest {
    /// Secret with `pgbouncer.ini`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_secret: Option<LocalRef>,
    /// Inline configuration by file name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub apply_config: BTreeMap<String, String>,
    /// Whether custom configuration is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_custom_config: Option<bool>,
    /// `auto`, `true` or `false`.
    #[serde(default)]
    pub restart: RestartPolicy,
}

/// Whether a configuration change restarts the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RestartPolicy {
    /// Where needed.
    #[default]
    Auto,
    /// Always.
    True,
    /// Never.
    False,
}

/// New credentials of the admin user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationRequest {
    /// Secret with the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<TypedRef>,
}

/// Phase of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RequestPhase {
    /// Not begun.
    Pending,
    /// Being carried out.
    Progressing,
    /// Done and proved.
    Successful,
    /// Waits for somebody's approval.
    WaitingForApproval,
    /// Ended without effect; what had been changed was put back.
    Failed,
    /// Approved.
    Approved,
    /// Refused by an approver.
    Denied,
    /// Superseded before it began.
    Skipped,
}

impl RequestPhase {
    /// Whether the request has ended.
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Successful | Self::Failed | Self::Skipped | Self::Denied
        )
    }

    /// As written in the object.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Progressing => "Progressing",
            Self::Successful => "Successful",
            Self::WaitingForApproval => "WaitingForApproval",
            Self::Failed => "Failed",
            Self::Approved => "Approved",
            Self::Denied => "Denied",
            Self::Skipped => "Skipped",
        }
    }
}

/// How far a request has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpsRequestStatus {
    /// Phase; empty before anybody has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RequestPhase>,
    /// Generation that the status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What has happened, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Not written by Bouncert.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paused_backups: Vec<PausedBackup>,
}

/// A backup that was paused for the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PausedBackup {
    /// API group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,
    /// Kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name.
    pub name: String,
    /// Namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}
