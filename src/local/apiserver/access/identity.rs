//! Who asks.

use http::HeaderMap;
use http::request::Parts;

use super::super::error::{About, ApiError};

/// Everybody who has proved who they are.
const AUTHENTICATED: &str = "system:authenticated";
/// Every ServiceAccount.
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// Begin of a ServiceAccount's user name.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Identity {
    /// May do everything: the kubeconfig's token, or the router in process.
    #[default]
    Admin,
    /// May do what Roles say.
    User(User),
}

/// A user as Roles are bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User name.
    pub name: String,
    /// Groups.
    pub groups: Vec<String>,
}

impl User {
    /// The ServiceAccount `name` of a namespace.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self {
            name: format!("{SERVICE_ACCOUNT}{namespace}:{name}"),
            groups: vec![
                SERVICE_ACCOUNTS.to_owned(),
                format!("{SERVICE_ACCOUNTS}:{namespace}"),
                AUTHENTICATED.to_owned(),
            ],
        }
    }

    /// A user by name, in the groups that the name or the caller gives it.
    fn named(name: &str, groups: Vec<String>) -> Self {
        let account = name.strip_prefix(SERVICE_ACCOUNT);
        match account.and_then(|account| account.split_once(':')) {
            Some((namespace, account)) if groups.is_empty() => {
                Self::service_account(namespace, account)
            }
            _ => {
                let name = name.to_owned();
                let mut groups = groups;
                groups.push(AUTHENTICATED.to_owned());
                Self { name, groups }
            }
        }
    }

    /// Whether a subject of a binding in `namespace` means this user.
    pub(super) fn is(&self, subject: &serde_json::Value, namespace: &str) -> bool {
        let text = |field: &str| subject[field].as_str().unwrap_or_default();
        match text("kind") {
            "User" => text("name") == self.name,
            "Group" => self.groups.iter().any(|group| group == text("name")),
            "ServiceAccount" => {
                let namespace = match text("namespace") {
                    "" => namespace,
                    there => there,
                };
                self.name == format!("{SERVICE_ACCOUNT}{namespace}:{}", text("name"))
            }
            _ => false,
        }
    }
}

/// Who sends a request, or whom they impersonate. Only the administrator may be somebody else.
pub(in super::super) fn of(parts: &Parts) -> Result<Identity, ApiError> {
    let sender = parts.extensions.get::<Identity>().cloned();
    let sender = sender.unwrap_or_default();
    let Some(wanted) = header(&parts.headers, "impersonate-user").next() else {
        return Ok(sender);
    };
    if let Identity::User(user) = sender {
        return Err(ApiError::Forbidden {
            about: About {
                group: String::new(),
                kind: "users".to_owned(),
                name: wanted.to_owned(),
            },
            why: format!(
                "User {:?} cannot impersonate resource \"users\" in API group \"\" at the cluster \
                 scope",
                user.name
            ),
            cause: None,
        });
    }
    let groups = header(&parts.headers, "impersonate-group").map(str::to_owned);
    Ok(Identity::User(User::named(wanted, groups.collect())))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter();
    values.filter_map(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parts(headers: &[(&str, &str)], sender: Option<Identity>) -> Parts {
        let mut request = http::Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut parts = request.body(()).unwrap().into_parts().0;
        if let Some(sender) = sender {
            parts.extensions.insert(sender);
        }
        parts
    }

    #[test]
    fn only_the_administrator_may_be_somebody_else() {
        let clerk = User::service_account("books", "clerk");
        let as_clerk = [("Impersonate-User", "system:serviceaccount:books:clerk")];
        let found = of(&parts(&as_clerk, None)).unwrap();
        assert_eq!(found, Identity::User(clerk.clone()));
        let sender = Some(Identity::User(clerk));
        let error = of(&parts(&[("Impersonate-User", "root")], sender)).unwrap_err();
        assert!(error.to_string().contains("cannot impersonate"), "{error}");
    }

    #[test]
    fn a_subject_means_a_user_a_group_or_an_account() {
        let clerk = User::service_account("books", "clerk");
        let account = json!({"kind": "ServiceAccount", "name": "clerk", "namespace": "books"});
        assert!(clerk.is(&account, "shops"));
        assert!(!clerk.is(&json!({"kind": "ServiceAccount", "name": "clerk"}), "shops"));
        assert!(clerk.is(
            &json!({"kind": "Group", "name": "system:serviceaccounts:books"}),
            ""
        ));
        assert!(!clerk.is(&json!({"kind": "User", "name": "clerk"}), "books"));
    }
}
