//! Questions that are answered at once: who am I, what may I do, whose token is this?

use serde_json::{Value, json};

use super::ApiServer;
use super::access::{Attributes, Identity};
use super::error::ApiError;

/// Name of the administrator.
const ADMIN: &str = "bouncert-local-admin";
/// The group Kubernetes gives to administrators.
const ADMINS: &str = "system:masters";

/// A question that is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    /// May I do this?
    Access,
    /// What may I do?
    Rules,
    /// Who am I?
    Oneself,
    /// Whose token is this?
    Token,
}

impl Review {
    /// The question behind a path; `None` where the path is none.
    pub fn find(group: &str, version: &str, resource: &str) -> Option<Self> {
        match (group, version, resource) {
            ("authorization.k8s.io", "v1", "selfsubjectaccessreviews") => Some(Self::Access),
            ("authorization.k8s.io", "v1", "selfsubjectrulesreviews") => Some(Self::Rules),
            ("authentication.k8s.io", "v1", "selfsubjectreviews") => Some(Self::Oneself),
            ("authentication.k8s.io", "v1", "tokenreviews") => Some(Self::Token),
            _ => None,
        }
    }

    /// Whether anybody who has proved who they are may ask.
    pub fn is_about_oneself(self) -> bool {
        self != Self::Token
    }

    const fn kind(self) -> (&'static str, &'static str) {
        match self {
            Self::Access => ("authorization.k8s.io/v1", "SelfSubjectAccessReview"),
            Self::Rules => ("authorization.k8s.io/v1", "SelfSubjectRulesReview"),
            Self::Oneself => ("authentication.k8s.io/v1", "SelfSubjectReview"),
            Self::Token => ("authentication.k8s.io/v1", "TokenReview"),
        }
    }
}

impl ApiServer {
    /// The answer to a review.
    pub(super) fn review(
        &self,
        review: Review,
        asked: &Value,
        identity: &Identity,
    ) -> Result<Value, ApiError> {
        let spec = asked.get("spec").cloned().unwrap_or_else(|| json!({}));
        let status = match review {
            Review::Access => self.may(&spec, identity),
            Review::Rules => self.rules(&spec, identity),
            Review::Oneself => oneself(identity),
            Review::Token => self.review_token(&spec)?,
        };
        let (version, kind) = review.kind();
        Ok(json!({
            "kind": kind, "apiVersion": version, "metadata": {}, "spec": spec, "status": status,
        }))
    }

    fn may(&self, spec: &Value, identity: &Identity) -> Value {
        let Identity::User(user) = identity else {
            return json!({ "allowed": true, "reason": "the administrator may do everything" });
        };
        // Whoever has proved who they are may read what the API offers, and nothing else but
        // objects is served.
        let Some(wanted) = spec.get("resourceAttributes").filter(|r| r.is_object()) else {
            return json!({ "allowed": spec["nonResourceAttributes"]["verb"] == "get" });
        };
        let text = |field: &str| wanted[field].as_str().unwrap_or_default().to_owned();
        let attributes = Attributes {
            verb: text("verb"),
            group: text("group"),
            resource: text("resource"),
            subresource: text("subresource"),
            namespace: text("namespace"),
            name: text("name"),
        };
        json!({ "allowed": self.allows(user, &attributes) })
    }

    fn rules(&self, spec: &Value, identity: &Identity) -> Value {
        let (rules, urls) = match identity {
            Identity::Admin => (
                vec![json!({ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] })],
                json!([{ "nonResourceURLs": ["*"], "verbs": ["*"] }]),
            ),
            Identity::User(user) => {
                let namespace = spec["namespace"].as_str().unwrap_or_default();
                (
                    self.rule_book(user).within(namespace),
                    json!([{ "nonResourceURLs": ["*"], "verbs": ["get"] }]),
                )
            }
        };
        json!({ "incomplete": false, "resourceRules": rules, "nonResourceRules": urls })
    }
}

fn oneself(identity: &Identity) -> Value {
    match identity {
        Identity::Admin => {
            let groups = [ADMINS, "system:authenticated"];
            json!({ "userInfo": { "username": ADMIN, "groups": groups } })
        }
        Identity::User(user) => {
            json!({ "userInfo": { "username": user.name, "groups": user.groups } })
        }
    }
}
