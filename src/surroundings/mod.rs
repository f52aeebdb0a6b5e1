//! What is around a PgBouncer, read from the cluster: everything that [`crate::blueprint`] needs
//! besides the specification itself.
//!
//! One writer per fact: nothing here writes. What is missing is an error that names the object to
//! wait for, so that a PgBouncer may be created before its AppBinding, version or issuer.

mod address;
mod backend;
mod former;
mod grant;
mod libpq;
mod program;
mod proof;
mod published;
mod transforms;
mod wanted_tls;

use k8s_openapi::api::core::v1::{Secret, Service};
use kube::ResourceExt;

use crate::api::PgBouncer;
use crate::api::annotations::ALLOWED_NAMESPACES;
use crate::api::certmanager::{ClusterIssuer, Issuer};
use crate::api::tls::{CERT_MANAGER_GROUP, IssuerRef};
use crate::blueprint::certificates::LoadBalancer;
use crate::blueprint::defaults::IssuerKind;
use crate::blueprint::{Credentials, Surroundings, WorkloadKind, mounts_material, names};
use crate::cluster::{Cluster, ClusterError, Owner};
use crate::names::ObjectRef;
use crate::redacted::Redacted;
use crate::retry::Retry;

pub use self::backend::{Refused, connection};
pub use self::grant::{Grantor, References, check_references};
pub use self::program::workload_kind;
pub use self::proof::{BackendRefusal, prove_at, prove_backend};

/// Why the surroundings cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum SurroundingsError {
    /// The API server did not answer as it should.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Something that the specification names is not there.
    #[error("{kind} {at}, named by {by}, is not there")]
    Missing {
        /// Kind of the object.
        kind: &'static str,
        /// The object.
        at: ObjectRef,
        /// The field that names it.
        by: &'static str,
    },
    /// The AppBinding is in another namespace, which does not allow the reference.
    #[error(
        "PgBouncer {bouncer}: spec.database.databaseRef names AppBinding {app}, and namespace {} does \
         not allow references from namespace {}: add {} to the annotation {ALLOWED_NAMESPACES} of that \
         AppBinding, or of Namespace {} for all of its AppBindings",
        .app.namespace, .bouncer.namespace, .bouncer.namespace, .app.namespace
    )]
    NotGranted {
        /// The object that refers.
        bouncer: ObjectRef,
        /// The object that it refers to.
        app: ObjectRef,
    },
    /// The annotation that would allow it is not a list of namespaces.
    #[error(
        "PgBouncer {bouncer}: spec.database.databaseRef names AppBinding {app}, and the annotation \
         {ALLOWED_NAMESPACES} of {} cannot be read, so it allows nothing: write names of namespaces \
         separated by commas, or * alone for all",
        .grantor.of(.app)
    )]
    GrantUnreadable {
        /// The object that refers.
        bouncer: ObjectRef,
        /// The object that it refers to.
        app: ObjectRef,
        /// The object that has the annotation.
        grantor: Grantor,
    },
    /// A version that may not be asked for any more.
    #[error("PgBouncerVersion {name} is deprecated; choose another spec.version")]
    Deprecated {
        /// Its name.
        name: String,
    },
    /// An object that does not say what it has to.
    #[error("{kind} {at}: {what}")]
    Unusable {
        /// Kind of the object.
        kind: &'static str,
        /// The object.
        at: ObjectRef,
        /// What is wrong with it, and what to change.
        what: String,
    },
}

impl SurroundingsError {
    /// Whether trying again may help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Cluster(error) => error.retry(),
            Self::Missing { .. }
            | Self::NotGranted { .. }
            | Self::GrantUnreadable { .. }
            | Self::Deprecated { .. }
            | Self::Unusable { .. } => Retry::WhenChanged,
        }
    }

    /// Whether another namespace does not allow the reference.
    pub const fn is_not_granted(&self) -> bool {
        matches!(self, Self::NotGranted { .. } | Self::GrantUnreadable { .. })
    }
}

/// Reads what is around `bouncer`, which is completed. The auth Secret and the material may be
/// missing: they are made later. Whether its references are granted is asked before, by
/// [`check_references`]: a request that has begun goes on to its end.
pub async fn read(
    cluster: &Cluster,
    bouncer: &PgBouncer,
    workload: WorkloadKind,
) -> Result<Surroundings, SurroundingsError> {
    let (name, namespace) = (bouncer.name_any(), bouncer.namespace().unwrap_or_default());
    let here = |name: String| ObjectRef::new(namespace.clone(), name);
    check_names(bouncer).map_err(|what| SurroundingsError::Unusable {
        kind: "PgBouncer",
        at: here(name.clone()),
        what,
    })?;
    let program = program::read(cluster, &bouncer.spec.version).await?;
    let backend = backend::read(cluster, bouncer).await?;
    let former = former::read(cluster, bouncer).await?;
    let (backend, unproven) = former.settle(backend);
    let users = if bouncer.spec.database.sync_users == Some(true) {
        backend::users(cluster, &bouncer.spec.database.database_ref).await?
    } else {
        Vec::new()
    };
    let material = if mounts_material(bouncer) {
        published::read(cluster, bouncer).await?
    } else {
        None
    };
    let backend_secret: Option<Secret> = cluster.get(&here(names::backend_secret(&name))).await?;
    let service: Option<Service> = cluster.get(&here(name)).await?;
    // Where another's Service leads to is of no interest.
    let owner = Owner::of(bouncer);
    let service = service.filter(|service| owner.check(service).is_ok());
    Ok(Surroundings {
        program,
        backend,
        admin: admin(cluster, bouncer).await?,
        custom_ini: custom_ini(cluster, bouncer).await?,
        users,
        material,
        workload,
        backend_secret_version: backend_secret.and_then(|secret| secret.resource_version()),
        load_balancer: service.as_ref().map(load_balancer).unwrap_or_default(),
        former_files: former.files,
        unproven,
    })
}

/// Checks what becomes a part of a path: a name cannot lead to another object.
fn check_names(bouncer: &PgBouncer) -> Result<(), String> {
    let spec = &bouncer.spec;
    let database = &spec.database.database_ref;
    address::object_name("spec.version", &spec.version)?;
    address::label("spec.database.databaseRef.namespace", &database.namespace)?;
    address::object_name("spec.database.databaseRef.name", &database.name)?;
    let custom = spec.configuration.as_ref();
    match custom.and_then(|custom| custom.secret_name.as_deref()) {
        Some(name) => address::object_name("spec.configuration.secretName", name),
        None => Ok(()),
    }
}

/// What has to be known of an issuer before the list of certificates can be completed.
pub async fn issuer_kind(
    cluster: &Cluster,
    namespace: &str,
    issuer: &IssuerRef,
) -> Result<IssuerKind, SurroundingsError> {
    let missing = |kind, at| SurroundingsError::Missing {
        kind,
        at,
        by: "spec.tls.issuerRef",
    };
    // Of an issuer that is none of cert-manager's own nothing can be known here; whoever asks it to
    // sign says what is wrong with it.
    if issuer.group() != CERT_MANAGER_GROUP
        || !["Issuer", "ClusterIssuer"].contains(&issuer.kind.as_str())
    {
        return Ok(IssuerKind::Private);
    }
    let acme = if issuer.kind == "ClusterIssuer" {
        let found: Option<ClusterIssuer> = cluster.get_global(&issuer.name).await?;
        let at = ObjectRef::new("", &issuer.name);
        found
            .ok_or_else(|| missing("ClusterIssuer", at))?
            .spec
            .issuer
            .acme
    } else {
        let at = ObjectRef::new(namespace, &issuer.name);
        let found: Option<Issuer> = cluster.get(&at).await?;
        found.ok_or_else(|| missing("Issuer", at))?.spec.acme
    };
    Ok(if acme.is_some() {
        IssuerKind::Acme
    } else {
        IssuerKind::Private
    })
}

/// The admin user; `None` until the auth Secret is there.
async fn admin(
    cluster: &Cluster,
    bouncer: &PgBouncer,
) -> Result<Option<Credentials>, SurroundingsError> {
    let at = ObjectRef::new(
        bouncer.namespace().unwrap_or_default(),
        names::auth_secret(bouncer),
    );
    let secret: Option<Secret> = cluster.get(&at).await?;
    secret.map(|secret| credentials(&secret, &at)).transpose()
}

/// The user's own configuration.
async fn custom_ini(
    cluster: &Cluster,
    bouncer: &PgBouncer,
) -> Result<Option<String>, SurroundingsError> {
    let configuration = bouncer.spec.configuration.as_ref();
    let Some(name) = configuration.and_then(|configuration| configuration.secret_name.clone())
    else {
        return Ok(None);
    };
    let at = ObjectRef::new(bouncer.namespace().unwrap_or_default(), name);
    let secret: Option<Secret> = cluster.get(&at).await?;
    let secret = secret.ok_or_else(|| SurroundingsError::Missing {
        kind: "Secret",
        at: at.clone(),
        by: "spec.configuration.secretName",
    })?;
    text(&secret, names::INI_KEY)
        .map(Some)
        .ok_or_else(|| SurroundingsError::Unusable {
            kind: "Secret",
            at,
            what: "key pgbouncer.ini is missing; put the configuration there".to_owned(),
        })
}

/// `username` and `password` of a Secret; neither may be empty.
fn credentials(secret: &Secret, at: &ObjectRef) -> Result<Credentials, SurroundingsError> {
    let key = |key: &str| {
        text(secret, key)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| SurroundingsError::Unusable {
                kind: "Secret",
                at: at.clone(),
                what: format!("key {key} is missing or empty"),
            })
    };
    Ok(Credentials {
        username: key("username")?,
        password: Redacted::new(key("password")?),
    })
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok()
}

/// What a load balancer gave to a Service.
pub fn load_balancer(service: &Service) -> LoadBalancer {
    let status = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let ingress = status
        .and_then(|status| status.ingress.as_deref())
        .unwrap_or_default();
    LoadBalancer {
        hostnames: ingress
            .iter()
            .filter_map(|point| point.hostname.clone())
            .collect(),
        ips: ingress
            .iter()
            .filter_map(|point| point.ip.as_ref()?.parse().ok())
            .collect(),
    }
}
