//! `PgBouncer` (`kubedb.com/v1`; docs/kubedb-compatibility.md, "Fields of a PgBouncer").

#![expect(
    unreachable_pub,
    reason = "KubeSchema derives a private twin of each struct"
)]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::common::{Condition, LocalRef, Phase, any_object, secret_kind};
use super::tls::{AuthType, SslMode, TlsConfig};

/// A pooler in front of a PostgreSQL: its replicas, its configuration, its TLS.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kubedb.com",
    version = "v1",
    kind = "PgBouncer",
    namespaced,
    shortname = "pb",
    category = "datastore",
    category = "kubedb",
    category = "appscode",
    category = "all",
    status = "PgBouncerStatus",
    derive = "PartialEq",
    label("app.kubernetes.io/name", "kubedb"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(self.spec.replicas) || self.spec.replicas > 0")
        .message("spec.replicas must be greater than zero"),
    validation = Rule::new(
        "self.spec.database.databaseName != '' && self.spec.database.databaseName != 'pgbouncer'"
    )
    .message("spec.database.databaseName must not be empty or `pgbouncer`, the admin console's name"),
    validation = Rule::new(
        "!has(self.spec.tls) || !has(self.spec.tls.issuerRef) || self.spec.tls.issuerRef.kind in ['Issuer', 'ClusterIssuer']"
    )
    .message("spec.tls.issuerRef.kind must be Issuer or ClusterIssuer")
)]
#[serde(rename_all = "camelCase")]
pub struct PgBouncerSpec {
    /// Version of PgBouncer: the name of a PgBouncerVersion.
    pub version: String,
    /// Number of poolers; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// The PostgreSQL database behind the pooler.
    pub database: Database,
    /// Credentials of the admin user; made as `<name>-auth` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_secret: Option<AuthSecret>,
    /// Size and behaviour of the pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPool>,
    /// Custom configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// Former place of `configuration.secretName`; moved there by defaulting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_secret: Option<LocalRef>,
    /// What TLS asks of clients; `verify-full` with `tls`, `disable` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_mode: Option<SslMode>,
    /// Certificates and who signs them. Change it through a PgBouncerOpsRequest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// What deleting the object does to its Secrets; `Delete` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// Whether the pooler is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<bool>,
    /// How the pooler's health is looked at.
    #[serde(default)]
    pub health_checker: HealthChecker,
    /// Changes to the Services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_templates: Vec<ServiceTemplate>,
    /// Changes to the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub pod_template: Option<Value>,
    /// Scripts to run first; carried through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub init: Option<Value>,
    /// Monitoring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub monitor: Option<Value>,
    /// Whether recommendations are made for this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_ops: Option<AutoOps>,
}

/// The database behind the pooler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// Name of the database, under which clients ask for it too.
    pub database_name: String,
    /// AppBinding of the PostgreSQL.
    pub database_ref: AppReference,
    /// Whether users labelled for the PostgreSQL are added to the userlist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_users: Option<bool>,
}

/// Reference to an AppBinding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppReference {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Carried through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub parameters: Option<Value>,
}

/// Credentials of the admin user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct AuthSecret {
    /// API group; empty for a core Secret.
    #[serde(default)]
    pub api_group: String,
    /// Kind; `Secret`.
    #[serde(default = "secret_kind")]
    pub kind: String,
    /// Name of the Secret; `<name>-auth` by default.
    #[serde(default)]
    pub name: String,
    /// Carried through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_store_name: Option<String>,
    /// Whether somebody else writes the Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub externally_managed: Option<bool>,
    /// Carried through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_after: Option<String>,
    /// Since when the credentials are in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub active_from: Option<String>,
}

/// Size and behaviour of the pools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionPool {
    /// Port of the pooler's container; 5432.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// `session` (default), `transaction` or `statement`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_mode: Option<String>,
    /// `max_client_conn`; 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_client_connections: Option<i64>,
    /// `default_pool_size`; 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_pool_size: Option<i64>,
    /// `min_pool_size`; 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_pool_size: Option<i64>,
    /// `reserve_pool_size`; 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve_pool_size: Option<i64>,
    /// `reserve_pool_timeout`; 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve_pool_timeout_seconds: Option<i64>,
    /// `max_db_connections`; 1.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "maxDBConnections"
    )]
    pub max_db_connections: Option<i64>,
    /// `max_user_connections`; 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_user_connections: Option<i64>,
    /// `stats_period`; 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats_period_seconds: Option<i64>,
    /// `auth_type`; `md5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_type: Option<AuthType>,
    /// Added to `ignore_startup_parameters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_startup_parameters: Option<String>,
}

/// Custom configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// Secret with `pgbouncer.ini`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Inline configuration, key `pgbouncer.ini`; stronger than the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inline: BTreeMap<String, String>,
}

/// What deleting a PgBouncer does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Auth, backend and config Secrets survive.
    Halt,
    /// Workload and Services go; auth, backend and config Secrets survive.
    #[default]
    Delete,
    /// Everything goes.
    WipeOut,
    /// Deleting is held up until the policy is changed.
    DoNotTerminate,
}

/// How health is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthChecker {
    /// How often, in seconds.
    #[serde(default = "ten")]
    #[schemars(range(min = 1))]
    pub period_seconds: i32,
    /// Bound of one look, in seconds.
    #[serde(default = "ten")]
    #[schemars(range(min = 1))]
    pub timeout_seconds: i32,
    /// Failures in a row that count.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub failure_threshold: i32,
    /// Carried through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_write_check: Option<bool>,
}

impl Default for HealthChecker {
    fn default() -> Self {
        Self {
            period_seconds: ten(),
            timeout_seconds: ten(),
            failure_threshold: one(),
            disable_write_check: None,
        }
    }
}

const fn ten() -> i32 {
    10
}

const fn one() -> i32 {
    1
}

/// Changes to one Service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceTemplate {
    /// Which Service.
    pub alias: ServiceAlias,
    /// Labels and annotations to add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub metadata: Option<Value>,
    /// Fields of the Service's spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub spec: Option<Value>,
}

/// Which Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceAlias {
    /// The clients' Service.
    Primary,
    /// Unused for a pooler.
    Standby,
    /// The exporter's Service.
    Stats,
}

/// Whether recommendations are made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoOps {
    /// No recommendations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// How the pooler is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PgBouncerStatus {
    /// Phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Generation that the status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is known, in the order in which it was first known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
