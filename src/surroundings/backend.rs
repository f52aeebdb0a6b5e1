//! The PostgreSQL behind the pooler, and its users
//! (docs/kubedb-compatibility.md, "Users").

use k8s_openapi::api::core::v1::Secret;

use super::address::{address, object_name};
use super::{SurroundingsError, credentials, transforms};
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
    let mut secret = cluster
        .get_secret(&secret_at)
        .await?
        .ok_or_else(|| missing("Secret", secret_at.clone(), "spec.secret of the AppBinding"))?;
    transforms::apply(&spec.secret_transforms, &mut secret).map_err(unusable)?;
    Ok(Backend {
        address,
        superuser: credentials(&secret, &secret_at)?,
    })
}

/// Most Secrets with a user's labels. The userlist is in one Secret, of at most 1 MiB, and a thousand
/// users with the longest names and passwords fill it.
const USERS_MAX: usize = 1_000;
/// Most bytes of names and passwords: the rest of the Secret's 1 MiB is for the admin user, the superuser,
/// and quotes.
const USERS_MAX_BYTES: usize = 1_000_000;
/// Secrets in one page of the list. Each may hold 1 MiB, and only a name and a password of it are kept.
const PAGE: u32 = 50;

/// Returns the users that are labelled as the PostgreSQL's. A Secret that is not a user's, or that no
/// userlist can hold, is left out, and the log says so. More than there is room for are refused as a
/// whole: the userlist stays as it is, so no user is locked out.
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
    let labels = to_selector_text(&labels.into());
    let (mut users, mut bytes) = (Vec::new(), 0_usize);
    let (mut seen, mut next) = (0_usize, None);
    loop {
        let page = cluster.secrets_page(&app.namespace, &labels, (PAGE, next));
        let (secrets, token) = page.await?;
        seen += secrets.len();
        for user in secrets.iter().filter_map(|secret| user(secret)) {
            bytes += user.username.len() + user.password.expose().len();
            users.push(user);
        }
        let more = if token.is_some() { "more than " } else { "" };
        let is = (seen > USERS_MAX
            || bytes > USERS_MAX_BYTES
            || seen == USERS_MAX && token.is_some())
        .then(|| format!("{more}{seen} Secrets with {more}{bytes} bytes of names and passwords"));
        if let Some(is) = is {
            return Err(too_many(app, &is));
        }
        next = token;
        if next.is_none() {
            break;
        }
    }
    users.sort_by(|a, b| a.username.cmp(&b.username));
    Ok(users)
}

/// The user of a Secret, if a userlist can hold it.
fn user(secret: &Secret) -> Option<Credentials> {
    let at = reference(secret);
    let user = credentials(secret, &at).ok()?;
    let stored = Stored::Plain(user.password.clone());
    match Userlist::new().insert(&user.username, stored) {
        Ok(()) => Some(user),
        Err(error) => {
            tracing::warn!(
                secret = %at,
                error = &error as &dyn std::error::Error,
                "user left out of the userlist"
            );
            None
        }
    }
}

fn too_many(app: &AppReference, is: &str) -> SurroundingsError {
    SurroundingsError::Unusable {
        kind: "AppBinding",
        at: ObjectRef::new(&app.namespace, &app.name),
        what: format!(
            "its namespace has {is} that are labelled as its users (app.kubernetes.io/instance: {}); a \
             userlist has room for at most {USERS_MAX} Secrets and {USERS_MAX_BYTES} bytes: take the label \
             off those that do not log in through poolers, or set spec.database.syncUsers of the PgBouncer \
             to false",
            app.name
        ),
    }
}
