//! A user grants what it has, and no more.
//!
//! As in Kubernetes: a Role may be written by a user that holds all its rights where the Role
//! applies, or that may `escalate` Roles. A Binding may be written by a user that holds all rights
//! of the Role that it names, or that may `bind` that Role.

use serde_json::Value;

use super::rules::{RuleBook, Wanted, rights};
use super::{Attributes, RBAC_GROUP};
use crate::local::apiserver::access::Identity;
use crate::local::apiserver::admit::invalid;
use crate::local::apiserver::call::Call;
use crate::local::apiserver::error::ApiError;
use crate::local::apiserver::{ApiServer, meta};
use crate::local::store::Key;

/// Single rights of one Role that are compared. The rules of a Role multiply.
const RIGHTS_MAX: usize = 100_000;

impl ApiServer {
    /// Refuses a Role or Binding that would give more than its writer has.
    pub(in super::super) fn check_escalation(
        &self,
        call: &Call,
        before: Option<&Value>,
        object: &Value,
    ) -> Result<(), ApiError> {
        if call.resource.group != RBAC_GROUP {
            return Ok(());
        }
        let same = |field: &str| before.is_some_and(|before| before[field] == object[field]);
        match call.resource.plural.as_str() {
            "roles" | "clusterroles" if !same("rules") || !same("aggregationRule") => {
                self.check_role(call, object)
            }
            "rolebindings" | "clusterrolebindings" => {
                if before.is_some() && !same("roleRef") {
                    let message = format!(
                        "Invalid value: {}: cannot change roleRef",
                        object["roleRef"]
                    );
                    let error = invalid("roleRef", message);
                    return Err(ApiError::invalid(&call.resource, call.name()?, error));
                }
                if same("subjects") {
                    return Ok(());
                }
                self.check_binding(call, object)
            }
            _ => Ok(()),
        }
    }

    fn check_role(&self, call: &Call, role: &Value) -> Result<(), ApiError> {
        let Identity::User(user) = &call.identity else {
            return Ok(());
        };
        let escalate = Attributes {
            verb: "escalate".to_owned(),
            group: RBAC_GROUP.to_owned(),
            resource: call.resource.plural.clone(),
            namespace: call.namespace.clone(),
            name: meta::text(role, "name").to_owned(),
            ..Attributes::default()
        };
        if self.allows(user, &escalate) {
            return Ok(());
        }
        let book = self.rule_book(user);
        missing(&book, role, &call.namespace).map_or(Ok(()), |why| Err(forbidden(call, role, why)))
    }

    fn check_binding(&self, call: &Call, binding: &Value) -> Result<(), ApiError> {
        let Identity::User(user) = &call.identity else {
            return Ok(());
        };
        let text = |field: &str| {
            let value = binding["roleRef"][field].as_str();
            value.unwrap_or_default().to_owned()
        };
        let (resource, home) = match text("kind").as_str() {
            "Role" => ("roles", call.namespace.clone()),
            _ => ("clusterroles", String::new()),
        };
        let bind = Attributes {
            verb: "bind".to_owned(),
            group: RBAC_GROUP.to_owned(),
            resource: resource.to_owned(),
            namespace: call.namespace.clone(),
            name: text("name"),
            ..Attributes::default()
        };
        if self.allows(user, &bind) {
            return Ok(());
        }
        let key = Key {
            group: RBAC_GROUP.to_owned(),
            resource: resource.to_owned(),
            namespace: home,
            name: text("name"),
        };
        let why = match self.inner.store.get(&key) {
            Some(role) => missing(&self.rule_book(user), &role, &call.namespace),
            // It may be made later, with any rights.
            None => Some(format!("{resource}.{RBAC_GROUP} {:?} not found", key.name)),
        };
        why.map_or(Ok(()), |why| Err(forbidden(call, binding, why)))
    }
}

/// The rights of `role` that the book lacks in `namespace` (everywhere if empty), in words.
fn missing(book: &RuleBook, role: &Value, namespace: &str) -> Option<String> {
    if !role["aggregationRule"].is_null() && !book.covers_everything(namespace) {
        return Some("an aggregation rule gives rights that its writer may not have".to_owned());
    }
    let rights = match rights(role, RIGHTS_MAX) {
        Ok(rights) => rights,
        Err(count) => {
            return Some(format!(
                "its rules stand for {count} single rights, and at most {RIGHTS_MAX} are compared \
                 with those of its writer"
            ));
        }
    };
    let lacking = |right: &&Wanted<'_>| !book.covers(right, namespace);
    let first: Vec<String> = rights
        .iter()
        .filter(lacking)
        .take(3)
        .map(ToString::to_string)
        .collect();
    if first.is_empty() {
        return None;
    }
    Some(format!(
        "is attempting to grant RBAC permissions not currently held:\n{}",
        first.join("\n")
    ))
}

fn forbidden(call: &Call, object: &Value, why: String) -> ApiError {
    let mut about = call.about();
    meta::text(object, "name").clone_into(&mut about.name);
    let why = match &call.identity {
        Identity::User(user) if why.starts_with("is attempting") => {
            format!("user {:?} (groups={:?}) {why}", user.name, user.groups)
        }
        _ => why,
    };
    ApiError::Forbidden {
        about,
        why,
        cause: None,
    }
}
