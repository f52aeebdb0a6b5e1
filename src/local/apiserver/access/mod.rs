//! Who asks, and whether they may: Kubernetes' RBAC over the Role objects that are stored here.
//!
//! ```text
//!   request ─► identity ─► attributes ─► rule book (the stored Roles and Bindings) ─► yes, or 403
//!                                             └─► ledger: which rule allowed it, what was denied
//! ```
//!
//! The administrator, who holds the token of the kubeconfig or has the router in process, may do
//! everything and is not asked. Everybody else is a `ServiceAccount` with a token that
//! was made here, or whom the administrator impersonates.
//!
//! Left out of Kubernetes' RBAC: aggregated `ClusterRole`s and the roles that Kubernetes brings along.

mod escalation;
mod identity;
mod ledger;
mod rules;

use http::Method;

use super::ApiServer;
use super::error::{About, ApiError};
use super::path::Target;
use super::query::Query;
use crate::local::store::Scope;

pub(super) use self::identity::of as identity_of;
pub use self::identity::{Identity, User};
pub use self::ledger::Ledger;
pub(super) use self::ledger::SharedLedger;
pub use self::rules::{Attributes, Grain, RuleBook};

/// The group of Roles and their bindings.
pub const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

impl ApiServer {
    /// A client in the name of `user`, without a socket: what the Roles stored here allow it.
    pub fn client_as(&self, user: &User) -> kube::Client {
        let identity = Identity::User(user.clone());
        let router = self.router().layer(axum::Extension(identity));
        kube::Client::new(router, "default")
    }

    /// Which rules have allowed something, and what was denied, since the server started.
    pub fn ledger(&self) -> Ledger {
        self.inner.ledger.snapshot()
    }

    /// Lets `identity` go on, or says what it may not.
    pub(super) fn authorize(
        &self,
        identity: &Identity,
        attributes: &Attributes,
    ) -> Result<(), ApiError> {
        let Identity::User(user) = identity else {
            return Ok(());
        };
        if self.allows(user, attributes) {
            return Ok(());
        }
        self.inner.ledger.deny(user, attributes);
        Err(ApiError::Forbidden {
            about: About {
                group: attributes.group.clone(),
                kind: attributes.resource.clone(),
                name: attributes.name.clone(),
            },
            why: attributes.refusal(&user.name),
            cause: None,
        })
    }

    /// Whether a Role allows it; the rule that does is noted.
    pub(super) fn allows(&self, user: &User, attributes: &Attributes) -> bool {
        let grain = self.rule_book(user).allows(attributes);
        let allowed = grain.is_some();
        if let Some(grain) = grain {
            self.inner.ledger.used(grain);
        }
        allowed
    }

    /// The rules that bind `user`.
    pub(super) fn rule_book(&self, user: &User) -> RuleBook {
        let all = |resource: &str| {
            let scope = Scope {
                group: RBAC_GROUP.to_owned(),
                resource: resource.to_owned(),
                namespace: None,
            };
            let listed = self.inner.store.list(&scope).objects;
            listed.into_iter().map(|(_, object)| object)
        };
        let bindings: Vec<_> = all("clusterrolebindings")
            .chain(all("rolebindings"))
            .collect();
        let roles: Vec<_> = all("clusterroles").chain(all("roles")).collect();
        RuleBook::of(user, &bindings, &roles)
    }
}

/// What a request for objects asks to do.
pub(super) fn attributes(method: &Method, target: &Target, query: &Query) -> Attributes {
    let watches = query.watch() || target.watch;
    let is_read = *method == Method::GET;
    let name = target.name.clone().or_else(|| {
        // A list of one object counts as that object, as in Kubernetes. Nothing else does: the
        // selector of a creation says nothing about what is created.
        if !is_read {
            return None;
        }
        let selector = query.field_selector.as_deref().unwrap_or_default();
        let mut terms = selector.split(',');
        let name = terms.find_map(|term| term.strip_prefix("metadata.name="));
        name.map(|name| name.trim_start_matches('=').to_owned())
    });
    let is_one = target.name.is_some();
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if is_one => "delete",
        Method::DELETE => "deletecollection",
        _ if watches && target.subresource.is_none() => "watch",
        _ if is_one => "get",
        _ => "list",
    };
    Attributes {
        verb: verb.to_owned(),
        group: target.group.clone(),
        resource: target.resource.clone(),
        subresource: target.subresource.clone().unwrap_or_default(),
        namespace: target.namespace.clone().unwrap_or_default(),
        name: name.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::path::{Path, parse};
    use super::*;

    fn asked(method: &Method, uri: &str) -> (String, String) {
        let uri: http::Uri = uri.parse().unwrap();
        let Some(Path::Objects(target)) = parse(uri.path()) else {
            panic!("{uri} names no objects");
        };
        let found = attributes(method, &target, &Query::parse(&uri).unwrap());
        (found.verb, found.name)
    }

    #[test]
    fn verbs_are_those_that_roles_name() {
        let pods = "/api/v1/namespaces/books/pods";
        let verb = |method, uri: &str| asked(&method, uri).0;
        assert_eq!(verb(Method::GET, pods), "list");
        assert_eq!(verb(Method::GET, &format!("{pods}/a")), "get");
        assert_eq!(verb(Method::GET, &format!("{pods}?watch=true")), "watch");
        assert_eq!(verb(Method::GET, "/api/v1/watch/pods"), "watch");
        assert_eq!(verb(Method::POST, &format!("{pods}/a/eviction")), "create");
        assert_eq!(verb(Method::DELETE, pods), "deletecollection");
        assert_eq!(verb(Method::PATCH, &format!("{pods}/a/status")), "patch");
        assert_eq!(verb(Method::PUT, &format!("{pods}/a")), "update");
    }

    #[test]
    fn a_list_of_one_object_names_it() {
        let uri = "/api/v1/namespaces/books/pods?fieldSelector=metadata.name%3Dledger";
        assert_eq!(
            asked(&Method::GET, uri),
            ("list".to_owned(), "ledger".to_owned())
        );
        for method in [Method::POST, Method::DELETE, Method::PUT, Method::PATCH] {
            assert_eq!(asked(&method, uri).1, "", "{method}");
        }
    }
}
