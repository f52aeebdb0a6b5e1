//! The PostgreSQL behind the pooler, and its users
//! (docs/kubedb-compatibility.md, "Users").

use k8s_openapi::api::core::v1::Secret;

use super::address::{address, object_name};
use super::{SurroundingsError, credentials};
use crate::api::AppBinding;
use crate::api::pgbouncer::AppReference;
use crate::blueprint::labels::to_selector_text;
use crate::blueprint::{Backend, Credentials};
use crate::cluster::{Cluster, reference};
use crate::names::ObjectRef;
use crate::pgbouncer::userlist::{Stored, Userlist};

/// Reads the AppBinding and its Secret.
pub(super) async fn read(
    cluster: &Cluster,
    app: &AppReference,
) -> Result<Backend, SurroundingsError> {
    let at = ObjectRef::new(&app.namespace, &app.name);
    let missing = |kind, at, by| SurroundingsError::Missing { kind, at, by };
    let found: Option<AppBinding> = cluster.get(&at).await?;
    let spec = found
        .ok_or_else(|| missing("AppBinding", at.clone(), "spec.database.databaseRef"))?
        .spec;
    let unusable = |what: String| SurroundingsError::Unusable {
        kind: "AppBinding",
        at: at.clone(),
        what,
    };
    let address = address(&spec.client_config, &app.namespace).map_err(unusable)?;
    let secret = spec.secret.ok_or_else(|| {
        unusable("spec.secret is missing; name the superuser's Secret".to_owned())
    })?;
    object_name("spec.secret.name", &secret.name).map_err(unusable)?;
    let secret_at = ObjectRef::new(&app.namespace, secret.name);
    let secret: Option<Secret> = cluster.get(&secret_at).await?;
    let secret = secret
        .ok_or_else(|| missing("Secret", secret_at.clone(), "spec.secret of the AppBinding"))?;
    Ok(Backend {
        address,
        superuser: credentials(&secret, &secret_at)?,
    })
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
