//! How the objects of a PgBouncer are called
//! (docs/kubedb-compatibility.md, "Names of objects").

use data_encoding::HEXLOWER;
use kube::ResourceExt;

use crate::api::PgBouncer;
use crate::names::{Alias, NAME_LABEL_MAX, name_with_suffix};

/// Key of the configuration in its Secret, and its file name in the pod.
pub const INI_KEY: &str = "pgbouncer.ini";
/// Key of the userlist in the backend Secret, and its file name in the pod.
pub const USERLIST_KEY: &str = "userlist";
/// The pooler's container.
pub const CONTAINER: &str = "pgbouncer";
/// The metrics exporter's container.
pub const EXPORTER_CONTAINER: &str = "exporter";
/// The volume of the backend Secret.
pub(super) const SECRET_VOLUME: &str = "user-secret";
/// Name of the pooler's port in its container.
pub const PORT: &str = "db";
/// Port of the Services, whatever the container listens on.
pub const SERVICE_PORT: i32 = 5432;
/// Where the configuration is mounted.
pub const CONFIG_DIR: &str = "/etc/config";
/// Where the backend Secret is mounted.
pub const SECRET_DIR: &str = "/var/run/pgbouncer/secret";
/// Where key material is mounted, one directory per alias.
pub const TLS_DIR: &str = "/var/run/pgbouncer/tls/serving";
/// File that says who logs in how, where clients log in by certificate.
pub const HBA_KEY: &str = "pgbouncer_hba.conf";
/// Bytes of a digest that make a name unique.
const IDENTITY_BYTES: usize = 20;
/// The admin user, unless the auth Secret names another.
pub const ADMIN_USER: &str = "pgbouncer";

/// The auth Secret.
pub fn auth_secret(bouncer: &PgBouncer) -> String {
    bouncer
        .spec
        .auth_secret
        .as_ref()
        .map(|auth| auth.name.clone())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| default_auth_secret(&bouncer.name_any()))
}

/// The auth Secret where nobody names one.
pub fn default_auth_secret(name: &str) -> String {
    name_with_suffix(name, "auth")
}

/// The backend Secret.
pub fn backend_secret(name: &str) -> String {
    name_with_suffix(name, "backend")
}

/// The configuration Secret: named after the object's identity.
pub fn config_secret(bouncer: &PgBouncer) -> String {
    let uid = bouncer.uid().unwrap_or_default();
    let start = uid.len().saturating_sub(6);
    name_with_suffix(&bouncer.name_any(), uid.get(start..).unwrap_or(&uid))
}

/// The Secret that publishes an alias's material.
pub fn certificate_secret(bouncer: &PgBouncer, alias: Alias) -> String {
    bouncer
        .spec
        .tls
        .as_ref()
        .and_then(|tls| tls.certificate(alias.as_str()))
        .and_then(|certificate| certificate.secret_name.clone())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| certificate(&bouncer.name_any(), alias))
}

/// The certificate of an alias, and its Secret where nobody names one.
pub fn certificate(name: &str, alias: Alias) -> String {
    name_with_suffix(name, &format!("{alias}-cert"))
}

/// The headless Service that names the pods.
pub fn governing_service(name: &str) -> String {
    name_with_suffix(name, "pods")
}

/// The exporter's Service.
pub fn stats_service(name: &str) -> String {
    name_with_suffix(name, "stats")
}

/// The pod of that ordinal.
pub fn pod(name: &str, ordinal: i32) -> String {
    format!("{name}-{ordinal}")
}

/// The name under which a pod is reached, which the server certificate covers.
pub fn pod_host(name: &str, namespace: &str, pod: &str) -> String {
    format!("{pod}.{}.{namespace}.svc", governing_service(name))
}

/// The name under which clients reach the pooler.
pub fn service_host(name: &str, namespace: &str) -> String {
    format!("{name}.{namespace}.svc")
}

/// A name for certificates that is no other PgBouncer's and no user's: 50 characters.
pub fn identity(name: &str, namespace: &str) -> String {
    let sum = ring::digest::digest(
        &ring::digest::SHA256,
        format!("{namespace}/{name}").as_bytes(),
    );
    let (identity, _) = sum.as_ref().split_at(IDENTITY_BYTES);
    format!("{ADMIN_USER}-{}", HEXLOWER.encode(identity))
}

/// The volume that holds a Secret: named after it, as far as a volume may be.
pub(super) fn volume(secret: &str) -> String {
    let name: String = secret
        .replace('.', "-")
        .chars()
        .take(NAME_LABEL_MAX)
        .collect();
    name.trim_matches('-').to_owned()
}

/// Directory of an alias's material in the pod.
pub fn tls_dir(alias: Alias) -> String {
    format!("{TLS_DIR}/{alias}")
}
