//! The PostgreSQL behind the pooler, and its users (CONTRACT 2.5, 2.6).

use k8s_openapi::api::core::v1::Secret;

use super::{SurroundingsError, credentials};
use crate::api::AppBinding;
use crate::api::appbinding::AppBindingSpec;
use crate::api::pgbouncer::AppReference;
use crate::blueprint::labels::to_selector_text;
use crate::blueprint::{Backend, BackendAddress, Credentials};
use crate::cluster::{Cluster, reference};
use crate::names::ObjectRef;
use crate::pgbouncer::userlist::{Stored, Userlist};

/// PostgreSQL's own port.
const PORT_DEFAULT: u16 = 5432;

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
    let unusable = |what: &str| SurroundingsError::Unusable {
        kind: "AppBinding",
        at: at.clone(),
        what: what.to_owned(),
    };
    let address = address(&spec, &app.namespace).ok_or_else(|| {
        unusable("spec.clientConfig gives neither a service nor a url with a host")
    })?;
    let secret = spec
        .secret
        .ok_or_else(|| unusable("spec.secret is missing; name the superuser's Secret"))?;
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

/// Where the application listens: its Service, else its URL.
fn address(spec: &AppBindingSpec, namespace: &str) -> Option<BackendAddress> {
    if let Some(service) = &spec.client_config.service {
        let namespace = service.namespace.as_deref().unwrap_or(namespace);
        return Some(BackendAddress::Host {
            host: format!("{}.{namespace}.svc", service.name),
            port: u16::try_from(service.port).ok()?,
        });
    }
    let url = spec.client_config.url.as_deref()?.trim();
    let Some((_, rest)) = url.split_once("://") else {
        return url
            .contains('=')
            .then(|| BackendAddress::ConnectString(url.to_owned()));
    };
    let authority = rest.split(['/', '?']).next()?;
    let host_and_port = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let (host, port) = match host_and_port.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => match host_and_port.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (host_and_port, None),
        },
    };
    let port = port.map_or(Some(PORT_DEFAULT), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| BackendAddress::Host {
        host: host.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(client_config: &serde_json::Value) -> Option<BackendAddress> {
        let spec: AppBindingSpec =
            serde_json::from_value(json!({ "clientConfig": client_config })).unwrap();
        address(&spec, "vault")
    }

    #[expect(clippy::unnecessary_wraps, reason = "what is compared with")]
    fn host(host: &str, port: u16) -> Option<BackendAddress> {
        Some(BackendAddress::Host {
            host: host.to_owned(),
            port,
        })
    }

    #[test]
    fn a_service_becomes_its_name_in_the_cluster() {
        let service = json!({ "scheme": "postgresql", "name": "books", "port": 5433 });
        assert_eq!(
            of(&json!({ "service": service })),
            host("books.vault.svc", 5433)
        );
    }

    #[test]
    fn a_url_is_taken_apart() {
        for (url, expected) in [
            (
                "postgresql://me:x@db.example.org:6000/ledger?sslmode=disable",
                host("db.example.org", 6000),
            ),
            ("postgres://127.0.0.9", host("127.0.0.9", 5432)),
            ("postgres://[::1]:7/x", host("::1", 7)),
            ("postgres://:7/x", None),
            (
                "host=a port=1",
                Some(BackendAddress::ConnectString("host=a port=1".into())),
            ),
            ("nonsense", None),
        ] {
            assert_eq!(of(&json!({ "url": url })), expected, "{url}");
        }
        assert_eq!(of(&json!({})), None);
    }
}
