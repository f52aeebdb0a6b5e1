//! Reviews. Questions about oneself are answered here: whoever holds the token is the administrator and may do everything.

use serde_json::{Value, json};

use super::path::Target;

/// Name of the token's holder.
const USER: &str = "bouncert-local-admin";
/// The group Kubernetes gives to administrators.
const GROUP: &str = "system:masters";

/// Whether a path asks whose token one is.
pub(super) fn is_of_tokens(target: &Target) -> bool {
    (&*target.group, &*target.version, &*target.resource)
        == ("authentication.k8s.io", "v1", "tokenreviews")
}

/// The answer to a review; `None` where the path is none. What exactly was asked does not matter.
pub fn answer(group: &str, version: &str, resource: &str) -> Option<Value> {
    let (kind, status) = match (group, version, resource) {
        ("authorization.k8s.io", "v1", "selfsubjectaccessreviews") => (
            "SelfSubjectAccessReview",
            json!({ "allowed": true, "reason": "the token's holder may do everything" }),
        ),
        ("authorization.k8s.io", "v1", "selfsubjectrulesreviews") => (
            "SelfSubjectRulesReview",
            json!({
                "incomplete": false,
                "resourceRules": [{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }],
                "nonResourceRules": [{ "nonResourceURLs": ["*"], "verbs": ["*"] }],
            }),
        ),
        ("authentication.k8s.io", "v1", "selfsubjectreviews") => {
            let groups = json!([GROUP, "system:authenticated"]);
            (
                "SelfSubjectReview",
                json!({ "userInfo": { "username": USER, "groups": groups } }),
            )
        }
        _ => return None,
    };
    Some(json!({
        "kind": kind, "apiVersion": format!("{group}/{version}"), "metadata": {}, "spec": {},
        "status": status,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_the_token_may_do_everything() {
        let answer = answer("authorization.k8s.io", "v1", "selfsubjectaccessreviews").unwrap();
        assert_eq!(answer["status"]["allowed"], true);
        assert!(super::answer("authorization.k8s.io", "v1", "tokenreviews").is_none());
    }
}
