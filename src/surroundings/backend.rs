//! The PostgreSQL behind the pooler, and its users
//! (docs/kubedb-compatibility.md, "Users").

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::address::{Place, object_name, place};
pub use super::wanted_tls::Refused;
use super::wanted_tls::{Asked, pair, wanted};
use super::{SurroundingsError, credentials, text, transforms};
use crate::api::annotations::BACKEND_SSLMODE;
use crate::api::appbinding::ClientConfig;
use crate::api::common::TypedRef;
use crate::api::pgbouncer::AppReference;
use crate::api::{AppBinding, PgBouncer};
use crate::blueprint::backend_tls::{BackendTls, ClientPair};
use crate::blueprint::labels::to_selector_text;
use crate::blueprint::{Backend, BackendAddress, Credentials};
use crate::cluster::{Cluster, reference};
use crate::names::ObjectRef;
use crate::pgbouncer::userlist::{Stored, Userlist};
use crate::printable::quoted;
use crate::redacted::{Redacted, Wiped};

/// Reads the AppBinding of `bouncer` and its Secrets.
pub(super) async fn read(
    cluster: &Cluster,
    bouncer: &PgBouncer,
) -> Result<Backend, SurroundingsError> {
    let app = &bouncer.spec.database.database_ref;
    let at = ObjectRef::new(&app.namespace, &app.name);
    let found: Option<AppBinding> = cluster.get(&at).await?;
    let spec = found
        .ok_or_else(|| missing("AppBinding", at.clone(), "spec.database.databaseRef"))?
        .spec;
    let unusable = |what: String| unusable("AppBinding", &at, what);
    let secret = spec.secret.as_ref().ok_or_else(|| {
        unusable("spec.secret is missing; name the superuser's Secret".to_owned())
    })?;
    object_name("spec.secret.name", &secret.name).map_err(unusable)?;
    let secret_at = ObjectRef::new(&app.namespace, &secret.name);
    let secret: Option<Secret> = cluster.get(&secret_at).await?;
    let mut secret = secret
        .ok_or_else(|| missing("Secret", secret_at.clone(), "spec.secret of the AppBinding"))?;
    transforms::apply(&spec.secret_transforms, secret.data.get_or_insert_default())
        .map_err(unusable)?;
    let superuser = credentials(&secret, &secret_at)?;
    let identity = identity(cluster, &at, spec.tls_secret.as_ref()).await?;
    let annotation = bouncer.annotations().get(BACKEND_SSLMODE);
    let annotation = annotation.map(String::as_str);
    let asked = connection(
        (&spec.client_config, &app.namespace),
        annotation,
        identity.as_ref(),
    );
    let (address, tls) = asked.map_err(|refused| match refused {
        Refused::Application(what) => unusable(what),
        Refused::Bouncer(what) => SurroundingsError::Unusable {
            kind: "PgBouncer",
            at: reference(bouncer),
            what,
        },
    })?;
    Ok(Backend {
        address,
        tls,
        superuser,
    })
}

/// Where a `clientConfig` of that namespace leads to and with which TLS, for a PgBouncer with that
/// annotation and the pair of `spec.tlsSecret`. Pure.
pub fn connection(
    (config, namespace): (&ClientConfig, &str),
    annotation: Option<&str>,
    identity: Option<&ClientPair>,
) -> Result<(BackendAddress, BackendTls), Refused> {
    let Place { address, stated } = place(config, namespace).map_err(Refused::Application)?;
    let tls = wanted(Asked {
        config,
        mode: stated.mode,
        address: &address,
        annotation,
        identity,
    })?;
    Ok((address, tls))
}

/// The client certificate that `spec.tlsSecret` of the AppBinding at `app` names.
async fn identity(
    cluster: &Cluster,
    app: &ObjectRef,
    named: Option<&TypedRef>,
) -> Result<Option<ClientPair>, SurroundingsError> {
    const FIELD: &str = "spec.tlsSecret of the AppBinding";
    let Some(named) = named.filter(|named| !named.name.is_empty()) else {
        return Ok(None);
    };
    let wrong = |what: String| unusable("AppBinding", app, what);
    if !["", "Secret"].contains(&named.kind.as_str()) {
        return Err(wrong(format!(
            "spec.tlsSecret.kind is {}; name a Secret",
            quoted(&named.kind)
        )));
    }
    object_name("spec.tlsSecret.name", &named.name).map_err(wrong)?;
    let at = ObjectRef::new(&app.namespace, &named.name);
    let secret: Option<Secret> = cluster.get(&at).await?;
    let secret = Wiped::from(secret.ok_or_else(|| missing("Secret", at.clone(), FIELD))?);
    let key = |key: &str| {
        let lacks = || unusable("Secret", &at, format!("key {key} is missing or not text"));
        text(&secret, key).map(Redacted::new).ok_or_else(lacks)
    };
    let (chain, private) = (key("tls.crt")?, key("tls.key")?);
    let pair = pair(chain.expose(), private.expose());
    pair.map(Some).map_err(|what| unusable("Secret", &at, what))
}

const fn missing(kind: &'static str, at: ObjectRef, by: &'static str) -> SurroundingsError {
    SurroundingsError::Missing { kind, at, by }
}

fn unusable(kind: &'static str, at: &ObjectRef, what: String) -> SurroundingsError {
    let at = at.clone();
    SurroundingsError::Unusable { kind, at, what }
}

/// The users that are labelled as the PostgreSQL's. A Secret that is none of a user, or that no
/// userlist can hold, is somebody else's mistake: it is left out, and the log says so.
pub(super) async fn users(
    cluster: &Cluster,
    app: &AppReference,
) -> Result<Vec<Credentials>, SurroundingsError> {
    let labels = [
        ("app.kubernetes.io/instance".to_owned(), app.name.clone()),
        (
            "app.kubernetes.io/name".to_owned(),
            "postgreses.kubedb.com".to_owned(),
        ),
    ];
    let secrets: Vec<Secret> = cluster
        .list(&app.namespace, &to_selector_text(&labels.into()))
        .await?;
    let mut users = Vec::new();
    for secret in &secrets {
        let at = reference(secret);
        let Ok(user) = credentials(secret, &at) else {
            continue;
        };
        let stored = Stored::Plain(user.password.clone());
        match Userlist::new().insert(&user.username, stored) {
            Ok(()) => users.push(user),
            Err(error) => tracing::warn!(
                secret = %at,
                error = &error as &dyn std::error::Error,
                "user left out of the userlist"
            ),
        }
    }
    users.sort_by(|a, b| a.username.cmp(&b.username));
    Ok(users)
}
